r"""Local recalibration: correct the draws of galaxies where posteriors like theirs were found wrong.

A sample with known truth says, by the PIT, how wrong a posterior is; `Recalibration` learns how that depends on the
galaxy (predicted value and its uncertainty, r magnitude, colours, number of bands) by
`astrogenspec.calibration.regression`, for each quantity and each kind of input apart, and only for the sets of bands
that were in the sample: what was learnt from five bands says nothing of three.  If the truth has the PIT
:math:`p` with :math:`\Phi^{-1}(p) = m + s\,H(g)` and :math:`g` standard normal, the corrected quantile function is

.. math:: Q'(q) = Q\left[\Phi\left(m + s\,H(\Phi^{-1}(q))\right)\right] ,

and the draw of rank :math:`q` moves from :math:`Q(q)` to :math:`Q'(q)`.  The ranks within a galaxy stay, and with them
the dependence of the quantities on one another.  A quantity for which held-out galaxies show no gain stays as it is.

The idea of recalibrating by the PIT, locally, is that of Dey et al. 2022 (arXiv:2205.14568); the shape of the correction
here is our own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..quantities import QUANTITIES, QuantityInfo
from ..warnings import AstroGenSpecWarning
from .diagnostics import TooFewGalaxiesError, values_in_dex
from .features import INPUT_MODES, band_sets, check_modes, correction_features, magnitudes_of
from .quantile_maps import map_draws, probit_pit, rank_deviates
from .regression import ProbitRegression, fit_probit_regression

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = [
    "MIN_GALAXIES",
    "MIN_GALAXIES_PER_BAND_SET",
    "Correction",
    "Recalibration",
    "cross_fitted",
    "has_common_bands",
    "reading",
]


@contextmanager
def reading(values: Mapping[str, Any], newest: int, name: str) -> Iterator[None]:
    """Check the layout, and say in one sentence what is missing or of another type inside of the block.

    Parameters
    ----------
    values : mapping
        What ``to_dict`` of the class gave, with its ``layout``.
    newest : int
        The newest layout that is known.
    name : str
        Of the class.

    Raises
    ------
    ValueError
        If the layout is newer, or something is missing or garbled.
    """
    try:
        if values["layout"] > newest:
            raise ValueError(
                f"the recalibration has layout {values['layout']} and this version knows {newest}; "
                "update astrogenspec."
            )
        yield
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the recalibration lacks or garbles {error}; use what {name}.to_dict gave."
        ) from error


#: Fewest galaxies that share a set of bands, for it to be corrected.
MIN_GALAXIES_PER_BAND_SET = 30


@dataclass(frozen=True)
class Correction:
    """How to move the draws of a quantity.

    Attributes
    ----------
    regression : ProbitRegression
        On the features of `~astrogenspec.calibration.features.correction_features`.
    bands : tuple of str
        Sets of bands it was learnt from, such as ``"ugriz"``; ``""`` stands for no photometry. What it says of colours
        does not hold where some of them are missing, so galaxies of other sets stay as they are.
    """

    regression: ProbitRegression
    bands: tuple[str, ...]

    @classmethod
    def fit(
        cls, values: np.ndarray, deviates: np.ndarray, magnitudes: np.ndarray, *, seed: int = 0
    ) -> tuple[Correction | None, float]:
        """Learn it, if that helps.

        Parameters
        ----------
        values : ndarray, shape (n, k)
            Draws in the internal unit.
        deviates : ndarray, shape (n,)
            Probit of the PIT, finite.
        magnitudes : ndarray, shape (n, 5)
            Of the same galaxies; NaN where missing.
        seed : int
            Of the folds.

        Returns
        -------
        correction : Correction or None
            None if galaxies that were held out say that there is nothing to correct.
        gain : float
            Gain in log likelihood, nats a galaxy, of galaxies held out.
        """
        features = correction_features(values, magnitudes)
        regression, gain = fit_probit_regression(features, deviates, seed=seed)
        if regression is None:
            return None, gain
        return cls(regression, tuple(np.unique(band_sets(magnitudes)).tolist())), gain

    def concerns(self, magnitudes: np.ndarray) -> np.ndarray:
        """Say which galaxies it is for, as booleans of shape (n,), from their magnitudes of shape (n, 5)."""
        return np.isin(band_sets(magnitudes), self.bands)

    def moved(self, values: np.ndarray, magnitudes: np.ndarray, info: QuantityInfo) -> np.ndarray:
        """Move draws, shape (n, k), of galaxies that it is for; ``info`` gives the bounds that are kept."""
        shift, scale = self.regression.moments(correction_features(values, magnitudes))
        deviates = self.regression.quantiles(rank_deviates(values.shape[1]))
        new = shift[:, None] + scale[:, None] * deviates
        return map_draws(values, new, info.lower, info.upper)

    def to_dict(self) -> dict[str, Any]:
        """Give a dictionary that fits JSON."""
        return {"bands": list(self.bands), "regression": self.regression.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read what `to_dict` gave."""
        return cls(ProbitRegression.from_dict(values["regression"]), tuple(values["bands"]))


