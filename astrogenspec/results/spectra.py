"""Draws of galaxy spectra: the result of every generation of spectra.

Sixteen spectra of each galaxy, say, each with the redshift and the other properties of the same draw of a
`~astrogenspec.Posterior`, on one grid of vacuum wavelengths in the frame of the observer.  What is made of them are
`specutils.Spectrum` objects.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import astropy.units as u
import numpy as np

from ..quantities import FLUX_UNIT
from ..surveys import SDSS, Survey
from .spectral_grid import at_median_redshift, log_step, shifted_to_rest, smoothed, trusted_at_rest
from .statistics import best_draws
from .validation import (
    checked_flags,
    checked_flux,
    checked_index,
    checked_names,
    checked_posterior_draw,
    checked_redshift,
    checked_residual,
    checked_trusted,
    checked_wavelength,
    checked_weights,
    index_of_name,
)

if TYPE_CHECKING:
    from astropy.uncertainty import Distribution
    from matplotlib.axes import Axes
    from specutils import Spectrum, SpectrumCollection, SpectrumList

__all__ = [
    "FLUX_UNIT",
    "RESOLVING_POWER",
    "DrawArrays",
    "SpectrumDraws",
    "check_alike",
    "common_meta",
]

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


class SpectrumDraws(DrawArrays):
    """Hold draws of the spectra of many galaxies.

    Each draw of a galaxy belongs to a draw of its posterior, `posterior_draw`. The object does not
    change after it is made.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
        Spectral flux density, kept in single precision in 1e-17 erg/s/cm2/Angstrom. NaN marks
        draws or pixels that do not exist; a galaxy with nothing but NaN is unusable.
    wavelength : Quantity, shape (n_wavelength,)
        Rising vacuum wavelengths in the frame of the observer.
    redshift : array_like, shape (n_galaxies, n_draws)
        Redshift of every draw.
    weights : array_like, shape (n_galaxies, n_draws), optional
        Not negative; scaled to add up to 1 for each galaxy. Equal by default.
    names : sequence of str, optional
        Names of the galaxies; their numbers, counted from 0, by default.
    flags : sequence of str, optional
        Why not to trust a galaxy; an empty string if nothing is wrong.
    photometric_residual : Quantity, shape (n_galaxies, n_draws, 5), optional
        Synthetic minus input magnitude in the bands ugriz; NaN for a band without input.
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), optional
        False where the model has no coverage; such pixels are masked in what is handed out.
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), optional
        Number of the draw of the posterior each spectrum belongs to; -1 where it is not known, as
        by default.
    meta : mapping, optional
        What made the draws (model, seed, ...). The entry ``resolving_power`` says what `degrade`
        starts from.

    Raises
    ------
    TypeError
        If something is of another kind, such as a flux without unit.
    ValueError
        If shapes differ, the wavelength does not rise, or a value is out of range.
    astropy.units.UnitConversionError
        If a unit does not fit.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import SpectrumDraws
    >>> wavelength = np.geomspace(3800, 9200, 500) * u.AA
    >>> flux = np.random.default_rng(1).normal(20, 2, (1, 16, 500)) * 1e-17 * u.erg / u.s / u.cm**2 / u.AA
    >>> spectra = SpectrumDraws(flux, wavelength, np.full((1, 16), 0.07), names=["NGC 1"])
    >>> spectra
    <SpectrumDraws: 1 galaxy, 16 draws of 500 pixels, 3800-9200 Angstrom>
    >>> spectra.mean.flux.unit
    Unit("1e-17 erg / (Angstrom s cm2)")
    >>> print(spectra.measure(lambda spectrum: spectrum.flux.mean()).pdf_mean().round(0))
    [20.] 1e-17 erg / (Angstrom s cm2)
    """

    def _repr_html_(self) -> str:
        from .specutils_views import html_summary

        return html_summary(self)

    @property
    def best(self) -> Spectrum | SpectrumList:
        """The draw of the largest weight; of several such, the most typical one.

        A `specutils.Spectrum` with the redshift of that draw, the scatter of the draws as
        `~astropy.nddata.StdDevUncertainty` (None if there is only one), a mask of the pixels that
        are not `trusted`, and in its meta data ``name``, ``draw``,
        ``posterior_draw``, ``flag`` and ``photometric_residual``. Several galaxies make a `specutils.SpectrumList`. An unusable
        galaxy is NaN and masked. The most typical draw is that of the least mean distance from the median over the trusted
        pixels, in units of half the 68% range and at most 3 of them, when all draws are brought to one redshift.
        """
        from .specutils_views import best_spectra

        return best_spectra(self)

    @property
    def mean(self) -> Spectrum | SpectrumList:
        """The weighted mean of the draws, with their mean redshift; otherwise as `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=False)

    @property
    def median(self) -> Spectrum | SpectrumList:
        """The weighted median of the draws at each pixel, with their mean redshift; otherwise as `best`."""
        from .specutils_views import mean_spectra

        return mean_spectra(self, median=True)

    @property
    def draws(self) -> Spectrum | SpectrumList:
        """All draws as a `specutils.Spectrum` of shape (n_draws, n_wavelength), without uncertainty.

        It has the mean redshift; those of the draws, and their weights, are in its meta data.
        Several galaxies make a `specutils.SpectrumList`. Beware that not all functions of
        specutils keep the draws apart; `measure` does.
        """
        from .specutils_views import draw_spectra

        return draw_spectra(self)

    def percentile(self, q: float | Sequence[float]) -> Spectrum | SpectrumList:
        """Give weighted percentiles of the draws at each pixel.

        Parameters
        ----------
        q : float or sequence of float
            Between 0 and 100.

        Returns
        -------
        `specutils.Spectrum`, or `specutils.SpectrumList` if there are several galaxies
            Of shape (n_wavelength,), or (n_percentiles, n_wavelength) for a sequence; without
            uncertainty, with the mean redshift.

        Raises
        ------
        ValueError
            If a number is not between 0 and 100.
        """
        from .specutils_views import percentile_spectra

        return percentile_spectra(self, q)

    def rest_frame(self) -> SpectrumDraws:
        """Bring every draw to its own rest frame.

        Returns
        -------
        SpectrumDraws
            On a rest-frame grid of the same spacing that holds all draws, NaN where a draw does
            not reach; the flux density is multiplied by 1 + z, so that line fluxes stay what they
            were, and all redshifts are 0. A pixel is trusted if every draw that reaches it
            trusts it.

        Raises
        ------
        ValueError
            If the wavelength is not equally spaced in its logarithm.
        """
        grid = self._wavelength.value
        step = log_step(grid, "the rest frame")
        flux, rest = shifted_to_rest(self._flux.value, grid, self._redshift, step)
        trusted = trusted_at_rest(self._trusted, self._redshift, grid, rest)
        zeros = np.where(np.isfinite(self._redshift), 0.0, np.nan)
        return self._replaced(
            flux=u.Quantity(flux, FLUX_UNIT, copy=False),
            wavelength=u.Quantity(rest, u.AA),
            redshift=zeros,
            trusted=trusted,
            meta=self._meta | {"frame": "rest"},
        )

    def degrade(self, resolution: float) -> SpectrumDraws:
        """Lower the resolving power.

        Parameters
        ----------
        resolution : float
            Resolving power wanted: wavelength over the full width at half maximum of a line.

        Returns
        -------
        SpectrumDraws
            On the same grid, convolved with a Gaussian in the logarithm of the wavelength that
            takes lines from the present `resolving_power` to the one wanted.

        Raises
        ------
        ValueError
            If the resolving power wanted is not positive or is higher than the present one, or
            the wavelength is not equally spaced in its logarithm.
        """
        current = self.resolving_power
        if not 0 < resolution <= current:
            raise ValueError(
                f"resolution is {resolution:g}, but the spectra have a resolving power of {current:g}; give a "
                f"positive number that is not larger, as spectra cannot be sharpened."
            )
        grid = self._wavelength.value
        step = log_step(grid, "degrading")
        flux = smoothed(self._flux.value, grid, step, current, float(resolution))
        return self._replaced(
            flux=u.Quantity(flux, FLUX_UNIT, copy=False),
            meta=self._meta | {"resolving_power": float(resolution)},
        )

    def measure(
        self, function: Callable[[Spectrum], Any], *, progress: bool = False
    ) -> Distribution | dict[str, Distribution]:
        """Measure something on every draw.

        Parameters
        ----------
        function : callable
            Takes one draw as a `specutils.Spectrum` of one dimension, with its redshift and mask,
            without uncertainty; returns a number or Quantity, or several of them by name (mapping,
            or row of a table; their text is left out). Arrays, and so tables of several rows, must
            keep their shape.
        progress : bool
            Show a progress bar.

        Returns
        -------
        `~astropy.uncertainty.Distribution`, shape (n_galaxies, ...), or dict of them
            With n_draws samples. Sample *k* is draw *k* if all weights are equal; otherwise draws
            are repeated or left out as their weights demand, without randomness. NaN where a draw
            does not exist.

        Raises
        ------
        ValueError
            If no galaxy is usable, ``function`` raises ValueError for every draw, or returns
            results that do not fit one another.

        Warns
        -----
        AstroGenSpecWarning
            If ``function`` raises ValueError for some draws, whose results are NaN.
        """
        from .specutils_views import measured

        return measured(self, function, progress=progress)

    def photometry(
        self, survey: str | Survey = SDSS, bands: Sequence[str] | None = None
    ) -> u.Quantity:
        """Integrate every draw over the bands of a survey.

        Parameters
        ----------
        survey : str or Survey
            Whose filters.
        bands : sequence of str, optional
            Bands of the survey; all of them by default.

        Returns
        -------
        Quantity ['nmgy'], shape (n_galaxies, n_draws, n_bands)
            Nanomaggies on the AB system; NaN where the trusted pixels hold less than 99.5% of the
            band. See `astrogenspec.synthetic.synthetic_flux`.
        """
        from ..synthetic import synthetic_flux

        values = self._flux.value
        if not self._trusted.all():
            values = np.where(self._trusted[:, None], values, np.float32(np.nan))
        flux = u.Quantity(values, FLUX_UNIT, copy=False)
        return synthetic_flux(self._wavelength, flux, survey, bands)

    def to_collection(self) -> SpectrumCollection:
        """Hand the draws of one galaxy out as separate spectra.

        Returns
        -------
        `specutils.SpectrumCollection` of n_draws spectra
            Without uncertainties; the redshift and weight of each draw are in its meta data.

        Raises
        ------
        ValueError
            If there is not exactly one galaxy.
        """
        from .specutils_views import draws_collection

        return draws_collection(self)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write everything to a FITS file.

        Parameters
        ----------
        path : path-like
            Ending in ``.fits`` or ``.fit``. `specutils.Spectrum.read` reads the best spectrum of
            the (first) galaxy from it, without redshift and mask.
        overwrite : bool
            Replace a file that exists.

        Raises
        ------
        FileExistsError
            If the file exists and ``overwrite`` is False.
        OSError
            If the file cannot be written; nothing is left behind.
        ValueError
            If the path has another ending.
        """
        from .spectra_io import SpectrumWriter

        with SpectrumWriter(path, overwrite=overwrite) as writer:
            writer.append(self)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        galaxies: int | slice | np.ndarray | Sequence[int] | None = None,
    ) -> SpectrumDraws:
        """Read a file that was made by `write` or by `SpectrumWriter`.

        Parameters
        ----------
        path : path-like
            The file.
        galaxies : int, slice or array_like, optional
            Which galaxies; the others are not read. All by default.

        Returns
        -------
        SpectrumDraws

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        OSError
            If the file is damaged.
        ValueError
            If the file was made by something else.
        """
        from .spectra_io import read_spectra

        return read_spectra(cls, path, galaxies)

    def plot(self, galaxy: int | str = 0, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
        """Draw the spectra of one galaxy: best draw, median, ranges of 68% and 95%, and line labels.

        Parameters
        ----------
        galaxy : int or str
            Number or name.
        ax : `~matplotlib.axes.Axes`, optional
            Axes to draw on.
        **kwargs
            Passed to `astrogenspec.plotting.spectra.spectrum`.

        Returns
        -------
        `~matplotlib.axes.Axes`
        """
        from ..plotting.spectra import spectrum

        return spectrum(self, galaxy, ax=ax, **kwargs)
