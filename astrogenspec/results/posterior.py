"""The joint posterior of many galaxies: draws with units, summaries, tables, files and figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, overload

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack
from astropy.uncertainty import Distribution

from ..derived import bpt_fractions, derivable
from ..flags import FlagLog
from ..quantities import internal_values
from .base import GalaxyDraws, GalaxyIndex, check_same_number_of_draws
from .information import (
    MINIMUM_DRAWS,
    check_population,
    divergence,
    grades,
    shared_population,
)
from .quantity import STRETCH, QuantityPosterior, posterior_of
from .reweighting import (
    Prior,
    effective_draws,
    flag_reweighted,
    log_weights,
    random_generator,
    resampled_indices,
)
from .validation import checked_draws, checked_measurable, checked_photometry

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from ..view.page import NotebookPage
    from .spectra import SpectrumDraws

__all__ = ["Posterior"]


class Posterior(GalaxyDraws):
    """Joint posterior draws of the properties of many galaxies.

    Draw *k* of all quantities of a galaxy is one sample of the joint posterior, so any function of
    the quantities may be computed draw by draw.  The object is immutable.

    Parameters
    ----------
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)
        Draws of some or all `~astrogenspec.quantities.QUANTITIES`; others are kept under their own
        names. NaN marks missing draws; a galaxy without any draw is unusable.
    names : sequence of str, optional
        Names of the galaxies; "0", "1", ... by default.
    flags : sequence of str, optional
        Reason to distrust each galaxy; an empty string where nothing was found.
    measurable : array_like, shape (n_galaxies,), optional
        Probability that the gas metallicity is measurable.
    photometry : `~astropy.table.Table`, n_galaxies rows, optional
        Photometry on which the posterior is conditioned.
    meta : mapping, optional
        Provenance of the draws (model, seed, ...).
    flag_codes : array_like of int, shape (n_galaxies,), optional
        Codes of `~astrogenspec.flags.Flag`. By default ``Flag.TEXT_ONLY`` where ``flags`` has a
        text.
    named : array_like of bool, shape (n_galaxies,), optional
        Whether a galaxy has a name of its own, rather than only a number. By default True if
        ``names`` are given.

    Raises
    ------
    TypeError
        If ``draws`` is not a mapping of quantities.
    ValueError
        If shapes differ, a value is infinite, or a probability is not between 0 and 1.
    astropy.units.UnitConversionError
        If the unit of a quantity has the wrong dimensions.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import Posterior
    >>> rng = np.random.default_rng(1)
    >>> mass = rng.normal([[10.2], [11.0]], 0.1, (2, 500)) * u.dex(u.Msun)
    >>> sfr = rng.normal([[0.3], [-1.2]], 0.2, (2, 500)) * u.dex(u.Msun / u.yr)
    >>> posterior = Posterior({"stellar_mass": mass, "sfr": sfr}, names=["a", "b"])
    >>> posterior
    <Posterior: 2 galaxies, 500 draws of stellar_mass, sfr>
    >>> posterior["ssfr"].median().round(1)
    <Dex [ -9.9, -12.2] dex(1 / yr)>
    """

    _PER_GALAXY = (
        *GalaxyDraws._PER_GALAXY,
        "_draws",
        "_measurable",
        "_photometry",
        "_effective_draws",
    )
    #: Set by `reweighted`.
    _effective_draws: np.ndarray | None = None

    def __init__(
        self,
        draws: Mapping[str, u.Quantity],
        *,
        names: Sequence[str] | None = None,
        flags: Sequence[str] | None = None,
        measurable: np.ndarray | None = None,
        photometry: Table | None = None,
        meta: Mapping[str, Any] | None = None,
        flag_codes: Sequence[int] | np.ndarray | None = None,
        named: Sequence[bool] | np.ndarray | None = None,
    ) -> None:
        self._draws = checked_draws(draws)
        n_galaxies = next(iter(self._draws.values())).shape[0]
        super().__init__(
            n_galaxies, names=names, flags=flags, flag_codes=flag_codes, meta=meta, named=named
        )
        self._measurable = checked_measurable(measurable, n_galaxies)
        self._photometry = checked_photometry(photometry, n_galaxies)
        self._freeze()

    @property
    def draws(self) -> Mapping[str, u.Quantity]:
        """Draws by the name of the quantity, read-only, each of shape (n_galaxies, n_draws)."""
        return MappingProxyType(self._draws)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities that were drawn."""
        return tuple(self._draws)

    @property
    def derived_quantities(self) -> tuple[str, ...]:
        """Names of the quantities that can be derived from the draws."""
        return derivable(self._draws)

    @property
    def n_draws(self) -> int:
        """Number of draws per galaxy."""
        return next(iter(self._draws.values())).shape[1]

    @property
    def measurable(self) -> np.ndarray | None:
        """Probability that the gas metallicity is measurable, shape (n_galaxies,), or None."""
        return self._measurable

    @property
    def photometry(self) -> QTable | None:
        """Copy of the photometry on which the posterior is conditioned, or None."""
        return None if self._photometry is None else self._photometry.copy()

    @property
    def effective_draws(self) -> np.ndarray | None:
        """Effective number of draws after `reweighted`, shape (n_galaxies,), or None.

        The accuracy of averages over the draws is that of this number of independent draws.
        """
        return self._effective_draws

    @property
    def usable(self) -> np.ndarray:
        """Galaxies with at least one draw that is not NaN, bool, shape (n_galaxies,)."""
        missing = [np.isnan(values.value).all(axis=1) for values in self._draws.values()]
        return ~np.all(missing, axis=0)

    def __contains__(self, name: object) -> bool:
        return name in self._draws or name in self.derived_quantities

    def _contents(self) -> str:
        return ", ".join(self._draws)

    def _html_columns(self) -> dict[str, list[str]]:
        from .posterior_io import html_column

        return dict(html_column(self[name]) for name in self._draws)

    @overload
    def __getitem__(self, key: str) -> QuantityPosterior: ...
    @overload
    def __getitem__(self, key: GalaxyIndex) -> Self: ...
    def __getitem__(self, key):
        """Select a quantity by name, or galaxies by number, slice, boolean mask or list of numbers.

        A name returns a `QuantityPosterior`, everything else a `Posterior`, also of one galaxy.
        Raises KeyError for an unknown quantity, IndexError for a galaxy that does not exist, and
        TypeError for other keys.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        table, column = self._photometry, f"{STRETCH}{key}"
        stretch = None
        if table is not None and column in table.colnames:
            stretch = np.asarray(table[column])
        return posterior_of(key, self._draws, stretch)

    def with_stretch(self, stretch: Mapping[str, np.ndarray]) -> Self:
        """Return the posterior with other guaranteed intervals.

        Parameters
        ----------
        stretch : mapping of str to ndarray, shape (n_galaxies, n_levels)
            Stretch of the central intervals of each quantity, the result of
            `~astrogenspec.calibration.CoverageGuarantee.stretch`.

        Returns
        -------
        Posterior
            With the columns ``interval_stretch_<quantity>`` in its photometry.
        """
        table = QTable() if self._photometry is None else self._photometry.copy()
        table.remove_columns([name for name in table.colnames if name.startswith(STRETCH)])
        for name, values in stretch.items():
            table[f"{STRETCH}{name}"] = values
        return self._replaced(_photometry=table if table.colnames else None)

    def distribution(self, name: str) -> Distribution:
        """Return the draws of one quantity as a distribution of `astropy.uncertainty`.

        Parameters
        ----------
        name : str
            Quantity, drawn or derived.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies,)
        """
        return self[name].distribution()

    def bpt_probabilities(self) -> QTable:
        """Compute the probability of each class of the [N II] emission-line diagram.

        The classes describe line ratios, not whether the lines are bright enough to be detected.

        Returns
        -------
        `~astropy.table.QTable`, n_galaxies rows
            Columns ``name``, ``star_forming``, ``composite``, ``agn``: fractions of the draws
            with finite line ratios. They sum to 1, and are masked where no draw has finite ratios.

        Raises
        ------
        KeyError
            If one of the four line fluxes is missing.
        """
        fractions = bpt_fractions(self["nii_halpha"].draws, self["oiii_hbeta"].draws)
        return QTable({"name": self._names.astype(str), **fractions})

    def to_table(self, quantities: str | Iterable[str] | None = None) -> QTable:
        """Summarise every galaxy in one row.

        Parameters
        ----------
        quantities : str or iterable of str, optional
            Quantities to summarise, drawn or derived; by default, all that were drawn.

        Returns
        -------
        `~astropy.table.QTable`, n_galaxies rows
            ``name``; for each quantity ``<quantity>_median``, ``<quantity>_p16``,
            ``<quantity>_p84`` (percentiles), ``<quantity>_std``, and ``<quantity>_information`` if
            the population is known (see `information`); ``measurable`` (probability that the gas
            metallicity is measurable) if known; ``effective_draws`` after `reweighted`; ``flags``
            (codes of `~astrogenspec.flags.Flag`, 0 where nothing was found) and ``flag`` (their
            text). Summaries are masked where a galaxy has no draws.
        """
        from .posterior_io import PREDICTIVE, summary_table

        if isinstance(quantities, str):
            quantities = [quantities]
        chosen = [self[name] for name in (self._draws if quantities is None else quantities)]
        population = self._meta.get("population") or {}
        check_population(population, "meta.population")
        known = set(self._draws) & set(population) if self.n_draws >= MINIMUM_DRAWS else set()
        photometry = {} if self._photometry is None else self._photometry.columns
        return summary_table(
            self,
            chosen,
            information={q.name: self.information(q.name) for q in chosen if q.name in known},
            measurable=self._measurable,
            predictive=photometry.get(PREDICTIVE),
            effective_draws=self._effective_draws,
        )

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        draws: bool = False,
        columns: Table | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the summary table, and optionally the draws, to a file.

        Parameters
        ----------
        path : path-like
            File to write. The ending selects the format: ``.fits`` (or ``.fits.gz``), ``.ecsv``,
            ``.parquet``, ``.hdf5`` (or ``.h5``).
        draws : bool
            Whether to write the draws too, so that `read` can restore the posterior.
        columns : `~astropy.table.Table`, n_galaxies rows, optional
            Further columns to write after ``name``, such as positions and identifiers.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; no partial file is left.
        ValueError
            If the ending is not that of a known format, or ``columns`` has another number of rows
            or a name that the table has already.
        """
        from .posterior_io import with_columns, write_posterior

        write_posterior(
            path,
            with_columns(self.to_table(), columns),
            self._draws,
            photometry=self._photometry,
            named=self._named,
            meta=self._meta,
            with_draws=draws,
            overwrite=overwrite,
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a posterior written with ``draws=True``.

        Parameters
        ----------
        path : path-like
            File written by `write`.

        Returns
        -------
        Posterior

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If the file contains no draws, or was not written by `write`.
        """
        from .posterior_io import read_posterior

        arguments = read_posterior(path)
        effective = arguments.pop("effective_draws")
        return cls(**arguments)._replaced(_effective_draws=effective)

    @classmethod
    def concatenate(cls, posteriors: Iterable[Self]) -> Self:
        """Join posteriors of different galaxies.

        Parameters
        ----------
        posteriors : iterable of Posterior
            Posteriors of the same quantities with the same number of draws.

        Returns
        -------
        Posterior
            ``measurable`` and ``effective_draws`` are NaN for the galaxies of a part without
            them; photometry is kept if every part has it; of the meta data, the entries on which
            all parts agree are kept.

        Raises
        ------
        ValueError
            If ``posteriors`` is empty, or the parts differ in their quantities or number of draws.
        TypeError
            If a part is not a Posterior.
        """
        parts = list(posteriors)
        if not parts:
            raise ValueError("posteriors is empty; pass at least one Posterior to concatenate.")
        for number, part in enumerate(parts):
            _check_part(part, parts[0], f"posteriors[{number}]")
        draws = {
            name: np.concatenate([part.draws[name].to(values.unit) for part in parts])
            for name, values in parts[0].draws.items()
        }
        tables = [part.photometry for part in parts]
        photometry = None
        if all(table is not None for table in tables):
            photometry = vstack(tables, metadata_conflicts="silent")
        return cls._joined(
            parts,
            _draws=draws,
            _measurable=_joined_numbers([part.measurable for part in parts], parts),
            _photometry=photometry,
            _effective_draws=_joined_numbers([part.effective_draws for part in parts], parts),
        )

    def information(self, name: str) -> u.Quantity:
        """Compute how much the data constrain a quantity beyond the population prior.

        Parameters
        ----------
        name : str
            Quantity among the draws.

        Returns
        -------
        Quantity ['bit'], shape (n_galaxies,)
            Kullback-Leibler divergence of the posterior of the galaxy from the distribution of the
            quantity in the training population (``meta["population"]``); see
            `astrogenspec.results.information`. One bit corresponds to half the uncertainty. NaN for
            a galaxy without draws, or a quantity that was given as known.

        Raises
        ------
        KeyError
            If the quantity is not among the draws.
        ValueError
            If the posterior has no population, or fewer than four draws.
        """
        table = shared_population(self.meta.get("population"), name, self.draws)
        return divergence(internal_values(name, self.draws[name]), table) * u.bit

    def informed(self, name: str) -> np.ndarray:
        """Classify how much the data constrain a quantity.

        Parameters
        ----------
        name : str
            Quantity among the draws.

        Returns
        -------
        ndarray of str, shape (n_galaxies,)
            ``"mostly prior"`` below 0.5 bits (uncertainty reduced by less than a third), ``"partly
            informed"`` below 1.5, else ``"informed"``; empty where `information` is NaN. Errors are
            those of `information`.
        """
        return grades(self.information(name).value)

    def reweighted(self, prior: Prior, *, seed: int | np.random.Generator | None = 0) -> Self:
        """Change the prior of the posterior, by importance weights.

        The prior of a posterior is the population of galaxies that the weights were trained on.
        This method replaces it by another one: a redshift distribution, a mass function, or the
        selection of a sample. It needs the ratio of the two densities only.

        Parameters
        ----------
        prior : callable or mapping
            A function that is given the draws, a mapping of names to Quantities of shape
            (n_galaxies, n_draws), and returns the ratio of the new prior to the old one for each
            draw, an array of this shape. Or a mapping from names of quantities to their new
            densities: pairs ``(grid, density)``, linear between the values of the grid and 0
            outside it, or functions that are given an array of values. The values are redshifts,
            or the base-10 logarithms of masses, rates and line fluxes in the units of the
            quantities; a grid may have another unit. Densities are those per unit of redshift or
            per dex, at any scale. The old densities are those of ``meta["population"]``.
        seed : int, `numpy.random.Generator` or None
            Seed of the random numbers.

        Returns
        -------
        Posterior
            Draws of equal weight, some of them several times, with `effective_draws`. Galaxies with
            fewer than 50 effective draws have the flag ``LOW_EFFECTIVE_SAMPLE``; those of which the
            new prior excludes all draws have no draws, and also the flag ``NO_DRAWS``. If more than
            5% of the weight is outside the tabulated population, the flag is ``ASSUMPTION``.
            ``meta["reweighted"]`` lists the changes, and ``meta["population"]`` is removed.

        Raises
        ------
        TypeError
            If ``prior`` is neither a function nor a mapping.
        ValueError
            If a ratio or density is negative or not finite, or has the wrong shape; if the
            population of a quantity is not known; or if ``seed`` is invalid.

        Notes
        -----
        Draws cannot move to where the posterior has none: a new prior helps only within the
        population of the weights. If more than 20% of a density on a grid is outside, there is a
        warning; a function is not checked. Densities of several quantities are multiplied, each
        relative to its own distribution in the population, so that the relations between the
        quantities are kept; the result has exactly the new distributions if the quantities are
        independent in the population. Galaxies of which a quantity was given as known do not
        change by its prior.
        ``measurable`` and ``predictive_p_value`` remain those of the old prior.

        Examples
        --------
        A posterior of N(1, 1) under a flat prior becomes N(0.5, 0.7) under the prior N(0, 1):

        >>> import astropy.units as u
        >>> import numpy as np
        >>> from astrogenspec import Posterior
        >>> draws = np.random.default_rng(1).normal(1, 1, (1, 100_000)) * u.one
        >>> posterior = Posterior({"redshift": draws})
        >>> better = posterior.reweighted(lambda draws: np.exp(-draws["redshift"].value**2 / 2))
        >>> print(better["redshift"].mean().round(1), better["redshift"].std().round(1))
        [0.5] [0.7]
        """
        rng = random_generator(seed)
        weights, outside = log_weights(prior, self.draws, self._meta.get("population"))
        effective = effective_draws(weights)
        log = FlagLog(len(self))
        log.extend(self._flag_codes, self.flags)
        if self._effective_draws is not None:
            # The draws are not independent.
            effective = effective * np.nan_to_num(self._effective_draws / self.n_draws, nan=1.0)
        found = flag_reweighted(weights, effective, self.usable, outside)
        log.extend(found.codes, found.texts)
        index = resampled_indices(weights, rng)
        rows = np.arange(len(self))[:, None]
        draws = {name: values[rows, index] for name, values in self._draws.items()}
        for values in draws.values():
            values.value[effective == 0] = np.nan
        quantities = "function" if callable(prior) else ", ".join(prior)
        record = {
            "prior": quantities,
            "seed": int(seed) if isinstance(seed, int | np.integer) else None,
        }
        meta = {key: value for key, value in self._meta.items() if key != "population"}
        # Intervals are guaranteed for the draws of the population of the weights only.
        return self.with_stretch({})._replaced(
            _draws=draws,
            _effective_draws=effective,
            _flags=np.array(log.texts, dtype=object),
            _flag_codes=log.codes,
            _meta=meta | {"reweighted": [*meta.get("reweighted", []), record]},
        )

    def to_qp(self, name: str, kind: str = "quantiles", *, grid: ArrayLike | None = None) -> Any:
        """Convert the marginal distributions of a quantity to an ensemble of the package qp.

        Parameters
        ----------
        name : str
            Quantity, drawn or derived; usually the redshift.
        kind : {"quantiles", "interp", "histogram"}
            Parametrisation: quantiles, densities at the points of a grid (from a kernel estimate)
            between which qp interpolates, or a histogram.
        grid : array_like, shape (n_points,), optional
            Points of ``"interp"``, at equal distances, or edges of the bins of ``"histogram"``, in
            the unit of the quantity; by default 301 that cover all draws.

        Returns
        -------
        ``qp.Ensemble``
            One distribution per galaxy, in the unit of the quantity; ancillary columns ``name``,
            ``mean``, ``median`` and ``mode``, and on a grid ``outside``, the fraction of the draws
            beyond it.

        Raises
        ------
        ImportError
            If qp is not installed.
        ValueError
            If an argument is invalid, or a galaxy has no draws, none on the grid, or only equal
            ones: qp cannot represent such a distribution.
        """
        from .qp_ensembles import qp_ensemble

        return qp_ensemble(self[name], self.names, kind, grid)

    def to_votable(
        self,
        path: str | os.PathLike[str],
        position: SkyCoord | Mapping[str, Any] | Table,
        *,
        overwrite: bool = False,
    ) -> None:
        """Write the summary table with positions as a VOTable for Aladin and TOPCAT.

        Parameters
        ----------
        path : path-like
            File to write, usually ending in ``.vot``.
        position : SkyCoord, or table with columns ra and dec (degrees)
            Positions of the galaxies, in their order.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        TypeError, ValueError
            If the positions are not those of the galaxies.
        OSError
            If the file cannot be written; no partial file is left.
        """
        from .exchange import write_votable

        write_votable(path, self, self.to_table(), position, overwrite=overwrite)

    def to_regions(
        self,
        path: str | os.PathLike[str],
        position: SkyCoord | Mapping[str, Any] | Table,
        *,
        radius: u.Quantity = 5 * u.arcsec,
        overwrite: bool = False,
    ) -> None:
        """Write a circle with its name for each galaxy as regions of DS9.

        Parameters
        ----------
        path : path-like
            File to write, usually ending in ``.reg``.
        position : SkyCoord, or table with columns ra and dec (degrees)
            Positions of the galaxies, in their order.
        radius : Quantity ['angle']
            Radius of the circles.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        TypeError, ValueError
            If the positions are not those of the galaxies.
        OSError
            If the file cannot be written; no partial file is left.
        """
        from .exchange import write_regions

        write_regions(path, self, position, radius=radius, overwrite=overwrite)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        cutouts: Iterable[Any] | None = None,
        reconstructions: np.ndarray | None = None,
        spectra: SpectrumDraws | None = None,
        truth: Mapping[str, Any] | Table | None = None,
        title: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write one self-contained page with interactive figures of all galaxies and of each one.

        The page opens in any browser without a network. It needs the packages of the extra
        ``view``.

        Parameters
        ----------
        path : path-like
            Name of the page, ending in ``.html``.
        cutouts : iterable of cutouts, optional
            Images of the same galaxies in the same order, as for
            `astrogenspec.PropertyEstimator.predict`; None for a galaxy without an image.
        reconstructions : array_like, shape (n_galaxies, 5, ny, nx), optional
            Images from `astrogenspec.PropertyEstimator.reconstruct`.
        spectra : SpectrumDraws, optional
            Spectra of the same galaxies in the same order.
        truth : mapping or table, optional
            True values by quantity; rows are matched by a column ``name``, or by order.
        title : str, optional
            Heading of the page.
        overwrite : bool
            Whether an existing file may be replaced.

        Raises
        ------
        ValueError
            If the name does not end in ``.html``, or the numbers of galaxies differ.
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; no partial file is left.
        ImportError
            If Bokeh or, for pictures, Pillow is not installed.
        """
        from ..view import results_page

        results_page(
            path,
            self,
            cutouts=cutouts,
            reconstructions=reconstructions,
            spectra=spectra,
            truth=truth,
            title=title,
            overwrite=overwrite,
        )

    def explore(
        self,
        *,
        cutouts: Iterable[Any] | None = None,
        reconstructions: np.ndarray | None = None,
        spectra: SpectrumDraws | None = None,
        truth: Mapping[str, Any] | Table | None = None,
        title: str | None = None,
        height: int = 800,
    ) -> NotebookPage:
        """Show the page of `to_html` in a notebook.

        Parameters
        ----------
        cutouts, reconstructions, spectra, truth, title
            As for `to_html`.
        height : int
            Height of the frame in pixels.

        Returns
        -------
        NotebookPage
            Object that a notebook shows as the page, with attribute ``text``.

        Raises
        ------
        ValueError
            If the numbers of galaxies differ.
        ImportError
            If Bokeh or, for pictures, Pillow is not installed.
        """
        from ..view import NotebookPage, page_text

        text = page_text(
            self,
            cutouts=cutouts,
            reconstructions=reconstructions,
            spectra=spectra,
            truth=truth,
            title=title,
        )
        return NotebookPage(text, height)

    def plot_corner(
        self,
        index: int | str = 0,
        *,
        quantities: Sequence[str] | None = None,
        truth: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Figure:
        """Plot the joint posterior of one galaxy as a corner plot.

        Parameters
        ----------
        index : int or str
            Number or name of the galaxy.
        quantities : sequence of str, optional
            Quantities to show, drawn or derived; by default, all that were drawn.
        truth : mapping of str to scalar Quantity, optional
            True values to mark.
        **kwargs
            Passed to `astrogenspec.plotting.corner`.

        Returns
        -------
        `~matplotlib.figure.Figure`
        """
        from ..plotting import corner

        chosen = self.galaxy(index) if isinstance(index, str) else self[index]
        return corner(chosen, quantities=quantities, truth=truth, **kwargs)


def _check_part(part: Any, first: Posterior, argument: str) -> None:
    if not isinstance(part, Posterior):
        raise TypeError(f"{argument} is of type {type(part).__name__}; a Posterior is expected.")
    if set(part.quantities) != set(first.quantities):
        differ = sorted(set(part.quantities) ^ set(first.quantities))
        raise ValueError(
            f"{argument} and posteriors[0] differ in {', '.join(differ)}; all parts need the "
            "same quantities."
        )
    check_same_number_of_draws(part, first, argument)


def _joined_numbers(
    columns: Sequence[np.ndarray | None], parts: Sequence[Posterior]
) -> np.ndarray | None:
    """Join numbers of the galaxies of several parts; NaN for a part without them."""
    if all(column is None for column in columns):
        return None
    return np.concatenate(
        [
            np.full(len(part), np.nan) if column is None else column
            for column, part in zip(columns, parts, strict=True)
        ]
    )
