"""
From cutout to spectrum
=======================

Generate spectra from images, and measure a line flux and an equivalent width on each draw with
specutils. The scatter of the measurements is their uncertainty.
"""

# %%
# Generate spectra
# ----------------
# Infer the properties first, then generate one spectrum for each of their draws. The galaxy is
# simulated, so its true line fluxes are known.

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
# The input image, and the spectra: median, ranges with 68% and 95% of the draws, and the best
# draw. Generated spectra are not observations: they show the light in a fibre of 3 arcsec as far as
# the image constrains it.

image = np.stack([cutout[band].data for band in "gri"])
fig, ax = plt.subplots(figsize=(2.6, 2.6), layout="constrained")
half = 32 * 0.396
ax.imshow(plotting.color_image(image), origin="lower", extent=(-half, half, -half, half))
ax.set(xlabel="arcsec", ylabel="arcsec")

# %%
ax = spectra.plot()

# %%
# Fit a line with specutils
# -------------------------
# The best draw is a `specutils.Spectrum` with a redshift, to which all functions of specutils
# apply. We fit H alpha and the [N II] doublet with three Gaussians on a constant continuum.

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
# ``measure`` applies a function to each draw. This one uses ``line_flux`` and ``equivalent_width``
# of specutils, in a window with H alpha and both [N II] lines. Equivalent widths of specutils are
# negative in emission and in the observed frame; those of `astrogenspec.measure` are positive in
# emission and in the rest frame.


def halpha_nii(spectrum):
    """Measure flux and rest-frame equivalent width of H alpha + [N II] with specutils."""
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
# The posterior has the fluxes of H alpha and [N II] 6584; [N II] 6548 has a third of the latter.
# Draw by draw they agree with the measurements on the spectra, except for the stellar absorption
# under H alpha, which the function above does not correct. Posterior and spectra share the same
# uncertainty.

of_table = posterior["halpha_flux"].draws[0, :24] + posterior["nii6584_flux"].draws[0, :24] * 1.33
fig, ax = plt.subplots(figsize=(4.4, 4), layout="constrained")
ax.plot(of_table.value, blend["flux"].distribution[0].value, "o", color="#3b6ea5", label="draws")
both = true["halpha_flux"] + 1.33 * true["nii6584_flux"]
ax.axvline(both.value, color="#c44e52", label="truth (simulated)")
edges = np.array([of_table.value.min(), of_table.value.max()])
ax.plot(edges, edges, color="#999999", lw=1, ls="--", label="equal")
unit = r"$[10^{-17}\,\mathrm{erg\,s^{-1}\,cm^{-2}}]$"
ax.set(xlabel=f"H$\\alpha$ + [N II], table {unit}", ylabel=f"H$\\alpha$ + [N II], specutils {unit}")
ax.legend(frameon=False, fontsize=8)

# %%
# Separate lines and stellar absorption
# -------------------------------------
# `astrogenspec.measure` separates the lines and corrects the hydrogen lines for stellar absorption:

fluxes = spectra.measure(measure.line_flux("halpha", "hbeta", "nii6584", "oiii5007"))
widths = spectra.measure(measure.equivalent_width("halpha", "hbeta", "nii6584", "oiii5007"))
print(f"{'line':9} {'flux':>16} {'true':>6}   equivalent width")
for line in fluxes:
    flux, width = fluxes[line], widths[line]
    print(
        f"{line:9} {flux.pdf_median()[0].value:8.1f} +- {flux.pdf_std()[0].value:4.1f}"
        f" {true[line + '_flux'].value:6.1f}   {width.pdf_median()[0]:.1f} +- "
        f"{width.pdf_std()[0]:.1f}"
    )

# %%
# Do not treat the uncertainty of a generated spectrum as noise, since its pixels are correlated.
# The scatter of the measurements on all draws is the correct uncertainty (:doc:`/measuring`).
