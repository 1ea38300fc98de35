"""
A catalogue of magnitudes
=========================

Infer many galaxies from a table on disk, with missing values, unusable rows and flags.
"""

# %%
# A catalogue
# -----------
# The 24 SDSS galaxies that come with the package, as a catalogue of AB magnitudes with errors,
# E(B-V) and names. One galaxy has no u magnitude; another one has the value -9999, which marks
# missing values in many catalogues, in all bands.

import tempfile
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import QTable, Table

from astrogenspec import Posterior, PropertyEstimator, decode_flags, plotting
from astrogenspec.demo import load_galaxies

galaxies = load_galaxies()
catalogue = Table({"name": galaxies["name"], "z_spec": galaxies["z_spec"]})
for band in "ugriz":
    flux, error = (
        galaxies[f"flux_{band}"].to_value(u.nmgy),
        galaxies[f"flux_err_{band}"].to_value(u.nmgy),
    )
    catalogue[f"mag_{band}"] = (22.5 - 2.5 * np.log10(flux)).round(3)
    catalogue[f"mag_err_{band}"] = (2.5 / np.log(10) * error / flux).round(3)
catalogue["ebv"] = (galaxies["extinction_r"] / 2.285).value.round(4)
catalogue["mag_u"][3] = np.nan
for band in "ugriz":
    catalogue[f"mag_{band}"][5] = -9999

folder = Path(tempfile.mkdtemp())
catalogue.write(folder / "mine.ecsv")

# %%
# From table to posterior
# -----------------------
# Columns are recognised by name (:doc:`/inputs` lists the names); other columns are ignored. With
# ``on_error="flag"`` a galaxy that cannot be used is flagged instead of raising an error.
# `astrogenspec.decode_flags` lists the names of its flags.

estimator = PropertyEstimator.from_pretrained()
table = QTable.read(folder / "mine.ecsv")
posterior = estimator.predict(photometry=table, on_error="flag", seed=1, progress=False)
for k in np.flatnonzero(posterior.flag_codes):
    print(posterior.names[k], decode_flags(posterior.flag_codes[k]), posterior.flags[k], sep="\n  ")

# %%
# The spectroscopic redshifts were not part of the input and serve as a test. With 24 galaxies
# this is an illustration; :doc:`/accuracy` has the measured accuracy.

ax = plotting.prediction_vs_truth(posterior["redshift"], table["z_spec"])
ax.set(xlabel="spectroscopic redshift", ylabel="redshift from photometry (median, 68%)")

# %%
# Select by probability
# ---------------------
# A cut on medians ignores the uncertainties. Use probabilities instead: here, that a galaxy is at a
# redshift between 0.1 and 0.2 and more massive than :math:`10^{11}` solar masses.

z, mass = posterior["redshift"].draws.value, posterior["stellar_mass"].draws.value
wanted = ((z > 0.1) & (z < 0.2) & (mass > 11)).mean(axis=1)
for k in np.argsort(wanted)[::-1][:4]:
    print(f"{posterior.names[k]}  {wanted[k]:.2f}")

# %%
# Masses and star-formation rates of all galaxies, with 68% intervals:

fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
values = {}
for name in ("stellar_mass", "sfr"):
    low, middle, high = posterior[name].percentiles([16, 50, 84]).value
    values[name] = middle, [middle - low, high - middle]
ax.errorbar(
    values["stellar_mass"][0],
    values["sfr"][0],
    xerr=values["stellar_mass"][1],
    yerr=values["sfr"][1],
    fmt="o",
    color="#3b6ea5",
    ecolor="#9db8d2",
    ms=4,
)
ax.set(
    xlabel=r"$\log M_\ast\ [\mathrm{M}_\odot]$",
    ylabel=r"$\log\,\mathrm{SFR}\ [\mathrm{M}_\odot\,\mathrm{yr}^{-1}]$",
)

# %%
# Write the results
# -----------------
# The summary has one row per galaxy; values of a galaxy that could not be used are masked.
# ``draws=True`` writes the draws too, and ``Posterior.read`` reads such a file. The column
# ``flags`` is 0 where no problem was found.

posterior.write(folder / "properties.ecsv")
posterior.write(folder / "draws.fits", draws=True)
again = Posterior.read(folder / "draws.fits")
print(again)
summary = QTable.read(folder / "properties.ecsv")
print((summary["flags"] == 0).sum(), "galaxies without flags")
summary["name", "redshift_median", "stellar_mass_median", "flags", "flag"][:7]

# %%
# Millions of galaxies
# --------------------
# ``predict_iter`` reads and returns galaxies block by block, so that the memory stays constant. The
# draws of a galaxy depend on the seed and its position, not on the size of the blocks.

n_done = 0
for block in estimator.predict_iter(
    photometry=galaxies, n_draws=200, seed=1, batch_size=8, progress=False
):
    n_done += len(block)  # here, write it to a file
print(n_done, "galaxies")
