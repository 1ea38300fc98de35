r"""Factors of the emission lines of generated spectra: strengths of weak lines, and scatter.

Lines of a draw that are not tied to a draw of the properties are multiplied by

.. math:: 10^{b(w) + \sigma\epsilon}, \quad \epsilon \sim N(0, 1)

with :math:`w` the equivalent width of Halpha and [N II] of the draw and :math:`\epsilon` one number
for each draw, so that line ratios are preserved.  The shift :math:`b` is linear in :math:`\log w`
between `WEAK` and `STRONG` and constant beyond: lines of passive galaxies are at the limit of what
spectra show, and a network learns them as too strong.

From observed spectra, the shifts are those of the smallest continuous ranked probability score of
the equivalent widths (in their inverse hyperbolic sine), and the scatter is that with which the
ranges contain 68% and 95% of the observed widths.  The form of the corrections is our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ..metrics import crps

__all__ = [
    "STRONG",
    "STRONGEST",
    "WEAK",
    "LineFactors",
    "fit_line_factors",
    "is_known",
    "sidebands",
]

#: Equivalent widths of Halpha and [N II] (Angstrom) at which shifts are given.
WEAK, STRONG = 0.5, 2.0
#: Lines whose common equivalent width tells how strong the lines of a draw are, and their window.
STRONGEST = ("nii6548", "halpha", "nii6584")
_STRONGEST_WINDOW = (6540.0, 6595.0)
#: Rest-frame windows (Angstrom), and the lines in them that are generated.
_WINDOWS = (
    ((4850.0, 4876.0), ("hbeta",)),
    ((4996.0, 5020.0), ("oiii5007",)),
    (_STRONGEST_WINDOW, STRONGEST),
    ((6710.0, 6742.0), ("sii6717", "sii6731")),
)
#: Distances of the sidebands from the edges of a window (Angstrom).
_SIDEBAND = (14.0, 40.0)
#: Minimum number of pixels in a window, and fraction of them that were observed.
_MIN_PIXELS, _MIN_OBSERVED = 3, 0.9
#: Minimum equivalent width (Angstrom) of emission of which the scatter is fitted.
_MIN_WIDTH = 1.0
#: Equivalent width (Angstrom) in place of none, of which the logarithm is taken.
_NO_WIDTH = 1e-3
#: Scatter (dex) of lines whose coverage is evaluated.
_TRIAL_SCATTER = np.linspace(0.0, 0.6, 13)
_LEVELS = (0.68, 0.95)
#: Minimum number of windows, of up to four per galaxy, from which a number is fitted; and number of
#: pseudo-windows without correction, which shrink corrections from few of them.
_MIN_WINDOWS, _PSEUDO_WINDOWS = 100, 60
#: Maximum range of ln(1 + z) of the draws of a galaxy whose redshift is known: a pixel.
_MAX_RANGE = 2.3e-4
#: Seed of the random numbers of a fit, and number of samples of the noise of each draw.
_SEED, _N_SAMPLES = 0, 4


@dataclass(frozen=True)
class LineFactors:
    """Corrections of the free emission lines of n galaxies.

    Attributes
    ----------
    shift : ndarray, shape (n, 2)
        Logarithm (dex) of the factor of lines of equivalent width `WEAK` and `STRONG`.
    scatter : ndarray, shape (n,)
        Standard deviation (dex) of the common factor of the lines of a draw.
    """

    shift: np.ndarray
    scatter: np.ndarray

    def __getitem__(self, rows: slice) -> LineFactors:
        return LineFactors(self.shift[rows], self.scatter[rows])

    def evaluate(self, width: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return the factors of draws.

        Parameters
        ----------
        width : ndarray, shape (n, k)
            Equivalent widths of Halpha and [N II] of the draws (Angstrom, rest frame).
        noise : ndarray, shape (n, k)
            Standard normal numbers.

        Returns
        -------
        ndarray, shape (n, k)
        """
        share = _share_of_strong(width)
        weak, strong = self.shift[:, :1], self.shift[:, 1:]
        return 10 ** (weak + share * (strong - weak) + self.scatter[:, None] * noise)


