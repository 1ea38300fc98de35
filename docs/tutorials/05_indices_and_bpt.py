"""
Lick indices, Dn4000 and the BPT diagram
========================================

Measure stellar indices and emission-line ratios, which separate star formation from active nuclei,
on spectra generated from images.
"""

# %%
# Four galaxies
# -------------
# The galaxies are simulated and come with the package.

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
# ``index`` returns a function of a spectrum; ``measure`` applies it to every draw. Atomic indices
# are equivalent widths in Angstrom; Dn4000 is a ratio. `~astrogenspec.measure.index_definitions`
# lists the bands and their sources.

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
# Dn4000 and H delta together separate old from young stars and bursts from continuous star
# formation. Dots are draws, crosses are galaxies:

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
# Broad bands constrain the large breaks and little else. Indices of individual elements follow
# from averages over similar galaxies (:doc:`/limitations`): do not search for peculiar abundances
# in generated spectra.
#
# Ionisation
# ----------
# Line ratios of every draw, and the curves of Kewley et al. (2001) and Kauffmann et al. (2003). The
# posterior gives the class without a spectrum: ``bpt_probabilities`` is the fraction of draws in
# each class.

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
# These classes do not depend on the brightness of the lines. The WHAN diagram (Cid Fernandes et
# al. 2011) includes the equivalent width of H alpha, which separates retired galaxies from active
# ones. The fraction of draws in each class:

for k, galaxy in enumerate(names):
    ratio, width = (ratios[name].distribution[k] for name in ("nii_halpha", "halpha_ew"))
    found = measure.whan_class(ratio, width)
    fractions = {name: np.mean(found == n) for n, name in enumerate(measure.WHAN_CLASSES)}
    text = ", ".join(f"{name} {value:.2f}" for name, value in fractions.items() if value)
    print(f"{galaxy:12}", text)

# %%
# For an observed spectrum, `~astrogenspec.measure.measure_lines`,
# `~astrogenspec.measure.classify_bpt` and `~astrogenspec.measure.classify_whan` do the same, with
# probabilities from its noise. :doc:`/ppxf` fits the draws with pPXF.
