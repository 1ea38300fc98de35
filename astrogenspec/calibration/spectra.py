r"""Recalibration of generated spectra: spread of the continua about their median, and of lines.

From spectra with known truth, or observed spectra with known noise, one estimates the factor
:math:`s` by which the distance of the draws from their median has to change so that the central 68%
and 95% ranges contain 68% and 95% of the true fluxes.  It depends on input mode, aperture and
rest-frame wavelength (piecewise linear in its logarithm).  A draw :math:`f_k` of the continuum
becomes

.. math:: \ln f'_k = \ln\tilde f + s\,(\ln f_k - \ln\tilde f)

with :math:`\tilde f` the median over the draws of the galaxy.  The order of the draws, the
positions of spectral features, and the fluxes of lines that are tied to a draw of the properties
are preserved.

From observed spectra one also estimates two scatters.  The first gives the distribution wider tails
where the factor that is right for 68% is too small for 95%: :math:`s` is multiplied by
:math:`\exp(\tau\epsilon)` with :math:`\epsilon \sim N(0, 1)`, one number for each draw (a scale
mixture of the draws).  The second, of emission lines, is what the network does not know: all lines
of a draw that are not tied are multiplied by :math:`10^{\sigma\epsilon}`, such that the ranges of
their equivalent widths contain 68% and 95% of those observed.  The form of the corrections is our
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from scipy.special import ndtr

from ..cards import check_array, check_layout, check_text, entries, entry
from ..wavelengths import LINES
from .features import INPUT_MODES

if TYPE_CHECKING:
    from ..results.spectra import SpectrumDraws

__all__ = ["SpectrumRecalibration"]

#: Rest-frame wavelengths of the knots (Angstrom).
_KNOTS = (3500.0, 4000.0, 4600.0, 5300.0, 6100.0, 7000.0, 8200.0)
_LEVELS = (0.68, 0.95)
#: Minimum number of draws: the range of k draws contains the truth with probability (k - 1) / (k +
#: 1), which must reach 95%.
_MIN_DRAWS = 39
_MIN_GALAXIES = 50
#: Number of pseudo-galaxies with a factor of 1, which shrink factors from few galaxies towards 1.
_PSEUDO_GALAXIES = 30
#: Half-width of the region excluded around each line (Angstrom, rest frame).
_NEAR_LINE = 15.0
#: Rest-frame windows (Angstrom) of lines where stars hardly absorb: [O III], Halpha with [N II] and
#: [S II]; and distances of the sidebands from their edges.
_WINDOWS = ((5001.0, 5014.0), (6540.0, 6595.0), (6710.0, 6742.0))
_SIDEBAND = (14.0, 40.0)
#: Minimum number of pixels in a window, and fraction of them that were observed.
_MIN_PIXELS, _MIN_OBSERVED = 3, 0.9
#: Minimum equivalent width (Angstrom) of the median draw of lines whose ranges are used.
_MIN_WIDTH = 1.0
#: Scatter (dex) of lines whose coverage is evaluated.
_TRIAL_SCATTER = np.linspace(0.0, 0.6, 13)
#: Nodes and weights of the integral over the scatter, a normal distribution.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
#: Factors whose coverage is evaluated for observed spectra with noise, and spacing of the pixels.
_TRIAL_FACTORS = np.geomspace(0.2, 8.0, 24)
_EVERY = 5
#: Scatter of the factors of draws whose coverage is evaluated.
_TRIAL_SCALES = np.linspace(0.0, 0.8, 9)
_LAYOUT = 2
_SCATTERS = ("line_scatter", "scale_scatter")
#: Key of the card.
_ENTRY = "recalibration"


class SpectrumRecalibration:
    """Scale the spread of generated spectra about their median, and scatter their lines.

    Learn one with `fit`; combine those of different inputs with ``|``.  It is stored in the card of
    the weights as ``card["recalibration"] = recalibration.to_dict()`` and then applied by
    `SpectrumEstimator.predict`.

    Parameters
    ----------
    factors : mapping of (str, str) to sequence of float
        Factors at the 7 knots, by input mode (one of `INPUT_MODES`) and aperture ("fibre" or
        "total").
    line_scatter : mapping of (str, str) to float, optional
        Standard deviation (dex) of the common factor of the free lines of a draw, by input mode and
        aperture; 0 where missing. Networks that do not generate lines apart from the continuum
        ignore it.
    scale_scatter : mapping of (str, str) to float, optional
        Standard deviation of the natural logarithm by which the factors of draws scatter, by input
        mode and aperture; 0 where missing.

    Raises
    ------
    ValueError
        If an input mode is unknown, factors are not 7 positive numbers, or a scatter is negative.

    Examples
    --------
    >>> from astrogenspec.calibration import SpectrumRecalibration
    >>> recalibration = SpectrumRecalibration({("photometry", "total"): [1.1] * 7})
    >>> recalibration
    <SpectrumRecalibration: photometry, total 1.10 to 1.10>
    >>> recalibration.factors(["photometry", "image"], "total", [0.1, 0.1], [4000.0, 6000.0])
    array([[1.1, 1.1],
           [1. , 1. ]])
    """

    def __init__(
        self,
        factors: Mapping[tuple[str, str], Sequence[float] | np.ndarray],
        line_scatter: Mapping[tuple[str, str], float] | None = None,
        scale_scatter: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        self._factors = {key: np.asarray(values, float) for key, values in factors.items()}
        self._line_scatter = _checked("line_scatter", line_scatter or {}, self._factors)
        self._scale_scatter = _checked("scale_scatter", scale_scatter or {}, self._factors)
        for (mode, _), values in self._factors.items():
            if mode not in INPUT_MODES:
                raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(INPUT_MODES)}.")
            if values.shape != (len(_KNOTS),) or not (values > 0).all():
                raise ValueError(
                    f"factors are {values.tolist()}; {len(_KNOTS)} positive numbers are expected."
                )

    def __repr__(self) -> str:
        parts = [
            f"{mode}, {aperture} {values.min():.2f} to {values.max():.2f}"
            + (f", scatter {scales:.2f}" if scales else "")
            + (f", lines {lines:.2f} dex" if lines else "")
            for (mode, aperture), values in self._factors.items()
            for lines in [self._line_scatter.get((mode, aperture), 0.0)]
            for scales in [self._scale_scatter.get((mode, aperture), 0.0)]
        ]
        return f"<{type(self).__name__}: {'; '.join(parts) or 'nothing'}>"

    def __or__(self, other: SpectrumRecalibration) -> SpectrumRecalibration:
        """Combine two; where both correct the same inputs, the second is kept."""
        if not isinstance(other, SpectrumRecalibration):
            return NotImplemented
        lines, scales = (
            {key: value for key, value in one.items() if key not in other._factors} | two
            for one, two in (
                (self._line_scatter, other._line_scatter),
                (self._scale_scatter, other._scale_scatter),
            )
        )
        return SpectrumRecalibration(self._factors | other._factors, lines, scales)

    @classmethod
    def fit(
        cls,
        draws: SpectrumDraws,
        truth: u.Quantity,
        *,
        mode: str = "photometry",
        noise: u.Quantity | None = None,
    ) -> SpectrumRecalibration:
        """Learn the factors, and from observed spectra both scatters.

        Parameters
        ----------
        draws : SpectrumDraws
            At least 39 draws of at least 50 galaxies, without recalibration.
        truth : Quantity ['spectral flux density'], shape (n_galaxies, n_pixels)
            True spectra without noise, or observed spectra with ``noise``, at the wavelengths of
            the draws; NaN where unknown.
        mode : {"image", "photometry", "both"}
            Input mode of the draws.
        noise : Quantity ['spectral flux density'], shape (n_galaxies, n_pixels), optional
            Standard deviation of the noise of observed spectra, in each pixel. The factors are then
            those with which the ranges of draws plus noise contain 68% of the observed fluxes, and
            their scatter that with which they contain 95%; the scatter of lines is fitted, too.

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If there are too few galaxies or draws, shapes do not match, or the draws have been
            recalibrated.
        astropy.units.UnitConversionError
            If the unit cannot be converted.
        """
        n, k, m = draws.flux.shape
        if draws.meta.get("calibrated"):
            raise ValueError(
                "draws have been recalibrated already; use draws predicted with calibrated=False."
            )
        if np.shape(truth) != (n, m):
            raise ValueError(
                f"truth has shape {np.shape(truth)}; {(n, m)}, one spectrum per galaxy, is "
                "expected."
            )
        if n < _MIN_GALAXIES or k < _MIN_DRAWS:
            raise ValueError(
                f"draws has {k} draws of {n} galaxies; at least {_MIN_DRAWS} draws of "
                f"{_MIN_GALAXIES} galaxies are needed."
            )
        redshift = np.median(draws.redshift, axis=1)[:, None]
        rest = draws.wavelength.to_value(u.AA) / (1 + redshift)
        near = np.any([np.abs(rest - line) < _NEAR_LINE for line in LINES.values()], axis=0)
        seen = draws.trusted & draws.usable[:, None]
        used = seen & ~near
        lines = scales = 0.0
        true = truth.to_value(draws.flux.unit)
        if noise is None:
            distances = _relative_distances(draws.flux.value, true, used)
            factors = [_factor(distances, weight) for weight in _hats(rest)]
        else:
            if np.shape(noise) != (n, m):
                raise ValueError(
                    f"noise has shape {np.shape(noise)}; {(n, m)}, the shape of truth, is expected."
                )
            sigma = noise.to_value(draws.flux.unit)
            below = _below_of_factors(draws.flux.value, true, sigma, used)
            factors, scales = _factors_with_noise(below, rest)
            lines = _scatter_of_lines(draws.flux.value, np.where(seen, true, np.nan), sigma, rest)
        key = mode, draws.meta["aperture"]
        return cls({key: _filled(factors)}, {key: lines}, {key: scales})

    def factors(
        self,
        modes: Sequence[str] | np.ndarray,
        aperture: str,
        redshift: Sequence[float] | np.ndarray,
        wavelength: Sequence[float] | np.ndarray,
    ) -> np.ndarray:
        """Evaluate the factors of galaxies.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; the factor is 1 for modes without factors.
        aperture : str
        redshift : array_like, shape (n,)
        wavelength : array_like, shape (m,)
            Observed wavelength, Angstrom.

        Returns
        -------
        ndarray, shape (n, m)
        """
        log_rest = np.log(
            np.divide.outer(1 / (1 + np.asarray(redshift)), 1 / np.asarray(wavelength))
        )
        result = np.ones_like(log_rest)
        for row, mode in enumerate(modes):
            values = self._factors.get((str(mode), aperture))
            if values is not None:
                result[row] = np.interp(log_rest[row], np.log(_KNOTS), values)
        return result

    def line_scatter(self, modes: Sequence[str] | np.ndarray, aperture: str) -> np.ndarray:
        """Return the scatter of the free lines of galaxies (dex).

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; the scatter is 0 for modes without one.
        aperture : str

        Returns
        -------
        ndarray, shape (n,)
        """
        return np.array([self._line_scatter.get((str(mode), aperture), 0.0) for mode in modes])

    def scale_scatter(self, modes: Sequence[str] | np.ndarray, aperture: str) -> np.ndarray:
        """Return the scatter of the logarithm of the factors of draws.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; the scatter is 0 for modes without one.
        aperture : str

        Returns
        -------
        ndarray, shape (n,)
        """
        return np.array([self._scale_scatter.get((str(mode), aperture), 0.0) for mode in modes])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary for the card of weights.

        Returns
        -------
        dict
        """
        return {
            "layout": _LAYOUT,
            "wavelength": list(_KNOTS),
            "factors": [
                {
                    "mode": mode,
                    "aperture": aperture,
                    "values": values.round(4).tolist(),
                    "line_scatter": round(self._line_scatter.get((mode, aperture), 0.0), 4),
                    "scale_scatter": round(self._scale_scatter.get((mode, aperture), 0.0), 4),
                }
                for (mode, aperture), values in self._factors.items()
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpectrumRecalibration:
        """Read the output of `to_dict`.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If an entry is missing or invalid, or was written by a newer version.
        """
        check_layout(values, _LAYOUT, _ENTRY)
        factors: dict[tuple[str, str], np.ndarray] = {}
        scatter: dict[str, dict[tuple[str, str], float]] = {name: {} for name in _SCATTERS}
        for part, where in entries(values, "factors", _ENTRY):
            mode = check_text(entry(part, "mode", where), f"{where}.mode", INPUT_MODES)
            aperture = check_text(entry(part, "aperture", where), f"{where}.aperture")
            path = f"{where}.values"
            factors[mode, aperture] = check_array(
                entry(part, "values", where), (len(_KNOTS),), path
            )
            # Cards of the first layout have no scatter.
            for name, found in scatter.items():
                value = check_array(part.get(name, 0.0), (), f"{where}.{name}")
                found[mode, aperture] = float(value)
        return cls(factors, **scatter)


def _checked(
    name: str, values: Mapping[tuple[str, str], float], factors: Mapping[tuple[str, str], Any]
) -> dict[tuple[str, str], float]:
    """Return scatters as numbers.

    Raises
    ------
    ValueError
        If one is negative or not finite, or belongs to other inputs than the factors.
    """
    for key, value in values.items():
        if key not in factors:
            raise ValueError(
                f"{name} has the key {key!r}, which factors lacks; give factors of 1 where "
                "continua are right."
            )
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value:g} for {key!r}; it must be finite and at least 0.")
    return {key: float(value) for key, value in values.items()}


def _relative_distances(flux: np.ndarray, true: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return distances of the truth from the median, in half-widths of the ranges.

    The shape is (2, n, m), with NaN where a pixel is not used.
    """
    result = np.full((len(_LEVELS), *true.shape), np.nan)
    for row, draws in enumerate(flux):
        here = used[row] & (draws > 0).all(0) & (true[row] > 0)
        logs, distance = np.log(draws[:, here]), np.log(true[row, here])
        middle = np.median(logs, axis=0)
        distance = distance - middle
        for level, values in zip(_LEVELS, result, strict=True):
            tails = [0.5 - level / 2, 0.5 + level / 2]
            low, high = np.quantile(logs, tails, axis=0, method="weibull") - middle
            values[row, here] = np.abs(distance) / np.where(distance > 0, high, -low)
    return result


def _below_of_factors(
    flux: np.ndarray, true: np.ndarray, noise: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Return the probabilities of fluxes below the observed ones, of scaled draws plus noise.

    The distribution of an observed flux is the mean of the normal distributions about the draws,
    in logarithm. The shape is (number of `_TRIAL_FACTORS`, n, m), with NaN where a pixel is not
    used.
    """
    result = np.full((len(_TRIAL_FACTORS), *true.shape), np.nan, np.float32)
    for row, draws in enumerate(flux):
        here = used[row] & (draws > 0).all(0) & np.isfinite(true[row]) & (noise[row] > 0)
        here &= np.arange(len(here)) % _EVERY == 0
        logs = np.log(draws[:, here])
        middle = np.median(logs, axis=0)
        sigma = noise[row, here] / np.exp(middle)
        distance = true[row, here] / np.exp(middle) - 1
        for values, factor in zip(result, _TRIAL_FACTORS, strict=True):
            values[row, here] = ndtr((distance - factor * (logs - middle)) / sigma).mean(axis=0)
    return result


def _factors_with_noise(below: np.ndarray, rest: np.ndarray) -> tuple[list[float], float]:
    """Return factors that contain 68%, NaN without data, and their scatter that contains 95%.

    Both are shrunk, towards 1 and 0.
    """
    logs, hats = np.log(_TRIAL_FACTORS), _hats(rest)
    position = np.arange(len(logs))
    seen = np.isfinite(below[0])
    n_galaxies = int(seen.any(axis=1).sum())
    shrink = n_galaxies / (n_galaxies + _PSEUDO_GALAXIES)
    found, outer = [], []
    for scatter in _TRIAL_SCALES:
        # The distribution for scattered factors is an average over neighbouring ones.
        distance = (logs[:, None] - logs) / max(scatter, 1e-9)
        kernel = np.exp(-0.5 * distance**2)
        mixed = np.tensordot(kernel / kernel.sum(1, keepdims=True), below, axes=1)
        factors = [_factor_with_noise(mixed, weight) for weight in hats]
        if not np.isfinite(factors).any():
            return factors, 0.0
        at = np.interp(np.log(rest[seen]), np.log(_KNOTS), np.log(_filled(factors)))
        at = np.interp(at, logs, position)
        lower = np.minimum(at.astype(int), len(logs) - 2)
        pairs = mixed[:, seen]
        each = np.arange(len(at))
        value = pairs[lower, each] + (at - lower) * (pairs[lower + 1, each] - pairs[lower, each])
        found.append(np.log(factors))
        outer.append(np.mean(np.abs(value - 0.5) < _LEVELS[1] / 2))
    scatter = float(np.interp(_LEVELS[1], np.maximum.accumulate(outer), _TRIAL_SCALES))
    chosen = [np.interp(scatter * shrink, _TRIAL_SCALES, values) for values in np.transpose(found)]
    return list(np.exp(chosen)), scatter * shrink


def _factor_with_noise(below: np.ndarray, weight: np.ndarray) -> float:
    """Return the factor with which 68% are inside, shrunk towards 1; NaN without data."""
    seen = np.isfinite(below[0]) & (weight > 0)
    n_galaxies = int(seen.any(axis=1).sum())
    if n_galaxies < _MIN_GALAXIES:
        return np.nan
    weights = np.where(seen, weight, 0)
    weights = (weights / weights.sum(1, keepdims=True).clip(1e-9))[seen]
    inside = np.abs(below[:, seen] - 0.5) < _LEVELS[0] / 2
    increasing = np.maximum.accumulate([np.average(one, weights=weights) for one in inside])
    wanted = np.interp(_LEVELS[0], increasing, np.log(_TRIAL_FACTORS))
    return float(np.exp(wanted * n_galaxies / (n_galaxies + _PSEUDO_GALAXIES)))


def _scatter_of_lines(
    flux: np.ndarray, true: np.ndarray, noise: np.ndarray, rest: np.ndarray
) -> float:
    """Return the scatter of lines (dex) with the right coverage, shrunk towards 0.

    ``flux`` has the draws, ``true`` and ``noise`` the observed spectra at the rest wavelengths
    ``rest``. Stellar absorption in the windows is neglected.
    """
    inside = []
    for draws, observed, sigma, at in zip(flux, true, noise, rest, strict=True):
        for window in _WINDOWS:
            found = _widths(draws, observed, sigma, at, window)
            if found is None:
                continue
            widths, width, error = found
            if np.median(widths) < _MIN_WIDTH:
                continue
            # Of shape (number of trials, number of nodes, k).
            factor = 10 ** (_TRIAL_SCATTER[:, None, None] * _NODES[:, None])
            scattered = np.minimum(widths, 0) + np.maximum(widths, 0) * factor
            below = ndtr((width - scattered) / error).mean(axis=2) @ _WEIGHTS / _WEIGHTS.sum()
            inside.append([np.abs(below - 0.5) < level / 2 for level in _LEVELS])
    if len(inside) < _MIN_GALAXIES:
        return 0.0
    coverage = np.maximum.accumulate(np.mean(inside, axis=0), axis=1)
    wanted = [
        np.interp(level, values, _TRIAL_SCATTER)
        for level, values in zip(_LEVELS, coverage, strict=True)
    ]
    return float(np.mean(wanted) * len(inside) / (len(inside) + _PSEUDO_GALAXIES))


def _widths(
    draws: np.ndarray,
    observed: np.ndarray,
    noise: np.ndarray,
    rest: np.ndarray,
    window: tuple[float, float],
) -> tuple[np.ndarray, float, float] | None:
    """Return equivalent widths of draws and of the observed spectrum, and its error (Angstrom).

    None where too few pixels were observed.
    """
    low, high = window
    near, far = _SIDEBAND
    inside = (rest > low) & (rest < high)
    beside = ((rest > low - far) & (rest < low - near)) | (
        (rest > high + near) & (rest < high + far)
    )
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
    return widths[:-1], float(widths[-1]), float(error)


def _hats(rest: np.ndarray) -> list[np.ndarray]:
    """Return weights of pixels for each knot: 1 at the knot and beyond the ends, 0 at others."""
    return [
        np.interp(np.log(rest), np.log(_KNOTS), np.eye(len(_KNOTS))[knot])
        for knot in range(len(_KNOTS))
    ]


def _factor(distances: np.ndarray, weight: np.ndarray) -> float:
    """Return the factor that corrects the coverage, shrunk towards 1; NaN without data.

    It is the geometric mean of the factors of both levels.
    """
    seen = np.isfinite(distances[0]) & (weight > 0)
    n_galaxies = int(seen.any(axis=1).sum())
    if n_galaxies < _MIN_GALAXIES:
        return np.nan
    # Every galaxy has the same total weight, however many pixels it has near the knot.
    weights = np.where(seen, weight, 0)
    weights = (weights / weights.sum(1, keepdims=True).clip(1e-9))[seen]
    wanted = [
        np.quantile(values[seen], level, weights=weights, method="inverted_cdf")
        for level, values in zip(_LEVELS, distances, strict=True)
    ]
    return float(np.exp(np.log(wanted).mean() * n_galaxies / (n_galaxies + _PSEUDO_GALAXIES)))


def _filled(factors: Sequence[float]) -> np.ndarray:
    """Interpolate factors at knots without data."""
    values, log_knots = np.asarray(factors), np.log(_KNOTS)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError(
            f"truth has too few true fluxes; {_MIN_GALAXIES} galaxies are needed at one "
            "wavelength at least."
        )
    return np.interp(log_knots, log_knots[known], values[known])
