"""
Is it calibrated for my sample?
===============================

Weights are judged on some sample, and yours is another. With a few hundred galaxies whose properties you know, one call
says what to trust.
"""

# %%
# A sample with known redshifts
# -----------------------------
# So that this runs anywhere, *my sample* is **simulated**: 900 galaxies, fainter than most of those of the training,
# with the errors of SDSS. Take a table of your own in its place.

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
# ``calibration_report`` predicts, compares with the truth, and says in words what to trust. With
# ``out="report.html"`` it also writes a page with figures and a table of scores.

estimator = PropertyEstimator.from_pretrained()
report = estimator.calibration_report(photometry=mine, truth=truth, seed=1)
print(report)

# %%
# Verdicts have numbers too: by what to multiply the error bars, by how much the values are shifted, and how much
# better than a guess from the distribution of the sample they are.

verdict = report.verdicts["redshift"]
print(
    f"width factor {verdict.width_factor:.2f}, shift {verdict.shift:+.2f} of an error bar, skill {verdict.skill:.2f}"
)

# %%
# Something is wrong, and it shows
# --------------------------------
# Suppose the zero point of the g band is off by 0.08 mag, and nobody has noticed. The posterior cannot know. The true
# redshifts tell:

spoilt = mine.copy()
spoilt["flux_g"] = spoilt["flux_g"] * 10 ** (-0.4 * 0.08)
bad = estimator.calibration_report(photometry=spoilt, truth=truth, seed=1)
print(bad)

# %%
# The histogram of the probability integral transform, the share of draws below the truth, is flat if all is well. A
# slope is a bias. The grey band holds 95% of what chance does to it:

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, result, title in zip(
    axes, (report, bad), ("as it is", "g zero point off by 0.08 mag"), strict=True
):
    plotting.pit_histogram(pit(result.posterior["redshift"], truth["redshift"]), ax=ax, n_bins=15)
    ax.set_title(f"redshift, {title}", fontsize=10)

# %%
# So do intervals that should hold a given share of the true values, and do not:

fig, ax = plt.subplots(figsize=(4.6, 4), layout="constrained")
for result, label in ((report, "as it is"), (bad, "zero point off")):
    plotting.coverage_curve(
        pit(result.posterior["redshift"], truth["redshift"]), ax=ax, label=label
    )
ax.set_title("redshift", fontsize=10)

# %%
# Recalibrate
# -----------
# A cause that is found should be removed: correct the zero point. What has no known cause can be learnt from the
# sample. ``recalibrated`` gives an estimator whose draws are moved accordingly; 600 galaxies teach it, the
# other 300 judge.

better = estimator.recalibrated(photometry=spoilt[:600], truth=truth[:600])
apart = better.calibration_report(photometry=spoilt[600:], truth=truth[600:], seed=1)
print(apart)

# %%
# It corrects the error bars of galaxies like these, and of no others, as well as 600 of them can tell. Save it with
# ``better.save(...)``, or train on your galaxies (:doc:`08_fine_tune`) if the values themselves should improve.
