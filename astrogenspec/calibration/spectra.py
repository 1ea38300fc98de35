r"""Recalibration of generated spectra: spread of the continua about their median, and of lines.

From spectra with known truth, or observed spectra with known noise, one estimates the factor
:math:`s` by which the distance of the draws from their median has to change so that the central 68%
and 95% ranges contain 68% and 95% of the true fluxes.  It depends on input mode, case (`CASES`) and
rest-frame wavelength (piecewise linear in its logarithm).  A draw :math:`f_k` of the continuum
becomes

.. math:: \ln f'_k = \ln\tilde f + s\,(\ln f_k - \ln\tilde f)

with :math:`\tilde f` the median over the draws of the galaxy.  The order of the draws, the
positions of spectral features, and the fluxes of lines that are tied to a draw of the properties
are preserved.

From observed spectra one also estimates a scatter of the factors, which gives the distribution
wider tails where the factor that is right for 68% is too small for 95%: :math:`s` is multiplied by
:math:`\exp(\tau\epsilon)` with :math:`\epsilon \sim N(0, 1)`, one number for each draw (a scale
mixture of the draws); and factors of the emission lines (`astrogenspec.calibration.line_factors`).
The form of the corrections is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeVar

import astropy.units as u
import numpy as np
from scipy.special import ndtr

from ..cards import check_array, check_layout, check_text, entries, entry
from ..wavelengths import LINES
from .features import INPUT_MODES
from .line_factors import LineFactors, fit_line_factors

if TYPE_CHECKING:
    from ..results.spectra import SpectrumDraws

__all__ = ["CASES", "SpectrumRecalibration"]

#: What spectra show: the whole galaxy; the light in a fibre, predicted from total fluxes or images;
#: and the same from photometry in the fibre, whose scale is that of the photometry.
CASES = ("total", "fibre", "fibre photometry")

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
#: Factors whose coverage is evaluated for observed spectra with noise, and spacing of the pixels.
_TRIAL_FACTORS = np.geomspace(0.2, 8.0, 24)
_EVERY = 5
#: Scatter of the factors of draws whose coverage is evaluated.
_TRIAL_SCALES = np.linspace(0.0, 0.8, 9)
_LAYOUT = 3
_SCATTERS = ("line_scatter", "scale_scatter")
_NO_SHIFT = np.zeros(2)
_Value = TypeVar("_Value")
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
        Factors at the 7 knots, by input mode (one of `INPUT_MODES`) and case (one of `CASES`).
    line_scatter : mapping of (str, str) to float, optional
        Standard deviation (dex) of the common factor of the free lines of a draw, by input mode and
        case; 0 where missing. Networks that do not generate lines apart from the continuum
        ignore it.
    scale_scatter : mapping of (str, str) to float, optional
        Standard deviation of the natural logarithm by which the factors of draws scatter, by input
        mode and case; 0 where missing.
    line_shift : mapping of (str, str) to sequence of float, optional
        Logarithms (dex) of the factors of free lines of 0.5 and 2 Angstrom of equivalent width
        (Halpha and [N II]), by input mode and case; 0 where missing.

    Raises
    ------
    ValueError
        If an input mode is unknown, factors are not 7 positive numbers, a scatter is negative, or
        shifts are not 2 finite numbers.

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
        line_shift: Mapping[tuple[str, str], Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        self._factors = {key: np.asarray(values, float) for key, values in factors.items()}
        self._line_scatter = _checked("line_scatter", line_scatter or {}, self._factors)
        self._scale_scatter = _checked("scale_scatter", scale_scatter or {}, self._factors)
        self._line_shift = _checked_shifts(line_shift or {}, self._factors)
        for (mode, case), values in self._factors.items():
            if mode not in INPUT_MODES:
                raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(INPUT_MODES)}.")
            if case not in CASES:
                raise ValueError(f"case is {case!r}; it must be one of {', '.join(CASES)}.")
            if values.shape != (len(_KNOTS),) or not (values > 0).all():
                raise ValueError(
                    f"factors are {values.tolist()}; {len(_KNOTS)} positive numbers are expected."
                )

    def __repr__(self) -> str:
        parts = [
            f"{mode}, {case} {values.min():.2f} to {values.max():.2f}"
            + (f", scatter {scales:.2f}" if scales else "")
            + (f", lines {lines:.2f} dex" if lines else "")
            + (f", weak lines {shift[0]:+.2f} dex" if shift[0] else "")
            for (mode, case), values in self._factors.items()
            for shift in [self._line_shift.get((mode, case), _NO_SHIFT)]
            for lines in [self._line_scatter.get((mode, case), 0.0)]
            for scales in [self._scale_scatter.get((mode, case), 0.0)]
        ]
        return f"<{type(self).__name__}: {'; '.join(parts) or 'nothing'}>"

    def __or__(self, other: SpectrumRecalibration) -> SpectrumRecalibration:
        """Combine two; where both correct the same inputs, the second is kept."""
        if not isinstance(other, SpectrumRecalibration):
            return NotImplemented
        kept = self._factors.keys() - other._factors.keys()
        return SpectrumRecalibration(
            self._factors | other._factors,
            _of_keys(self._line_scatter, kept) | other._line_scatter,
            _of_keys(self._scale_scatter, kept) | other._scale_scatter,
            _of_keys(self._line_shift, kept) | other._line_shift,
        )

    @classmethod
    def fit(
        cls,
        draws: SpectrumDraws,
        truth: u.Quantity,
        *,
        mode: str = "photometry",
        noise: u.Quantity | None = None,
    ) -> SpectrumRecalibration:
        """Learn the factors, and from observed spectra their scatter and the factors of lines.

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
            their scatter that with which they contain 95%. Shifts and scatter of lines are fitted,
            too, if the draws have a ``line_flux``.

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If there are too few galaxies or draws, shapes do not match, the draws have been
            recalibrated, or their ``line_flux`` lacks a line of those that are fitted.
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
        lines, scales, shifts = 0.0, 0.0, _NO_SHIFT
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
            if draws.line_flux is not None:
                shifts, lines = fit_line_factors(
                    draws.flux.value,
                    draws.line_flux,
                    draws.redshift,
                    np.where(seen, true, np.nan),
                    sigma,
                    draws.wavelength.to_value(u.AA),
                )
        key = mode, draws.meta.get("calibration_case", draws.meta["aperture"])
        return cls({key: _filled(factors)}, {key: lines}, {key: scales}, {key: shifts})

    def factors(
        self,
        modes: Sequence[str] | np.ndarray,
        case: str,
        redshift: Sequence[float] | np.ndarray,
        wavelength: Sequence[float] | np.ndarray,
    ) -> np.ndarray:
        """Evaluate the factors of galaxies.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; the factor is 1 for modes without factors.
        case : str
            One of `CASES`.
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
            values = self._factors.get((str(mode), case))
            if values is not None:
                result[row] = np.interp(log_rest[row], np.log(_KNOTS), values)
        return result

    def line_factors(self, modes: Sequence[str] | np.ndarray, case: str) -> LineFactors:
        """Return the factors of the free lines of galaxies.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; lines do not change for modes without factors.
        case : str
            One of `CASES`.

        Returns
        -------
        LineFactors
        """
        keys = [(str(mode), case) for mode in modes]
        shift = [self._line_shift.get(key, _NO_SHIFT) for key in keys]
        scatter = [self._line_scatter.get(key, 0.0) for key in keys]
        return LineFactors(np.array(shift).reshape(-1, 2), np.array(scatter))

    def scale_scatter(self, modes: Sequence[str] | np.ndarray, case: str) -> np.ndarray:
        """Return the scatter of the logarithm of the factors of draws.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy; the scatter is 0 for modes without one.
        case : str
            One of `CASES`.

        Returns
        -------
        ndarray, shape (n,)
        """
        return np.array([self._scale_scatter.get((str(mode), case), 0.0) for mode in modes])

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
                    "aperture": case,
                    "values": values.round(4).tolist(),
                    "line_scatter": round(self._line_scatter.get((mode, case), 0.0), 4),
                    "line_shift": self._line_shift.get((mode, case), _NO_SHIFT).round(4).tolist(),
                    "scale_scatter": round(self._scale_scatter.get((mode, case), 0.0), 4),
                }
                for (mode, case), values in self._factors.items()
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
        layout = check_layout(values, _LAYOUT, _ENTRY)
        factors: dict[tuple[str, str], np.ndarray] = {}
        scatter: dict[str, dict[tuple[str, str], float]] = {name: {} for name in _SCATTERS}
        shifts: dict[tuple[str, str], np.ndarray] = {}
        for part, where in entries(values, "factors", _ENTRY):
            mode = check_text(entry(part, "mode", where), f"{where}.mode", INPUT_MODES)
            case = check_text(entry(part, "aperture", where), f"{where}.aperture", CASES)
            path = f"{where}.values"
            factors[mode, case] = check_array(entry(part, "values", where), (len(_KNOTS),), path)
            # Cards of the first layout have no scatter, those of the second no shifts.
            for name, found in scatter.items():
                value = check_array(part.get(name, 0.0), (), f"{where}.{name}")
                found[mode, case] = float(value)
            shift = part.get("line_shift", _NO_SHIFT)
            shifts[mode, case] = check_array(shift, (2,), f"{where}.line_shift")
        if layout < _LAYOUT:
            # Photometry in a fibre had the factors of whole galaxies, and no corrections of lines.
            for mode, case in list(factors):
                if case == "total":
                    factors[mode, "fibre photometry"] = factors[mode, case]
                    scales = scatter["scale_scatter"]
                    scales[mode, "fibre photometry"] = scales[mode, case]
        return cls(factors, **scatter, line_shift=shifts)


def _of_keys(
    values: dict[tuple[str, str], _Value], keys: Set[tuple[str, str]]
) -> dict[tuple[str, str], _Value]:
    return {key: value for key, value in values.items() if key in keys}


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
        _check_key(name, key, factors)
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} is {value:g} for {key!r}; it must be finite and at least 0.")
    return {key: float(value) for key, value in values.items()}


def _checked_shifts(
    shifts: Mapping[tuple[str, str], Any], factors: Mapping[tuple[str, str], Any]
) -> dict[tuple[str, str], np.ndarray]:
    """Return shifts as arrays.

    Raises
    ------
    ValueError
        If some are not two finite numbers, or belong to other inputs than the factors.
    """
    found = {key: np.asarray(values, float) for key, values in shifts.items()}
    for key, values in found.items():
        _check_key("line_shift", key, factors)
        if values.shape != (2,) or not np.isfinite(values).all():
            raise ValueError(
                f"line_shift is {values.tolist()} for {key!r}; two finite numbers are expected."
            )
    return found


def _check_key(name: str, key: tuple[str, str], factors: Mapping[tuple[str, str], Any]) -> None:
    if key not in factors:
        raise ValueError(
            f"{name} has the key {key!r}, which factors lacks; give factors of 1 where "
            "continua are right."
        )


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
