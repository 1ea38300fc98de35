"""
The latent space of images
==========================

The encoder of the network reduces an image to 32 numbers, the latent vector; the decoder turns a
latent vector into an image. Decoding modified vectors shows how the network represents mass, star
formation and redshift; projecting the vectors to two dimensions shows how it arranges galaxies.
"""

# %%
# Change one quantity
# -------------------
# ``traverse`` changes one quantity, keeps the others at the medians of the posterior, and decodes
# the image. The galaxy is a simulated one that comes with the package. The images show correlations
# learned from the simulator; they do not predict the evolution of a galaxy.

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import umap

from astrogenspec import CutoutBatch, PropertyEstimator, plotting
from astrogenspec.demo import load_cutouts
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Sample, Simulator
from astrogenspec.simulate.images import add_noise

cutout = load_cutouts()[0][0]
estimator = PropertyEstimator.from_pretrained()
moves = {
    "sfr": np.linspace(-1.2, 1.2, 5) * u.dex(u.Msun / u.yr),
    "stellar_mass": np.linspace(9.2, 11.2, 5) * u.dex(u.Msun),
    "redshift": np.linspace(0.03, 0.15, 5) * u.one,
}
symbols = {"sfr": r"log SFR", "stellar_mass": r"$\log M_\ast$", "redshift": "$z$"}
fig, axes = plt.subplots(3, 5, figsize=(9, 5.9), layout="constrained")
for row, (quantity, values) in zip(axes, moves.items(), strict=True):
    images = estimator.traverse(cutout, quantity, values).value
    stretch = np.percentile(images[:, 1:4].mean(axis=1), 99.7) / 8
    for ax, value, image in zip(row, values, images, strict=True):
        ax.imshow(plotting.color_image(image, stretch=stretch), origin="lower")
        ax.set_title(f"{symbols[quantity]} = {value.value:.2f}", fontsize=9)
        ax.set(xticks=[], yticks=[])
fig.supxlabel(
    "each cutout 25 arcsec wide; mass in solar masses, star-formation rate in solar masses per "
    "year",
    fontsize=9,
)

# %%
# The difference from the central image shows where the change is, here in g:

images = estimator.traverse(cutout, "sfr", [-0.7, 0.3, 1.3] * u.dex(u.Msun / u.yr)).value[:, 1]
fig, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for ax, changed, title in zip(
    axes, (images[0], images[2]), ("1 dex lower", "1 dex higher"), strict=True
):
    difference = changed - images[1]
    top = np.abs(difference).max()
    shown = ax.imshow(difference, origin="lower", cmap="RdBu_r", vmin=-top, vmax=top)
    ax.set_title(f"SFR {title}", fontsize=9)
    ax.set(xticks=[], yticks=[])
    fig.colorbar(shown, ax=ax, label="change in g [nmgy / pixel]", shrink=0.88)

# %%
# A map of many galaxies
# ----------------------
# Images of 400 simulated galaxies, with noise as in SDSS, are encoded. UMAP projects the latent
# vectors to two dimensions and preserves neighbourhoods. These galaxies were not part of the
# training set.

simulator = Simulator()
galaxies = simulator.draw(400, seed=20, sample=Sample(magnitude_limit=17.3))
generator = simulator.generator(21)
flux, ivar = add_noise(simulator.images(galaxies, generator).flux, simulator.survey, generator)
table = estimator.embed(CutoutBatch(flux.numpy(), ivar.numpy()))
placed = umap.UMAP(n_neighbors=20, min_dist=0.2, random_state=1, n_jobs=1).fit_transform(
    table["latent"]
)

true = theta_to_quantities(galaxies.theta.numpy())
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
plotting.latent_map(placed, true["redshift"], label="true redshift", ax=axes[0])
ssfr = true["sfr"].value - true["stellar_mass"].value
plotting.latent_map(
    placed, ssfr * u.dex(1 / u.yr), label="true log sSFR", ax=axes[1], cmap="RdYlBu"
)

# %%
# Redshift and star-formation rate were not input to the projection: the encoder arranges images
# by them. The axes of the map and large distances in it have no physical meaning.
