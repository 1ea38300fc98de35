"""
A first posterior
=================

Infer redshift, mass, star-formation rate and line fluxes of one real galaxy from its magnitudes, as
one joint posterior.
"""

# %%
# The input
# ---------
# One galaxy is a mapping with a magnitude and its error in each band, and the Galactic reddening.
# The magnitudes are as observed; Galactic extinction is corrected internally. This SDSS galaxy
# comes with the package.

import astropy.units as u
import matplotlib.pyplot as plt

from astrogenspec import PropertyEstimator

galaxy = {
    "name": "SDSS J153111.30+023407.7",
    "u": 20.87 * u.ABmag, "u_err": 0.14 * u.mag,
    "g": 18.57 * u.ABmag, "g_err": 0.01 * u.mag,
    "r": 17.58 * u.ABmag, "r_err": 0.01 * u.mag,
    "i": 17.14 * u.ABmag, "i_err": 0.01 * u.mag,
    "z": 16.76 * u.ABmag, "z_err": 0.01 * u.mag,
    "ebv": 0.055 * u.mag,
}  # fmt: skip
z_spec = 0.0963

# %%
# Infer
# -----
# ``from_pretrained`` loads the bundled weights; nothing is downloaded. The seed makes the result
# reproducible.

estimator = PropertyEstimator.from_pretrained()
posterior = estimator.predict(photometry=galaxy, n_draws=2000, seed=1)
posterior

# %%
# One quantity
# ------------
# A quantity has a unit. Median, interval and standard deviation are computed from the draws.

mass = posterior["stellar_mass"]
low, high = mass.interval(0.68)
print(f"log M* = {mass.median()[0]:.2f}, 68% between {low[0]:.2f} and {high[0]:.2f}")
print(f"black-hole mass: {posterior['black_hole_mass'].median()[0]:.2f}")
print(
    f"spectroscopic redshift {z_spec}, from the magnitudes {posterior['redshift'].median()[0]:.3f}"
)

# %%
# SDSS measured this redshift from a spectrum. It was not given to the network.

fig, ax = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
ax.hist(posterior["redshift"].draws[0].value, bins=50, density=True, color="#3b6ea5", alpha=0.6)
ax.axvline(z_spec, color="#c44e52", label="spectroscopic")
ax.set(xlabel="redshift", ylabel="probability density")
ax.legend(frameon=False)

# %%
# The joint posterior
# -------------------
# Draw *k* of one quantity belongs to draw *k* of every other, so a corner plot shows their
# correlations: a more distant galaxy would also be more massive.

figure = posterior.plot_corner(
    0, quantities=["redshift", "stellar_mass", "sfr", "gas_metallicity"], truth={"redshift": z_spec}
)

# %%
# Any function of the draws has a posterior. Some functions have names, such as the specific
# star-formation rate:

print("log sSFR:", posterior["ssfr"].median().round(2))
print("other derived quantities:", ", ".join(posterior.derived_quantities))
quenched = posterior["ssfr"].draws.value < -11
print(f"probability of a log sSFR below -11: {quenched.mean():.2f}")

# %%
# How informative are the magnitudes?
# -----------------------------------
# ``informed`` compares each posterior with the prior, the population of the training set. A *mostly
# prior* posterior is a scaling relation with its scatter, not a measurement. The flag code is 0 if
# nothing about the galaxy is unusual.

for name in posterior.quantities:
    print(f"{name:16} {posterior.information(name)[0]:5.2f}  {posterior.informed(name)[0]}")
print("flag codes:", posterior.flag_codes)

# %%
# ``to_table`` summarises quantities in a table, which can be written in any format of astropy.

posterior.to_table(["redshift", "stellar_mass", "sfr"])

# %%
# :doc:`04_cutout_to_spectrum` generates the spectrum of each draw.
