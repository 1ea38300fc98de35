"""
A HATS catalogue through a survey run
=====================================

Infer a HATS catalogue of simulated LSST galaxies to a HATS catalogue of posteriors, interrupt and
continue the run, and query the result by cone. This requires the extras ``survey`` and
``simulate``. The same commands run 1e8 galaxies on a cluster; see :doc:`/large_catalogues`.
"""

# %%
# Simulated galaxies of LSST
# --------------------------
# The deep population of the simulator reaches r = 23.5 and z = 1.3.

import tempfile
from pathlib import Path

import astropy.units as u
import lsdb
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astrogenspec.distributed import export_region, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.metrics import redshift_metrics
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Simulator
from astrogenspec.simulate.dataset import sed_columns
from astrogenspec.simulate.photometry import observe_in

N = 20_000
simulator, rng = Simulator(population="deep"), np.random.default_rng(1)
galaxies = simulator.draw(N, seed=7)
seds = sed_columns(simulator, galaxies)
observed = observe_in("lsst", seds["sed"], seds["sed_flux"], torch.Generator().manual_seed(1))
columns = {
    "object_id": 10_000_000_000 + rng.permutation(N),
    # A field of four square degrees.
    "ra": 150 + rng.uniform(-1, 1, N),
    "dec": 2.2 + rng.uniform(-1, 1, N),
    "ebv": np.full(N, 0.0),
    "z_true": theta_to_quantities(galaxies.theta.numpy())["redshift"].value,
}
for k, band in enumerate("ugrizy"):
    # The names and the unit (nJy) of the table Object of Rubin's data previews.
    columns[f"{band}_cModelFlux"] = observed.flux[:, k].numpy() * 3631
    columns[f"{band}_cModelFluxErr"] = observed.error[:, k].numpy() * 3631
frame = pd.DataFrame(columns)

# %%
# LSDB makes the HATS catalogue, with a margin of one arcminute for cross-matches:

folder = Path(tempfile.mkdtemp())
catalogue = lsdb.from_dataframe(
    frame, catalog_name="simulated_lsst", partition_rows=3000, margin_threshold=60
)
catalogue.write_catalog(folder / "catalogue", progress_bar=False)
len(catalogue.get_healpix_pixels())

# %%
# A run that is interrupted
# -------------------------
# On the command line, this is ``astrogenspec survey catalogue posteriors --id object_id --seed 1
# --survey lsst --model astrogenspec-properties-deep --draws 100 --keep z_true``. Here ``shard``
# stands for an interruption: only every third partition is computed. The first call prints the
# time, disk and memory that the run will take.

settings = {
    "ids": "object_id",
    "seed": 1,
    "survey": "lsst",
    "flux_unit": "nJy",
    "weights": "astrogenspec-properties-deep",
    "draws": 100,
    "keep": ("z_true",),
}
paths = (folder / "catalogue", folder / "posteriors")
first = run_survey(*paths, workers=1, shard=(1, 3), report=print, **settings)
first.done, first.finished

# %%
# The second call continues; settings that are not given are those of the run. Others are refused:

try:
    run_survey(*paths, seed=2)
except ValueError as error:
    print(error)
second = run_survey(*paths, workers=1, report=print)
second.skipped, second.done, second.finished

# %%
# ``check_survey`` (``--check``) compares identifiers and checksums with the catalogue:

check_survey(*paths)

# %%
# The result in LSDB
# ------------------
# The result is a HATS collection with the pixels and the margin of the catalogue. A cone of ten
# arcminutes:

posteriors = lsdb.open_catalog(str(paths[1]))
cone = posteriors.cone_search(ra=150.0, dec=2.2, radius_arcsec=600).compute(progress_bar=False)
cone[["object_id", "redshift_median", "redshift_p16", "redshift_p84", "flags"]].head()

# %%
# Each galaxy has 20 quantiles of each quantity, nested as in Rubin's catalogues:

cone["redshift_20"].iloc[0].head()

# %%
# The same region as a VOTable for TOPCAT or Aladin:

center = SkyCoord(150.0, 2.2, unit="deg")
n = export_region(paths[1], folder / "cone.vot", center, 10 * u.arcmin)
n, len(cone), len(Table.read(folder / "cone.vot"))

# %%
# How good are the redshifts?
# ---------------------------
# Simulated galaxies of the population on which the weights were trained, observed to the depth of
# ten years: the accuracy is that of an ideal case, not of galaxies on the sky. On the right, the
# errors in units of the uncertainty, and a Gaussian of unit width.

whole = posteriors.compute(progress_bar=False)
true, found = whole["z_true"].to_numpy(), whole["redshift_median"].to_numpy()
scores = redshift_metrics(found, true)
fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
axes[0].hexbin(true, found, gridsize=60, bins="log", mincnt=1, extent=(0, 1.3, 0, 1.3))
axes[0].plot([0, 1.3], [0, 1.3], color="tab:red", lw=0.8)
axes[0].set(xlabel="true redshift", ylabel="median of the posterior", aspect="equal")
half = (whole["redshift_p84"] - whole["redshift_p16"]).to_numpy() / 2
pull = (true - found) / half
axes[1].hist(pull, bins=np.linspace(-5, 5, 51), density=True, histtype="step")
grid = np.linspace(-5, 5, 201)
axes[1].plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), lw=0.8)
axes[1].set(xlabel="(true - median) / half of the 16-84% range", ylabel="density")
scores
