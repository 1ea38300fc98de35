"""
A mock catalogue with the simulator
===================================

Make a catalogue with the simulator on which the networks were trained: magnitudes, images and
spectra as a survey would observe them, with the true properties. This requires the extra
``simulate``.
"""

# %%
# Galaxies with labels
# --------------------
# ``draw`` simulates galaxies until the requested number passes the selection of the survey.

import tempfile
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import QTable

from astrogenspec import BANDS, plotting
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Sample, Simulator, load_priors
from astrogenspec.simulate.images import add_noise
from astrogenspec.simulate.spectrum import OBSERVED

simulator = Simulator()
galaxies = simulator.draw(2000, seed=100)
catalogue = QTable(theta_to_quantities(galaxies.theta.numpy()))
for k, band in enumerate(BANDS):
    catalogue[f"flux_{band}"] = galaxies.observation.flux[:, k].numpy() * u.nmgy
    catalogue[f"flux_err_{band}"] = galaxies.observation.error[:, k].numpy() * u.nmgy
catalogue["redshift", "stellar_mass", "sfr", "halpha_flux", "flux_r", "flux_err_r"][:5]

# %%
# Fluxes include noise, zero-point errors and outliers as in SDSS, and no Galactic extinction.
# Write the table in any format of astropy:

folder = Path(tempfile.mkdtemp())
catalogue.write(folder / "mock.ecsv")

# %%
# Distribution of the galaxies
# ----------------------------

mass, sfr = catalogue["stellar_mass"].value, catalogue["sfr"].value
colour = -2.5 * np.log10(catalogue["flux_g"] / catalogue["flux_r"])
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
dots = axes[0].scatter(
    catalogue["redshift"], colour, c=sfr - mass, s=4, cmap="RdYlBu", vmin=-12.5, vmax=-9.5
)
axes[0].set(xlabel="redshift", ylabel="g - r as observed [AB mag]", ylim=(0, 1.8))
axes[1].scatter(mass, sfr, c=sfr - mass, s=4, cmap="RdYlBu", vmin=-12.5, vmax=-9.5)
axes[1].set(
    xlabel=r"$\log M_\ast\ [\mathrm{M}_\odot]$",
    ylabel=r"$\log\,\mathrm{SFR}\ [\mathrm{M}_\odot\,\mathrm{yr}^{-1}]$",
)
fig.colorbar(dots, ax=axes, label=r"log sSFR [$\mathrm{yr}^{-1}$]", extend="both")

# %%
# Images
# ------
# Compute noise-free images with seeing and neighbours, then add the noise of the survey:

bright = galaxies[galaxies.observation.petrosian_r < 16.2][:6]
generator = simulator.generator(101)
images = simulator.images(bright, generator)
noisy, ivar = add_noise(images.flux, simulator.survey, generator)
fig, axes = plt.subplots(1, 6, figsize=(9.5, 2), layout="constrained")
for ax, image, theta in zip(axes, noisy.numpy(), bright.theta, strict=True):
    ax.imshow(plotting.color_image(image), origin="lower")
    ax.set_title(f"z = {theta[0]:.3f}", fontsize=8)
    ax.set(xticks=[], yticks=[])
fig.supxlabel("each cutout 25 arcsec wide", fontsize=8)

# %%
# Spectra
# -------
# Noise-free spectra in the fibre of 3 arcsec, on a logarithmic grid of vacuum wavelengths:

spectra = simulator.spectra(bright)
wavelength = OBSERVED.wavelength
fig, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
for k in range(3):
    flux = spectra[k].numpy()
    ax.plot(
        wavelength, flux / np.median(flux) + 1.5 * k, lw=0.6, label=f"z = {bright.theta[k, 0]:.3f}"
    )
ax.set(
    xlim=(3600, 9300),
    ylim=(0, 6.5),
    xlabel="observed vacuum wavelength [Å]",
    ylabel=r"$F_\lambda$ / median, shifted",
)
ax.legend(frameon=False, ncols=3, fontsize=8)

# %%
# Other samples and priors
# ------------------------
# ``Sample`` defines the selection: a magnitude limit or a volume. Every number of the simulator is
# in a table with its unit and source and can be changed.

population = load_priors("population")
print(population.table["name", "value", "unit", "kind"][:3])
volume = simulator.draw(1500, seed=102, sample=Sample(volume=(0.02, 0.06, 9.0)))
heavier = Simulator(
    priors={
        "population": population.replace(mass_function_knee=population.mass_function_knee + 0.3)
    }
)
other = heavier.draw(1500, seed=102, sample=Sample(volume=(0.02, 0.06, 9.0)))

fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
bins = np.linspace(9, 12, 25)
for sample, color, label in (
    (volume, "#3b6ea5", "default priors"),
    (other, "#c44e52", "knee of the mass function 0.3 dex higher"),
):
    ax.hist(sample.theta[:, 1].numpy(), bins, histtype="step", lw=1.5, color=color, label=label)
ax.set(xlabel=r"$\log M_\ast\ [\mathrm{M}_\odot]$", ylabel="galaxies, z = 0.02-0.06", yscale="log")
ax.legend(frameon=False, fontsize=8)

# %%
# Many galaxies
# -------------
# ``astrogenspec simulate`` on the command line, or `~astrogenspec.simulate.dataset.write_shards`,
# writes large data sets and resumes after an interruption. :doc:`/simulator` lists known deviations
# from real galaxies.