def _share_of_strong(width: np.ndarray) -> np.ndarray:
    """Return 0 for widths below `WEAK`, 1 above `STRONG`, and values between."""
    logs = np.log10(np.maximum(width, _NO_WIDTH))
    return np.interp(logs, np.log10([WEAK, STRONG]), [0.0, 1.0])


@dataclass(frozen=True)
class _Widths:
    """Equivalent widths of the k draws of n windows, and those observed (Angstrom, rest frame).

    The emission of the draws has shape (n, k), what else is in the window, too; ``strongest`` are
    the widths of Halpha and [N II] of the draws; ``true`` and ``error`` have shape (n,).
    """

    emission: np.ndarray
    absorption: np.ndarray
    strongest: np.ndarray
    true: np.ndarray
    error: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> _Widths:
        return _Widths(*(values[rows] for values in vars(self).values()))


def fit_line_factors(
    flux: np.ndarray,
    line_flux: Mapping[str, Any],
    redshift: np.ndarray,
    true: np.ndarray,
    noise: np.ndarray,
    wavelength: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Fit shifts and scatter to observed spectra.

    Parameters
    ----------
    flux : ndarray, shape (n, k, m)
        Draws.
    line_flux : mapping of str to Quantity, each of shape (n, k)
        Fluxes of the lines of the draws, in the unit of the spectra times Angstrom.
    redshift : ndarray, shape (n, k)
        Redshifts of the draws. Galaxies whose redshift is not known to a pixel are not used, nor
        those whose Halpha is not covered.
    true, noise : ndarray, shape (n, m)
        Observed spectra, NaN where missing, and the standard deviation of their noise.
    wavelength : ndarray, shape (m,)
        Observed wavelengths (Angstrom).

    Returns
    -------
    shift : ndarray, shape (2,)
        Shifts (dex) at `WEAK` and `STRONG`, shrunk towards 0; 0 if fewer than 100 windows have
        lines of such a strength.
    scatter : float
        Scatter (dex), shrunk towards 0; 0 from fewer than 100 windows.

    Raises
    ------
    ValueError
        If the flux of a line is missing.
    """
    missing = [name for _, names in _WINDOWS for name in names if name not in line_flux]
    if missing:
        raise ValueError(
            f"the line_flux of draws lacks {', '.join(missing)}; give these lines, or draws "
            "without any."
        )
    found = list(_all_widths(flux, line_flux, redshift, true, noise, wavelength))
    if len(found) < _MIN_WINDOWS:
        return np.zeros(2), 0.0
    widths = _Widths(*(np.array(values) for values in zip(*found, strict=True)))
    shape = (_N_SAMPLES, *widths.emission.shape)
    of_lines, of_pixels = np.random.default_rng(_SEED).normal(size=(2, *shape))

    def noisy(
        some: _Widths, shift: np.ndarray, scatter: float, sample: int, rows: np.ndarray
    ) -> np.ndarray:
        n = len(some.true)
        factors = LineFactors(np.broadcast_to(shift, (n, 2)), np.full(n, scatter))
        lines = some.emission * factors.evaluate(some.strongest, of_lines[sample, rows])
        return some.absorption + lines + some.error[:, None] * of_pixels[sample, rows]

    everything = np.ones(len(widths.true), bool)

    def score(shift: np.ndarray) -> float:
        draws = noisy(widths, shift, 0.0, 0, everything)
        return float(crps(np.arcsinh(draws), np.arcsinh(widths.true)).mean())

    fitted = minimize(
        score, np.zeros(2), method="Nelder-Mead",
        bounds=[(-2.0, 1.0)] * 2, options={"initial_simplex": [(0, 0), (-0.5, 0), (0, 0.1)]},
    )  # fmt: skip
    # Windows whose lines tell either of the shifts.
    share = _share_of_strong(widths.strongest)
    counts = np.array([(1 - share).mean(axis=1).sum(), share.mean(axis=1).sum()])
    shift = np.where(counts < _MIN_WINDOWS, 0.0, fitted.x * counts / (counts + _PSEUDO_WINDOWS))
    shown = np.median(widths.emission, axis=1) > _MIN_WIDTH
    n_shown = int(shown.sum())
    if n_shown < _MIN_WINDOWS:
        return shift, 0.0
    some = widths[shown]
    coverage = np.zeros((len(_LEVELS), len(_TRIAL_SCATTER)))
    for row, level in enumerate(_LEVELS):
        tails = [0.5 - level / 2, 0.5 + level / 2]
        for column, scatter in enumerate(_TRIAL_SCATTER):
            for sample in range(_N_SAMPLES):
                draws = noisy(some, shift, scatter, sample, shown)
                low, high = np.quantile(draws, tails, axis=1, method="weibull")
                inside = (some.true > low) & (some.true < high)
                coverage[row, column] += inside.mean() / _N_SAMPLES
    wanted = [
        np.interp(level, np.maximum.accumulate(values), _TRIAL_SCATTER)
        for level, values in zip(_LEVELS, coverage, strict=True)
    ]
    return shift, float(np.mean(wanted) * n_shown / (n_shown + _PSEUDO_WINDOWS))


def is_known(redshift: np.ndarray) -> np.ndarray:
    """Return whether draws of shape (..., k) have one redshift, to a pixel; False for NaN."""
    return np.ptp(np.log1p(redshift), axis=-1) < _MAX_RANGE


def sidebands(rest: np.ndarray, window: tuple[float, float] = _STRONGEST_WINDOW) -> np.ndarray:
    """Return the pixels beside a window, bool, of the shape of the rest wavelengths (Angstrom)."""
    low, high = window
    near, far = _SIDEBAND
    return ((rest > low - far) & (rest < low - near)) | ((rest > high + near) & (rest < high + far))


def _all_widths(
    flux: np.ndarray,
    line_flux: Mapping[str, Any],
    redshift: np.ndarray,
    true: np.ndarray,
    noise: np.ndarray,
    wavelength: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float, float]]:
    """Yield the attributes of `_Widths` of each window of each galaxy that was observed."""
    for row, draws in enumerate(flux):
        z = np.median(redshift[row])
        if not is_known(redshift[row]):
            continue
        rest = wavelength / (1 + z)
        beside = sidebands(rest)
        level = np.median(draws[:, beside], axis=1) if beside.any() else np.zeros(len(draws))
        if not (level > 0).all():
            continue
        strongest = sum(line_flux[name].value[row] for name in STRONGEST) / level / (1 + z)
        for window, names in _WINDOWS:
            found = _widths(draws, true[row], noise[row], rest, window)
            if found is None:
                continue
            widths, level, width, error = found
            emission = sum(line_flux[name].value[row] for name in names) / level / (1 + z)
            yield emission, widths - emission, strongest, width, error


def _widths(
    draws: np.ndarray,
    observed: np.ndarray,
    noise: np.ndarray,
    rest: np.ndarray,
    window: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Return equivalent widths and levels of draws, and the width observed with its error.

    None where too few pixels were observed.
    """
    low, high = window
    inside, beside = (rest > low) & (rest < high), sidebands(rest, window)
    good = np.isfinite(observed) & (noise > 0) & np.isfinite(draws).all(axis=0)
    for part in (inside, beside):
        if part.sum() < _MIN_PIXELS or good[part].mean() < _MIN_OBSERVED:
            return None
    inside, beside = inside & good, beside & good
    spectra = np.vstack([draws, observed])
    level = np.median(spectra[:, beside], axis=1)
    if not (level > 0).all():
        return None
    widths = (spectra[:, inside].mean(axis=1) / level - 1) * (high - low)
    error = np.sqrt((noise[inside] ** 2).sum()) / inside.sum() / level[-1] * (high - low)
    return widths[:-1], level[:-1], float(widths[-1]), float(error)
