"""
A first posterior
=================

Magnitudes of one real galaxy go in; redshift, mass, star formation, and line fluxes come out, with error bars that
belong together.
"""

# %%
# What is known of the galaxy
# ---------------------------
# A mapping is enough for one galaxy: a magnitude and its error in each band, and the Galactic reddening. The values
# are as observed; dust of the Milky Way is removed inside. This is an SDSS galaxy, and one that comes with the package.

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
# ``from_pretrained`` loads the weights that come with the package; nothing is downloaded. The seed makes the numbers
# repeatable.

estimator = PropertyEstimator.from_pretrained()
posterior = estimator.predict(photometry=galaxy, n_draws=2000, seed=1)
posterior

# %%
# One quantity
# ------------
# A quantity knows its unit. Median, interval and standard deviation are those of the draws.

mass = posterior["stellar_mass"]
low, high = mass.interval(0.68)
print(f"log M* = {mass.median()[0]:.2f}, 68% between {low[0]:.2f} and {high[0]:.2f}")
print(f"black-hole mass: {posterior['black_hole_mass'].median()[0]:.2f}")
print(
    f"spectroscopic redshift {z_spec}, from the magnitudes {posterior['redshift'].median()[0]:.3f}"
)

# %%
# The redshift was measured from a spectrum by SDSS. The network was not told.

fig, ax = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
ax.hist(posterior["redshift"].draws[0].value, bins=50, density=True, color="#3b6ea5", alpha=0.6)
ax.axvline(z_spec, color="#c44e52", label="spectroscopic")
ax.set(xlabel="redshift", ylabel="probability density")
ax.legend(frameon=False)

# %%
# All together
# ------------
# Draw *k* of one quantity belongs to draw *k* of every other, so a corner plot shows what is degenerate with what: a
# galaxy that is farther away is also more massive.

figure = posterior.plot_corner(
    0, quantities=["redshift", "stellar_mass", "sfr", "gas_metallicity"], truth={"redshift": z_spec}
)

# %%
# Any function of the draws has a posterior. Some have names, such as the specific star-formation rate:

print("log sSFR:", posterior["ssfr"].median().round(2))
print("also there:", ", ".join(posterior.derived_quantities))
quenched = posterior["ssfr"].draws.value < -11
print(f"probability that it has stopped forming stars: {quenched.mean():.2f}")

# %%
# How much of this was learnt from the magnitudes?
# ------------------------------------------------
# ``informed`` compares each posterior with the population the network knows. *Mostly prior* is a scaling relation with
# error bars, and no measurement. ``flags`` is empty if nothing is unusual about the galaxy.

for name in posterior.quantities:
    print(f"{name:16} {posterior.information(name)[0]:5.2f}  {posterior.informed(name)[0]}")
print("flags:", posterior.flags)

# %%
# Summaries of all quantities are one table, which any format of astropy stores.

posterior.to_table(["redshift", "stellar_mass", "sfr"])

# %%
# A spectrum that belongs to each draw is the matter of :doc:`04_cutout_to_spectrum`.
