"""
Train on your own galaxies
==========================

With some hundred galaxies whose properties you know, the estimator can learn from them. Here it learns the quirks of
another photometry.
"""

# %%
# Galaxies with labels
# --------------------
# Labels are the properties that are known, and to be learnt. The galaxies and their labels are **simulated**, so that
# this runs anywhere and the truth is known: 1,000 galaxies whose magnitudes were not measured as those of SDSS. The u,
# g and z bands have other zero points, of which nobody has told us. 700 galaxies may teach, 300 judge.

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
# Labels are columns with units, under the names of :doc:`/conventions`. A galaxy needs only one label, and no two
# galaxies the same: here only every second galaxy has a mass.

labels = truth["redshift", "stellar_mass"][mine]
labels["stellar_mass"][::2] = np.nan * u.dex(u.Msun)

# %%
# Fit
# ---
# ``fit`` gives a new estimator; the old one stays as it is. A part of the galaxies is held out, and training stops
# when these no longer improve. One head (``members=1``) is quicker than three, and nearly as good.

estimator = PropertyEstimator.from_pretrained()
better = estimator.fit(
    photometry=table[mine], labels=labels, epochs=12, members=1, seed=1, progress=False
)
changes = better.fit_report()
changes.round(4)
changes

# %%
# Judge
# -----
# On galaxies that neither of the two has seen:

before = estimator.predict(photometry=table[apart], n_draws=300, seed=1, progress=False)
after = better.predict(photometry=table[apart], n_draws=300, seed=1, progress=False)
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for ax, result, title in zip(axes, (before, after), ("before", "after"), strict=True):
    plotting.prediction_vs_truth(result["redshift"], truth["redshift"][apart], ax=ax)
    ax.set(xlabel="true redshift (simulated)", ylabel="redshift (median, 68%)")
    ax.set_title(f"{title} the fit", fontsize=10)

# %%
# The scatter is smaller than before, without anybody having told the network of the zero points. Where the cause is
# known, as here, correcting the photometry is better still.
#
# What was fitted, and what came of it, is in the card; the estimator is saved and loaded like any other. With
# ``report="report.html"`` ``fit`` writes a page on the galaxies that it held out; those that were kept apart are the
# stricter judges (:doc:`07_calibrated_for_my_sample`).

path = better.save(Path(tempfile.mkdtemp()) / "mine.safetensors")
print(PropertyEstimator.from_pretrained(path))
print(
    better.calibration_report(
        photometry=table[apart], truth=truth["redshift", "stellar_mass"][apart]
    )
)
