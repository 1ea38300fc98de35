"""The joint posterior of many galaxies: draws with units, summaries, tables, files and figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, overload

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack
from astropy.uncertainty import Distribution

from ..derived import bpt_fractions, derivable
from ..quantities import internal_values
from .information import divergence, grades, shared_population
from .quantity import posterior_of
from .validation import (
    checked_draws,
    checked_flags,
    checked_index,
    checked_measurable,
    checked_names,
    checked_photometry,
    index_of_name,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .quantity import QuantityPosterior

__all__ = ["Posterior", "PosteriorViews", "joined_parts"]


def joined_parts(posteriors: Sequence[Posterior], kind: type) -> dict[str, Any]:
    """Concatenate draws, names, flags, probabilities and photometry along the galaxies.

    Parameters
    ----------
    posteriors : sequence of Posterior
    kind : type
        The class all of them must have.

    Returns
    -------
    dict
        With the keys draws, names, flags, measurable, photometry, meta.

    Raises
    ------
    ValueError
        If there is nothing to join, or the parts differ in their quantities or number of draws.
    TypeError
        If something else than a posterior is among them.
    """
    _check(posteriors, kind)
    first = posteriors[0]
    return {
        "draws": {
            name: np.concatenate([part.draws[name].to(values.unit) for part in posteriors])
            for name, values in first.draws.items()
        },
        "names": _strings([part.names for part in posteriors]),
        "flags": _strings([part.flags for part in posteriors]),
        "measurable": _measurable(posteriors),
        "photometry": _photometry(posteriors),
        "meta": {
            key: value
            for key, value in first.meta.items()
            if all(key in part.meta and repr(part.meta[key]) == repr(value) for part in posteriors)
        },
    }


def _strings(parts: Sequence[Sequence[str]]) -> np.ndarray:
    return np.concatenate([np.array(part, dtype=object) for part in parts])


def _measurable(posteriors: Sequence[Posterior]) -> np.ndarray | None:
    if all(part.measurable is None for part in posteriors):
        return None
    return np.concatenate(
        [
            np.full(len(part), np.nan) if part.measurable is None else part.measurable
            for part in posteriors
        ]
    )


def _photometry(posteriors: Sequence[Posterior]) -> QTable | None:
    tables = [part.photometry for part in posteriors]
    if any(table is None for table in tables):
        return None
    return vstack(tables, metadata_conflicts="silent")


def _check(posteriors: Sequence[Any], kind: type[Any]) -> None:
    if not posteriors:
        raise ValueError("posteriors is empty; give at least one Posterior to concatenate.")
    for number, part in enumerate(posteriors):
        if not isinstance(part, kind):
            raise TypeError(f"posteriors[{number}] is a {type(part).__name__}; give Posteriors.")
        first = posteriors[0]
        if set(part.quantities) != set(first.quantities):
            differ = sorted(set(part.quantities) ^ set(first.quantities))
            raise ValueError(
                f"posteriors[{number}] and posteriors[0] differ in {', '.join(differ)}; concatenate "
                f"posteriors of the same quantities."
            )
        if part.n_draws != first.n_draws:
            raise ValueError(
                f"posteriors[{number}] has {part.n_draws} draws, posteriors[0] has {first.n_draws}; "
                f"concatenate posteriors with the same number of draws."
            )


#: Fractions of the quantiles handed to qp; the outermost stand for the ends of the distribution.
_QUANTILES = np.concatenate([[1e-4, 0.002], np.arange(0.005, 0.9975, 0.005), [0.998, 0.9999]])


class _Posterior(Protocol):
    """What the methods ask of the posterior that they belong to."""

    @property
    def draws(self) -> Mapping[str, u.Quantity]: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    def __getitem__(self, key: str) -> QuantityPosterior: ...
    def information(self, name: str) -> u.Quantity: ...


class PosteriorViews:
    """Methods of `~astrogenspec.Posterior` that need more than its draws."""

    def information(self: _Posterior, name: str) -> u.Quantity:
        """Give how much the data say about a quantity, beyond what is known of the population.

        Parameters
        ----------
        name : str
            A quantity that is drawn.

        Returns
        -------
        Quantity ['bit'], shape (n_galaxies,)
            Kullback-Leibler divergence of the galaxy's posterior from the distribution of the quantity in the population
            the network learnt from (``meta["population"]``); see `astrogenspec.results.information`. One bit halves the
            uncertainty. NaN for a galaxy without draws, or a quantity that was given as known.

        Raises
        ------
        KeyError
            If the quantity is not drawn.
        ValueError
            If the posterior carries no population, or has fewer than four draws.
        """
        table = shared_population(self.meta.get("population"), name, self.draws)
        return divergence(internal_values(name, self.draws[name]), table) * u.bit

    def informed(self: _Posterior, name: str) -> np.ndarray:
        """Say in words how much the data say about a quantity.

        Parameters
        ----------
        name : str
            A quantity that is drawn.

        Returns
        -------
        ndarray of str, shape (n_galaxies,)
            ``"mostly prior"`` below 0.5 bits (uncertainty not even reduced by a third), ``"partly informed"`` below 1.5,
            else ``"informed"``; empty where `information` is NaN. Errors are those of `information`.
        """
        return grades(self.information(name).value)

    def to_qp(self: _Posterior, name: str) -> Any:
        """Hand the marginals of a quantity to the qp package, as quantiles.

        Parameters
        ----------
        name : str
            A quantity, drawn or derived; usually the redshift.

        Returns
        -------
        ``qp.Ensemble``
            One distribution for each galaxy, in the unit of the quantity; ancillary columns ``name``, ``mean``, ``median``
            and ``mode``.

        Raises
        ------
        ImportError
            If qp is not installed.
        ValueError
            If a galaxy has no draws, or all of them are the same: qp knows no such distribution.
        """
        from .posterior_io import qp_ensemble

        return qp_ensemble(self[name], self.names, _QUANTILES)


class Posterior(PosteriorViews):
    """Hold the joint posterior draws of the properties of many galaxies.

    Draw *k* of every quantity of a galaxy belongs together: any function of the quantities may be computed draw by draw.
    The object does not change after it is made.

    Parameters
    ----------
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)
        The quantities of `~astrogenspec.quantities.QUANTITIES`, or some of them; further ones are kept under their own
        names. NaN marks draws that do not exist; a galaxy with nothing but NaN is unusable.
    names : sequence of str, optional
        Names of the galaxies; their numbers, counted from 0, by default.
    flags : sequence of str, optional
        Why not to trust a galaxy; an empty string if nothing is wrong.
    measurable : array_like, shape (n_galaxies,), optional
        Probability that the gas metallicity is measurable.
    photometry : `~astropy.table.Table`, n_galaxies rows, optional
        The photometry the posterior is conditioned on.
    meta : mapping, optional
        What made the draws (model, seed, ...).

    Raises
    ------
    TypeError
        If draws is not a mapping of quantities.
    ValueError
        If shapes differ, a value is infinite, or a probability is not between 0 and 1.
    astropy.units.UnitConversionError
        If a quantity has a unit that does not fit.

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

    def __init__(
        self,
        draws: Mapping[str, u.Quantity],
        *,
        names: Sequence[str] | None = None,
        flags: Sequence[str] | None = None,
        measurable: np.ndarray | None = None,
        photometry: Table | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._draws = checked_draws(draws)
        n_galaxies = next(iter(self._draws.values())).shape[0]
        self._names = checked_names(names, n_galaxies)
        self._flags = checked_flags(flags, n_galaxies)
        self._measurable = checked_measurable(measurable, n_galaxies)
        self._photometry = checked_photometry(photometry, n_galaxies)
        self._meta = dict(meta or {})
        self._freeze()

    @property
    def draws(self) -> Mapping[str, u.Quantity]:
        """Draws by name, read-only Quantities of shape (n_galaxies, n_draws)."""
        return MappingProxyType(self._draws)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities drawn."""
        return tuple(self._draws)

    @property
    def derived_quantities(self) -> tuple[str, ...]:
        """Names of the quantities that can be derived from those drawn."""
        return derivable(self._draws)

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return len(self._names)

    @property
    def n_draws(self) -> int:
        """Number of draws of each galaxy."""
        return next(iter(self._draws.values())).shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the galaxies."""
        return tuple(self._names.tolist())

    @property
    def flags(self) -> tuple[str, ...]:
        """Reasons not to trust each galaxy; empty strings where there is none."""
        return tuple(self._flags.tolist())

    @property
    def measurable(self) -> np.ndarray | None:
        """Probability that the gas metallicity is measurable, shape (n_galaxies,), or None."""
        return self._measurable

    @property
    def photometry(self) -> QTable | None:
        """A copy of the photometry the posterior is conditioned on, or None."""
        return None if self._photometry is None else self._photometry.copy()

    @property
    def meta(self) -> Mapping[str, Any]:
        """What made the draws, read-only."""
        return MappingProxyType(self._meta)

    @property
    def usable(self) -> np.ndarray:
        """Galaxies with at least one draw that is not NaN, bool, shape (n_galaxies,)."""
        nothing = [np.isnan(values.value).all(axis=1) for values in self._draws.values()]
        return ~np.all(nothing, axis=0)

    def __len__(self) -> int:
        return self.n_galaxies

    def __contains__(self, name: object) -> bool:
        return name in self._draws or name in self.derived_quantities

    def __repr__(self) -> str:
        n_flagged = np.count_nonzero(self._flags != "")
        return (
            f"<Posterior: {self.n_galaxies} {'galaxy' if self.n_galaxies == 1 else 'galaxies'}, "
            f"{self.n_draws} {'draw' if self.n_draws == 1 else 'draws'} of {', '.join(self._draws)}"
            + (f"; {n_flagged} flagged>" if n_flagged else ">")
        )

    def _repr_html_(self) -> str:
        from .posterior_io import html_summary

        return html_summary(self)

    @overload
    def __getitem__(self, key: str) -> QuantityPosterior: ...
    @overload
    def __getitem__(self, key: int | slice | np.ndarray | Sequence[int]) -> Posterior: ...
    def __getitem__(self, key):
        """Select a quantity by name, or galaxies by number, slice, boolean mask or list of numbers.

        A name gives a `QuantityPosterior`, everything else a `Posterior`, also of one galaxy.
        Raises KeyError, IndexError or TypeError if there is no such thing.
        """
        if isinstance(key, str):
            return posterior_of(key, self._draws)
        rows = checked_index(key, self.n_galaxies)
        return self._from_checked(
            {name: values[rows] for name, values in self._draws.items()},
            names=self._names[rows],
            flags=self._flags[rows],
            measurable=None if self._measurable is None else self._measurable[rows],
            photometry=None if self._photometry is None else self._photometry[rows],
            meta=dict(self._meta),
        )

    def __iter__(self) -> Iterator[Posterior]:
        return (self[number] for number in range(self.n_galaxies))

    def galaxy(self, name: str) -> Posterior:
        """Select one galaxy by its name.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        Posterior of one galaxy

        Raises
        ------
        KeyError
            If no galaxy has the name.
        ValueError
            If several have.
        """
        return self[index_of_name(name, self._names)]

    def distribution(self, name: str) -> Distribution:
        """Hand the draws of one quantity to `astropy.uncertainty`.

        Parameters
        ----------
        name : str
            A quantity, drawn or derived.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies,)
        """
        return self[name].distribution()

    def bpt_probabilities(self) -> QTable:
        """Give the probability of each class of the [N II] emission-line diagram.

        The class describes line ratios, not whether the lines are bright enough to be seen.

        Returns
        -------
        `~astropy.table.QTable`, n_galaxies rows
            Columns ``name``, ``star_forming``, ``composite``, ``agn``: fractions of the draws
            with usable line ratios; they add up to 1, and are masked where no draw is usable.

        Raises
        ------
        KeyError
            If the posterior lacks one of the four line fluxes.
        """
        fractions = bpt_fractions(self["nii_halpha"].draws, self["oiii_hbeta"].draws)
        return QTable({"name": self._names.astype(str), **fractions})

    def to_table(self, quantities: str | Iterable[str] | None = None) -> QTable:
        """Summarise every galaxy in one row.

        Parameters
        ----------
        quantities : str or iterable of str, optional
            Quantities to summarise, drawn or derived; all those drawn by default.

        Returns
        -------
        `~astropy.table.QTable`, n_galaxies rows
            ``name``; for each quantity ``<quantity>_median``, ``<quantity>_p16``,
            ``<quantity>_p84`` (percentiles), ``<quantity>_std``, and ``<quantity>_information`` if
            the population is known (see `information`); ``measurable`` (probability that the gas
            metallicity is measurable) if known; ``flag``. Summaries are masked where a galaxy has
            no draws.
        """
        from .posterior_io import summary_table

        return summary_table(self, quantities)

    def write(
        self, path: str | os.PathLike[str], *, draws: bool = False, overwrite: bool = False
    ) -> None:
        """Write the summary table, and the draws if wanted, to a file.

        Parameters
        ----------
        path : path-like
            The ending chooses the format: ``.fits`` (or ``.fits.gz``), ``.ecsv``, ``.parquet``,
            ``.hdf5`` (or ``.h5``).
        draws : bool
            Write the draws too, so that `read` gives the posterior back.
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; nothing is left behind.
        ValueError
            If the ending names no known format.
        """
        from .posterior_io import write_posterior

        write_posterior(self, path, draws=draws, overwrite=overwrite)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Posterior:
        """Read a posterior that was written with ``draws=True``.

        Parameters
        ----------
        path : path-like
            File made by `write`.

        Returns
        -------
        Posterior

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds no draws, or was not made by `write`.
        """
        from .posterior_io import read_posterior

        return read_posterior(cls, path)

    @classmethod
    def concatenate(cls, posteriors: Iterable[Posterior]) -> Posterior:
        """Join posteriors of different galaxies into one.

        Parameters
        ----------
        posteriors : iterable of Posterior
            With the same quantities and number of draws.

        Returns
        -------
        Posterior
            ``measurable`` is NaN for the galaxies of a part without it; photometry is kept if
            every part has it; of the meta data, the entries on which all parts agree.

        Raises
        ------
        ValueError
            If there is nothing to join, or the parts differ in their quantities or number of draws.
        """
        return cls._from_checked(**joined_parts(list(posteriors), cls))

    def plot_corner(
        self,
        index: int | str = 0,
        *,
        quantities: Sequence[str] | None = None,
        truth: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Figure:
        """Draw the joint posterior of one galaxy as a corner plot.

        Parameters
        ----------
        index : int or str
            Number or name of the galaxy.
        quantities : sequence of str, optional
            Quantities to show, drawn or derived; all those drawn by default.
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

    @classmethod
    def _from_checked(cls, draws: dict[str, u.Quantity], **parts: Any) -> Posterior:
        """Make a posterior of arrays that are known to fit, without copying them."""
        new = object.__new__(cls)
        new._draws = draws
        for name in ("names", "flags", "measurable", "photometry", "meta"):
            setattr(new, f"_{name}", parts[name])
        new._freeze()
        return new

    def _freeze(self) -> None:
        for values in (*self._draws.values(), self._names, self._flags, self._measurable):
            if values is not None:
                values.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # arrays come back from a pickle or a deep copy writeable
        self.__dict__.update(state)
        self._freeze()
