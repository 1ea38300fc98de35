"""
From cutout to spectrum
=======================

Images become draws of a spectrum; specutils measures a line flux and an equivalent width on each of them; their
scatter is the error bar.
"""

# %%
# Draw spectra
# ------------
# First the properties, then spectra that belong to their draws. The galaxy is simulated, so its true line fluxes are
# known.

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.modeling.models import Gaussian1D
from specutils import SpectralRegion
from specutils.analysis import equivalent_width, line_flux
from specutils.fitting import fit_lines
from specutils.manipulation import extract_region

from astrogenspec import PropertyEstimator, SpectrumEstimator, measure, plotting
from astrogenspec.demo import load_cutouts

cutouts, truth = load_cutouts()
cutout, true = cutouts[0], truth[0]
posterior = PropertyEstimator.from_pretrained().predict(cutout, ebv=0.0, seed=1)
spectra = SpectrumEstimator.from_pretrained().predict(
    cutout, posterior=posterior, ebv=0.0, n_draws=24, seed=1
)
print(spectra)

# %%
# The image they were drawn from, and the spectra: median, ranges that hold 68% and 95% of the draws, and one draw.
# Nobody has taken this spectrum. It is what the galaxy may look like through a fibre of 3 arcsec, given its image.

image = np.stack([cutout[band].data for band in "gri"])
fig, ax = plt.subplots(figsize=(2.6, 2.6), layout="constrained")
half = 32 * 0.396
ax.imshow(plotting.color_image(image), origin="lower", extent=(-half, half, -half, half))
ax.set(xlabel="arcsec", ylabel="arcsec")

# %%
ax = spectra.plot()

# %%
# Fit a line, by specutils
# ------------------------
# The best draw is a `specutils.Spectrum` with a redshift, so all of specutils works on it. We fit H alpha and its
# neighbours of [N II] with three Gaussians on a continuum.

best = spectra.best
stretch = 1 + best.redshift.value
window = extract_region(best, SpectralRegion(6480 * stretch * u.AA, 6650 * stretch * u.AA))
beside = [
    SpectralRegion(a * stretch * u.AA, b * stretch * u.AA) for a, b in ((6490, 6530), (6605, 6640))
]
continuum = (
    np.median(np.concatenate([extract_region(best, region).flux.value for region in beside]))
    * best.flux.unit
)
lines = [
    Gaussian1D(amplitude * best.flux.unit, rest * stretch * u.AA, 3 * u.AA)
    for rest, amplitude in ((6549.86, 2), (6564.61, 20), (6585.27, 6))
]
fitted = fit_lines(window - continuum, lines)

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.step(
    window.wavelength.value,
    window.flux.value,
    where="mid",
    color="#333333",
    lw=1,
    label="best draw",
)
model = sum(line(window.wavelength) for line in fitted) + continuum
ax.plot(window.wavelength.value, model.value, color="#c44e52", lw=1.4, label="three Gaussians")
ax.set(
    xlabel="observed vacuum wavelength [Å]",
    ylabel=r"$F_\lambda$ [$10^{-17}\,\mathrm{erg\,s^{-1}\,cm^{-2}\,Å^{-1}}$]",
)
ax.legend(frameon=False)

# %%
# Line flux and equivalent width of every draw
# --------------------------------------------
# ``measure`` calls a function on each draw. This one uses ``line_flux`` and ``equivalent_width`` of specutils, in a
# window that holds H alpha and both lines of [N II]. Equivalent widths of specutils are negative in emission and in
# the frame of the observer; those of `astrogenspec.measure` are positive in emission, and at rest.


def halpha_nii(spectrum):
    """Flux and rest-frame equivalent width of H alpha + [N II], by specutils."""
    stretch = 1 + spectrum.redshift.value
    region = SpectralRegion(6530 * stretch * u.AA, 6605 * stretch * u.AA)
    sides = [
        extract_region(spectrum, SpectralRegion(a * stretch * u.AA, b * stretch * u.AA)).flux
        for a, b in ((6490, 6530), (6605, 6640))
    ]
    level = np.median(np.concatenate(sides))
    return {
        "flux": line_flux(spectrum - level, regions=region),
        "width": -equivalent_width(spectrum, continuum=level, regions=region) / stretch,
    }


blend = spectra.measure(halpha_nii)
for name, value in blend.items():
    print(f"{name}: {value.pdf_median()[0]:.3g} +- {value.pdf_std()[0]:.2g}")

# %%
# The table of the posterior has the fluxes of H alpha and of [N II] 6584, and 6548 has a third of the latter. Draw by
# draw they agree with what is measured on the spectra, but for the absorption of the stars under H alpha, which
# specutils knows nothing of. The uncertainty of the table and that of the spectra are one.

of_table = posterior["halpha_flux"].draws[0, :24] + posterior["nii6584_flux"].draws[0, :24] * 1.33
fig, ax = plt.subplots(figsize=(4.4, 4), layout="constrained")
ax.plot(
    of_table.value, blend["flux"].distribution[0].value, "o", color="#3b6ea5", label="a draw each"
)
both = true["halpha_flux"] + 1.33 * true["nii6584_flux"]
ax.axvline(both.value, color="#c44e52", label="truth (simulated)")
edges = np.array([of_table.value.min(), of_table.value.max()])
ax.plot(edges, edges, color="#999999", lw=1, ls="--", label="equal")
unit = r"$[10^{-17}\,\mathrm{erg\,s^{-1}\,cm^{-2}}]$"
ax.set(xlabel=f"H$\\alpha$ + [N II], table {unit}", ylabel=f"H$\\alpha$ + [N II], specutils {unit}")
ax.legend(frameon=False, fontsize=8)

# %%
# Lines apart, with the stars accounted for
# -----------------------------------------
# `astrogenspec.measure` separates the lines, and allows for absorption under those of hydrogen:

fluxes = spectra.measure(measure.line_flux("halpha", "hbeta", "nii6584", "oiii5007"))
widths = spectra.measure(measure.equivalent_width("halpha", "hbeta", "nii6584", "oiii5007"))
print(f"{'line':9} {'flux':>16} {'true':>6}   equivalent width")
for line in fluxes:
    flux, width = fluxes[line], widths[line]
    print(
        f"{line:9} {flux.pdf_median()[0].value:8.1f} +- {flux.pdf_std()[0].value:4.1f}"
        f" {true[line + '_flux'].value:6.1f}   {width.pdf_median()[0]:.1f} +- {width.pdf_std()[0]:.1f}"
    )

# %%
# Never take the uncertainty of one drawn spectrum for noise: pixels go up and down together. What is measured on every
# draw has the right error bar (:doc:`/measuring`).
