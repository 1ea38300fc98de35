"""The posterior of one quantity: draws with a unit, and summaries for each galaxy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
from astropy.uncertainty import Distribution

from ..derived import DERIVED_QUANTITIES, DerivedQuantity, derivable, derive
from ..quantities import QUANTITIES, QuantityInfo
from .statistics import (
    difference_unit,
    row_means,
    row_modes,
    row_percentiles,
    row_standard_deviations,
)

__all__ = ["GUARANTEED_LEVELS", "STRETCH", "QuantityPosterior", "posterior_of", "suggestion"]

#: Levels of intervals with guaranteed coverage.
GUARANTEED_LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
#: Prefix of the columns of the photometry of a posterior with the stretch of guaranteed intervals
#: of a quantity.
STRETCH = "interval_stretch_"


class QuantityPosterior:
    """Draws of one quantity, with summaries for each galaxy.

    It is returned by `~astrogenspec.Posterior`: ``posterior["sfr"]``.  Every summary has one value
    per galaxy, ignores draws that are NaN, and is NaN for a galaxy without draws.  Summaries of a
    dex quantity are computed in dex: the mean is that of the logarithm.

    Parameters
    ----------
    name : str
        Name of the quantity.
    draws : Quantity, shape (n_galaxies, n_draws)
        Draws of the posterior.
    label : str, optional
        Axis label (LaTeX); the name by default.
    description : str, optional
        Definition of the quantity.
    stretch : ndarray, shape (n_galaxies, n_levels), optional
        Factors by which the central intervals of the `GUARANTEED_LEVELS` are stretched so that
        their coverage is guaranteed, see `~astrogenspec.calibration.CoverageGuarantee`; NaN for
        galaxies without a guarantee.
    """

    def __init__(
        self,
        name: str,
        draws: u.Quantity,
        *,
        label: str = "",
        description: str = "",
        stretch: np.ndarray | None = None,
    ) -> None:
        self._name = name
        self._draws = draws
        self._label = label or name
        self._description = description
        self._stretch = stretch

    @property
    def name(self) -> str:
        """Name of the quantity."""
        return self._name

    @property
    def draws(self) -> u.Quantity:
        """Draws, read-only, shape (n_galaxies, n_draws)."""
        return self._draws

    @property
    def unit(self) -> u.UnitBase:
        """Unit of the draws."""
        return self._draws.unit

    @property
    def label(self) -> str:
        """Axis label (LaTeX)."""
        return self._label

    @property
    def description(self) -> str:
        """Definition, aperture and scale."""
        return self._description

    @property
    def n_draws(self) -> int:
        """Number of draws of each galaxy."""
        return self._draws.shape[1]

    def __len__(self) -> int:
        return self._draws.shape[0]

    def __repr__(self) -> str:
        unit = str(self.unit) or "dimensionless"
        return (
            f"<QuantityPosterior {self._name!r} [{unit}]: {len(self)} "
            f"{'galaxy' if len(self) == 1 else 'galaxies'}, {self.n_draws} "
            f"{'draw' if self.n_draws == 1 else 'draws'} each>"
        )

    def mean(self) -> u.Quantity:
        """Average the draws.

        Returns
        -------
        Quantity, shape (n_galaxies,)
        """
        return self._with_unit(row_means(self._draws.value), self.unit)

    def median(self) -> u.Quantity:
        """Compute the median of the draws.

        Returns
        -------
        Quantity, shape (n_galaxies,)
        """
        return self.percentiles(50)

    def mode(self) -> u.Quantity:
        """Compute the value of highest density, from a kernel estimate.

        As a point estimate, the mode has the largest scatter, the median the smallest bias, and the
        mean the fewest outliers.

        Returns
        -------
        Quantity, shape (n_galaxies,)
            Mode in the unit of the draws: for a line flux, that of the flux and not of its
            logarithm.
        """
        return self._with_unit(row_modes(self._draws.value), self.unit)

    def odds(self, width: float = 0.03) -> np.ndarray:
        """Compute the fraction of the draws near the mode, the "odds" of a photometric redshift.

        Parameters
        ----------
        width : float
            Half-width of the interval around the mode: in units of 1 + z for a redshift (Benitez
            2000, ApJ 536, 571, used 0.06 for deeper surveys), otherwise in the unit of the draws.

        Returns
        -------
        ndarray, shape (n_galaxies,)
            Fractions; NaN for a galaxy without draws.

        Raises
        ------
        ValueError
            If the width is not positive.
        """
        if not width > 0:
            raise ValueError(f"width is {width}, but must be positive.")
        mode = self.mode().value[:, None]
        reach = width * (1 + mode) if self._name == "redshift" else width
        with np.errstate(invalid="ignore"):
            near = np.abs(self._draws.value - mode) <= reach
        n_finite = np.count_nonzero(~np.isnan(self._draws.value), axis=1)
        fraction = np.count_nonzero(near, axis=1) / np.maximum(n_finite, 1)
        return np.where(n_finite > 0, fraction, np.nan)

    def std(self) -> u.Quantity:
        """Compute the standard deviation of the draws.

        Returns
        -------
        Quantity, shape (n_galaxies,)
            In dex for every dex quantity: the standard deviation of values in dex(Msun) is in dex.
        """
        scatter = row_standard_deviations(self._draws.value)
        return self._with_unit(scatter, difference_unit(self.unit))

    def percentiles(self, percentiles: float | Sequence[float] | np.ndarray) -> u.Quantity:
        """Compute percentiles of the draws.

        Parameters
        ----------
        percentiles : float or sequence of float
            Percentiles between 0 and 100.

        Returns
        -------
        Quantity, shape (n_galaxies,) or (n_percentiles, n_galaxies)
            The axis of percentiles is the first: ``low, mid, high = q.percentiles([16, 50, 84])``.

        Raises
        ------
        ValueError
            If a percentile is not between 0 and 100.
        """
        wanted = np.asarray(percentiles, dtype=float)
        if wanted.ndim > 1 or not np.all((wanted >= 0) & (wanted <= 100)):
            raise ValueError(
                f"percentiles is {percentiles}; give one number between 0 and 100, or a flat "
                "list of numbers."
            )
        values = row_percentiles(self._draws.value, np.atleast_1d(wanted))
        return self._with_unit(values[0] if wanted.ndim == 0 else values, self.unit)

    def interval(
        self, level: float = 0.68, *, guaranteed: bool = False
    ) -> tuple[u.Quantity, u.Quantity]:
        """Compute the central interval that contains a fraction of the draws.

        Parameters
        ----------
        level : float
            Fraction of the draws in the interval, between 0 and 1; the draws outside are half below
            and half above it.
        guaranteed : bool
            Stretch the interval about the median so that it contains the true value with at least
            this probability, for galaxies of the population of a labelled sample, also where the
            posterior is not calibrated (conformal prediction; see
            `~astrogenspec.calibration.CoverageGuarantee`). Possible for the levels 0.5, 0.68, 0.8,
            0.9, 0.95 and 0.99.

        Returns
        -------
        lower, upper : Quantity, each of shape (n_galaxies,)
            With ``guaranteed``, NaN for galaxies with inputs that the labelled sample does not
            have, and infinite where it is too small.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1, or no intervals are guaranteed for the quantity or
            the level.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; give a fraction between 0 and 1, such as 0.68.")
        if guaranteed:
            return self._guaranteed_interval(level)
        lower, upper = self.percentiles([50 * (1 - level), 50 * (1 + level)])
        return lower, upper

    def _guaranteed_interval(self, level: float) -> tuple[u.Quantity, u.Quantity]:
        if self._stretch is None:
            raise ValueError(
                f"there is no labelled sample that guarantees intervals of {self._name}; use "
                "guaranteed=False, or weights from PropertyEstimator.recalibrated() with at least "
                "300 labels of it."
            )
        index = np.flatnonzero(np.isclose(GUARANTEED_LEVELS, level))
        if len(index) == 0:
            raise ValueError(
                f"level is {level}; guaranteed intervals have one of the levels "
                f"{', '.join(map(str, GUARANTEED_LEVELS))}."
            )
        info = QUANTITIES[self._name]
        low, middle, high = self.percentiles([50 * (1 - level), 50, 50 * (1 + level)]).value
        if info.logarithmic:
            low, middle, high = (np.log10(values) for values in (low, middle, high))
        stretch = self._stretch[:, index[0]]
        low = np.maximum(middle - stretch * (middle - low), info.lower)
        high = middle + stretch * (high - middle)
        if info.logarithmic:
            low, high = 10**low, 10**high
        return self._with_unit(low, self.unit), self._with_unit(high, self.unit)

    def distribution(self) -> Distribution:
        """Return the draws as a distribution of `astropy.uncertainty`, for error propagation.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies,)
        """
        return Distribution(self._draws)

    @staticmethod
    def _with_unit(values: np.ndarray, unit: u.UnitBase) -> u.Quantity:
        return u.Quantity(values, unit, subok=True, copy=False)


