"""The arrays behind draws of spectra: checks, access, selection of galaxies, joining, pickling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import astropy.units as u
import numpy as np

from .checks import checked_flags, checked_index, checked_names, index_of_name
from .spectrum_checks import (
    checked_flux,
    checked_posterior_draw,
    checked_redshift,
    checked_residual,
    checked_trusted,
    checked_wavelength,
    checked_weights,
)
from .spectrum_grid import at_median_redshift
from .weighted import best_draws

__all__ = ["RESOLVING_POWER", "DrawArrays", "check_alike", "common_meta"]

#: Resolving power of spectra that do not name their own: an unresolved line has a dispersion of one
#: pixel of 1e-4 dex (69 km/s), as at the low end of the SDSS spectrographs, 1850-2200 (Smee et al.
#: 2013, AJ 146, 32).
RESOLVING_POWER = 1850.0

_ARRAYS = ("flux", "redshift", "weights", "names", "flags", "trusted", "posterior_draw")


class DrawArrays:
    """Keep the arrays of `astrogenspec.SpectrumDraws`, which describes the arguments, and never change them.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
    wavelength : Quantity, shape (n_wavelength,)
    redshift : array_like, shape (n_galaxies, n_draws)
    weights : array_like, shape (n_galaxies, n_draws), optional
    names, flags : sequence of str, optional
    photometric_residual : Quantity, shape (n_galaxies, n_draws, 5), optional
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), optional
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), optional
    meta : mapping, optional
    """

    def __init__(
        self,
        flux: u.Quantity,
        wavelength: u.Quantity,
        redshift: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        flags: Sequence[str] | None = None,
        photometric_residual: u.Quantity | None = None,
        trusted: np.ndarray | None = None,
        posterior_draw: np.ndarray | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._wavelength = checked_wavelength(wavelength)
        self._flux = checked_flux(flux, self._wavelength)
        n_galaxies, n_draws, n_wavelength = self._flux.shape
        exists = np.isfinite(self._flux.value).any(axis=2)
        self._redshift = checked_redshift(redshift, exists)
        self._weights = checked_weights(weights, exists)
        self._names = checked_names(names, n_galaxies)
        self._flags = checked_flags(flags, n_galaxies)
        self._residual = checked_residual(photometric_residual, (n_galaxies, n_draws))
        self._trusted = checked_trusted(trusted, n_galaxies, n_wavelength)
        self._posterior_draw = checked_posterior_draw(posterior_draw, exists)
        self._meta = dict(meta or {})
        self._best: np.ndarray | None = None
        self._freeze()

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return self._flux.shape[0]

    @property
    def n_draws(self) -> int:
        """Number of draws of each galaxy."""
        return self._flux.shape[1]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the galaxies."""
        return tuple(self._names.tolist())

    @property
    def flags(self) -> tuple[str, ...]:
        """Reasons not to trust each galaxy; empty strings where there is none."""
        return tuple(self._flags.tolist())

    @property
    def usable(self) -> np.ndarray:
        """Galaxies with at least one draw, bool, shape (n_galaxies,)."""
        return np.isfinite(self._redshift).any(axis=1)

    @property
    def wavelength(self) -> u.Quantity:
        """Vacuum wavelengths of the pixels, read-only, shape (n_wavelength,)."""
        return self._wavelength

    @property
    def flux(self) -> u.Quantity:
        """Spectral flux density of the draws, read-only, shape (n_galaxies, n_draws, n_wavelength)."""
        return self._flux

    @property
    def weights(self) -> np.ndarray:
        """Weights of the draws, read-only, shape (n_galaxies, n_draws); 1 in sum for each galaxy."""
        return self._weights

    @property
    def redshift(self) -> np.ndarray:
        """Redshifts of the draws, read-only, shape (n_galaxies, n_draws)."""
        return self._redshift

    @property
    def posterior_draw(self) -> np.ndarray:
        """Number of the draw of the posterior each spectrum belongs to, read-only, shape (n_galaxies, n_draws).

        -1 where it is not known: the spectra were drawn without a posterior, or come from an old file.
        """
        return self._posterior_draw

    @property
    def photometric_residual(self) -> u.Quantity | None:
        """Synthetic minus input magnitudes, read-only, shape (n_galaxies, n_draws, 5), or None."""
        return self._residual

    @property
    def trusted(self) -> np.ndarray:
        """Pixels that the model covers, read-only, bool, shape (n_galaxies, n_wavelength)."""
        return self._trusted

    @property
    def meta(self) -> Mapping[str, Any]:
        """What made the draws, read-only."""
        return MappingProxyType(self._meta)

    @property
    def resolving_power(self) -> float:
        """Wavelength over full width at half maximum of an unresolved line; `RESOLVING_POWER` unless meta says."""
        return float(self._meta.get("resolving_power", RESOLVING_POWER))

    @property
    def best_draw(self) -> np.ndarray:
        """Numbers of the draws that `best` hands out, read-only, shape (n_galaxies,); -1 for an unusable galaxy."""
        if self._best is None:
            self._best = np.array(
                [self._best_of(galaxy) for galaxy in range(self.n_galaxies)], dtype=int
            )
            self._best.setflags(write=False)
        return self._best

    def _best_of(self, galaxy: int) -> int:
        draws = at_median_redshift(
            self._flux.value[galaxy], self._redshift[galaxy], self._wavelength.value
        )
        one = slice(galaxy, galaxy + 1)
        return int(best_draws(draws[None], self._weights[one], self._trusted[one])[0])

    def __len__(self) -> int:
        return self.n_galaxies

    def __repr__(self) -> str:
        n_flagged = np.count_nonzero(self._flags != "")
        first, last = self._wavelength.value[[0, -1]]
        return (
            f"<{type(self).__name__}: {_counted(self.n_galaxies, 'galaxy', 'galaxies')}, "
            f"{_counted(self.n_draws, 'draw', 'draws')} of {len(self._wavelength)} pixels, "
            f"{first:.0f}-{last:.0f} Angstrom" + (f"; {n_flagged} flagged>" if n_flagged else ">")
        )

    def __getitem__(self, key: int | slice | np.ndarray | Sequence[int]) -> Self:
        """Select galaxies by number, slice, boolean mask or list of numbers, also if it is only one.

        Raises IndexError or TypeError if there is no such thing.
        """
        try:
            rows = checked_index(key, self.n_galaxies)
        except TypeError:
            raise TypeError(
                f"{type(self).__name__} is indexed by galaxies (a number, slice, boolean mask or flat list of "
                f"numbers), not by {key!r}; use galaxy() to select one by its name."
            ) from None
        return self._replaced(
            flux=self._flux[rows],
            redshift=self._redshift[rows],
            weights=self._weights[rows],
            names=self._names[rows],
            flags=self._flags[rows],
            residual=None if self._residual is None else self._residual[rows],
            trusted=self._trusted[rows],
            posterior_draw=self._posterior_draw[rows],
            best=None if self._best is None else self._best[rows],
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[number] for number in range(self.n_galaxies))

    def galaxy(self, name: str) -> Self:
        """Select one galaxy by its name.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        SpectrumDraws of one galaxy

        Raises
        ------
        KeyError
            If no galaxy has the name.
        ValueError
            If several have.
        """
        return self[index_of_name(name, self._names)]

    @classmethod
    def concatenate(cls, spectra: Iterable[Self]) -> Self:
        """Join draws of the spectra of different galaxies.

        Parameters
        ----------
        spectra : iterable of SpectrumDraws
            With the same wavelengths and number of draws.

        Returns
        -------
        SpectrumDraws
            The photometric residual is NaN for the galaxies of a part without it; of the meta
            data, the entries on which all parts agree.

        Raises
        ------
        ValueError
            If there is nothing to join, or the parts differ in wavelength or number of draws.
        TypeError
            If something else is among them.
        """
        parts = list(spectra)
        if not parts:
            raise ValueError(f"spectra is empty; give at least one {cls.__name__} to concatenate.")
        for number, part in enumerate(parts):
            check_alike(part, parts[0], f"spectra[{number}]")
        joined = {
            name: np.concatenate([getattr(part, f"_{name}") for part in parts]) for name in _ARRAYS
        }
        return parts[0]._replaced(
            **joined,
            residual=_joined_residuals(parts),
            meta=common_meta([part._meta for part in parts]),
        )

    def _replaced(self, **parts: Any) -> Self:
        """Make a copy in which some arrays, which are known to fit, are others."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._best = None
        new.__dict__.update({f"_{name}": value for name, value in parts.items()})
        new._meta = dict(new._meta)
        new._freeze()
        return new

    def _freeze(self) -> None:
        for values in self.__dict__.values():
            if isinstance(values, np.ndarray):
                values.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # arrays come back from a pickle or a deep copy writeable
        self.__dict__.update(state)
        self._freeze()


def check_alike(part: Any, first: Any, argument: str) -> None:
    """Refuse draws of spectra that cannot stand next to others.

    Parameters
    ----------
    part : object
        What may be wrong.
    first : object
        What it must fit, if that is right.
    argument : str
        How the error message names it.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If the wavelengths or numbers of draws differ.
    """
    if not isinstance(part, DrawArrays):
        raise TypeError(f"{argument} is a {type(part).__name__}; give SpectrumDraws.")
    if part.n_draws != first.n_draws:
        raise ValueError(
            f"{argument} has {part.n_draws} draws, those before have {first.n_draws}; give the same number of "
            f"draws."
        )
    one, other = part.wavelength.value, first.wavelength.value
    if one.shape != other.shape or not np.allclose(one, other, rtol=1e-9, atol=0):
        raise ValueError(
            f"{argument} has another wavelength grid ({len(one)} pixels, {one[0]:.6g}-{one[-1]:.6g} AA) than "
            f"those before ({len(other)} pixels, {other[0]:.6g}-{other[-1]:.6g} AA); give one grid."
        )


def common_meta(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keep the entries of meta data that are everywhere the same.

    Parameters
    ----------
    metas : sequence of mapping

    Returns
    -------
    dict
    """
    return {
        key: value
        for key, value in metas[0].items()
        if all(key in meta and repr(meta[key]) == repr(value) for meta in metas[1:])
    }


def _joined_residuals(parts: Sequence[DrawArrays]) -> u.Quantity | None:
    known = [part._residual for part in parts if part._residual is not None]
    if not known:
        return None
    n_bands = known[0].shape[-1]
    joined = [
        np.full((*part._redshift.shape, n_bands), np.nan, dtype=np.float32)
        if part._residual is None
        else part._residual.value
        for part in parts
    ]
    return u.Quantity(np.concatenate(joined), known[0].unit, copy=False)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
