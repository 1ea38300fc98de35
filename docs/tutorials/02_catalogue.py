"""
A catalogue of magnitudes
=========================

Many galaxies at once: from a table on disk to a table on disk, with missing values, bad rows, and flags.
"""

# %%
# A catalogue
# -----------
# The 24 SDSS galaxies that come with the package, written as an observer may have them: AB magnitudes with their
# errors, E(B-V), and a name. One lacks its u magnitude; another one has nothing but the value -9999 that many
# catalogues take for *missing*.

import tempfile
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import QTable, Table

from astrogenspec import Posterior, PropertyEstimator, plotting
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
# Columns are found by their names (:doc:`/inputs` lists them); others are left alone. ``on_error="flag"`` goes on when
# a galaxy cannot be used, and says why.

estimator = PropertyEstimator.from_pretrained()
table = QTable.read(folder / "mine.ecsv")
posterior = estimator.predict(photometry=table, on_error="flag", seed=1, progress=False)
for name, flag in zip(posterior.names, posterior.flags, strict=True):
    if flag:
        print(f"{name}: {flag}")

# %%
# Spectroscopic redshifts were not among the input, so they can judge. With 24 galaxies this is an illustration; the
# card of the model (:doc:`/models/index`) has the measured accuracy.

ax = plotting.prediction_vs_truth(posterior["redshift"], table["z_spec"])
ax.set(xlabel="spectroscopic redshift", ylabel="redshift from photometry (median, 68%)")

# %%
# Choose with probabilities
# -------------------------
# A cut on a median throws the error bars away. A probability keeps them: here, that a galaxy lies between redshift 0.1
# and 0.2 and is more massive than :math:`10^{11}` solar masses, both at once.

z, mass = posterior["redshift"].draws.value, posterior["stellar_mass"].draws.value
wanted = ((z > 0.1) & (z < 0.2) & (mass > 11)).mean(axis=1)
for k in np.argsort(wanted)[::-1][:4]:
    print(f"{posterior.names[k]}  {wanted[k]:.2f}")

# %%
# Mass and star formation of all of them, with error bars of 68%:

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
# To disk
# -------
# The summary has a row for each galaxy; one that could not be used is masked. ``draws=True`` keeps the draws, and the
# posterior can be read back.

posterior.write(folder / "properties.ecsv")
posterior.write(folder / "draws.fits", draws=True)
again = Posterior.read(folder / "draws.fits")
print(again)
QTable.read(folder / "properties.ecsv")["name", "redshift_median", "stellar_mass_median", "flag"][
    :7
]

# %%
# Millions of galaxies
# --------------------
# ``predict_iter`` reads and hands out block after block, so memory does not grow. Draws of a galaxy depend on the seed
# and its number, not on the size of the blocks.

n_done = 0
for block in estimator.predict_iter(
    photometry=galaxies, n_draws=200, seed=1, batch_size=8, progress=False
):
    n_done += len(block)  # here, write it to a file
print(n_done, "galaxies")
