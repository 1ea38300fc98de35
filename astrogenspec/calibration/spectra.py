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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from scipy.special import ndtr

from ..cards import check_array, check_layout, check_text, entries, entry
from ..wavelengths import LINES
from .features import INPUT_MODES
from .line_factors import LineFactors, fit_line_factors, is_known

if TYPE_CHECKING:
    from ..results.spectra import SpectrumDraws

__all__ = ["CASES", "SpectrumCorrection", "SpectrumRecalibration"]

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
#: Key of the card.
_ENTRY = "recalibration"


@dataclass(frozen=True)
class SpectrumCorrection:
    """Correction of the draws of spectra from one kind of input.

    Attributes
    ----------
    continuum : sequence of float
        Factors of the spread of continua at the 7 knots.
    scale_scatter : float
        Standard deviation of the natural logarithm by which these factors scatter between draws.
    line_shift : sequence of float
        Logarithms (dex) of the factors of free lines of 0.5 and 2 Angstrom of equivalent width
        (Halpha and [N II]).
    line_scatter : float
        Standard deviation (dex) of the common factor of the free lines of a draw. Networks that do
        not generate lines apart from the continuum ignore it and the shifts.
    known_redshift : bool
        Whether it corrects only spectra whose redshift was given, as those were to which it was
        fitted. The spread at an inferred redshift has other causes, and features are not aligned.

    Raises
    ------
    TypeError
        If a value is not a number.
    ValueError
        If there are not 7 positive factors, a scatter is negative, or there are not 2 finite
        shifts.
    """

    continuum: Sequence[float] = (1.0,) * len(_KNOTS)
    scale_scatter: float = 0.0
    line_shift: Sequence[float] = (0.0, 0.0)
    line_scatter: float = 0.0
    known_redshift: bool = False

    def __post_init__(self) -> None:
        for name in ("continuum", "scale_scatter", "line_shift", "line_scatter"):
            try:
                numbers = np.asarray(getattr(self, name), float).tolist()
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{name} is {getattr(self, name)!r}; numbers are expected."
                ) from error
            object.__setattr__(self, name, tuple(numbers) if isinstance(numbers, list) else numbers)
        values, shift = np.array(self.continuum), np.array(self.line_shift)
        if values.shape != (len(_KNOTS),) or not ((values > 0) & (values < np.inf)).all():
            raise ValueError(
                f"continuum is {values.tolist()}; {len(_KNOTS)} positive numbers are expected."
            )
        if shift.shape != (2,) or not np.isfinite(shift).all():
            raise ValueError(f"line_shift is {shift.tolist()}; two finite numbers are expected.")
        for name in ("scale_scatter", "line_scatter"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} is {value:g}; it must be finite and at least 0.")

    def __str__(self) -> str:
        scatter, lines, (weak, strong) = self.scale_scatter, self.line_scatter, self.line_shift
        return (
            f"{min(self.continuum):.2f} to {max(self.continuum):.2f}"
            + (f", scatter {scatter:.2f}" if scatter else "")
            + (f", scatter of lines {lines:.2f} dex" if lines else "")
            + (f", lines {weak:+.2f} to {strong:+.2f} dex" if weak or strong else "")
        )


_NOTHING = SpectrumCorrection()


