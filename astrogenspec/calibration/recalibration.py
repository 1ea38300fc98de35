r"""Local recalibration: correct draws where posteriors of similar galaxies are miscalibrated.

For a calibrated posterior the PIT of the true value is uniform.  `Recalibration` learns from a
labelled sample how the distribution of the PIT depends on the galaxy (posterior median and width, r
magnitude, colours, number of bands), separately for each quantity and input mode, with the
regression of `astrogenspec.calibration.regression`.  If the PIT of the truth is distributed as
:math:`\Phi(m + s\,H(g))` with :math:`g` standard normal, the corrected quantile function is

.. math:: Q'(q) = Q\left[\Phi\left(m + s\,H(\Phi^{-1}(q))\right)\right] ,

and the draw of rank :math:`q` moves from :math:`Q(q)` to :math:`Q'(q)`.  Ranks within a galaxy are
preserved, and with them the correlations of the quantities.

Assumptions: the labelled galaxies are representative of those to be corrected, and the dependence
on the features is smooth. Only galaxies with a set of bands that is in the sample are corrected.  A
quantity without a significant cross-validated gain is left unchanged.

Local recalibration by the PIT was proposed by Dey et al. 2022 (arXiv:2205.14568); the form of the
correction used here is our own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..cards import check_layout, check_range, check_text, entries, entry
from ..quantities import QUANTITIES, QuantityInfo
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .diagnostics import values_in_dex
from .features import (
    INPUT_MODES,
    N_FEATURES,
    band_sets,
    check_modes,
    correction_features,
    magnitudes_of,
)
from .quantile_maps import map_draws, probit_pit, rank_deviates
from .regression import ProbitRegression, fit_probit_regression
from .truth import read_truth

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = [
    "MIN_GALAXIES",
    "MIN_GALAXIES_PER_BAND_SET",
    "Correction",
    "Recalibration",
    "TooFewGalaxiesError",
    "cross_fitted",
    "fit_if_enough",
    "has_common_bands",
]

#: Minimum number of labelled galaxies from which a correction is learnt.
MIN_GALAXIES = 100
#: Minimum number of labelled galaxies with a set of bands for the set to be corrected.
MIN_GALAXIES_PER_BAND_SET = 30
_LAYOUT = 2
#: Key of the card.
_ENTRY = "recalibration"
#: Maximum number of draws corrected at once.
_MAX_DRAWS_AT_ONCE = 2_000_000

Fitted = TypeVar("Fitted")


class TooFewGalaxiesError(ValueError):
    """A sample has too few true values to learn a recalibration from."""


class _Outcome(Enum):
    """Possible outcomes of learning a correction."""

    CORRECTED = auto()
    NO_GAIN = auto()
    TOO_FEW = auto()


@dataclass(frozen=True)
class _FitResult:
    """Result of learning the correction of one quantity in one input mode.

    Attributes
    ----------
    outcome : _Outcome
        Whether there is a correction.
    n_galaxies : int
        Number of galaxies with draws and a true value.
    n_used : int
        Number of these with a common set of bands.
    gain : float
        Cross-validated gain in log likelihood, nats per galaxy; NaN if there are too few galaxies.
    """

    outcome: _Outcome
    n_galaxies: int
    n_used: int
    gain: float = np.nan

    def note(self, mode: str, name: str) -> str:
        """Describe the result."""
        if self.outcome is _Outcome.CORRECTED:
            return (
                f"corrected from {self.n_used} galaxies; held-out gain {self.gain:.3f} nats per "
                "galaxy"
            )
        if self.outcome is _Outcome.NO_GAIN:
            return f"not corrected: no gain in cross-validation with {self.n_used} galaxies"
        have = "galaxy has" if self.n_galaxies == 1 else "galaxies have"
        common = ""
        if self.n_used < self.n_galaxies:
            common = (
                f", {self.n_used} of them a set of bands that at least {MIN_GALAXIES_PER_BAND_SET} "
                "share"
            )
        return (
            f"{name} from {mode}: {self.n_galaxies} {have} draws and a true value{common}; "
            f"{MIN_GALAXIES} are needed. It is not corrected."
        )


@dataclass(frozen=True)
class Correction:
    """Correction of the draws of one quantity in one input mode.

    Attributes
    ----------
    regression : ProbitRegression
        Regression on the features of `~astrogenspec.calibration.features.correction_features`.
    bands : tuple of str
        Sets of bands in the labelled sample, such as ``"ugriz"``; ``""`` stands for no photometry.
        Galaxies with other sets are not corrected, because the dependence on colours does not hold
        where some are missing.
    bounds : tuple of float, optional
        Bounds of the quantity in the internal unit, if they are not those of `QUANTITIES`.
    """

    regression: ProbitRegression
    bands: tuple[str, ...]
    bounds: tuple[float, float] | None = None

    @classmethod
    def fit(
        cls, values: np.ndarray, deviates: np.ndarray, magnitudes: np.ndarray, *, seed: int = 0
    ) -> tuple[Correction | None, float]:
        """Learn a correction.

        Parameters
        ----------
        values : ndarray, shape (n, k)
            Draws in the internal unit.
        deviates : ndarray, shape (n,)
            Probit of the PIT, finite.
        magnitudes : ndarray, shape (n, 5)
            Magnitudes of the same galaxies; NaN where missing.
        seed : int
            Seed of the cross-validation folds.

        Returns
        -------
        correction : Correction or None
            None if cross-validation shows no significant gain.
        gain : float
            Cross-validated gain in log likelihood, nats per galaxy.
        """
        features = correction_features(values, magnitudes)
        regression, gain = fit_probit_regression(features, deviates, seed=seed)
        if regression is None:
            return None, gain
        return cls(regression, tuple(np.unique(band_sets(magnitudes)).tolist())), gain

    def covers(self, magnitudes: np.ndarray) -> np.ndarray:
        """Test which galaxies have one of the sets of bands.

        Parameters
        ----------
        magnitudes : ndarray, shape (n, 5)

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        return np.isin(band_sets(magnitudes), self.bands)

    def apply(self, values: np.ndarray, magnitudes: np.ndarray, info: QuantityInfo) -> np.ndarray:
        """Correct draws.

        Parameters
        ----------
        values : ndarray, shape (n, k)
            Draws in the internal unit, of galaxies that the correction covers.
        magnitudes : ndarray, shape (n, 5)
        info : QuantityInfo
            Has the bounds of the quantity, which are kept, unless the correction has its own.

        Returns
        -------
        ndarray, shape (n, k)
        """
        shift, scale = self.regression.moments(correction_features(values, magnitudes))
        deviates = self.regression.quantiles(rank_deviates(values.shape[1]))
        new = shift[:, None] + scale[:, None] * deviates
        return map_draws(values, new, *self.limits(info))

    def limits(self, info: QuantityInfo) -> tuple[float, float]:
        """Return the bounds of the quantity of the correction."""
        return self.bounds or (info.lower, info.upper)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        own = {} if self.bounds is None else {"bounds": list(self.bounds)}
        return {"bands": list(self.bands), "regression": self.regression.to_dict(), **own}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "correction") -> Correction:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        path = f"{where}.regression"
        regression = ProbitRegression.from_dict(entry(values, "regression", where), path)
        if len(regression.basis.centres) != N_FEATURES:
            raise ValueError(
                f"the entry {path}.basis has {len(regression.basis.centres)} features, but "
                f"{N_FEATURES} are expected."
            )
        bands = tuple(check_text(name, path) for name, path in entries(values, "bands", where))
        bounds = None
        if "bounds" in values:
            bounds = check_range(values["bounds"], f"{where}.bounds")
        return cls(regression, bands, bounds)


