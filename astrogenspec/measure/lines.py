"""Emission lines: fluxes, equivalent widths, velocities and widths.

The lines are corrected for stellar absorption.

The stellar continuum is subtracted first: a non-negative fit of stellar templates if the extra
``simulate`` is installed, otherwise a local continuum with Gaussian absorption lines of one common
strength under the Balmer lines.  The emission lines are then fitted jointly
(`astrogenspec.measure.line_fit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import astropy.units as u
import numpy as np
from astropy.table import QTable
from specutils import Spectrum

from ..flags import Flag, FlagLog
from .definitions import checked_names, line_definitions
from .inputs import (
    LIGHT_SPEED,
    NO_REDSHIFT,
    Medium,
    SpectrumArrays,
    instrument_dispersion,
    spectrum_arrays,
)
from .line_fit import LineFit, fit_lines, unmeasured_lines
from .line_model import Line
from .log_grid import LogSpectrum, log_spectrum
from .stellar_fit import StellarProblem, fit_stars
from .templates import stellar_templates, templates_available

__all__ = [
    "DEFAULT_LINES",
    "LINE_NAMES",
    "LineFunction",
    "equivalent_width",
    "line_flux",
    "measure_lines",
]

_TABLE = line_definitions()
#: Names of the available lines.
LINE_NAMES: tuple[str, ...] = tuple(_TABLE["name"].tolist())
#: Lines that are measured by default.
DEFAULT_LINES: tuple[str, ...] = tuple(_TABLE["name"][_TABLE["default"]].tolist())
_LINES = {
    str(row["name"]): Line(
        str(row["name"]),
        float(row["wavelength"].value),
        str(row["group"]),
        str(row["tied_to"]) if row["tied_to"] else "",
        float(row["ratio"]),
        float(row["absorption"]),
    )
    for row in _TABLE
}
_BROAD_LINES = tuple(line for line in _LINES.values() if line.group == "broad")
_SPEED = u.km / u.s
#: Minimum signal-to-noise ratio of a detected line and of a broad component.
_MIN_SNR, _MIN_BROAD_SNR = 3.0, 8.0
#: Broad components are tried if Halpha is wider (km/s) or its fit worse (root of the reduced chi
#: square) than this.
_MAX_NARROW_WIDTH, _MAX_EXCESS = 350.0, 1.6
#: Distance within which bad pixels are mentioned (km/s).
_MAX_DISTANCE = 1000.0
#: Maximum shift of the emission lines from the stars as a starting value (km/s).
_MAX_START = 300.0


def measure_lines(
    spectrum: Spectrum,
    lines: str | Sequence[str] = DEFAULT_LINES,
    *,
    redshift: float | np.ndarray | None = None,
    stellar_absorption: bool | Literal["templates", "local"] = True,
    medium: Medium | None = None,
    resolution: float = 1850.0,
) -> QTable:
    """Measure emission lines.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    lines : str or sequence of str
        Names from `LINE_NAMES`.  All `DEFAULT_LINES` are always fitted, so that blends are
        separated correctly.
    redshift : float or array_like, shape (n,), optional
        Redshift, accurate to 300 km/s; that of the spectrum by default.  Give 0 for a spectrum in
        the rest frame; NaN is missing.
    stellar_absorption : bool or {"templates", "local"}
        Stellar continuum: a template fit ("templates"), a local continuum with Gaussian Balmer
        absorption of one common strength ("local"), or a local continuum only (False).  True
        selects "templates" if the extra ``simulate`` is installed, otherwise "local".
    medium : {"vacuum", "air"}, optional
        Medium of the wavelengths; by default that in the header of the spectrum (CTYPE, AIRORVAC),
        or vacuum.
    resolution : float
        Resolving power of the spectrum.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each line, and for each spectrum of a stack (index in ``spectrum``): ``line``,
        ``wavelength`` (rest frame, vacuum), ``flux`` (observed, not corrected for dust),
        ``equivalent_width`` (rest frame, positive in emission), ``velocity`` (relative to the
        redshift) and ``dispersion`` (corrected for the spectrograph), the last four with errors
        (suffix ``_err``), ``continuum`` (level beside the line), ``flags`` (bit codes, 0 if nothing
        was found) and ``flag`` (the same as text).  A line that is masked or outside the wavelength
        range is NaN and flagged.  Spikes narrower than the resolution, such as hot pixels, are
        excluded, and lines within 1000 km/s of one are flagged.

    Raises
    ------
    ImportError
        If ``stellar_absorption`` is "templates" and the extra ``simulate`` is not installed.
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If a line is unknown, or an argument or the spectrum is invalid.

    Notes
    -----
    The fluxes of [O III] 4959 and [N II] 6548 are 1/2.98 and 1/3.05 of those of [O III] 5007 and [N
    II] 6584.  Hydrogen and helium lines share one velocity and width and all other lines another;
    if one of the two groups is weak, all lines share both.  Errors include those of the kinematics
    and the local continuum, and are scaled up if the reduced chi square exceeds 1; template
    mismatch is included as 1% of the continuum.  If Halpha is wider than 350 km/s or badly fitted,
    broad components of Halpha and Hbeta are fitted and kept if they are significant; request
    "broad_halpha" and "broad_hbeta" to obtain them.
    """
    chosen = checked_names(lines, LINE_NAMES, "line")
    mode = _absorption_mode(stellar_absorption)
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    bad = arrays.spikes()
    arrays = arrays.without(bad)
    fitted = tuple(name for name in LINE_NAMES if name in {*chosen, *DEFAULT_LINES})
    parts = []
    for row in range(len(arrays)):
        lines_of = tuple(_LINES[name] for name in fitted)
        redshift_of = float(arrays.redshift[row])
        if np.isnan(redshift_of):
            fit = unmeasured_lines([(Flag.NO_REDSHIFT, NO_REDSHIFT)] * len(lines_of))
        else:
            fit = _fit(log_spectrum(arrays, row), redshift_of, lines_of, mode, resolution)
        parts.append(_rows(fit, fitted, chosen, arrays, row, arrays.wavelength[bad[row]]))
    table = QTable({name: _concatenated([part[name] for part in parts]) for name in parts[0]})
    if not arrays.single:
        table.add_column(np.repeat(np.arange(len(arrays)), len(chosen)), index=0, name="spectrum")
    return table


@dataclass(frozen=True)
class LineFunction:
    """Function that measures one column of `measure_lines` for lines of one spectrum.

    Parameters
    ----------
    names : tuple of str
        Names from `LINE_NAMES`.
    column : str
        Column of `measure_lines`.
    options : tuple of (str, object)
        Keyword arguments of `measure_lines`.
    """

    names: tuple[str, ...]
    column: str = "flux"
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, spectrum: Spectrum) -> u.Quantity | dict[str, u.Quantity]:
        """Measure the lines.

        Parameters
        ----------
        spectrum : `~specutils.Spectrum`
            One spectrum, flux of shape (m,).

        Returns
        -------
        Quantity or dict of str to Quantity
            A dict if there are several names; NaN if a line cannot be measured.
        """
        table = measure_lines(spectrum, self.names, **dict(self.options))
        values = dict(zip(self.names, table[self.column], strict=True))
        return values if len(values) > 1 else values[self.names[0]]


def line_flux(*names: str, **options: Any) -> LineFunction:
    """Return a function that measures line fluxes, for `SpectrumDraws.measure`.

    Parameters
    ----------
    *names : str
        One or more names from `LINE_NAMES`.
    **options : object
        Keyword arguments of `measure_lines`.

    Returns
    -------
    LineFunction
        Takes a 1-D `~specutils.Spectrum` and returns a Quantity, or a dict of them for several
        names.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> from astrogenspec.measure import line_flux
    >>> spectra.measure(line_flux("halpha"))        # doctest: +SKIP
    """
    return LineFunction(
        checked_names(names, LINE_NAMES, "line"), "flux", tuple(sorted(options.items()))
    )


def equivalent_width(*names: str, **options: Any) -> LineFunction:
    """Return a function for `SpectrumDraws.measure` that measures equivalent widths of lines.

    Parameters
    ----------
    *names : str
        One or more names from `LINE_NAMES`.
    **options : object
        Keyword arguments of `measure_lines`.

    Returns
    -------
    LineFunction
        Takes a 1-D `~specutils.Spectrum` and returns a Quantity (rest frame, positive in emission),
        or a dict of them for several names.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    chosen = checked_names(names, LINE_NAMES, "line")
    return LineFunction(chosen, "equivalent_width", tuple(sorted(options.items())))


