"""Spectrum draws as specutils objects, as cells of an HTML table, and as results of a function."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Row, Table
from astropy.uncertainty import Distribution

from ..quantities import FLUX_UNIT, plain_values
from ..warnings import AstroGenSpecWarning
from .base import html_intervals
from .spectrum_arrays import SpectrumArrays
from .spectrum_header import register_reader, spectrum_header
from .statistics import (
    systematic_choice,
    weighted_means,
    weighted_percentiles,
    weighted_scatters,
)

if TYPE_CHECKING:
    from specutils import Spectrum, SpectrumCollection, SpectrumList

__all__ = [
    "best_spectra",
    "draw_spectra",
    "draws_collection",
    "html_columns",
    "mean_spectra",
    "measured",
    "percentile_spectra",
    "single_draw",
]


def best_spectra(spectra: SpectrumArrays) -> Spectrum | SpectrumList:
    """Return the spectrum of the best draw of each galaxy; see `astrogenspec.SpectrumDraws.best`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.

    Returns
    -------
    Spectrum, or SpectrumList if there are several galaxies
    """
    scatter = weighted_scatters(spectra.flux.value, spectra.weights)

    def one(number: int) -> Spectrum:
        draw = int(spectra.best_draw[number])
        meta = _meta(spectra, number, "best") | _draw_numbers(spectra, number, draw)
        if spectra.photometric_residual is not None:
            meta["photometric_residual"] = spectra.photometric_residual[number, draw]
        redshift = spectra.redshift[number, draw] if draw >= 0 else np.nan
        flux = spectra.flux.value[number, draw]
        return _spectrum(spectra, number, flux, redshift, meta, scatter[number])

    return _one_or_list(spectra, one)


def mean_spectra(spectra: SpectrumArrays, *, median: bool) -> Spectrum | SpectrumList:
    """Return the mean or median spectrum of each galaxy; see `astrogenspec.SpectrumDraws.mean`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.
    median : bool
        Whether to return the median instead of the mean.

    Returns
    -------
    Spectrum, or SpectrumList if there are several galaxies
    """
    values, weights = spectra.flux.value, spectra.weights
    scatter = weighted_scatters(values, weights)
    if median:
        flux = weighted_percentiles(values, weights, np.array([50.0]))[0]
    else:
        flux = weighted_means(values, weights)
    redshift = mean_redshifts(spectra)
    kind = "median" if median else "mean"

    def one(number: int) -> Spectrum:
        meta = _meta(spectra, number, kind)
        if spectra.photometric_residual is not None:
            residual = spectra.photometric_residual[number : number + 1]
            average = weighted_means(residual.value, spectra.weights[number : number + 1])[0]
            meta["photometric_residual"] = u.Quantity(average, u.mag, copy=False)
        return _spectrum(spectra, number, flux[number], redshift[number], meta, scatter[number])

    return _one_or_list(spectra, one)


def percentile_spectra(spectra: SpectrumArrays, percentile: Any) -> Spectrum | SpectrumList:
    """Return spectra of percentiles; see `astrogenspec.SpectrumDraws.percentile`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.
    percentile : float or sequence of float
        Percentiles between 0 and 100.

    Returns
    -------
    Spectrum, or SpectrumList if there are several galaxies

    Raises
    ------
    ValueError
        If a percentile is not between 0 and 100.
    """
    wanted = np.asarray(percentile, dtype=float)
    if wanted.ndim > 1 or wanted.size == 0 or not np.all((wanted >= 0) & (wanted <= 100)):
        raise ValueError(
            f"percentile is {percentile!r}; give one number between 0 and 100, or a flat list of "
            "them."
        )
    flux = weighted_percentiles(spectra.flux.value, spectra.weights, wanted.ravel())
    redshift = mean_redshifts(spectra)

    def one(number: int) -> Spectrum:
        values = flux[:, number] if wanted.ndim else flux[0, number]
        meta = _meta(spectra, number, "percentile") | {"percentile": wanted.tolist()}
        return _spectrum(spectra, number, values, redshift[number], meta)

    return _one_or_list(spectra, one)


def draw_spectra(spectra: SpectrumArrays) -> Spectrum | SpectrumList:
    """Return a two-dimensional spectrum of each galaxy; see `astrogenspec.SpectrumDraws.draws`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.

    Returns
    -------
    Spectrum of shape (n_draws, n_wavelength), or SpectrumList if there are several galaxies
    """
    redshift = mean_redshifts(spectra)

    def one(number: int) -> Spectrum:
        meta = _meta(spectra, number, "draws")
        meta["redshift"] = spectra.redshift[number].copy()
        meta["weights"] = spectra.weights[number].copy()
        meta["posterior_draw"] = spectra.posterior_draw[number].copy()
        if spectra.photometric_residual is not None:
            meta["photometric_residual"] = spectra.photometric_residual[number].copy()
        return _spectrum(spectra, number, spectra.flux.value[number], redshift[number], meta)

    return _one_or_list(spectra, one)


def single_draw(spectra: SpectrumArrays, number: int, draw: int) -> Spectrum:
    """Return the spectrum of one draw, without missing pixels at its ends.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.
    number : int
        Number of the galaxy.
    draw : int
        Number of the draw, which must not be missing.

    Returns
    -------
    Spectrum
        Spectrum without uncertainty.
    """
    flux = spectra.flux.value[number, draw]
    present = np.flatnonzero(np.isfinite(flux))
    pixels = slice(present[0], present[-1] + 1)
    meta = _meta(spectra, number, "draw") | _draw_numbers(spectra, number, draw)
    if spectra.photometric_residual is not None:
        meta["photometric_residual"] = spectra.photometric_residual[number, draw]
    redshift = spectra.redshift[number, draw]
    return _spectrum(spectra, number, flux, redshift, meta, pixels=pixels)


def draws_collection(spectra: SpectrumArrays) -> SpectrumCollection:
    """Return a collection of the draws; see `astrogenspec.SpectrumDraws.to_collection`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.

    Returns
    -------
    SpectrumCollection

    Raises
    ------
    ValueError
        If there is not exactly one galaxy.
    """
    from specutils import SpectrumCollection

    if len(spectra) != 1:
        raise ValueError(
            f"a collection contains the draws of one galaxy, but there are {len(spectra)} "
            "galaxies; select one first, as in spectra[0].to_collection()."
        )
    flux = spectra.flux.value[0].astype(float)
    base = _meta(spectra, 0, "draw")
    meta = [
        base | _draw_numbers(spectra, 0, draw) | {"redshift": float(z), "weight": float(weight)}
        for draw, (z, weight) in enumerate(
            zip(spectra.redshift[0], spectra.weights[0], strict=True)
        )
    ]
    return SpectrumCollection(
        flux=u.Quantity(flux, FLUX_UNIT, copy=False),
        spectral_axis=np.tile(spectra.wavelength, (len(flux), 1)),
        mask=~spectra.trusted[0] | np.isnan(flux),
        meta=meta,
    )


def mean_redshifts(spectra: SpectrumArrays) -> np.ndarray:
    """Compute the weighted mean redshift of the draws of each galaxy.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.

    Returns
    -------
    ndarray, shape (n_galaxies,)
        NaN for a galaxy without draws.
    """
    return weighted_means(spectra.redshift[:, :, None], spectra.weights)[:, 0]


def html_columns(spectra: SpectrumArrays) -> dict[str, list[str]]:
    """Return the columns of the HTML table of spectra.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.

    Returns
    -------
    dict of str to list of str
        Cells of all galaxies by the title of their column.
    """
    low, middle, high = weighted_percentiles(
        spectra.redshift[:, :, None], spectra.weights, np.array([16.0, 50.0, 84.0])
    )[:, :, 0]
    return {
        "redshift": html_intervals(low, middle, high, ".4f"),
        "best draw": [str(draw) if draw >= 0 else "&mdash;" for draw in spectra.best_draw],
        "trusted pixels": [f"{100 * pixels.mean():.0f}%" for pixels in spectra.trusted],
    }


def _one_or_list(
    spectra: SpectrumArrays, make: Callable[[int], Spectrum]
) -> Spectrum | SpectrumList:
    from specutils import SpectrumList

    if len(spectra) == 1:
        return make(0)
    return SpectrumList([make(number) for number in range(len(spectra))])


def _meta(spectra: SpectrumArrays, number: int, kind: str) -> dict[str, Any]:
    return dict(spectra.meta) | {
        "name": spectra.names[number],
        "flags": int(spectra.flag_codes[number]),
        "flag": spectra.flags[number],
        "kind": kind,
    }


def _draw_numbers(spectra: SpectrumArrays, number: int, draw: int) -> dict[str, int | None]:
    """Return the index of a draw and of its posterior draw as meta data; None if missing."""
    of_posterior = int(spectra.posterior_draw[number, draw]) if draw >= 0 else -1
    numbers = {"draw": draw, "posterior_draw": of_posterior}
    return {key: value if value >= 0 else None for key, value in numbers.items()}


def _spectrum(
    spectra: SpectrumArrays,
    number: int,
    flux: np.ndarray,
    redshift: float,
    meta: dict[str, Any],
    scatter: np.ndarray | None = None,
    pixels: slice = slice(None),
) -> Spectrum:
    from astropy.nddata import StdDevUncertainty
    from specutils import Spectrum

    register_reader()
    flux = flux[..., pixels].astype(float)
    mask = np.isnan(flux) | ~spectra.trusted[number, pixels]
    uncertainty = None
    if scatter is not None and np.isfinite(scatter).any():
        uncertainty = StdDevUncertainty(scatter[pixels])
        mask |= np.isnan(scatter[pixels])
    return Spectrum(
        flux=u.Quantity(flux, FLUX_UNIT, copy=False),
        spectral_axis=spectra.wavelength[pixels],
        redshift=float(redshift),
        uncertainty=uncertainty,
        mask=mask,
        meta=meta | {"header": spectrum_header(meta, redshift)},
    )


#: Name of the result of a function that returns one unnamed value.
_UNNAMED = ""


def measured(
    spectra: SpectrumArrays, function: Callable[[Spectrum], Any], *, progress: bool
) -> Distribution | dict[str, Distribution]:
    """Apply a function to every draw; see `astrogenspec.SpectrumDraws.measure`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.
    function : callable
        Function of a one-dimensional Spectrum.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    `~astropy.uncertainty.Distribution`, or dict of them

    Raises
    ------
    TypeError
        If ``function`` is not callable, or its result is not a number.
    ValueError
        If there are no draws, ``function`` fails for all of them, or its results have different
        names or shapes.
    """
    from tqdm import tqdm

    if not callable(function):
        raise TypeError(
            f"function is of type {type(function).__name__}; a function of a Spectrum is expected."
        )
    chosen = systematic_choice(spectra.weights)
    exists = np.isfinite(spectra.redshift)
    pairs = [
        (number, int(draw))
        for number, draws in enumerate(chosen)
        for draw in np.unique(draws)
        if exists[number, draw]
    ]
    if not pairs:
        raise ValueError("no galaxy has draws to measure.")
    results = _Results(len(spectra), spectra.n_draws)
    failures = []
    for number, draw in tqdm(pairs, desc="measuring", unit="draw", disable=not progress):
        try:
            value = function(single_draw(spectra, number, draw))
        except ValueError as error:
            failures.append((number, draw, error))
            continue
        results.add(number, chosen[number] == draw, value)
    _report_failures(spectra, failures, len(pairs))
    return results.distributions()


def _report_failures(
    spectra: SpectrumArrays, failures: list[tuple[int, int, ValueError]], n_pairs: int
) -> None:
    if not failures:
        return
    number, draw, error = failures[0]
    if len(failures) == n_pairs:
        raise ValueError(
            f"function failed for all {n_pairs} draws, first for draw {draw} of galaxy "
            f"{spectra.names[number]!r}: {error}"
        ) from error
    warnings.warn(
        f"function failed for {len(failures)} of {n_pairs} draws, which are NaN in the result; "
        f"first for draw {draw} of galaxy {spectra.names[number]!r}: {error}",
        AstroGenSpecWarning,
        stacklevel=4,
    )


class _Results:
    """Arrays of results; the first result determines their names, shapes and units."""

    def __init__(self, n_galaxies: int, n_draws: int) -> None:
        self._size = (n_galaxies, n_draws)
        self._values: dict[str, np.ndarray] = {}
        self._units: dict[str, u.UnitBase | None] = {}

    def add(self, number: int, samples: np.ndarray, result: Any) -> None:
        named = _named(result)
        if not self._values:
            for name, value in named.items():
                self._units[name] = getattr(value, "unit", None)
                self._values[name] = np.full((*self._size, *np.shape(value)), np.nan)
        if set(named) != set(self._values):
            differ = ", ".join(repr(name) for name in sorted(set(named) ^ set(self._values)))
            raise ValueError(
                f"function returned different names for different spectra ({differ}); it must "
                "return the same names for every spectrum, with NaN for missing values."
            )
        for name, value in named.items():
            label = f"the result {name!r} of function" if name else "the result of function"
            numbers = plain_values(value, self._units[name], name=label)
            wanted = self._values[name].shape[2:]
            if numbers.shape != wanted:
                raise ValueError(
                    f"{label} has shape {numbers.shape}, but {wanted} for an earlier spectrum; it "
                    "must have one shape for all spectra."
                )
            self._values[name][number, samples] = numbers

    def distributions(self) -> Distribution | dict[str, Distribution]:
        made = {}
        for name, values in self._values.items():
            samples = np.moveaxis(values, 1, -1)
            unit = self._units[name]
            made[name] = Distribution(
                samples if unit is None else u.Quantity(samples, unit, subok=True, copy=False)
            )
        return made[_UNNAMED] if list(made) == [_UNNAMED] else made


def _named(result: Any) -> dict[str, Any]:
    """Return the results by name, without text."""
    if isinstance(result, Row):
        result = {name: result[name] for name in result.colnames}
    elif isinstance(result, Table):
        # A table of one row is treated like the row.
        row = 0 if len(result) == 1 else slice(None)
        result = {name: result[name][row] for name in result.colnames}
    if not isinstance(result, Mapping):
        return {_UNNAMED: result}
    numbers = {
        str(name): value
        for name, value in result.items()
        if np.asarray(value).dtype.kind not in "SU"
    }
    if not numbers:
        raise TypeError(
            "function returned no numbers; it must return a Quantity or a mapping of quantities."
        )
    return numbers
