r"""Classes of ionisation from the [N II] (BPT) diagram and the WHAN diagram, with probabilities.

The [N II] diagram and its curves are described in `astrogenspec.derived`.  Galaxies of class
``agn`` are divided by y = 1.05 x + 0.45 (Schawinski et al. 2007, MNRAS 382, 1415), with x =
log10([N II] 6584 / Halpha) and y = log10([O III] 5007 / Hbeta), into Seyfert nuclei (above) and
LINERs (below).

The WHAN diagram (Cid Fernandes et al. 2011, MNRAS 413, 1687, section 6) uses x and the equivalent
width W of Halpha: pure star formation x < -0.4 and W > 3 A; strong AGN x > -0.4, W > 6 A; weak AGN
x > -0.4, 3 A < W < 6 A; retired W < 3 A; passive W of both Halpha and [N II] < 0.5 A.

Probabilities are fractions of draws of the fluxes from normal distributions truncated at zero,
since a flux cannot be negative; an undetected line thus contributes what its upper limit allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.special import ndtr, ndtri
from specutils import Spectrum

from ..derived import BPT_CLASSES, bpt_class
from ..flags import Flag, FlagLog
from .lines import measure_lines

__all__ = [
    "AGN_CLASSES",
    "BPT_CLASSES",
    "WHAN_CLASSES",
    "bpt_class",
    "classify_bpt",
    "classify_whan",
    "is_seyfert",
    "line_ratios",
    "whan_class",
]

#: Subclasses of the class ``agn``.
AGN_CLASSES = ("seyfert", "liner")
#: Classes of the WHAN diagram, in the order of the codes that `whan_class` returns.
WHAN_CLASSES = ("star_forming", "strong_agn", "weak_agn", "retired", "passive")
_AGN = BPT_CLASSES.index("agn")
_BPT_LINES = ("halpha", "hbeta", "nii6584", "oiii5007")
_WHAN_LINES = ("halpha", "nii6584")
#: Minimum signal-to-noise ratio of a detected line.
_MIN_SNR = 3.0


def is_seyfert(nii_halpha: np.ndarray, oiii_hbeta: np.ndarray) -> np.ndarray:
    """Distinguish Seyfert nuclei from LINERs among active galaxies.

    Parameters
    ----------
    nii_halpha, oiii_hbeta : Quantity ['dex'] or ndarray
        log10([N II]/Halpha) and log10([O III]/Hbeta), any shapes that broadcast.

    Returns
    -------
    ndarray of bool
        True above the line of Schawinski et al. (2007); meaningful only for galaxies of class
        ``agn``.
    """
    return _plain(oiii_hbeta) > 1.05 * _plain(nii_halpha) + 0.45


def whan_class(
    nii_halpha: np.ndarray, halpha_ew: u.Quantity, nii_ew: u.Quantity | None = None
) -> np.ndarray:
    """Classify galaxies in the WHAN diagram.

    Parameters
    ----------
    nii_halpha : Quantity ['dex'] or ndarray
        log10([N II]/Halpha).
    halpha_ew : Quantity ['length'] or ndarray
        Rest-frame equivalent width of Halpha, positive in emission (Angstrom).
    nii_ew : Quantity ['length'] or ndarray, optional
        Equivalent width of [N II] 6584; computed from the ratio by default.

    Returns
    -------
    ndarray of int8
        Index in `WHAN_CLASSES`; -1 where a value is not finite.
    """
    x, width = _plain(nii_halpha), _angstrom(halpha_ew)
    nii_width = width * 10**x if nii_ew is None else _angstrom(nii_ew)
    undefined = ~(np.isfinite(x) & np.isfinite(width) & np.isfinite(nii_width))
    conditions = {
        "passive": (width < 0.5) & (nii_width < 0.5),
        "retired": width < 3,
        "star_forming": x < -0.4,
        "strong_agn": width > 6,
    }
    codes = [WHAN_CLASSES.index(name) for name in conditions]
    default = WHAN_CLASSES.index("weak_agn")
    return np.select([undefined, *conditions.values()], [-1, *codes], default).astype(np.int8)


def line_ratios(spectrum: Spectrum) -> dict[str, u.Quantity]:
    """Measure the coordinates of both diagrams for one spectrum, for `SpectrumDraws.measure`.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,), observed frame, with its redshift.

    Returns
    -------
    dict of str to Quantity
        ``nii_halpha`` and ``oiii_hbeta`` (dex; NaN if a flux is not positive) and ``halpha_ew``
        (Angstrom, rest frame).
    """
    table = measure_lines(spectrum, _BPT_LINES)
    halpha, hbeta, nii, oiii = np.where(table["flux"] > 0, table["flux"].value, np.nan)
    return {
        "nii_halpha": np.log10(nii / halpha) * u.dex,
        "oiii_hbeta": np.log10(oiii / hbeta) * u.dex,
        "halpha_ew": table["equivalent_width"][_BPT_LINES.index("halpha")],
    }


def classify_bpt(lines: QTable, *, n_samples: int = 2000, seed: int = 0) -> QTable:
    """Classify measured lines in the [N II] diagram, with probabilities.

    Parameters
    ----------
    lines : `~astropy.table.QTable`
        Table of `~astrogenspec.measure.measure_lines`, with Halpha, Hbeta, [N II] 6584 and [O III]
        5007.
    n_samples : int
        Number of draws of the fluxes.
    seed : int
        Seed of the draws.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each spectrum: ``nii_halpha`` and ``oiii_hbeta`` (dex), ``class`` (most probable
        of `BPT_CLASSES`, empty if a line is not measured), ``p_star_forming``, ``p_composite`` and
        ``p_agn``, whose sum is 1, ``p_seyfert`` and ``p_liner``, whose sum is ``p_agn``, ``flags``
        (bit codes, 0 if nothing was found) and ``flag`` (text that lists lines not measured or
        below 3 sigma).

    Raises
    ------
    TypeError
        If lines is not a table.
    ValueError
        If a line is missing or ``n_samples`` is not positive.
    """
    values, errors = _fluxes(lines, _BPT_LINES, "flux")
    halpha, hbeta, nii, oiii = np.moveaxis(_draws(values, errors, n_samples, seed), -1, 0)
    x, y = np.log10(nii / halpha), np.log10(oiii / hbeta)
    classes = bpt_class(x, y)
    seyfert = is_seyfert(x, y)
    table = _ratios(values)
    probabilities = {name: np.mean(classes == k, axis=1) for k, name in enumerate(BPT_CLASSES)}
    probabilities["seyfert"] = np.mean((classes == _AGN) & seyfert, axis=1)
    probabilities["liner"] = np.mean((classes == _AGN) & ~seyfert, axis=1)
    return _classified(table, probabilities, BPT_CLASSES, values, errors, _BPT_LINES)


def classify_whan(lines: QTable, *, n_samples: int = 2000, seed: int = 0) -> QTable:
    """Classify measured lines in the WHAN diagram, with probabilities.

    Parameters
    ----------
    lines : `~astropy.table.QTable`
        Table of `~astrogenspec.measure.measure_lines`, with Halpha and [N II] 6584.
    n_samples : int
        Number of draws of the equivalent widths.
    seed : int
        Seed of the draws.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each spectrum: ``nii_halpha`` (dex), ``halpha_ew`` (Angstrom), ``class`` (most
        probable of `WHAN_CLASSES`, empty if a line is not measured), a probability for each class
        with the prefix ``p_``, whose sum is 1, ``flags`` (bit codes, 0 if nothing was found) and
        ``flag`` (text that lists lines not measured or below 3 sigma).

    Raises
    ------
    TypeError
        If lines is not a table.
    ValueError
        If a line is missing or ``n_samples`` is not positive.
    """
    values, errors = _fluxes(lines, _WHAN_LINES, "equivalent_width")
    halpha, nii = np.moveaxis(_draws(values, errors, n_samples, seed), -1, 0)
    classes = whan_class(np.log10(nii / halpha), halpha, nii)
    halpha_ew, nii_ew = values.T
    table = QTable()
    ratio = np.where(nii_ew > 0, nii_ew, np.nan) / np.where(halpha_ew > 0, halpha_ew, np.nan)
    table["nii_halpha"] = np.log10(ratio) * u.dex
    table["halpha_ew"] = halpha_ew * u.AA
    probabilities = {name: np.mean(classes == k, axis=1) for k, name in enumerate(WHAN_CLASSES)}
    return _classified(table, probabilities, WHAN_CLASSES, values, errors, _WHAN_LINES)


def _plain(values: np.ndarray) -> np.ndarray:
    return np.asarray(getattr(values, "value", values), dtype=float)


def _angstrom(values: u.Quantity) -> np.ndarray:
    return np.asarray(values.to_value(u.AA) if hasattr(values, "unit") else values, dtype=float)


def _fluxes(lines: QTable, names: tuple[str, ...], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return values and errors, shape (n_spectra, n_lines)."""
    error_column = f"{column}_err"
    if not {"line", column, error_column} <= set(getattr(lines, "colnames", ())):
        raise TypeError(
            f"lines is {type(lines).__name__}; give a table of measure_lines with the columns "
            f"line, {column} and {error_column}."
        )
    missing = [name for name in names if name not in lines["line"]]
    if missing:
        raise ValueError(
            f"the table has no lines {', '.join(missing)}; measure at least {', '.join(names)}."
        )
    parts = [lines[lines["line"] == name] for name in names]
    values = np.stack([part[column].value for part in parts], axis=1)
    return values, np.stack([part[error_column].value for part in parts], axis=1)