def _absorption_mode(stellar_absorption: bool | str) -> str:
    if stellar_absorption is True:
        return "templates" if templates_available() else "local"
    if stellar_absorption is False:
        return "none"
    if stellar_absorption not in ("templates", "local"):
        raise ValueError(
            f"stellar_absorption is {stellar_absorption!r}; give True, False, 'templates' or "
            "'local'."
        )
    return stellar_absorption


def _fit(
    spectrum: LogSpectrum, redshift: float, lines: tuple[Line, ...], mode: str, resolution: float
) -> LineFit:
    """Fit narrow lines, and broad components too if the fit of Halpha suggests them."""
    narrow = tuple(line for line in lines if line.group != "broad")
    both = narrow + _BROAD_LINES
    fit = partial(
        fit_lines,
        spectrum,
        redshift=redshift,
        instrument=instrument_dispersion(resolution),
        absorption=mode != "none",
    )
    stars, velocity = _stars(spectrum, redshift, mode, resolution)
    simple = fit(stars=stars, lines=narrow, start=velocity)
    if not _suggests_broad_lines(simple, narrow):
        return _selected(simple, narrow, lines)
    stars, velocity = _stars(spectrum, redshift, mode, resolution, broad=True)
    full = fit(stars=stars, lines=both, start=velocity)
    names = [line.name for line in both]
    k, broad = names.index("halpha"), names.index("broad_halpha")
    significant = full.flux[broad] > _MIN_BROAD_SNR * full.flux_err[broad]
    if significant and not full.dispersion[broad] < 2.5 * full.dispersion[k]:
        return _selected(full, both, lines)
    return _selected(simple, narrow, lines)


