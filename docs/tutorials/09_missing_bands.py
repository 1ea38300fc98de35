"""
Missing bands
=============

Infer galaxies from any subset of the bands, and from catalogues with missing values. The posteriors
widen accordingly.
"""

# %%
# Fewer bands, wider posteriors
# -----------------------------
# We infer the 24 real SDSS galaxies that come with the package from all bands and from subsets. A
# band is missing if its columns are missing; no placeholder is needed.

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

from astrogenspec import PropertyEstimator
from astrogenspec.demo import load_cutouts, load_galaxies

galaxies = load_galaxies()
estimator = PropertyEstimator.from_pretrained()
results = {}
for bands in ("ugriz", "gri", "gr", "r"):
    columns = [f"{what}_{band}" for band in bands for what in ("flux", "flux_err", "extinction")]
    results[bands] = estimator.predict(photometry=galaxies[columns], seed=1, progress=False)

print("bands   error of z   of log M*  (medians over galaxies)")
for bands, posterior in results.items():
    print(
        f"{bands:7} {np.median(posterior['redshift'].std()):.4f}       "
        f"{np.median(posterior['stellar_mass'].std().value):.2f}"
    )

# %%
# One of the galaxies. Without u the Balmer break is not constrained; from r only, the posterior
# is the distribution of galaxies of this magnitude:

number = 6
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
labels = {"redshift": "redshift", "stellar_mass": r"$\log M_\ast\ [\mathrm{M}_\odot]$"}
for ax, (name, label) in zip(axes, labels.items(), strict=True):
    values = {bands: p[name].draws[number].value for bands, p in results.items()}
    edges = np.linspace(*np.percentile(values["r"], [0.5, 99.5]), 60)
    for bands, color in zip(values, ("#1b3a5c", "#3b6ea5", "#8fb3d5", "#bbbbbb"), strict=True):
        ax.hist(
            values[bands], edges, density=True, histtype="step", lw=1.6, color=color, label=bands
        )
    ax.set(xlabel=label, ylabel="probability density")
axes[0].axvline(galaxies["z_spec"][number], color="#c44e52", lw=1.2, label="spectroscopic")
axes[0].legend(frameon=False, fontsize=8)

# %%
# The coverage of wider posteriors should be the same. With fewer bands, however, a posterior
# depends more on the prior, and these 24 galaxies are not a random sample of it, so that the
# coverage with one band may deviate:

for bands, posterior in results.items():
    low, high = posterior["redshift"].interval(0.95)
    inside = (low.value < galaxies["z_spec"]) & (galaxies["z_spec"] < high.value)
    print(
        f"{bands:7} {inside.sum()} of {len(galaxies)} spectroscopic redshifts in their 95% interval"
    )

# %%
# Missing values in a catalogue
# -----------------------------
# Masked values, NaN, and values such as -9999 count as missing, galaxy by galaxy. The galaxy is
# still inferred, with a larger uncertainty.

holes = galaxies.copy()
holes["flux_u"][:12] = np.nan * u.nmgy
posterior = estimator.predict(photometry=holes, seed=1, progress=False)
print("with u:", np.median(posterior["redshift"].std()[12:]).round(4))
print("without:", np.median(posterior["redshift"].std()[:12]).round(4))

# %%
# Known redshifts
# ---------------
# A known redshift contains as much information as several bands. ``known`` conditions the posterior
# on it:

gr = galaxies[[f"{what}_{band}" for band in "gr" for what in ("flux", "flux_err", "extinction")]]
with_z = estimator.predict(
    photometry=gr, known={"redshift": galaxies["z_spec"] * u.one}, seed=1, progress=False
)
print(
    "error of log M* from g and r:", np.median(results["gr"]["stellar_mass"].std().value).round(2)
)
print("the same, redshift known:    ", np.median(with_z["stellar_mass"].std().value).round(2))

# %%
# Images with missing bands
# -------------------------
# Bands of images may be missing too. The decoder fills them in, which is an extrapolation and not a
# measurement. Here a simulated galaxy is encoded from g and r, and its i band is decoded:

cutout = load_cutouts()[0][0]
guessed = estimator.reconstruct({band: cutout[band] for band in "gr"})[0]
fig, axes = plt.subplots(1, 2, figsize=(6.6, 3), layout="constrained")
panels = (
    (cutout["i"].data, "i as simulated, not given"),
    (guessed[3].value, "i decoded from g and r"),
)
for ax, (image, title) in zip(axes, panels, strict=True):
    shown = ax.imshow(image, origin="lower", cmap="Greys", vmin=-0.2, vmax=1.5)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])
fig.colorbar(shown, ax=axes, label="nmgy / pixel")