class Recalibration:
    """Correct posterior draws as a function of the galaxy.

    Learn one with `fit`; combine those of different input modes with ``|``.  It is stored in the
    card of the weights as ``card["recalibration"] = recalibration.to_dict()`` and then applied by
    `PropertyEstimator.predict`.

    Parameters
    ----------
    corrections : mapping of (str, str) to Correction
        Corrections by input mode and quantity.
    notes : mapping of (str, str) to str, optional
        Outcome of the fit by input mode and quantity: the gain, or why there is no correction.

    Examples
    --------
    Posteriors that are too narrow by a factor of two become calibrated:

    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import Posterior
    >>> from astrogenspec.calibration import Recalibration, central_coverage
    >>> rng = np.random.default_rng(1)
    >>> centre = rng.uniform(0.05, 0.2, (600, 1))
    >>> posterior = Posterior({"redshift": rng.normal(centre, 0.005, (600, 300)) * u.one})
    >>> truth = {"redshift": rng.normal(centre[:, 0], 0.01)}
    >>> recalibration = Recalibration.fit(posterior, truth)
    >>> before = central_coverage(posterior["redshift"], truth["redshift"], [0.68])
    >>> better = recalibration.apply(posterior)
    >>> after = central_coverage(better["redshift"], truth["redshift"], [0.68])
    >>> print(before.round(1), after.round(1))
    [0.4] [0.7]
    """

    def __init__(
        self,
        corrections: Mapping[tuple[str, str], Correction],
        notes: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._corrections = dict(corrections)
        self._notes = dict(notes or {})

    def __repr__(self) -> str:
        listed = ", ".join(f"{name} ({mode})" for mode, name in self._corrections)
        return f"<Recalibration of {listed or 'nothing'}>"

    def __or__(self, other: Recalibration) -> Recalibration:
        """Combine two; where both correct the same quantity and input mode, the second is kept."""
        if not isinstance(other, Recalibration):
            return NotImplemented
        return Recalibration(self._corrections | other._corrections, self._notes | other._notes)

    @property
    def corrected(self) -> tuple[tuple[str, str], ...]:
        """Pairs of input mode and quantity that are corrected."""
        return tuple(self._corrections)

    @property
    def notes(self) -> dict[tuple[str, str], str]:
        """Outcome of the fit for each pair of input mode and quantity, in words."""
        return dict(self._notes)

    @classmethod
    def fit(
        cls,
        posterior: Posterior,
        truth: Mapping[str, u.Quantity] | Table,
        *,
        mode: str | Sequence[str] | np.ndarray = "photometry",
        seed: int = 0,
    ) -> Recalibration:
        """Learn corrections from galaxies with known true values.

        Parameters
        ----------
        posterior : Posterior
            Draws without recalibration, of galaxies that were not used to train the network. Its
            photometry, if any, gives magnitudes and colours. Galaxies with a set of bands that
            fewer than 30 galaxies have, or with draws outside the bounds of the quantity, are
            ignored, and not corrected by `apply`. The bounds are those of the weights, which
            `predict` stores in ``meta["bounds"]`` if they differ from those of `QUANTITIES`.
        truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
            True values, read as by `calibration_table`. Names other than those of drawn quantities
            are ignored.
        mode : {"image", "photometry", "both"}, or a sequence of these, one per galaxy
            Input mode of each galaxy.
        seed : int
            Seed of the cross-validation folds.

        Returns
        -------
        Recalibration

        Raises
        ------
        TooFewGalaxiesError
            If no quantity has 100 true values; a subclass of ValueError.
        ValueError
            If shapes do not match, or a mode is unknown.
        astropy.units.UnitConversionError
            If a unit cannot be converted.

        Warns
        -----
        AstroGenSpecWarning
            If a quantity has fewer than 100 true values; it is not corrected.
        """
        modes = check_modes(mode, len(posterior))
        magnitudes = magnitudes_of(posterior)
        known = read_truth(posterior, truth, drawn_only=True).values
        corrections, results = {}, {}
        for name in (name for name in known if name in QUANTITIES):
            draws, deviates = _draws_and_deviates(posterior, name, known[name])
            for one_mode in dict.fromkeys(modes.tolist()):
                rows = np.flatnonzero(np.isfinite(deviates) & (modes == one_mode))
                used = rows[has_common_bands(magnitudes[rows])]
                outcome, gain = _Outcome.TOO_FEW, np.nan
                if len(used) >= MIN_GALAXIES:
                    correction, gain = Correction.fit(
                        draws[used], deviates[used], magnitudes[used], seed=seed
                    )
                    outcome = _Outcome.NO_GAIN
                    if correction is not None:
                        outcome = _Outcome.CORRECTED
                        own = posterior.meta.get("bounds", {}).get(name)
                        correction = replace(correction, bounds=own and tuple(own))
                        corrections[one_mode, name] = correction
                results[one_mode, name] = _FitResult(outcome, len(rows), len(used), gain)
        notes = {key: result.note(*key) for key, result in results.items()}
        too_few = [key for key, result in results.items() if result.outcome is _Outcome.TOO_FEW]
        words = " ".join(notes[key] for key in too_few)
        if len(too_few) == len(results):
            raise TooFewGalaxiesError(
                "truth has too few true values to learn a correction: "
                + (words or "it has no quantity of the posterior.")
            )
        if too_few:
            warnings.warn(words, AstroGenSpecWarning, stacklevel=2)
        return cls(corrections, notes)

    def apply(
        self, posterior: Posterior, *, mode: str | Sequence[str] | np.ndarray = "photometry"
    ) -> Posterior:
        """Correct the draws of a posterior.

        Parameters
        ----------
        posterior : Posterior
            Draws without recalibration.
        mode : {"image", "photometry", "both"}, or a sequence of these, one per galaxy
            Input mode of each galaxy.

        Returns
        -------
        Posterior
            A new one; ``meta["calibrated"]`` is True.

        Raises
        ------
        ValueError
            If a mode is unknown, or the posterior has been recalibrated.
        """
        if posterior.meta.get("calibrated"):
            raise ValueError(
                "posterior has been recalibrated already; use draws predicted with "
                "calibrated=False."
            )
        modes = check_modes(mode, len(posterior))
        magnitudes = magnitudes_of(posterior)
        draws = dict(posterior.draws)
        for name in (name for name in draws if name in QUANTITIES):
            info = QUANTITIES[name]
            values = np.asarray(draws[name].value)
            with np.errstate(divide="ignore", invalid="ignore"):
                internal = np.log10(values) if info.logarithmic else values.copy()
            if self._correct(name, internal, magnitudes, modes):
                corrected = 10**internal if info.logarithmic else internal
                draws[name] = u.Quantity(corrected, info.unit, subok=True)
        return type(posterior)(
            draws,
            names=posterior.names,
            flags=posterior.flags,
            flag_codes=posterior.flag_codes,
            measurable=posterior.measurable,
            photometry=posterior.photometry,
            meta=dict(posterior.meta) | {"calibrated": True},
            named=posterior.named,
        )

    def correct_theta(
        self, theta: np.ndarray, magnitudes: np.ndarray, modes: np.ndarray
    ) -> np.ndarray:
        """Correct draws in internal units.

        Parameters
        ----------
        theta : ndarray, shape (n, k, 9)
            Draws. Galaxies with NaN draws or draws outside the bounds, and quantities whose draws
            are all equal, are not corrected.
        magnitudes : ndarray, shape (n, 5)
            AB magnitudes in u, g, r, i, z, corrected for Galactic extinction; NaN where missing.
        modes : ndarray of str, shape (n,)
            Input mode of each galaxy; galaxies with other values than `INPUT_MODES` are not
            corrected.

        Returns
        -------
        ndarray, shape (n, k, 9)
            A new array.
        """
        theta = theta.copy()
        corrected = {name for _, name in self._corrections}
        for k, name in enumerate(QUANTITIES):
            if name in corrected:
                column = theta[:, :, k].copy()
                if self._correct(name, column, magnitudes, modes):
                    theta[:, :, k] = column
        return theta

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary for the card of weights.

        Returns
        -------
        dict
        """
        return {
            "layout": _LAYOUT,
            "corrections": [
                {"mode": mode, "quantity": name} | correction.to_dict()
                for (mode, name), correction in self._corrections.items()
            ],
            "notes": [
                {"mode": mode, "quantity": name, "note": note}
                for (mode, name), note in self._notes.items()
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recalibration:
        """Read the output of `to_dict`.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        Recalibration

        Raises
        ------
        ValueError
            If an entry is missing or invalid, or was written by a newer version.
        """
        check_layout(values, _LAYOUT, _ENTRY)
        corrections = {
            _key_of(part, where): Correction.from_dict(part, where)
            for part, where in entries(values, "corrections", _ENTRY)
        }
        notes = {
            _key_of(part, where): check_text(entry(part, "note", where), f"{where}.note")
            for part, where in entries(values, "notes", _ENTRY)
        }
        return cls(corrections, notes)

    def _correct(
        self, name: str, values: np.ndarray, magnitudes: np.ndarray, modes: np.ndarray
    ) -> bool:
        """Correct one quantity in place, in its internal unit; return whether any draw changed."""
        changed = False
        for mode in INPUT_MODES:
            correction = self._corrections.get((mode, name))
            if correction is None:
                continue
            lower, upper = correction.limits(QUANTITIES[name])
            highest, lowest = (
                values.max(axis=1, initial=-np.inf),
                values.min(axis=1, initial=np.inf),
            )
            finite = np.isfinite(values).all(axis=1) & (lowest > lower) & (highest < upper)
            varied = highest > lowest
            covered = (modes == mode) & correction.covers(magnitudes)
            rows = np.flatnonzero(covered & finite & varied)
            n_rows = max(_MAX_DRAWS_AT_ONCE // values.shape[1], 1)
            for part in (rows[k : k + n_rows] for k in range(0, len(rows), n_rows)):
                values[part] = correction.apply(values[part], magnitudes[part], QUANTITIES[name])
                changed = True
        return changed


def cross_fitted(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    mode: str | Sequence[str] | np.ndarray = "photometry",
    n_folds: int = 5,
    seed: int = 0,
) -> Posterior:
    """Recalibrate each galaxy with corrections learnt from the other folds (cross-fitting).

    Parameters
    ----------
    posterior, truth, mode
        As for `Recalibration.fit`.
    n_folds : int
        Number of folds.
    seed : int
        Seed of the folds.

    Returns
    -------
    Posterior
        In the order of ``posterior``.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or too few true values.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}; it must be at least 2.")
    modes = check_modes(mode, len(posterior))
    folds = np.random.default_rng(seed).permutation(len(posterior)) % n_folds
    values = read_truth(posterior, truth, drawn_only=True).values
    parts = []
    for fold in range(n_folds):
        out = folds == fold
        known = {name: true[~out] for name, true in values.items()}
        fitted = Recalibration.fit(posterior[~out], known, mode=modes[~out], seed=seed)
        parts.append(fitted.apply(posterior[out], mode=modes[out]))
    back = np.argsort(np.concatenate([np.flatnonzero(folds == fold) for fold in range(n_folds)]))
    return type(posterior).concatenate(parts)[back]