def posterior_of(
    name: str, draws: Mapping[str, u.Quantity], stretch: np.ndarray | None = None
) -> QuantityPosterior:
    """Return the posterior of one quantity, drawn or derived.

    Parameters
    ----------
    name : str
        Name of the quantity.
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)
        Draws by the name of the quantity.
    stretch : ndarray, shape (n_galaxies, n_levels), optional
        Stretch of guaranteed intervals.

    Returns
    -------
    QuantityPosterior

    Raises
    ------
    KeyError
        If the quantity is unknown, or one from which it is derived is not among the draws.
    """
    info: QuantityInfo | DerivedQuantity | None
    if name in draws:
        info, values = QUANTITIES.get(name), draws[name]
    elif name in DERIVED_QUANTITIES:
        info, values = DERIVED_QUANTITIES[name], derive(name, draws)
        values.setflags(write=False)
    else:
        known = [*draws, *derivable(draws)]
        raise KeyError(
            f"unknown quantity {name!r}{suggestion(name, known)}; available: {', '.join(known)}."
        )
    label, description = (info.label, info.description) if info else (name, "")
    return QuantityPosterior(name, values, label=label, description=description, stretch=stretch)


def suggestion(name: str, known: Sequence[str] | np.ndarray) -> str:
    """Suggest the known name that is most similar to an unknown one.

    Parameters
    ----------
    name : str
        Unknown name.
    known : sequence of str
        Known names; only the first thousand are compared.

    Returns
    -------
    str
        Suggestion in parentheses; empty if no name is similar.
    """
    close = difflib.get_close_matches(name, list(known[:1000]), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