def _suggests_broad_lines(fit: LineFit, lines: tuple[Line, ...]) -> bool:
    """Return whether Halpha may have a broad component because it is too wide or badly fitted."""
    k = [line.name for line in lines].index("halpha")
    wide = fit.dispersion[k] > _MAX_NARROW_WIDTH
    significant = fit.flux[k] > _MIN_BROAD_SNR * fit.flux_err[k]
    at_limit = fit.codes[k] & Flag.AT_LIMIT
    return bool((wide and significant) or at_limit or fit.excess[k] > _MAX_EXCESS)


def _selected(fit: LineFit, fitted: tuple[Line, ...], lines: tuple[Line, ...]) -> LineFit:
    """Reorder a fit to the requested lines; broad lines not fitted are NaN and flagged."""
    names = [line.name for line in fitted]
    index = np.array([names.index(line.name) if line.name in names else -1 for line in lines])
    columns = {
        field.name: np.where(index >= 0, getattr(fit, field.name)[index], np.nan)
        for field in fields(LineFit)
        if field.name not in ("codes", "texts")
    }
    log = FlagLog(len(lines))
    has_broad = any(line.group == "broad" for line in fitted)
    for k, line in enumerate(lines):
        if index[k] < 0:
            log.add(k, Flag.WEAK_LINE, "no broad line found")
        elif fit.codes[index[k]]:
            log.add(k, int(fit.codes[index[k]]), fit.texts[index[k]])
        elif has_broad and line.name in ("halpha", "hbeta"):
            log.add(k, Flag.BROAD_LINE, "beside a broad line")
    return LineFit(**columns, codes=log.codes, texts=log.texts)


def _stars(
    spectrum: LogSpectrum, redshift: float, mode: str, resolution: float, *, broad: bool = False
) -> tuple[np.ndarray | None, float]:
    """Return the stellar model and its velocity; ``broad`` masks the wings of the Balmer lines."""
    if mode != "templates":
        return None, 0.0
    problem = StellarProblem.of(
        spectrum, stellar_templates(), redshift, resolution, broad_lines=broad
    )
    if problem is None:
        return None, 0.0
    try:
        fit = fit_stars(problem, quick=True)
    except ValueError:
        return None, 0.0
    return fit.model, float(np.clip(fit.velocity, -_MAX_START, _MAX_START))


def _rows(
    fit: LineFit,
    fitted: tuple[str, ...],
    chosen: tuple[str, ...],
    arrays: SpectrumArrays,
    row: int,
    spikes: np.ndarray,
) -> dict[str, object]:
    """Return the columns of the table; ``spikes`` are the wavelengths of excluded pixels."""
    order = [fitted.index(name) for name in chosen]
    unit = arrays.unit * u.AA
    factor = 1 / (1 + arrays.redshift[row])
    flux, error = fit.flux[order], fit.flux_err[order]
    level = np.where(fit.continuum[order] > 0, fit.continuum[order], np.nan)
    width = flux / level * factor
    width_err = np.hypot(error, flux * fit.continuum_err[order] / level) / level * factor
    scale = arrays.scale[row]
    log = FlagLog(len(order))
    log.extend(fit.codes[order], [fit.texts[k] for k in order])
    centres = np.array([_LINES[name].wavelength for name in chosen]) / factor
    distance = LIGHT_SPEED * np.abs(spikes / centres[:, None] - 1)
    near = (distance < _MAX_DISTANCE).any(axis=1) & (log.codes & Flag.BAD_PIXELS == 0)
    log.add(near, Flag.BAD_PIXELS, "bad pixels nearby are excluded")
    undetected = np.isfinite(flux) & ~(flux > _MIN_SNR * error)
    log.add(undetected & (log.codes & Flag.WEAK_LINE == 0), Flag.WEAK_LINE, "not detected")
    return {
        "line": np.array(chosen),
        "wavelength": [_LINES[name].wavelength for name in chosen] * u.AA,
        "flux": flux * scale * unit,
        "flux_err": error * scale * unit,
        "equivalent_width": width * u.AA,
        "equivalent_width_err": width_err * u.AA,
        "velocity": fit.velocity[order] * _SPEED,
        "velocity_err": fit.velocity_err[order] * _SPEED,
        "dispersion": fit.dispersion[order] * _SPEED,
        "dispersion_err": fit.dispersion_err[order] * _SPEED,
        "continuum": fit.continuum[order] * scale * arrays.unit,
        "flags": log.codes,
        "flag": np.array(log.texts, dtype=str),
    }


def _concatenated(columns: list) -> object:
    return np.concatenate(columns) if len(columns) > 1 else columns[0]
