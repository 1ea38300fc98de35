r"""Recalibration of generated spectra: scale the spread of the draws about their median.

From spectra with known truth, or observed spectra with known noise, one estimates the factor
:math:`s` by which the distance of the draws from their median has to change so that the central 68%
and 95% ranges contain 68% and 95% of the true fluxes.  It depends on input mode, aperture and
rest-frame wavelength (piecewise linear in its logarithm).  A draw :math:`f_k` of the continuum
becomes

.. math:: \ln f'_k = \ln\tilde f + s\,(\ln f_k - \ln\tilde f)

with :math:`\tilde f` the median over the draws of the galaxy.  The order of the draws, the
positions of spectral features, and the fluxes of lines that are tied to a draw of the properties
are preserved.  The form of the correction is our own.
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
#: Factors whose coverage is evaluated for observed spectra with noise, and spacing of the pixels.
_TRIAL_FACTORS = np.geomspace(0.2, 8.0, 24)
_EVERY = 5
_LAYOUT = 1
#: Key of the card.
_ENTRY = "recalibration"


class SpectrumRecalibration:
    """Scale the spread of generated spectra about their median.

    Learn one with `fit`; combine those of different inputs with ``|``.  It is stored in the card of
    the weights as ``card["recalibration"] = recalibration.to_dict()`` and then applied by
    `SpectrumEstimator.predict`.

    Parameters
    ----------
    factors : mapping of (str, str) to sequence of float
        Factors at the 7 knots, by input mode (one of `INPUT_MODES`) and aperture ("fibre" or
        "total").

    Raises
    ------
    ValueError
        If an input mode is unknown, or factors are not 7 positive numbers.

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

    def __init__(self, factors: Mapping[tuple[str, str], Sequence[float] | np.ndarray]) -> None:
        self._factors = {key: np.asarray(values, float) for key, values in factors.items()}
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
            for (mode, aperture), values in self._factors.items()
        ]
        return f"<{type(self).__name__}: {'; '.join(parts) or 'nothing'}>"

    def __or__(self, other: SpectrumRecalibration) -> SpectrumRecalibration:
        """Combine two; where both correct the same inputs, the second is kept."""
        if not isinstance(other, SpectrumRecalibration):
            return NotImplemented
        return SpectrumRecalibration(self._factors | other._factors)

    @classmethod
    def fit(
        cls,
        draws: SpectrumDraws,
        truth: u.Quantity,
        *,
        mode: str = "photometry",
        noise: u.Quantity | None = None,
    ) -> SpectrumRecalibration:
        """Learn the factors from true or observed spectra.

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
            those with which draws plus noise contain 68% and 95% of the observed fluxes.

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
        used = draws.trusted & ~near & draws.usable[:, None]
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
            inside = _coverage_of_factors(draws.flux.value, true, sigma, used)
            factors = [_factor_with_noise(inside, weight) for weight in _hats(rest)]
        return cls({(mode, draws.meta["aperture"]): _filled(factors)})

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
                {"mode": mode, "aperture": aperture, "values": values.round(4).tolist()}
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
        factors = {}
        for part, where in entries(values, "factors", _ENTRY):
            mode = check_text(entry(part, "mode", where), f"{where}.mode", INPUT_MODES)
            aperture = check_text(entry(part, "aperture", where), f"{where}.aperture")
            path = f"{where}.values"
            factors[mode, aperture] = check_array(
                entry(part, "values", where), (len(_KNOTS),), path
            )
        return cls(factors)


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


def _coverage_of_factors(
    flux: np.ndarray, true: np.ndarray, noise: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Return whether observed fluxes are inside the ranges of scaled draws plus noise.

    The distribution of an observed flux is the mean of the normal distributions about the draws,
    in logarithm. The shape is (2, number of `_TRIAL_FACTORS`, n, m), with NaN where a pixel is not
    used.
    """
    result = np.full((len(_LEVELS), len(_TRIAL_FACTORS), *true.shape), np.nan, np.float32)
    for row, draws in enumerate(flux):
        here = used[row] & (draws > 0).all(0) & np.isfinite(true[row]) & (noise[row] > 0)
        here &= np.arange(len(here)) % _EVERY == 0
        logs = np.log(draws[:, here])
        middle = np.median(logs, axis=0)
        sigma = noise[row, here] / np.exp(middle)
        distance = true[row, here] / np.exp(middle) - 1
        for k, factor in enumerate(_TRIAL_FACTORS):
            below = ndtr((distance - factor * (logs - middle)) / sigma).mean(axis=0)
            for values, level in zip(result, _LEVELS, strict=True):
                values[k, row, here] = np.abs(below - 0.5) < level / 2
    return result


def _factor_with_noise(inside: np.ndarray, weight: np.ndarray) -> float:
    """Return the factor with the right coverage, shrunk towards 1; NaN without data."""
    seen = np.isfinite(inside[0, 0]) & (weight > 0)
    n_galaxies = int(seen.any(axis=1).sum())
    if n_galaxies < _MIN_GALAXIES:
        return np.nan
    weights = np.where(seen, weight, 0)
    weights = (weights / weights.sum(1, keepdims=True).clip(1e-9))[seen]
    wanted = []
    for level, values in zip(_LEVELS, inside, strict=True):
        coverage = np.array([np.average(one[seen], weights=weights) for one in values])
        increasing = np.maximum.accumulate(coverage)
        wanted.append(np.interp(level, increasing, np.log(_TRIAL_FACTORS)))
    return float(np.exp(np.mean(wanted) * n_galaxies / (n_galaxies + _PSEUDO_GALAXIES)))


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
