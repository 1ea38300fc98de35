"""Generate spectra from the photometry of other surveys, and compare them with the true ones.

    python benchmarks/spectra.py surveys [--n 128] [--model MODEL] --out results/spectra

The same simulated held-out galaxies are observed by several surveys, with their depths and the
errors of their calibration. Properties are inferred from each catalogue, and spectra generated from
the same catalogue, with the posterior. Called by `spectra.py`.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from spectra_real import dn4000
from spectra_sample import HELD_OUT_SEED, Sample, line_free, pixel_coverage, residuals

from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.simulate import Simulator
from astrogenspec.simulate.dataset import sed_columns
from astrogenspec.simulate.photometry import observe_in
from astrogenspec.simulate.simulator import Sample as Selection
from astrogenspec.surveys import get_survey

SURVEYS = ("sdss", "legacy-dr10", "panstarrs", "des", "lsst")
#: Draws of each galaxy; a range of k draws covers at most (k - 1) / (k + 1).
_DRAWS = 40
_BATCH = 3
_BLUE, _RED = 4200.0, 6500.0


def run_surveys(properties, estimator, n: int) -> dict:
    """Score the spectra from the catalogue of each survey."""
    sample = Sample(n, batch=_BATCH)
    simulator = Simulator()
    galaxies = simulator.batch(HELD_OUT_SEED, _BATCH, Selection())[torch.arange(n)]
    columns = sed_columns(simulator, galaxies)
    result: dict = {"kind": "simulated held-out", "n": n, "draws": _DRAWS, "aperture": "total"}
    for name in SURVEYS:
        catalogue = sample.photometry if name == "sdss" else _observed(name, columns)
        options = {"seed": 0, "progress": False, "on_error": "flag"}
        posterior = properties.predict(photometry=catalogue, n_draws=64, **options)
        drawn = estimator.predict(
            None, catalogue, posterior, n_draws=_DRAWS, aperture="total", **options
        )
        result[name] = scores(drawn, sample, catalogue)
        print(name, json.dumps(result[name]), flush=True)
    return result


def _observed(name: str, columns: dict) -> PhotometryBatch:
    """Return the catalogue of a survey."""
    survey = get_survey(name)
    generator = torch.Generator().manual_seed(4)
    seen = observe_in(survey, columns["sed"], columns["sed_flux"], generator)
    n = len(seen.flux)
    return PhotometryBatch(
        seen.flux.double().numpy(),
        seen.error.double().numpy(),
        np.zeros(n),
        np.zeros(n, bool),
        filters=tuple(survey.filters[band] for band in survey.bands),
        calibration_error=np.array([survey.calibration_error[band] for band in survey.bands]),
    )


def scores(drawn, sample: Sample, catalogue: PhotometryBatch) -> dict:
    """Score continuum, ranges, Dn4000, redshift, and fluxes in the filters of the catalogue."""
    good = drawn.usable
    flux, true, z = drawn.flux.value[good], sample.total[good], sample.redshift[good]
    free = line_free(z)
    inside = np.where(free, true, np.nan)
    wavelength = drawn.wavelength.value
    parts = {"blue": wavelength < _BLUE, "red": wavelength > _RED}
    middle = np.median(drawn.redshift[good], axis=1)
    pairs = zip(flux, drawn.redshift[good], strict=True)
    breaks = np.array([[dn4000(f, at) for f, at in zip(*row, strict=True)] for row in pairs])
    real = np.array([dn4000(f, at) for f, at in zip(true, z, strict=True)])
    error = np.median(breaks, axis=1) - real
    synthetic = drawn.photometry(filters=catalogue.filters)[good].value
    relative = synthetic / catalogue.flux[good][:, None]
    ratio = np.median(relative, axis=1)
    return {
        "n": int(good.sum()),
        "residual": residuals(np.median(flux, axis=1), middle, true, z)["observed frame"],
        "coverage": pixel_coverage(flux, inside),
        **{
            f"coverage, {part}": pixel_coverage(flux[..., where], inside[..., where])
            for part, where in parts.items()
        },
        "bias of pixels": float(np.nanmedian(np.median(flux, axis=1) / inside) - 1),
        "Dn4000": {
            "bias": float(np.nanmedian(error)),
            "scatter": float(1.4826 * np.nanmedian(np.abs(error - np.nanmedian(error)))),
        },
        "dz": float(1.4826 * np.median(np.abs(middle - z) / (1 + z))),
        "synthetic over catalogue": {
            band.name: [float(np.median(r)), float(1.4826 * np.median(np.abs(r - np.median(r))))]
            for band, r in zip(catalogue.filters, ratio.T, strict=True)
            if np.isfinite(r).all()
        },
        "scatter of draws": {
            band.name: float(np.median(r.std(axis=1)))
            for band, r in zip(catalogue.filters, np.moveaxis(relative, 2, 0), strict=True)
            if np.isfinite(r).all()
        },
    }
