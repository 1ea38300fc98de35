"""
Fine-tune on your own galaxies
==============================

Fine-tune the estimator on some hundred galaxies with known properties. In this example the
photometry has unknown zero points.
"""

# %%
# Galaxies with labels
# --------------------
# Labels are known values of the properties. Galaxies and labels of this tutorial are **simulated**:
# 1,000 galaxies whose u, g and z bands have zero points that differ from those of SDSS. 700
# galaxies are used for training, 300 for the test.

import tempfile
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import QTable

from astrogenspec import BANDS, PropertyEstimator, plotting
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Simulator

galaxies = Simulator().draw(1000, seed=80)
truth = QTable(theta_to_quantities(galaxies.theta.double().numpy()))
offsets = {"u": 0.15, "g": 0.08, "r": 0.0, "i": 0.0, "z": -0.06}
table = QTable()
for k, band in enumerate(BANDS):
    factor = 10 ** (-0.4 * offsets[band])
    table[f"flux_{band}"] = galaxies.observation.flux[:, k].numpy() * factor * u.nmgy
    table[f"flux_err_{band}"] = galaxies.observation.error[:, k].numpy() * factor * u.nmgy
table["ebv"] = 0.0 * u.mag
mine, apart = slice(0, 700), slice(700, None)

# %%
# Labels are columns with units and the names of :doc:`/conventions`. A galaxy needs at least one
# label, and different galaxies may have different ones: here every second galaxy has a mass.

labels = truth["redshift", "stellar_mass"][mine]
labels["stellar_mass"][::2] = np.nan * u.dex(u.Msun)

# %%
# Fit
# ---
# ``fit`` returns a new estimator and leaves the old one unchanged. Part of the galaxies is used for
# validation: training stops when their loss no longer improves. One head (``heads=1``) is faster
# than three and nearly as accurate.

estimator = PropertyEstimator.from_pretrained()
better = estimator.fit(
    photometry=table[mine], labels=labels, epochs=12, heads=1, seed=1, progress=False
)
changes = better.fit_report()
changes.round(4)
changes

# %%
# Test
# ----
# The test galaxies were not used by either estimator:

before = estimator.predict(photometry=table[apart], n_draws=300, seed=1, progress=False)
after = better.predict(photometry=table[apart], n_draws=300, seed=1, progress=False)
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for ax, result, title in zip(axes, (before, after), ("before", "after"), strict=True):
    plotting.prediction_vs_truth(result["redshift"], truth["redshift"][apart], ax=ax)
    ax.set(xlabel="true redshift (simulated)", ylabel="redshift (median, 68%)")
    ax.set_title(f"{title} the fit", fontsize=10)

# %%
# The scatter is smaller than before, although the zero points were not given. If the cause is
# known, correct the photometry instead.
#
# The card of the estimator records the fit; the estimator is saved and loaded like any other. With
# ``report="report.html"``, ``fit`` writes a page about the validation galaxies. A report on
# separate test galaxies is the stricter test (:doc:`07_calibrated_for_my_sample`).

path = better.save(Path(tempfile.mkdtemp()) / "mine.safetensors")
print(PropertyEstimator.from_pretrained(path))
print(
    better.calibration_report(
        photometry=table[apart], truth=truth["redshift", "stellar_mass"][apart]
    )
)
