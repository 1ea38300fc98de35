"""
CCDData with WCS, mask and extinction
=====================================

Infer a galaxy from reduced images: one FITS file per band, with a world coordinate system, an
uncertainty, a mask and Galactic extinction.
"""

# %%
# The files
# ---------
# The galaxy is a simulated one that comes with the package. We add Galactic extinction of E(B-V) =
# 0.15, a position on the sky and the trail of a satellite.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from astrogenspec import SDSS, PropertyEstimator, plotting
from astrogenspec.demo import load_cutouts

cutouts, truth = load_cutouts()
simulated, true = cutouts[2], truth[2]
ebv = 0.15

wcs = WCS(naxis=2)
wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
wcs.wcs.crval = [185.0, 15.0]
wcs.wcs.crpix = [32.5, 32.5]
wcs.wcs.cdelt = [-0.396 / 3600, 0.396 / 3600]

y, x = np.indices((64, 64))
trail = np.abs(y - 0.6 * x - 30) < 1.5
folder = Path(tempfile.mkdtemp())
for band in "gri":
    image = simulated[band]
    dimming = 10 ** (-0.4 * ebv * SDSS.extinction_coefficient[band])
    sigma = 1 / np.sqrt(image.uncertainty.array)
    data = image.data * dimming + 2.0 * trail
    CCDData(
        data, unit="nmgy", wcs=wcs, uncertainty=StdDevUncertainty(sigma), mask=trail & (band == "r")
    ).write(folder / f"galaxy-{band}.fits")

# %%
# Read the files
# --------------
# ``CCDData.read`` returns unit, uncertainty, mask and WCS. The reduction masked the trail in r
# only; we mask it in g and i as well. True marks a bad pixel.

cutout = {band: CCDData.read(folder / f"galaxy-{band}.fits") for band in "gri"}
for image in cutout.values():
    image.mask = trail if image.mask is None else image.mask | trail
position = SkyCoord(185.0, 15.0, unit="deg")

fig = plt.figure(figsize=(9, 3.4), layout="constrained")
for k, (band, image) in enumerate(cutout.items()):
    ax = fig.add_subplot(1, 3, k + 1, projection=image.wcs)
    shown = ax.imshow(np.where(image.mask, np.nan, image.data), vmin=-0.1, vmax=0.6, cmap="Greys")
    ax.set_title(f"{band}, masked pixels blank", fontsize=9)
    ax.coords[0].set_axislabel("right ascension")
    ax.coords[1].set_axislabel("declination" if k == 0 else " ")
    ax.coords[1].set_ticklabel_visible(k == 0)
    ax.coords[0].set_ticks(number=2)
fig.colorbar(shown, ax=fig.axes, label="nmgy / pixel", shrink=0.8)

# %%
# Infer
# -----
# ``position`` is the position of the galaxy and ``ebv`` the Galactic reddening. The pixel scale is
# taken from the WCS. Photometry is measured on the images without the masked pixels.

estimator = PropertyEstimator.from_pretrained()
posterior = estimator.predict(cutout, position=position, ebv=ebv, seed=1)
print("flags:", posterior.flags)
measured = posterior.photometry
measured.round(3)
measured["flux_g", "flux_err_g", "flux_r", "flux_err_r", "flux_i", "flux_err_i"]

# %%
# ``reconstruct`` shows the image as the network represents it. Masked pixels are filled in:

seen = estimator.reconstruct(cutout, position=position, ebv=ebv)[0]
image = np.stack([cutout[band].data for band in "gri"])
weight = np.stack([np.where(c.mask, 0, 1 / c.uncertainty.array**2) for c in cutout.values()])
figure = plotting.reconstruction(np.where(weight > 0, image, 0), seen, ivar=weight)

# %%
# The effect of extinction
# ------------------------
# Without a correction the galaxy is too red and too faint. With it, the posterior is close to that
# of the same galaxy without Galactic dust. (If ``ebv`` is omitted, 0 is assumed with a warning.)

wrong = estimator.predict(cutout, position=position, ebv=0.0, seed=1)
clean = estimator.predict({band: simulated[band] for band in "gri"}, ebv=0.0, seed=1)
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
labels = {
    "redshift": "redshift",
    "stellar_mass": r"$\log M_\ast\ [\mathrm{M}_\odot]$",
    "sfr": r"$\log\,\mathrm{SFR}\ [\mathrm{M}_\odot\,\mathrm{yr}^{-1}]$",
}
for ax, (name, label) in zip(axes, labels.items(), strict=True):
    for result, color, text in (
        (posterior, "#3b6ea5", "corrected"),
        (wrong, "#999999", "not corrected"),
    ):
        ax.hist(
            result[name].draws[0].value, bins=40, density=True, color=color, alpha=0.5, label=text
        )
    ax.hist(
        clean[name].draws[0].value,
        bins=40,
        density=True,
        histtype="step",
        color="k",
        label="no dust, no trail",
    )
    ax.axvline(true[name].value, color="#c44e52", label="truth (simulated)")
    ax.set(xlabel=label, yticks=[])
axes[0].set_ylabel("probability density")
fig.legend(
    *ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
)

# %%
# :doc:`/inputs` lists the accepted image objects and the assumptions about missing information.
