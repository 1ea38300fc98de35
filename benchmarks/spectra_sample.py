"""Simulated held-out galaxies with true spectra, and scores; used by `spectra.py` and its parts."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import torch
from specutils import Spectrum

from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.quantities import QUANTITIES
from astrogenspec.wavelengths import GENERATED, LINES

#: Seed of the held-out galaxies; training uses 1 and 2.
HELD_OUT_SEED = 1002
UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")
WAVELENGTH = GENERATED.wavelength
_REST = np.geomspace(3800, 7000, 2500)
_BLOCK = 128


class Sample:
    """Simulated galaxies with their observations and true spectra.

    Parameters
    ----------
    n : int
        Number of galaxies, the first ones of the batch.
    batch : int
        Index of the batch, which has about 1400 galaxies.
    rows : callable, optional
        Function of the columns of the batch that returns the indices of the galaxies to use
        instead.

    Attributes
    ----------
    fibre, total : ndarray, shape (n, 3841)
        True noiseless spectra, in the fibre and of the whole galaxy.
    seeing : ndarray, shape (n, 5)
        Full width at half maximum of the point-spread function of each image (arcsec).
    """

    def __init__(self, n: int, batch: int = 0, rows=None):
        from astrogenspec.simulate import GalaxyStream, Simulator
        from astrogenspec.simulate.dataset import Contents
        from astrogenspec.simulate.simulator import Sample as Selection

        simulator = Simulator()
        stream = GalaxyStream(
            simulator, HELD_OUT_SEED, (Selection(),), Contents("observed", "none")
        )
        columns = stream.batch(batch)
        chosen = torch.arange(n) if rows is None else torch.as_tensor(rows(columns))
        columns = {name: values[chosen].float().numpy() for name, values in columns.items()}
        galaxies = simulator.batch(HELD_OUT_SEED, batch, Selection())[chosen]
        self.theta = columns["theta"]
        self.line_flux = columns["line_flux"]
        self.halpha_width = columns["halpha_width"]
        self.seeing = columns["psf_fwhm"]
        self.photometry = photometry_batch(columns["flux"], columns["error"])
        self.cutouts = CutoutBatch(columns["image"], columns["ivar"])
        self.fibre = _spectra(simulator, galaxies, fibre=True)
        self.total = _spectra(simulator, galaxies, fibre=False)

    def __len__(self) -> int:
        return len(self.theta)

    @property
    def redshift(self) -> np.ndarray:
        """True redshifts."""
        return self.theta[:, list(QUANTITIES).index("redshift")].astype(float)

    def inputs(self, mode: str) -> tuple:
        """Return cutouts and photometry in a mode; None where not used."""
        return {
            "both": (self.cutouts, self.photometry),
            "photometry": (None, self.photometry),
            "image": (self.cutouts, None),
        }[mode]


def _spectra(simulator, galaxies, *, fibre: bool) -> np.ndarray:
    """Compute true spectra on the grid of the generated ones."""
    from astrogenspec.simulate.spectrum import OBSERVED

    first = round((GENERATED.start - OBSERVED.start) / OBSERVED.step)
    made = []
    for k in range(0, len(galaxies), _BLOCK):
        part = galaxies[k : k + _BLOCK]
        fraction = part.fibre if fibre else torch.ones_like(part.fibre)
        made.append(
            simulator.synthesis.spectra(part.properties, part.weights, part.lines, fraction)
        )
    return torch.cat(made)[:, first : first + GENERATED.size].numpy()


def photometry_batch(flux: np.ndarray, error: np.ndarray) -> PhotometryBatch:
    """Return a batch of photometry (nmgy) without Galactic extinction."""
    n = len(flux)
    return PhotometryBatch(flux.astype(float), error.astype(float), np.zeros(n), np.zeros(n, bool))


def predict(properties, spectra, inputs, *, posterior=None, n_draws=16, **options):
    """Infer properties unless a posterior is given, then generate spectra."""
    quiet = {
        "seed": 0,
        "progress": False,
        "on_error": "flag",
        "ebv": 0.0 if inputs[1] is None else None,
    }
    if posterior is None:
        posterior = properties.predict(*inputs, n_draws=max(64, n_draws), **quiet)
    return posterior, spectra.predict(*inputs, posterior, n_draws=n_draws, **quiet | options)


def line_free(redshift: np.ndarray) -> np.ndarray:
    """Return whether pixels are more than 15 A (rest frame) from all lines, shape (n, m)."""
    rest = WAVELENGTH / (1 + redshift[:, None])
    return np.all([np.abs(rest - line) > 15 for line in LINES.values()], axis=0)


def to_rest(flux: np.ndarray, redshift: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Interpolate spectra (n, m) at rest-frame wavelengths; flux densities times 1 + z."""
    return np.stack(
        [
            np.interp(grid, WAVELENGTH / (1 + z), row * (1 + z), left=np.nan, right=np.nan)
            for row, z in zip(flux, redshift, strict=True)
        ]
    )


def residuals(found: np.ndarray, z_found: np.ndarray, true: np.ndarray, z_true: np.ndarray) -> dict:
    """Return median and 84th percentile of the median relative residual of line-free pixels.

    Residuals are in the observed and in the rest frame; ``scaled``: after division by the median
    ratio, for the shape alone.
    """
    free = line_free(z_true)
    observed = np.where(free, found / true, np.nan)
    rest = to_rest(found, z_found, _REST) / to_rest(true, z_true, _REST)
    rest = rest[:, np.all([np.abs(_REST - line) > 15 for line in LINES.values()], axis=0)]
    result = {}
    for name, ratio in (("observed frame", observed), ("rest frame", rest)):
        shape = ratio / np.nanmedian(ratio, axis=1, keepdims=True)
        for label, values in ((name, ratio), (f"{name}, scaled", shape)):
            each = np.nanmedian(np.abs(values - 1), axis=1)
            result[label] = {
                "median": float(np.median(each)),
                "p84": float(np.quantile(each, 0.84)),
            }
    return result


def best_of(spectra) -> tuple[np.ndarray, np.ndarray]:
    """Return flux and redshift of the best draw of each galaxy."""
    rows = np.arange(len(spectra))
    return spectra.flux.value[rows, spectra.best_draw], spectra.redshift[rows, spectra.best_draw]


def pixel_coverage(flux: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return the fraction of pixels inside the central ranges of the draws.

    Quantiles are unbiased for few draws; a range of k draws covers at most (k - 1) / (k + 1).
    Pixels without true value or draws are ignored.
    """
    known = np.isfinite(true) & np.isfinite(flux).all(axis=1)
    result = {}
    for level in (0.68, 0.95):
        tails = [0.5 - level / 2, 0.5 + level / 2]
        low, high = np.quantile(flux, tails, axis=1, method="weibull")
        result[f"coverage_{level * 100:.0f}"] = float(
            np.mean(((true > low) & (true < high))[known])
        )
    return result


def spectrum_of(flux: np.ndarray, redshift: float) -> Spectrum:
    """Return one spectrum as a `Spectrum`."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA, redshift=float(redshift))


def stack_of(flux: np.ndarray) -> Spectrum:
    """Return several spectra as one `Spectrum`, without redshift."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA)