def fit_if_enough(
    fit: Callable[..., Fitted],
    posterior: Posterior,
    truth: Mapping[str, u.Quantity],
    **options: Any,
) -> Fitted | None:
    """Learn a recalibration if the sample is large enough, without warnings about its size.

    Parameters
    ----------
    fit : callable
        `Recalibration.fit <astrogenspec.calibration.Recalibration.fit>` or
        `~astrogenspec.calibration.cross_fitted`.
    posterior, truth, **options
        Arguments of ``fit``.

    Returns
    -------
    Recalibration, Posterior or None
        None if there are too few galaxies.
    """
    with filtered_warnings("ignore", AstroGenSpecWarning):
        try:
            return fit(posterior, truth, **options)
        except TooFewGalaxiesError:
            return None


def has_common_bands(magnitudes: np.ndarray) -> np.ndarray:
    """Test which galaxies have a set of bands that enough galaxies share.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        NaN where missing.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    _, index, counts = np.unique(band_sets(magnitudes), return_inverse=True, return_counts=True)
    return counts[index] >= MIN_GALAXIES_PER_BAND_SET


def _key_of(values: Any, where: str) -> tuple[str, str]:
    """Return input mode and quantity of a correction in a card."""
    return (
        check_text(entry(values, "mode", where), f"{where}.mode", INPUT_MODES),
        check_text(entry(values, "quantity", where), f"{where}.quantity"),
    )


def _draws_and_deviates(
    posterior: Posterior, name: str, truth: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws (n, k) and probits of the PIT (n,).

    The probit is NaN where draws or truth are missing, or draws are all equal or out of bounds.
    """
    draws, true, _ = values_in_dex(posterior[name], truth)
    usable = np.isfinite(true) & np.isfinite(draws).all(axis=1)
    lowest, highest = draws.min(axis=1), draws.max(axis=1)
    info = QUANTITIES[name]
    lower, upper = posterior.meta.get("bounds", {}).get(name, (info.lower, info.upper))
    usable &= (highest > lowest) & (lowest > lower) & (highest < upper)
    deviates = np.full(len(true), np.nan)
    deviates[usable] = probit_pit(draws[usable], true[usable], lower, upper)
    return draws, deviates
