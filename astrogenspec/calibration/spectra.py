r"""Recalibration of drawn spectra: widen or narrow the ranges of their pixels where ranges like theirs were found wrong.

On spectra with known truth one sees by which factor :math:`s` the distance of the draws from their median has to change so that
68% and 95% of the true fluxes lie inside the ranges that say so.  The factor depends on the kind of input, on the aperture, and
on the rest-frame wavelength, between knots linearly in its logarithm.  A draw :math:`f_k` of the continuum becomes

.. math:: \ln f'_k = \ln\tilde f + s\,(\ln f_k - \ln\tilde f)

with the median :math:`\tilde f` of the draws of the galaxy.  Features stay where they are, draws keep their order, and lines
whose flux is that of a draw of the properties keep it.  The shape of the correction is our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..wavelengths import LINES
from .features import INPUT_MODES
from .recalibration import reading

if TYPE_CHECKING:
    from ..results.spectra import SpectrumDraws

__all__ = ["SpectrumRecalibration"]

#: Rest-frame wavelengths (Angstrom) at which a factor is learnt.
_KNOTS = (3500.0, 4000.0, 4600.0, 5300.0, 6100.0, 7000.0, 8200.0)
_LEVELS = (0.68, 0.95)
#: With fewer draws no range holds 95%: the widest of k holds (k - 1) / (k + 1).
_FEWEST_DRAWS = 39
_FEWEST_GALAXIES = 50
#: As many galaxies are imagined whose ranges are right: a factor that few galaxies ask for stays near 1.
_IMAGINED = 30
#: Half of what is left out around each line (Angstrom, rest frame).
_NEAR_LINE = 15.0
_LAYOUT = 1


class SpectrumRecalibration:
    """Factors by which draws of spectra spread more or less about their median.

    Use `fit` to make one, ``|`` to join those of different inputs; it goes into the card of weights as
    ``card["recalibration"] = recalibration.to_dict()``, and `SpectrumEstimator.predict` then applies it.

    Parameters
    ----------
    factors : mapping of (str, str) to sequence of float
        By kind of input (one of `INPUT_MODES`) and aperture ("fibre" or "total"): a factor for each of 7 rest-frame wavelengths.

    Raises
    ------
    ValueError
        If a kind of input is unknown, or factors are not 7 positive numbers.

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
                raise ValueError(f"mode is {mode!r}: it must be one of {', '.join(INPUT_MODES)}.")
            if values.shape != (len(_KNOTS),) or not (values > 0).all():
                raise ValueError(
                    f"factors are {values.tolist()}: give {len(_KNOTS)} positive numbers."
                )

    def __repr__(self) -> str:
        parts = [
            f"{mode}, {aperture} {values.min():.2f} to {values.max():.2f}"
            for (mode, aperture), values in self._factors.items()
        ]
        return f"<{type(self).__name__}: {'; '.join(parts) or 'nothing'}>"

    def __or__(self, other: SpectrumRecalibration) -> SpectrumRecalibration:
        """Join two; where both correct the same inputs, the second is kept."""
        if not isinstance(other, SpectrumRecalibration):
            return NotImplemented
        return SpectrumRecalibration(self._factors | other._factors)

    @classmethod
    def fit(
        cls, draws: SpectrumDraws, truth: u.Quantity, *, mode: str = "photometry"
    ) -> SpectrumRecalibration:
        """Learn by how much ranges are too narrow or too wide.

        Parameters
        ----------
        draws : SpectrumDraws
            At least 50 galaxies with 39 draws each, not yet recalibrated.
        truth : Quantity ['spectral flux density'], shape (n_galaxies, n_pixels)
            True spectra without noise, at the wavelengths of the draws; NaN where unknown.
        mode : {"image", "photometry", "both"}
            What the draws were made from.

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If there are too few galaxies or draws, shapes do not fit, or the draws were recalibrated already.
        astropy.units.UnitConversionError
            If the unit does not fit.
        """
        n, k, m = draws.flux.shape
        if draws.meta.get("calibrated"):
            raise ValueError("draws are recalibrated already: predict with calibrated=False.")
        if np.shape(truth) != (n, m):
            raise ValueError(
                f"truth has shape {np.shape(truth)}: it must be {(n, m)}, one spectrum a galaxy."
            )
        if n < _FEWEST_GALAXIES or k < _FEWEST_DRAWS:
            raise ValueError(
                f"draws are {k} of {n} galaxies: give at least {_FEWEST_DRAWS} of {_FEWEST_GALAXIES}."
            )
        redshift = np.median(draws.redshift, axis=1)[:, None]
        rest = draws.wavelength.to_value(u.AA) / (1 + redshift)
        near = np.any([np.abs(rest - line) < _NEAR_LINE for line in LINES.values()], axis=0)
        used = draws.trusted & ~near & draws.usable[:, None]
        misses = _relative_misses(draws.flux.value, truth.to_value(draws.flux.unit), used)
        factors = [_factor(misses, weight) for weight in _hats(rest)]
        return cls({(mode, draws.meta["aperture"]): _filled(factors)})

    def factors(
        self,
        modes: Sequence[str] | np.ndarray,
        aperture: str,
        redshift: Sequence[float] | np.ndarray,
        wavelength: Sequence[float] | np.ndarray,
    ) -> np.ndarray:
        """Give the factors of galaxies.

        Parameters
        ----------
        modes : sequence of str, shape (n,)
            What each was inferred from; 1 for what was not learnt.
        aperture : str
        redshift : array_like, shape (n,)
        wavelength : array_like, shape (m,)
            Observed, Angstrom.

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
        """Give a dictionary that fits JSON, for the card of weights.

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
        """Read what `to_dict` gave.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        SpectrumRecalibration

        Raises
        ------
        ValueError
            If it is something else, or of a newer version.
        """
        with reading(values, _LAYOUT, cls.__name__):
            return cls({(e["mode"], e["aperture"]): e["values"] for e in values["factors"]})


