"""
Calibration for your own sample
===============================

The published accuracy refers to the test samples of the weights. With a few hundred galaxies of
known properties, one call tests the calibration for your own sample.
"""

# %%
# A sample with known redshifts
# -----------------------------
# The sample of this tutorial is **simulated**: 900 galaxies, fainter than most galaxies of the
# training set, with SDSS errors. Use your own table instead.

import astropy.units as u
import matplotlib.pyplot as plt
from astropy.table import QTable

from astrogenspec import BANDS, PropertyEstimator, plotting
from astrogenspec.calibration import pit
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Sample, Simulator

galaxies = Simulator().draw(900, seed=70, sample=Sample(magnitude_limit=18.2))
truth = QTable(theta_to_quantities(galaxies.theta.double().numpy()))[
    "redshift", "stellar_mass", "sfr"
]
mine = QTable()
for k, band in enumerate(BANDS):
    mine[f"flux_{band}"] = galaxies.observation.flux[:, k].numpy() * u.nmgy
    mine[f"flux_err_{band}"] = galaxies.observation.error[:, k].numpy() * u.nmgy
mine["ebv"] = 0.0 * u.mag

# %%
# The report
# ----------
# ``calibration_report`` infers the galaxies, compares with the truth, and gives a verdict for each
# quantity. With ``out="report.html"`` it also writes a page with figures and a table of scores.

estimator = PropertyEstimator.from_pretrained()
report = estimator.calibration_report(photometry=mine, truth=truth, seed=1)
print(report)

# %%
# Each verdict has numbers: the factor by which to multiply the uncertainties, the shift of the
# values, and the skill relative to a guess from the distribution of the sample.

verdict = report.verdicts["redshift"]
print(
    f"width factor {verdict.width_factor:.2f}, shift {verdict.shift:+.2f} of an error bar, skill "
    f"{verdict.skill:.2f}"
)

# %%
# A calibration error
# -------------------
# Suppose that the zero point of the g band is off by 0.08 mag. The posterior does not account for
# it; a comparison with true redshifts reveals it:

spoilt = mine.copy()
spoilt["flux_g"] = spoilt["flux_g"] * 10 ** (-0.4 * 0.08)
bad = estimator.calibration_report(photometry=spoilt, truth=truth, seed=1)
print(bad)

# %%
# The histogram of the probability integral transform, the fraction of draws below the truth, is
# flat for a calibrated posterior. A slope indicates a bias. The grey band contains 95% of random
# fluctuations:

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, result, title in zip(
    axes, (report, bad), ("correct zero points", "g zero point off by 0.08 mag"), strict=True
):
    plotting.pit_histogram(pit(result.posterior["redshift"], truth["redshift"]), ax=ax, n_bins=15)
    ax.set_title(f"redshift, {title}", fontsize=10)

# %%
# The coverage of the intervals shows the same:

fig, ax = plt.subplots(figsize=(4.6, 4), layout="constrained")
for result, label in ((report, "correct zero points"), (bad, "zero point off")):
    plotting.coverage_curve(
        pit(result.posterior["redshift"], truth["redshift"]), ax=ax, label=label
    )
ax.set_title("redshift", fontsize=10)

# %%
# Recalibrate
# -----------
# If the cause is known, remove it: correct the zero point. Otherwise ``recalibrated`` fits a
# correction to the sample and returns an estimator that applies it to the draws. 600 galaxies are
# used for the fit and the other 300 for the test.

better = estimator.recalibrated(photometry=spoilt[:600], truth=truth[:600])
apart = better.calibration_report(photometry=spoilt[600:], truth=truth[600:], seed=1)
print(apart)

# %%
# The recalibration is valid for galaxies like these only, and as accurate as 600 galaxies allow.
# Save the estimator with ``better.save(...)``. To improve the values as well, fine-tune the
# networks (:doc:`08_fine_tune`).
