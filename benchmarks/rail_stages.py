"""Evaluate the stages for RAIL with the metrics of RAIL.

``python benchmarks/rail_stages.py --galaxies 2000 --epochs 0 10`` estimates redshifts of the DC2
galaxies that RAIL ships as test data (simulated photometry of LSST), of r < 23.5 and z < 1.3, the
range of the weights, with weights that are fine-tuned for each number of epochs on its training
set. The metrics are the loss of the conditional density (CDE), the statistic of Kolmogorov and
Smirnov of the PIT, and those of point estimates (medians).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tables_io
from rail.evaluation.metrics.cdeloss import CDELoss
from rail.evaluation.metrics.pointestimates import PointBias, PointSigmaIQR, PointSigmaMAD
from rail.examples_data import testdata
from scipy.stats import kstest

from rail.estimation.algos.astrogenspec import AstroGenSpecEstimator, AstroGenSpecInformer

LIMIT, MAX_REDSHIFT = 23.5, 1.3
GRID = {"zmin": 0.0, "zmax": 1.5, "nzbins": 301}


def read(name: str, n: int | None = None) -> dict[str, np.ndarray]:
    """Read test data of RAIL in the range of the weights."""
    path = Path(next(iter(testdata.__path__))) / f"test_dc2_{name}_9816.hdf5"
    table = tables_io.read(str(path))["photometry"]
    inside = (table["mag_r_lsst"] < LIMIT) & (table["redshift"] < MAX_REDSHIFT)
    rows = np.flatnonzero(inside)[:n]
    return {key: np.asarray(values)[rows] for key, values in table.items()}


def evaluate(ensemble: Any, redshift: np.ndarray) -> dict[str, float]:
    """Return the metrics of the usable galaxies."""
    usable = np.flatnonzero(ensemble.ancil["usable"])
    ensemble, redshift = ensemble[usable], redshift[usable]
    medians = np.ravel(ensemble.ancil["zmedian"])
    pairs = zip(ensemble, redshift, strict=True)
    pit = np.array([np.ravel(each.cdf(z))[0] for each, z in pairs])
    grid = np.linspace(GRID["zmin"], GRID["zmax"], int(GRID["nzbins"]))
    error = (medians - redshift) / (1 + redshift)
    return {
        "galaxies": len(redshift),
        "cde_loss": float(CDELoss(ensemble, grid, redshift).evaluate().statistic),
        "pit_ks": float(kstest(pit, "uniform").statistic),
        "bias": float(PointBias(medians, redshift).evaluate()),
        "sigma_mad": float(PointSigmaMAD(medians, redshift).evaluate()),
        "sigma_iqr": float(PointSigmaIQR(medians, redshift).evaluate()),
        "beyond_0.15": float(np.mean(np.abs(error) > 0.15)),
    }


def main() -> None:
    """Print the metrics as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    train, test = read("training"), read("validation", options.galaxies)
    for epochs in options.epochs:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.process_time()
            informer = AstroGenSpecInformer.make_stage(
                name=f"inform{epochs}",
                epochs=epochs,
                hdf5_groupname="",
                model=f"{folder}/model.pkl",
            )
            model = informer.inform(train)
            estimator = AstroGenSpecEstimator.make_stage(
                name=f"estimate{epochs}",
                model=model,
                id_col="id",
                hdf5_groupname="",
                n_draws=options.draws,
                output=f"{folder}/output.hdf5",
                **GRID,
            )
            found = evaluate(estimator.estimate(test).data, test["redshift"])
        found |= {"epochs": epochs, "labelled": len(train["redshift"])}
        print(json.dumps(found | {"cpu_seconds": time.process_time() - begin}, indent=1))


if __name__ == "__main__":
    main()
