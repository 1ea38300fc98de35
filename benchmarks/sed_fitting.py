"""Compare the processor time per galaxy with that of SED fitting.

    python benchmarks/sed_fitting.py [--galaxies 1]

Galaxies of the demonstration table are fitted with bagpipes (delayed-tau history, free redshift,
dust and metallicity, nautilus with 400 live points) and inferred with `PropertyEstimator` (1000
draws of nine quantities).  Times are CPU seconds, user and system, of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import speclite.filters

from astrogenspec import PropertyEstimator, coerce_photometry
from astrogenspec.demo import load_galaxies
from astrogenspec.surveys import BANDS

_MODEL = {
    "redshift": (0.002, 0.4),
    "delayed": {
        "age": (0.1, 13.5), "tau": (0.3, 10.0),
        "massformed": (7.0, 13.0), "metallicity": (0.02, 2.5),
    },
    "dust": {"type": "Calzetti", "Av": (0.0, 3.0)},
    "nebular": {"logU": -3.0},
}  # fmt: skip


def cpu_seconds() -> float:
    """Return the CPU time (s) of this process and its children."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def fit_with_bagpipes(flux: np.ndarray, error: np.ndarray, live: int) -> list[dict]:
    """Fit galaxies one by one; fluxes and errors in microjansky, shape (n, 5)."""
    import bagpipes

    curves = []
    for band in BANDS:
        curve = speclite.filters.load_filter(f"sdss2010-{band}")
        path = Path(f"{band}.txt")
        np.savetxt(path, np.column_stack([curve.wavelength, curve.response]))
        curves.append(str(path))
    rows = []
    for k in range(len(flux)):
        photometry = np.column_stack([flux[k], error[k]])
        galaxy = bagpipes.galaxy(
            str(k), lambda _, p=photometry: p, spectrum_exists=False, filt_list=curves
        )
        start = cpu_seconds()
        fit = bagpipes.fit(galaxy, _MODEL)
        fit.fit(verbose=False, sampler="nautilus", n_live=live)
        redshift = np.percentile(fit.posterior.samples["redshift"], [16, 50, 84])
        rows.append({"cpu_seconds": cpu_seconds() - start, "redshift": redshift.tolist()})
    return rows


def main() -> None:
    """Run both methods and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--galaxies", type=int, default=1, help="galaxies to fit")
    parser.add_argument("--live", type=int, default=400, help="live points of the sampler")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    out = arguments.out.resolve()
    table = load_galaxies()
    batch = coerce_photometry(table)
    estimator = PropertyEstimator.from_pretrained()
    estimator.predict(photometry=batch, seed=0)
    repeats = 20
    start, wall = cpu_seconds(), time.perf_counter()
    for _ in range(repeats):
        posterior = estimator.predict(photometry=batch, seed=0)
    ours = (cpu_seconds() - start) / (repeats * len(batch))
    wall = (time.perf_counter() - wall) / (repeats * len(batch))
    flux, error = batch.dereddened()
    error = np.hypot(error, 0.02 * flux)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        rows = fit_with_bagpipes(
            3.631 * flux[: arguments.galaxies], 3.631 * error[: arguments.galaxies], arguments.live
        )
    theirs = float(np.mean([row["cpu_seconds"] for row in rows]))
    result = {
        "astrogenspec_cpu_seconds_per_galaxy": ours,
        "astrogenspec_wall_seconds_per_galaxy": wall,
        "bagpipes_cpu_seconds_per_galaxy": theirs,
        "ratio": theirs / ours,
        "z_spec": np.asarray(table["z_spec"][: arguments.galaxies], float).tolist(),
        "bagpipes_redshift": [row["redshift"] for row in rows],
        "astrogenspec_redshift": np.percentile(
            posterior["redshift"].draws[: arguments.galaxies].value, [16, 50, 84], axis=1
        ).T.tolist(),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "sed_fitting.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
