"""Measure something on every draw of a spectrum, and gather the results as distributions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Row, Table
from astropy.uncertainty import Distribution
from tqdm import tqdm

from ..warnings import AstroGenSpecWarning
from .spectrum_views import single_draw
from .statistics import plain_values
from .weighted import systematic_choice

if TYPE_CHECKING:
    from specutils import Spectrum

    from ..spectra import SpectrumDraws

__all__ = ["measured"]

#: Key of what a function returns that returns one value.
_VALUE = ""


def measured(
    spectra: SpectrumDraws, function: Callable[[Spectrum], Any], *, progress: bool
) -> Distribution | dict[str, Distribution]:
    """Measure every draw; see `astrogenspec.SpectrumDraws.measure`.

    Parameters
    ----------
    spectra : SpectrumDraws
    function : callable
    progress : bool
        Show a progress bar.

    Returns
    -------
    `~astropy.uncertainty.Distribution`, or dict of them

    Raises
    ------
    TypeError
        If ``function`` is not callable, or returns something that is no number.
    ValueError
        If there is no usable draw, ``function`` fails for every one, or its results do not fit
        one another.
    """
    if not callable(function):
        raise TypeError(
            f"function is a {type(function).__name__}; give a function that takes a Spectrum."
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
        raise ValueError("there is nothing to measure: no galaxy has a usable draw.")
    results = _Results(len(spectra), spectra.n_draws)
    failures = []
    for number, draw in tqdm(pairs, desc="measuring", unit="draw", disable=not progress):
        try:
            value = function(single_draw(spectra, number, draw))
        except ValueError as error:
            failures.append((number, draw, error))
            continue
        results.add(number, chosen[number] == draw, value)
    _report(spectra, failures, len(pairs))
    return results.distributions()


def _report(
    spectra: SpectrumDraws, failures: list[tuple[int, int, ValueError]], n_pairs: int
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
        f"function failed for {len(failures)} of {n_pairs} draws, which are NaN in the result; first for "
        f"draw {draw} of galaxy {spectra.names[number]!r}: {error}",
        AstroGenSpecWarning,
        stacklevel=4,
    )


class _Results:
    """Arrays of results, made when the first one shows their names, shapes and units."""

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
                f"function returned results of different names, differing in {differ}; let it return the same "
                f"for every spectrum, NaN for what it cannot measure."
            )
        for name, value in named.items():
            label = f"the result {name!r} of function" if name else "the result of function"
            numbers = plain_values(value, self._units[name], name=label)
            wanted = self._values[name].shape[2:]
            if numbers.shape != wanted:
                raise ValueError(
                    f"{label} has shape {numbers.shape} here and {wanted} before; let it return one shape for "
                    f"every spectrum."
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
        return made[_VALUE] if list(made) == [_VALUE] else made


def _named(result: Any) -> dict[str, Any]:
    """Give the results names; text is left out of mappings and tables."""
    if isinstance(result, Row):
        result = {name: result[name] for name in result.colnames}
    elif isinstance(result, Table):
        # a table of one row stands for its row
        row = 0 if len(result) == 1 else slice(None)
        result = {name: result[name][row] for name in result.colnames}
    if not isinstance(result, Mapping):
        return {_VALUE: result}
    numbers = {
        str(name): value
        for name, value in result.items()
        if np.asarray(value).dtype.kind not in "SU"
    }
    if not numbers:
        raise TypeError("function returned no numbers; let it return a Quantity, or named ones.")
    return numbers
