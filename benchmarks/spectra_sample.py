"""What the benchmarks of spectra share: held-out simulated galaxies with their true spectra, and scores.

No script of its own: `spectra.py`, `spectra_measured.py` and `spectra_real.py` use it.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
import torch
from specutils import Spectrum

from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
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
        The first ones of a batch.
    batch : int
        Number of the batch, which has about 1400 galaxies.
    rows : callable, optional
        Takes the columns of the batch and chooses the numbers of other galaxies than the first
        ones.

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
        return self.theta[:, 0].astype(float)

    def inputs(self, mode: str) -> tuple:
        """Give what an estimator sees in a mode."""
        return {
            "both": (self.cutouts, self.photometry),
            "photometry": (None, self.photometry),
            "image": (self.cutouts, None),
        }[mode]


def _spectra(simulator, galaxies, *, fibre: bool) -> np.ndarray:
    """Make true spectra on the grid of the generated ones."""
    from astrogenspec.simulate.spectrum import OBSERVED

    first = round((GENERATED.start - OBSERVED.start) / OBSERVED.step)
    made = []
    for k in range(0, len(galaxies), _BLOCK):
        part = galaxies[k : k + _BLOCK]
        share = part.fibre if fibre else torch.ones_like(part.fibre)
        made.append(simulator.synthesis.spectra(part.properties, part.weights, part.lines, share))
    return torch.cat(made)[:, first : first + GENERATED.size].numpy()


def photometry_batch(flux: np.ndarray, error: np.ndarray) -> PhotometryBatch:
    """Make a batch of fluxes (nmgy) without Galactic extinction."""
    n = len(flux)
    return PhotometryBatch(flux.astype(float), error.astype(float), np.zeros(n), np.zeros(n, bool))


def predict(properties, spectra, inputs, *, posterior=None, n_draws=16, **options):
    """Infer properties, then draw spectra of them."""
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
    """Pixels further than 15 A (rest frame) from every line, shape (n, m)."""
    rest = WAVELENGTH / (1 + redshift[:, None])
    return np.all([np.abs(rest - line) > 15 for line in LINES.values()], axis=0)


def to_rest(flux: np.ndarray, redshift: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Spectra (n, m) at rest-frame wavelengths; flux densities are multiplied by 1 + z."""
    return np.stack(
        [
            np.interp(grid, WAVELENGTH / (1 + z), row * (1 + z), left=np.nan, right=np.nan)
            for row, z in zip(flux, redshift, strict=True)
        ]
    )


def residuals(found: np.ndarray, z_found: np.ndarray, true: np.ndarray, z_true: np.ndarray) -> dict:
    """Median relative residual per galaxy over line-free pixels, in the observed and in the rest frame.

    ``scaled`` is after division by the median ratio: the shape alone.  Median and 84th percentile
    over the galaxies.
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
    """Flux and redshift of the best draw of each galaxy."""
    rows = np.arange(len(spectra))
    return spectra.flux.value[rows, spectra.best_draw], spectra.redshift[rows, spectra.best_draw]


def pixel_coverage(flux: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Share of pixels inside the central ranges of the draws, by quantiles that are unbiased for few draws.

    With k draws no range covers more than (k - 1) / (k + 1).  Pixels without truth or draws do not
    count.
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
    """One spectrum for the toolbox."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA, redshift=float(redshift))


def stack_of(flux: np.ndarray) -> Spectrum:
    """Several spectra for the toolbox, which is told their redshifts."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA)
