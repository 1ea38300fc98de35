"""
Lick indices, Dn4000 and the BPT diagram
========================================

What an observer measures on a spectrum, measured on spectra drawn from images: stellar indices, and the line ratios
that tell star formation from active nuclei.
"""

# %%
# Four galaxies
# -------------
# All are simulated, and come with the package.

import matplotlib.pyplot as plt
import numpy as np

from astrogenspec import PropertyEstimator, SpectrumEstimator, measure
from astrogenspec.demo import load_cutouts
from astrogenspec.derived import kauffmann_curve, kewley_curve

cutouts, truth = load_cutouts()
names = [str(file)[len("demo_cutout_") : -len(".fits")].replace("_", "-") for file in truth["file"]]
colors = dict(zip(names, ("#3b6ea5", "#55a868", "#c44e52", "#8172b3"), strict=True))
posterior = PropertyEstimator.from_pretrained().predict(cutouts, ebv=0.0, seed=1, progress=False)
spectra = SpectrumEstimator.from_pretrained().predict(
    cutouts, posterior=posterior, ebv=0.0, seed=1, progress=False
)

# %%
# Indices
# -------
# ``index`` makes a function of a spectrum; ``measure`` calls it on every draw. Atomic indices are equivalent widths in
# Angstrom, Dn4000 is a ratio. `~astrogenspec.measure.index_definitions` has the bands and their sources.

wanted = ("Dn4000", "HdA", "Hbeta", "Mgb", "Fe5270", "Fe5335")
indices = spectra.measure(measure.index(*wanted))
print(f"{'':12}" + "".join(f"{name:>15}" for name in wanted))
for k, galaxy in enumerate(names):
    cells = (
        f"{indices[n].pdf_median()[k].value:8.2f} +- {indices[n].pdf_std()[k].value:.2f}"
        for n in wanted
    )
    print(f"{galaxy:12}" + " ".join(cells))

# %%
# The plane of Dn4000 and H delta tells old stars from young, and bursts from steady star formation. A dot is a draw,
# a cross a galaxy:

fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for k, galaxy in enumerate(names):
    x, y = (indices[name].distribution[k].value for name in ("Dn4000", "HdA"))
    ax.plot(x, y, ".", color=colors[galaxy], alpha=0.5)
    ax.errorbar(
        np.median(x),
        np.median(y),
        np.std(y),
        np.std(x),
        fmt="x",
        color=colors[galaxy],
        label=galaxy,
    )
ax.set(xlabel="Dn4000", ylabel=r"H$\delta_\mathrm{A}$ [Å]")
ax.legend(frameon=False)

# %%
# Broad bands fix the large breaks, and little else. Indices of single elements follow from what such galaxies have on
# average (:doc:`/limitations`): do not look for peculiar abundances in drawn spectra.
#
# What excites the gas?
# ---------------------
# Line ratios of every draw, and the curves of Kewley et al. (2001) and Kauffmann et al. (2003). The same question is
# answered by the posterior, without any spectrum: ``bpt_probabilities`` is the share of the draws in each class.

ratios = spectra.measure(measure.line_ratios)
fig, ax = plt.subplots(figsize=(5.5, 4.4), layout="constrained")
x = np.linspace(-1.6, 0.45, 200)
ax.plot(x, kewley_curve(x), color="#333333", lw=1, label="Kewley et al. 2001")
ax.plot(
    x[x < 0.04],
    kauffmann_curve(x[x < 0.04]),
    color="#333333",
    lw=1,
    ls="--",
    label="Kauffmann et al. 2003",
)
for k, galaxy in enumerate(names):
    across, up = (ratios[name].distribution[k] for name in ("nii_halpha", "oiii_hbeta"))
    ax.plot(across, up, ".", color=colors[galaxy], alpha=0.6, label=galaxy)
ax.set(
    xlim=(-1.4, 0.6),
    ylim=(-1.3, 1.3),
    xlabel=r"log [N II] $\lambda$6584 / H$\alpha$",
    ylabel=r"log [O III] $\lambda$5007 / H$\beta$",
)
ax.legend(frameon=False, fontsize=8)

# %%
probabilities = posterior.bpt_probabilities()
probabilities["name"] = names
probabilities

# %%
# A class says nothing of how bright the lines are. WHAN (Cid Fernandes et al. 2011) asks for the equivalent width of
# H alpha too, so that galaxies which are merely old are told from active ones. The share of the draws in each class:

for k, galaxy in enumerate(names):
    ratio, width = (ratios[name].distribution[k] for name in ("nii_halpha", "halpha_ew"))
    found = measure.whan_class(ratio, width)
    shares = {name: np.mean(found == n) for n, name in enumerate(measure.WHAN_CLASSES)}
    print(
        f"{galaxy:12}", ", ".join(f"{name} {share:.2f}" for name, share in shares.items() if share)
    )

# %%
# On an observed spectrum `~astrogenspec.measure.measure_lines`, `~astrogenspec.measure.classify_bpt` and
# `~astrogenspec.measure.classify_whan` do the same, with probabilities from its noise.
#
# Hand a spectrum to pPXF
# -----------------------
# pPXF (Cappellari 2017) is no part of this package, and the following is **not run** here. Those who have it can take
# every draw to it: the grid is logarithmic already, and the draws have a redshift. :doc:`/measuring` has a complete
# function for ``spectra.measure``.
#
# .. code-block:: python
#
#     # needs the package ppxf, which is not installed with astrogenspec: not run
#     from ppxf.ppxf import ppxf
#
#     spectrum = spectra[0].best
#     rest = spectrum.wavelength.to_value("AA") / (1 + spectrum.redshift.value)
#     use = (rest > 3750) & (rest < 7300) & ~spectrum.mask
#     galaxy = spectrum.flux.value[use] / np.median(spectrum.flux.value[use])
#     velscale = 299792.458 * 1e-4 * np.log(10)  # km/s a pixel
#     fit = ppxf(templates, galaxy, np.full_like(galaxy, 0.02), velscale, [0, 150], lam=rest[use], moments=2)