class SpectrumRecalibration:
    """Scale the spread of generated spectra about their median, and correct their narrow lines.

    Learn one with `fit`; combine those of different inputs with ``|``.  It is stored in the card of
    the weights as ``card["recalibration"] = recalibration.to_dict()`` and then applied by
    `SpectrumEstimator.predict`.

    Parameters
    ----------
    corrections : mapping of (str, str) to SpectrumCorrection
        Corrections by input mode (one of `INPUT_MODES`) and case (one of `CASES`).

    Raises
    ------
    TypeError
        If a correction is not a SpectrumCorrection.
    ValueError
        If an input mode or a case is unknown.

    Examples
    --------
    >>> from astrogenspec.calibration import SpectrumCorrection, SpectrumRecalibration
    >>> wider = SpectrumCorrection(continuum=[1.1] * 7)
    >>> recalibration = SpectrumRecalibration({("photometry", "total"): wider})
    >>> recalibration
    <SpectrumRecalibration: photometry, total: 1.10 to 1.10>
    >>> recalibration.factors(["photometry", "image"], "total", [0.1, 0.1], [4000.0, 6000.0])
    array([[1.1, 1.1],
           [1. , 1. ]])
    """

    def __init__(self, corrections: Mapping[tuple[str, str], SpectrumCorrection]) -> None:
        self._corrections = dict(corrections)
        given: dict[Any, Any] = dict(self._corrections)
        for key, one in given.items():
            if not (isinstance(key, tuple) and len(key) == 2):
                raise ValueError(
                    f"corrections has the key {key!r}; an input mode and a case are expected, such "
                    "as ('photometry', 'fibre')."
                )
            _check_inputs(*key)
            if not isinstance(one, SpectrumCorrection):
                raise TypeError(
                    f"the correction of {key!r} is of type {type(one).__name__}; a "
                    "SpectrumCorrection is expected."
                )

    def __repr__(self) -> str:
        parts = [f"{mode}, {case}: {one}" for (mode, case), one in self._corrections.items()]
        return f"<{type(self).__name__}: {'; '.join(parts) or 'nothing'}>"

    def __or__(self, other: SpectrumRecalibration) -> SpectrumRecalibration:
        """Combine two; where both correct the same inputs, the second is kept."""
        if not isinstance(other, SpectrumRecalibration):
            return NotImplemented
        return SpectrumRecalibration(self._corrections | other._corrections)

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
            too, to galaxies whose redshift was given, if the draws have a ``line_flux`` that is not
            that of posterior draws.

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If there are too few galaxies or draws, shapes do not match, the draws have been
            recalibrated, their ``meta`` has no aperture, or their ``line_flux`` lacks a line of
            those that are fitted.
        astropy.units.UnitConversionError
            If the unit cannot be converted.
        """
        n, k, m = draws.flux.shape
        if draws.meta.get("calibrated"):
            raise ValueError(
                "draws have been recalibrated already; use draws predicted with calibrated=False."
            )
        case = draws.meta.get("calibration_case", draws.meta.get("aperture"))
        if case is None:
            raise ValueError(
                "draws have no 'aperture' in their meta data; use draws of SpectrumEstimator."
            )
        _check_inputs(mode, case)
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
        scales, shifts, lines = 0.0, np.zeros(2), 0.0
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
            if draws.line_flux is not None and draws.meta.get("free_lines", True):
                shifts, lines = fit_line_factors(
                    draws.flux.value,
                    draws.line_flux,
                    draws.redshift,
                    np.where(seen, true, np.nan),
                    sigma,
                    draws.wavelength.to_value(u.AA),
                )
        given = bool(is_known(draws.redshift[draws.usable]).all())
        found = SpectrumCorrection(_filled(factors).tolist(), scales, shifts.tolist(), lines, given)
        return cls({(mode, case): found})

    def applicable(
        self, modes: Sequence[str] | np.ndarray, case: str, redshift: np.ndarray
    ) -> np.ndarray:
        """Return the input modes of galaxies whose spectra are corrected.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            Input mode of each galaxy.
        case : str
            One of `CASES`.
        redshift : ndarray, shape (n, k)
            Redshifts of the draws.

        Returns
        -------
        ndarray of str, shape (n,)
            The modes; an empty string where the correction is one of known redshifts, and the
            redshifts of the draws differ.
        """
        inferred = ~is_known(redshift)
        restricted = [one.known_redshift for one in self._of(modes, case)]
        return np.where(inferred & np.array(restricted, bool), "", np.asarray(modes, str))

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
        knots = np.log(_KNOTS)
        each = self._of(modes, case)
        return np.array(
            [np.interp(x, knots, one.continuum) for x, one in zip(log_rest, each, strict=True)]
        ).reshape(log_rest.shape)

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
        each = self._of(modes, case)
        shift = np.array([one.line_shift for one in each], float).reshape(-1, 2)
        return LineFactors(shift, np.array([one.line_scatter for one in each], float))

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
        return np.array([one.scale_scatter for one in self._of(modes, case)], float)

    def _of(self, modes: Sequence[str] | np.ndarray, case: str) -> list[SpectrumCorrection]:
        if case not in CASES:
            raise ValueError(f"case is {case!r}; it must be one of {', '.join(CASES)}.")
        return [self._corrections.get((str(mode), case), _NOTHING) for mode in modes]

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
                    "values": np.round(one.continuum, 4).tolist(),
                    "scale_scatter": round(one.scale_scatter, 4),
                    "line_shift": np.round(one.line_shift, 4).tolist(),
                    "line_scatter": round(one.line_scatter, 4),
                    "known_redshift": one.known_redshift,
                }
                for (mode, case), one in self._corrections.items()
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
        found: dict[tuple[str, str], SpectrumCorrection] = {}
        for part, where in entries(values, "factors", _ENTRY):
            mode = check_text(entry(part, "mode", where), f"{where}.mode", INPUT_MODES)
            case = check_text(entry(part, "aperture", where), f"{where}.aperture", CASES)
            path = f"{where}.values"
            continuum = check_array(entry(part, "values", where), (len(_KNOTS),), path)
            # Cards of the first layout have no scatter, those of the second no shifts.
            scales, lines = (
                float(check_array(part.get(name, 0.0), (), f"{where}.{name}"))
                for name in ("scale_scatter", "line_scatter")
            )
            shift = check_array(part.get("line_shift", (0.0, 0.0)), (2,), f"{where}.line_shift")
            known = part.get("known_redshift", False)
            if not isinstance(known, bool):
                raise ValueError(
                    f"the entry {where}.known_redshift is {known!r}; true or false is expected."
                )
            found[mode, case] = SpectrumCorrection(
                continuum.tolist(), scales, shift.tolist(), lines, known
            )
        if layout < _LAYOUT:
            # Photometry in a fibre had the factors of whole galaxies.
            for (mode, case), one in list(found.items()):
                if case == "total":
                    found[mode, "fibre photometry"] = one
        return cls(found)


def _check_inputs(mode: Any, case: Any) -> None:
    if mode not in INPUT_MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(INPUT_MODES)}.")
    if case not in CASES:
        raise ValueError(f"case is {case!r}; it must be one of {', '.join(CASES)}.")


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