def _relative_misses(flux: np.ndarray, true: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Distance of the truth from the median over that of the end of each range, shape (2, n, m); NaN where not used."""
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


def _hats(rest: np.ndarray) -> list[np.ndarray]:
    """Weights of pixels for each knot: 1 there, 0 at its neighbours, and 1 beyond the outer ones."""
    return [
        np.interp(np.log(rest), np.log(_KNOTS), np.eye(len(_KNOTS))[knot])
        for knot in range(len(_KNOTS))
    ]


def _factor(misses: np.ndarray, weight: np.ndarray) -> float:
    """Factor that gives ranges what they promise: geometric mean of those of both levels, drawn towards 1; NaN without data."""
    seen = np.isfinite(misses[0]) & (weight > 0)
    n_galaxies = int(seen.any(axis=1).sum())
    if n_galaxies < _FEWEST_GALAXIES:
        return np.nan
    # Every galaxy counts alike, however many pixels it has near the knot.
    share = np.where(seen, weight, 0)
    share = (share / share.sum(1, keepdims=True).clip(1e-9))[seen]
    wanted = [
        np.quantile(values[seen], level, weights=share, method="inverted_cdf")
        for level, values in zip(_LEVELS, misses, strict=True)
    ]
    return float(np.exp(np.log(wanted).mean() * n_galaxies / (n_galaxies + _IMAGINED)))


def _filled(factors: Sequence[float]) -> np.ndarray:
    """Give knots without data the factor of the nearest one."""
    values, log_knots = np.asarray(factors), np.log(_KNOTS)
    known = np.isfinite(values)
    if not known.any():
        raise ValueError(
            f"truth has too few true fluxes to learn from: {_FEWEST_GALAXIES} galaxies are needed at some wavelength."
        )
    return np.interp(log_knots, log_knots[known], values[known])