def _draws(values: np.ndarray, errors: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Draw from normal distributions truncated at zero, shape (n_spectra, n_samples, n_lines)."""
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; give a positive number of draws.")
    uniform = np.random.default_rng(seed).uniform(1e-9, 1, (n_samples, values.shape[1]))
    errors = np.maximum(errors, 1e-12 * np.abs(values) + 1e-300)[:, None]
    values = values[:, None]
    positive = np.maximum(ndtr(np.maximum(values / errors, -35.0)), 1e-290)
    return np.maximum(values - errors * ndtri(uniform * positive), 1e-300)


def _ratios(values: np.ndarray) -> QTable:
    halpha, hbeta, nii, oiii = np.where(values > 0, values, np.nan).T
    table = QTable()
    table["nii_halpha"] = np.log10(nii / halpha) * u.dex
    table["oiii_hbeta"] = np.log10(oiii / hbeta) * u.dex
    return table


def _classified(
    table: QTable,
    probabilities: Mapping[str, np.ndarray],
    classes: tuple[str, ...],
    values: np.ndarray,
    errors: np.ndarray,
    names: tuple[str, ...],
) -> QTable:
    measured = np.isfinite(values).all(axis=1) & np.isfinite(errors).all(axis=1)
    best = np.argmax([probabilities[name] for name in classes], axis=0)
    table["class"] = np.where(measured, np.array(classes)[best], "")
    for name, probability in probabilities.items():
        table[f"p_{name}"] = np.where(measured, probability, np.nan)
    log = FlagLog(len(values))
    for code, reason, mask in (
        (Flag.LINE_NOT_MEASURED, "not measured", ~np.isfinite(values)),
        (Flag.WEAK_LINE, "below 3 sigma", values <= _MIN_SNR * errors),
    ):
        for row in np.flatnonzero(mask.any(axis=1)):
            affected = [name for name, here in zip(names, mask[row], strict=True) if here]
            log.add(row, code, f"{reason}: {', '.join(affected)}")
    table["flags"] = log.codes
    table["flag"] = np.array(log.texts, dtype=str)
    return table
