"""Emission lines: fluxes, equivalent widths, velocities and widths, with the stars' absorption accounted for.

The stars are subtracted first: a non-negative fit of the simulator's stellar grid if the extra ``simulate`` is
installed, otherwise a local continuum with Gaussian absorption lines of one common strength
under the Balmer lines.  The lines are then fitted
together, see `astrogenspec.measure.line_fit`.
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

from .definitions import checked_names, line_definitions
from .inputs import Medium, SpectrumArrays, instrument_dispersion, spectrum_arrays
from .line_fit import LineFit, fit_lines
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
#: Names of the lines that can be measured.
LINE_NAMES: tuple[str, ...] = tuple(_TABLE["name"].tolist())
#: Lines that are measured unless others are named.
DEFAULT_LINES: tuple[str, ...] = tuple(_TABLE["name"][_TABLE["default"]].tolist())
_SPEED = u.km / u.s
_DETECTED = 3.0
_BROAD = 8.0
_SUSPICIOUS_WIDTH = 350.0
_SUSPICIOUS_EXCESS = 1.6


def measure_lines(
    spectrum: Spectrum,
    lines: str | Sequence[str] = DEFAULT_LINES,
    *,
    redshift: float | np.ndarray | None = None,
    stellar_absorption: bool | Literal["templates", "local"] = True,
    medium: Medium = "vacuum",
    resolution: float = 1850.0,
) -> QTable:
    """Measure emission lines.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    lines : str or sequence of str
        Some of `LINE_NAMES`.  All of `DEFAULT_LINES` are fitted in any case, so that blends come out right.
    redshift : float or array_like, shape (n,), optional
        By default that of the spectrum, and right to 300 km/s; 0 means the rest frame.
    stellar_absorption : bool or {"templates", "local"}
        How the stars under the lines are accounted for: by a template fit, by Gaussians of one common strength under the
        Balmer lines, or by a smooth local continuum only (False).  True takes templates where the extra ``simulate`` is installed.
    medium : {"vacuum", "air"}
        What the wavelengths of the spectrum are measured in.
    resolution : float
        Resolving power of the spectrum.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each line (and spectrum, numbered in ``spectrum``, if a stack came): ``line``, ``wavelength`` (rest
        frame, vacuum), ``flux`` (observed, not corrected for dust), ``equivalent_width`` (rest frame, positive in
        emission), ``velocity`` (relative to the redshift), ``dispersion`` (without the spectrograph), each with
        ``_err``, ``continuum`` (level beside the line) and ``flag``, an empty string if nothing is wrong.  A line that
        is outside of the wavelength range or masked is NaN and flagged.

    Raises
    ------
    ImportError
        If ``stellar_absorption`` is "templates" and the extra ``simulate`` is not installed.
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If a line is unknown, or an argument or the spectrum makes no sense.

    Notes
    -----
    [O III] 4959 and [N II] 6548 are 1/2.98 and 1/3.05 of their partners.  Hydrogen and helium lines share one velocity
    and width, all others another, unless one of the two is weak.  Errors include those of the kinematics and local
    continuum and are scaled where the residuals exceed them; 1% of the continuum is allowed for the mismatch of the
    templates.  Where Halpha is wider than 350 km/s or badly fitted, broad components of Halpha and Hbeta are tried and
    kept if they are significant; name "broad_halpha" and "broad_hbeta" to get them.
    """
    chosen = checked_names(lines, LINE_NAMES, "line")
    how = _how(stellar_absorption)
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    fitted = tuple(name for name in LINE_NAMES if name in {*chosen, *DEFAULT_LINES})
    parts = []
    for row in range(len(arrays)):
        fit = _fitted(
            log_spectrum(arrays, row), float(arrays.redshift[row]), _lines(fitted), how, resolution
        )
        parts.append(_rows(fit, fitted, chosen, arrays, row))
    table = QTable({name: _joined([part[name] for part in parts]) for name in parts[0]})
    if not arrays.single:
        table.add_column(np.repeat(np.arange(len(arrays)), len(chosen)), index=0, name="spectrum")
    return table


@dataclass(frozen=True)
class LineFunction:
    """Measure one column of `measure_lines` for some lines of one spectrum.

    Parameters
    ----------
    names : tuple of str
        Some of `LINE_NAMES`.
    column : str
        Column of `measure_lines`.
    options : tuple of (str, object)
        Keyword arguments of `measure_lines`.
    """

    names: tuple[str, ...]
    column: str = "flux"
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, spectrum: Spectrum) -> u.Quantity | dict[str, u.Quantity]:
        """Measure.

        Parameters
        ----------
        spectrum : `~specutils.Spectrum`
            One spectrum, flux of shape (m,).

        Returns
        -------
        Quantity or dict of str to Quantity
            NaN where a line cannot be measured; a dict if there are several.
        """
        table = measure_lines(spectrum, self.names, **dict(self.options))
        values = dict(zip(self.names, table[self.column], strict=True))
        return values if len(values) > 1 else values[self.names[0]]


def line_flux(*names: str, **options: Any) -> LineFunction:
    """Make a function that measures line fluxes, for `SpectrumDraws.measure`.

    Parameters
    ----------
    *names : str
        One or more of `LINE_NAMES`.
    **options : object
        Keyword arguments of `measure_lines`.

    Returns
    -------
    LineFunction
        Takes a 1-D `~specutils.Spectrum`, gives a Quantity, or a dict of them if there are several names.

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
    """Make a function that measures equivalent widths of emission lines, for `SpectrumDraws.measure`.

    Parameters
    ----------
    *names : str
        One or more of `LINE_NAMES`.
    **options : object
        Keyword arguments of `measure_lines`.

    Returns
    -------
    LineFunction
        Takes a 1-D `~specutils.Spectrum`, gives a Quantity (rest frame, positive in emission), or a dict of them.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    chosen = checked_names(names, LINE_NAMES, "line")
    return LineFunction(chosen, "equivalent_width", tuple(sorted(options.items())))


def _how(stellar_absorption: bool | str) -> str:
    if stellar_absorption is True:
        return "templates" if templates_available() else "local"
    if stellar_absorption is False:
        return "none"
    if stellar_absorption not in ("templates", "local"):
        raise ValueError(
            f"stellar_absorption is {stellar_absorption!r}; give True, False, 'templates' or 'local'."
        )
    return stellar_absorption


def _lines(names: tuple[str, ...]) -> tuple[Line, ...]:
    rows = (_TABLE[LINE_NAMES.index(name)] for name in names)
    return tuple(
        Line(
            str(row["name"]),
            float(row["wavelength"].value),
            str(row["group"]),
            str(row["tied_to"]) if row["tied_to"] else "",
            float(row["ratio"]),
            float(row["absorption"]),
        )
        for row in rows
    )


def _fitted(
    spectrum: LogSpectrum, redshift: float, lines: tuple[Line, ...], how: str, resolution: float
) -> LineFit:
    """Fit narrow lines, and broad ones too where the narrow ones do not do."""
    narrow = tuple(line for line in lines if line.group != "broad")
    broad = tuple(line for line in _lines(LINE_NAMES) if line.group == "broad")
    fit_these = partial(
        fit_lines, instrument=instrument_dispersion(resolution), absorption=how != "none"
    )
    stars, velocity = _stars(spectrum, redshift, how, resolution)
    fit = fit_these(spectrum, stars, redshift, narrow, start=velocity)
    if _suspicious(fit, narrow):
        stars, velocity = _stars(spectrum, redshift, how, resolution, broad=True)
        wide = fit_these(spectrum, stars, redshift, narrow + broad, start=velocity)
        halpha, found = (
            [line.name for line in narrow + broad].index(name)
            for name in ("halpha", "broad_halpha")
        )
        if wide.flux[found] > _BROAD * wide.flux_err[found] and not (
            wide.dispersion[found] < 2.5 * wide.dispersion[halpha]
        ):
            return _selected(wide, narrow + broad, lines)
    return _selected(fit, narrow, lines)


def _suspicious(fit: LineFit, lines: tuple[Line, ...]) -> bool:
    """Whether Halpha may have a broad component: too wide, or badly fitted."""
    k = [line.name for line in lines].index("halpha")
    wide = fit.dispersion[k] > _SUSPICIOUS_WIDTH and fit.flux[k] > _BROAD * fit.flux_err[k]
    return bool(wide or "limits" in fit.reason[k] or fit.excess[k] > _SUSPICIOUS_EXCESS)


def _selected(fit: LineFit, fitted: tuple[Line, ...], lines: tuple[Line, ...]) -> LineFit:
    """Reorder to the lines wanted; broad lines that were not fitted are NaN."""
    names = [line.name for line in fitted]
    places = np.array([names.index(line.name) if line.name in names else -1 for line in lines])
    columns = {
        field.name: np.where(places >= 0, getattr(fit, field.name)[places], np.nan)
        for field in fields(LineFit)
        if field.name != "reason"
    }
    reasons = tuple(fit.reason[k] if k >= 0 else "no broad line found" for k in places)
    if len(fitted) > len([line for line in fitted if line.group != "broad"]):
        note = {"halpha", "hbeta"}
        reasons = tuple(
            reason or ("beside a broad line" if line.name in note else "")
            for reason, line in zip(reasons, lines, strict=True)
        )
    return LineFit(**columns, reason=reasons)


def _stars(
    spectrum: LogSpectrum, redshift: float, how: str, resolution: float, *, broad: bool = False
) -> tuple[np.ndarray | None, float]:
    """Model of the stars and their velocity; with broad lines, the wings of the Balmer lines are left out."""
    if how != "templates":
        return None, 0.0
    problem = StellarProblem.of(
        spectrum, stellar_templates(), redshift, resolution, broad_lines=broad
    )
    if problem is None:
        return None, 0.0
    fit = fit_stars(problem, quick=True)
    return fit.model, float(np.clip(fit.velocity, -300, 300))


def _rows(
    fit: LineFit,
    fitted: tuple[str, ...],
    chosen: tuple[str, ...],
    arrays: SpectrumArrays,
    row: int,
) -> dict[str, object]:
    order = [fitted.index(name) for name in chosen]
    unit = arrays.unit * u.AA
    factor = 1 / (1 + arrays.redshift[row])
    flux, error = fit.flux[order], fit.flux_err[order]
    level = np.where(fit.continuum[order] > 0, fit.continuum[order], np.nan)
    width = flux / level * factor
    width_err = np.hypot(error, flux * fit.continuum_err[order] / level) / level * factor
    weak = np.isfinite(flux) & ~(flux > _DETECTED * error)
    reasons = [fit.reason[k] for k in order]
    flags = [
        reason or ("not detected" if faint else "")
        for reason, faint in zip(reasons, weak, strict=True)
    ]
    return {
        "line": np.array(chosen),
        "wavelength": [line.wavelength for line in _lines(chosen)] * u.AA,
        "flux": flux * unit,
        "flux_err": error * unit,
        "equivalent_width": width * u.AA,
        "equivalent_width_err": width_err * u.AA,
        "velocity": fit.velocity[order] * _SPEED,
        "velocity_err": fit.velocity_err[order] * _SPEED,
        "dispersion": fit.dispersion[order] * _SPEED,
        "dispersion_err": fit.dispersion_err[order] * _SPEED,
        "continuum": fit.continuum[order] * arrays.unit,
        "flag": np.array(flags, dtype=str),
    }


def _joined(columns: list) -> object:
    return np.concatenate(columns) if len(columns) > 1 else columns[0]