def has_common_bands(magnitudes: np.ndarray) -> np.ndarray:
    """Say which galaxies have a set of bands that enough others have.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        NaN where missing.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    _, member, counts = np.unique(band_sets(magnitudes), return_inverse=True, return_counts=True)
    return counts[member] >= MIN_GALAXIES_PER_BAND_SET


#: Fewest galaxies with a true value from which a correction is learnt.
MIN_GALAXIES = 100
_LAYOUT = 2
_BLOCK = 2_000_000


class Recalibration:
    """Correct draws as a function of what is known of a galaxy.

    Use `fit` to make one, `|` to join those of different inputs; it goes into the card of weights as
    ``card["recalibration"] = recalibration.to_dict()``, and `PropertyEstimator.predict` then applies it.

    Parameters
    ----------
    corrections : mapping of (str, str) to Correction
        By kind of input and quantity.
    notes : mapping of (str, str) to str, optional
        What is to be said of each: the gain, or why there is no correction.

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
    >>> after = central_coverage(recalibration.apply(posterior)["redshift"], truth["redshift"], [0.68])
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
        """Join two; where both correct the same quantity of the same input, the second is kept."""
        if not isinstance(other, Recalibration):
            return NotImplemented
        return Recalibration(self._corrections | other._corrections, self._notes | other._notes)

    @property
    def corrected(self) -> tuple[tuple[str, str], ...]:
        """Pairs of kind of input and quantity that are corrected."""
        return tuple(self._corrections)

    @property
    def notes(self) -> dict[tuple[str, str], str]:
        """What came of the fit, a sentence for each pair of kind of input and quantity."""
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
        """Learn how wrong posteriors are.

        Parameters
        ----------
        posterior : Posterior
            Draws of galaxies which the network was not fitted to (or, of each, by a network that did not see it), not yet
            recalibrated. Its photometry gives magnitudes and colours, if it has any. A set of bands that fewer than 30
            galaxies have is passed over, and `apply` leaves such galaxies as they are.
        truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
            True values; NaN or masked where unknown. Names other than those of drawn quantities are passed over.
        mode : {"image", "photometry", "both"}, or a sequence of these, one a galaxy
            What the posterior of a galaxy was inferred from.
        seed : int
            Of the folds.

        Returns
        -------
        Recalibration

        Raises
        ------
        TooFewGalaxiesError
            If no quantity is known of as many as 100 galaxies; it is a ValueError.
        ValueError
            If shapes do not fit, or a mode is unknown.
        astropy.units.UnitConversionError
            If a unit does not fit.

        Warns
        -----
        AstroGenSpecWarning
            If a quantity is known of fewer than 100 galaxies; it is left as it is.
        """
        modes = check_modes(mode, len(posterior))
        magnitudes = magnitudes_of(posterior)
        available = truth.colnames if isinstance(truth, Table) else list(truth)
        corrections, notes, enough = {}, {}, False
        for name in (name for name in available if name in posterior.draws and name in QUANTITIES):
            draws, true, _ = values_in_dex(posterior[name], truth[name])
            usable = np.isfinite(true) & np.isfinite(draws).all(axis=1)
            usable &= draws.max(axis=1) > draws.min(axis=1)
            info = QUANTITIES[name]
            deviates = np.full(len(true), np.nan)
            deviates[usable] = probit_pit(draws[usable], true[usable], info.lower, info.upper)
            for kind in dict.fromkeys(modes.tolist()):
                rows = np.flatnonzero(usable & (modes == kind))
                n, rows = len(rows), rows[has_common_bands(magnitudes[rows])]
                if len(rows) < MIN_GALAXIES:
                    notes[kind, name] = _too_few(name, kind, n, len(rows))
                    continue
                enough = True
                fitted, gain = Correction.fit(
                    draws[rows], deviates[rows], magnitudes[rows], seed=seed
                )
                notes[kind, name] = _outcome(len(rows), fitted, gain)
                if fitted is not None:
                    corrections[kind, name] = fitted
        short = [notes[key] for key in notes if "are needed" in notes[key]]
        if not enough:
            raise TooFewGalaxiesError(
                "truth has too few true values to learn a correction from: "
                + (" ".join(short) or "it names no quantity that the posterior has.")
            )
        if short:
            warnings.warn(" ".join(short), AstroGenSpecWarning, stacklevel=2)
        return cls(corrections, notes)

    def apply(
        self, posterior: Posterior, *, mode: str | Sequence[str] | np.ndarray = "photometry"
    ) -> Posterior:
        """Correct the draws of a posterior.

        Parameters
        ----------
        posterior : Posterior
            Not yet recalibrated.
        mode : {"image", "photometry", "both"}, or a sequence of these, one a galaxy
            What the posterior of a galaxy was inferred from.

        Returns
        -------
        Posterior
            A new one; ``meta["calibrated"]`` is True.

        Raises
        ------
        ValueError
            If a mode is unknown, or the posterior has been recalibrated already.
        """
        if posterior.meta.get("calibrated"):
            raise ValueError(
                "posterior is recalibrated already; predict with calibrated=False to do it yourself."
            )
        modes = check_modes(mode, len(posterior))
        magnitudes = magnitudes_of(posterior)
        draws = dict(posterior.draws)
        for name in (name for name in draws if name in QUANTITIES):
            info = QUANTITIES[name]
            values = np.asarray(draws[name].value)
            with np.errstate(divide="ignore", invalid="ignore"):
                inner = np.log10(values) if info.logarithmic else values.copy()
            if self._correct(name, inner, magnitudes, modes):
                moved = 10**inner if info.logarithmic else inner
                draws[name] = u.Quantity(moved, info.unit, subok=True)
        return type(posterior)(
            draws,
            names=posterior.names,
            flags=posterior.flags,
            measurable=posterior.measurable,
            photometry=posterior.photometry,
            meta=dict(posterior.meta) | {"calibrated": True},
        )

    def correct_theta(
        self, theta: np.ndarray, magnitudes: np.ndarray, modes: np.ndarray
    ) -> np.ndarray:
        """Correct the internal vectors of the network.

        Parameters
        ----------
        theta : ndarray, shape (n, k, 9)
            Draws; galaxies whose draws are not finite, or of a quantity all the same, stay as they are.
        magnitudes : ndarray, shape (n, 5)
            AB magnitudes in u, g, r, i, z without Galactic extinction; NaN where missing.
        modes : ndarray of str, shape (n,)
            What each galaxy was inferred from; others than `INPUT_MODES` are not corrected.

        Returns
        -------
        ndarray, shape (n, k, 9)
            A new array.
        """
        theta = theta.copy()
        known = {name for _, name in self._corrections}
        for k, name in ((k, name) for k, name in enumerate(QUANTITIES) if name in known):
            column = theta[:, :, k].copy()
            if self._correct(name, column, magnitudes, modes):
                theta[:, :, k] = column
        return theta

    def to_dict(self) -> dict[str, Any]:
        """Give a dictionary that fits JSON, for the card of weights.

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
        """Read what `to_dict` gave.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        Recalibration

        Raises
        ------
        ValueError
            If it is something else, or of a newer version.
        """
        with reading(values, _LAYOUT, cls.__name__):
            corrections = {
                (entry["mode"], entry["quantity"]): Correction.from_dict(entry)
                for entry in values["corrections"]
            }
            notes = {(entry["mode"], entry["quantity"]): entry["note"] for entry in values["notes"]}
        return cls(corrections, notes)

    def _correct(
        self, name: str, values: np.ndarray, magnitudes: np.ndarray, modes: np.ndarray
    ) -> bool:
        """Correct one quantity in place, in its internal unit; say whether anything was done."""
        done = False
        for kind in INPUT_MODES:
            correction = self._corrections.get((kind, name))
            if correction is None:
                continue
            finite = np.isfinite(values).all(axis=1)
            varied = values.max(axis=1, initial=-np.inf) > values.min(axis=1, initial=np.inf)
            meant = (modes == kind) & correction.concerns(magnitudes)
            rows = np.flatnonzero(meant & finite & varied)
            n_rows = max(_BLOCK // values.shape[1], 1)
            for part in (rows[k : k + n_rows] for k in range(0, len(rows), n_rows)):
                values[part] = correction.moved(values[part], magnitudes[part], QUANTITIES[name])
                done = True
        return done


def cross_fitted(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    mode: str | Sequence[str] | np.ndarray = "photometry",
    n_folds: int = 5,
    seed: int = 0,
) -> Posterior:
    """Recalibrate each galaxy by what the others say, for an honest test of recalibration.

    Parameters
    ----------
    posterior, truth, mode
        As for `Recalibration.fit`.
    n_folds : int
        Number of parts; each is corrected by a fit to the others.
    seed : int
        Of all folds.

    Returns
    -------
    Posterior
        Its galaxies in the order of ``posterior``.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or too few true values.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds is {n_folds}; give at least 2.")
    modes = check_modes(mode, len(posterior))
    folds = np.random.default_rng(seed).permutation(len(posterior)) % n_folds
    available = truth.colnames if isinstance(truth, Table) else list(truth)
    names = [name for name in available if name in posterior.draws]
    parts = []
    for fold in range(n_folds):
        out = folds == fold
        known = {name: truth[name][~out] for name in names}
        fitted = Recalibration.fit(posterior[~out], known, mode=modes[~out], seed=seed)
        parts.append(fitted.apply(posterior[out], mode=modes[out]))
    back = np.argsort(np.concatenate([np.flatnonzero(folds == fold) for fold in range(n_folds)]))
    return type(posterior).concatenate(parts)[back]


def _too_few(name: str, kind: str, n: int, n_common: int) -> str:
    of_them = f" and {n_common} of them bands that {MIN_GALAXIES_PER_BAND_SET} share" * (
        n_common < n
    )
    return (
        f"{name} from {kind}: {n} {'galaxy has' if n == 1 else 'galaxies have'} draws and a true value{of_them}, "
        f"{MIN_GALAXIES} are needed, so it stays uncorrected."
    )


def _outcome(n: int, fitted: Correction | None, gain: float) -> str:
    if fitted is None:
        return f"not corrected: {n} galaxies, held out in turn, show no gain"
    return f"corrected from {n} galaxies; held-out gain {gain:.3f} nats a galaxy"
