"""Arrays of spectrum draws: validation, selection and concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import astropy.units as u
import numpy as np

from .base import GalaxyDraws, check_same_number_of_draws
from .spectral_grid import at_median_redshift
from .statistics import best_draws
from .validation import (
    checked_flux,
    checked_line_flux,
    checked_posterior_draw,
    checked_redshift,
    checked_residual,
    checked_trusted,
    checked_wavelength,
    checked_weights,
)

__all__ = ["RESOLVING_POWER", "SpectrumArrays", "check_same_grid"]

#: Resolving power of spectra that do not name their own: an unresolved line has a dispersion of one
#: pixel of 1e-4 dex (69 km/s), as at the low end of the SDSS spectrographs, 1850-2200 (Smee et al.
#: 2013, AJ 146, 32).
RESOLVING_POWER = 1850.0


class SpectrumArrays(GalaxyDraws):
    """Arrays of `~astrogenspec.SpectrumDraws`, which describes the parameters.

    Views, files and figures are written for this class, and `~astrogenspec.SpectrumDraws` offers
    them as methods.

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
    line_flux : mapping of str to Quantity, each of shape (n_galaxies, n_draws), optional
    meta : mapping, optional
    flag_codes : array_like of int, shape (n_galaxies,), optional
    named : array_like of bool, shape (n_galaxies,), optional
    """

    _PER_GALAXY = (
        *GalaxyDraws._PER_GALAXY,
        "_flux",
        "_redshift",
        "_weights",
        "_residual",
        "_trusted",
        "_posterior_draw",
        "_line_flux",
        "_best",
    )

    #: Pickles of older versions have no lines.
    _line_flux: dict[str, u.Quantity] | None = None

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
        line_flux: Mapping[str, u.Quantity] | None = None,
        meta: Mapping[str, Any] | None = None,
        flag_codes: Sequence[int] | np.ndarray | None = None,
        named: Sequence[bool] | np.ndarray | None = None,
    ) -> None:
        self._wavelength = checked_wavelength(wavelength)
        self._flux = checked_flux(flux, self._wavelength)
        n_galaxies, n_draws, n_wavelength = self._flux.shape
        super().__init__(
            n_galaxies, names=names, flags=flags, flag_codes=flag_codes, meta=meta, named=named
        )
        exists = np.isfinite(self._flux.value).any(axis=2)
        self._redshift = checked_redshift(redshift, exists)
        self._weights = checked_weights(weights, exists)
        self._residual = checked_residual(photometric_residual, (n_galaxies, n_draws))
        self._trusted = checked_trusted(trusted, n_galaxies, n_wavelength)
        self._posterior_draw = checked_posterior_draw(posterior_draw, exists)
        self._line_flux = checked_line_flux(line_flux, exists)
        self._best: np.ndarray | None = None
        self._freeze()

    @property
    def n_draws(self) -> int:
        """Number of draws per galaxy."""
        return self._flux.shape[1]

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
        """Flux density of the draws, read-only, shape (n_galaxies, n_draws, n_wavelength)."""
        return self._flux

    @property
    def weights(self) -> np.ndarray:
        """Weights of the draws, read-only, shape (n_galaxies, n_draws); each row sums to 1."""
        return self._weights

    @property
    def redshift(self) -> np.ndarray:
        """Redshifts of the draws, read-only, shape (n_galaxies, n_draws)."""
        return self._redshift

    @property
    def posterior_draw(self) -> np.ndarray:
        """Index of the posterior draw of each spectrum, read-only, shape (n_galaxies, n_draws).

        -1 where unknown: the spectra were not generated from a posterior, or come from an old file.
        """
        return self._posterior_draw

    @property
    def line_flux(self) -> dict[str, u.Quantity] | None:
        """Fluxes of the narrow emission lines of the draws, each read-only, or None if unknown.

        The names are those of `astrogenspec.measure.measure_lines`, and each has the shape
        (n_galaxies, n_draws). They are those with which the spectra were made, without absorption
        by stars and noise, also of lines beyond the wavelengths.
        """
        return None if self._line_flux is None else dict(self._line_flux)

    @property
    def photometric_residual(self) -> u.Quantity | None:
        """Synthetic minus input magnitudes, read-only, shape (n_galaxies, n_draws, 5), or None."""
        return self._residual

    @property
    def trusted(self) -> np.ndarray:
        """Pixels that the model covers, read-only, bool, shape (n_galaxies, n_wavelength)."""
        return self._trusted

    @property
    def resolving_power(self) -> float:
        """Resolving power: wavelength over the FWHM of an unresolved line."""
        return float(self._meta.get("resolving_power", RESOLVING_POWER))

    @property
    def best_draw(self) -> np.ndarray:
        """Index of the draw returned by `best`, shape (n_galaxies,); -1 for an unusable galaxy."""
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

    def _contents(self) -> str:
        first, last = self._wavelength.value[[0, -1]]
        return f"{len(self._wavelength)} pixels, {first:.0f}-{last:.0f} Angstrom"

    @classmethod
    def concatenate(cls, spectra: Iterable[Self]) -> Self:
        """Join the spectra of different galaxies.

        Parameters
        ----------
        spectra : iterable of SpectrumDraws
            Spectra with the same wavelengths and number of draws.

        Returns
        -------
        SpectrumDraws
            The photometric residual is NaN for the galaxies of a part without it. Lines that all
            parts have are kept, and of the meta data the entries on which all parts agree.

        Raises
        ------
        ValueError
            If ``spectra`` is empty, or the parts differ in wavelengths or number of draws.
        TypeError
            If a part is not a SpectrumDraws.
        """
        parts = list(spectra)
        if not parts:
            raise ValueError(f"spectra is empty; pass at least one {cls.__name__} to concatenate.")
        for number, part in enumerate(parts):
            check_same_grid(part, parts[0], f"spectra[{number}]")
        arrays = ("_flux", "_redshift", "_weights", "_trusted", "_posterior_draw")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
        return cls._joined(
            parts,
            **joined,
            _residual=_joined_residuals(parts),
            _line_flux=_joined_lines(parts),
            _best=None,
        )


def check_same_grid(part: Any, first: SpectrumArrays, argument: str) -> None:
    """Check that spectra can be joined to others.

    Parameters
    ----------
    part : object
        Object to check.
    first : SpectrumDraws
        First of the spectra to join.
    argument : str
        Name of ``part`` in error messages.

    Raises
    ------
    TypeError
        If ``part`` is not a SpectrumDraws.
    ValueError
        If the wavelengths or the numbers of draws differ.
    """
    if not isinstance(part, SpectrumArrays):
        raise TypeError(
            f"{argument} is of type {type(part).__name__}; a SpectrumDraws is expected."
        )
    check_same_number_of_draws(part, first, argument)
    one, other = part.wavelength.value, first.wavelength.value
    if one.shape != other.shape or not np.allclose(one, other, rtol=1e-9, atol=0):
        raise ValueError(
            f"{argument} has another wavelength grid ({len(one)} pixels, "
            f"{one[0]:.6g}-{one[-1]:.6g} AA) than the first part ({len(other)} pixels, "
            f"{other[0]:.6g}-{other[-1]:.6g} AA); all parts need the same grid."
        )


def _joined_residuals(parts: Sequence[SpectrumArrays]) -> u.Quantity | None:
    known = [part.photometric_residual for part in parts if part.photometric_residual is not None]
    if not known:
        return None
    n_bands = known[0].shape[-1]
    joined = [
        np.full((*part.redshift.shape, n_bands), np.nan, dtype=np.float32)
        if part.photometric_residual is None
        else part.photometric_residual.value
        for part in parts
    ]
    return u.Quantity(np.concatenate(joined), known[0].unit, copy=False)


def _joined_lines(parts: Sequence[SpectrumArrays]) -> dict[str, u.Quantity] | None:
    every = [part.line_flux or {} for part in parts]
    common = [name for name in every[0] if all(name in lines for lines in every)]
    if not common:
        return None
    return {name: np.concatenate([lines[name] for lines in every]) for name in common}
