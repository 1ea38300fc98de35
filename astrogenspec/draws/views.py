"""What else a posterior tells: how much of it comes from the data, and its marginals for other packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import astropy.units as u
import numpy as np

from ..quantities import internal_values
from .information import divergence, grades, shared_population

if TYPE_CHECKING:
    from .quantity import QuantityPosterior

__all__ = ["PosteriorViews"]

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
            the network learnt from (``meta["population"]``); see `astrogenspec.draws.information`. One bit halves the
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
        from .export import qp_ensemble

        return qp_ensemble(self[name], self.names, _QUANTILES)
