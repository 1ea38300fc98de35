r"""What excites the gas: the [N II] diagram (BPT) and the WHAN diagram, with probabilities.

With x = log10([N II] 6584 / Halpha) and y = log10([O III] 5007 / Hbeta) the curves of the diagram of Baldwin, Phillips
& Terlevich (1981, PASP 93, 5) are y = 0.61 / (x - 0.05) + 1.3 (Kauffmann et al. 2003, MNRAS 346, 1055, equation 1), below
which stars ionise the gas, y = 0.61 / (x - 0.47) + 1.19 (Kewley et al. 2001, ApJ 556, 121, equation 5), above which they
cannot, and, among the latter, y = 1.05 x + 0.45 (Schawinski et al. 2007, MNRAS 382, 1415), above which lie Seyfert nuclei
and below LINERs.

WHAN (Cid Fernandes et al. 2011, MNRAS 413, 1687, section 6) needs only x and the equivalent width W of Halpha: pure star
formation x < -0.4 and W > 3 A; strong AGN x > -0.4, W > 6 A; weak AGN x > -0.4, 3 A < W < 6 A; retired W < 3 A; passive W
of both Halpha and [N II] < 0.5 A.

Probabilities are shares of draws of the fluxes from normal distributions that are cut at zero, since a flux cannot be
negative: a line that is not detected contributes what its limit allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.special import ndtr, ndtri
from specutils import Spectrum

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

#: Classes of the [N II] diagram, in the order of the numbers `bpt_class` returns.
BPT_CLASSES = ("star_forming", "composite", "agn")
#: Parts of the class ``agn``.
AGN_CLASSES = ("seyfert", "liner")
#: Classes of the WHAN diagram, in the order of the numbers `whan_class` returns.
WHAN_CLASSES = ("star_forming", "strong_agn", "weak_agn", "retired", "passive")
_DIAGRAM = ("halpha", "hbeta", "nii6584", "oiii5007")
_WEAK = 3.0


def bpt_class(nii_halpha: np.ndarray, oiii_hbeta: np.ndarray) -> np.ndarray:
    """Classify line ratios in the [N II] diagram.

    Parameters
    ----------
    nii_halpha, oiii_hbeta : Quantity ['dex'] or ndarray
        log10([N II]/Halpha) and log10([O III]/Hbeta), any shapes that broadcast.

    Returns
    -------
    ndarray of int8
        Numbers of `BPT_CLASSES`; -1 where a ratio is not finite.  On the metal-poor side of x = -1.28, where the curves
        cross, there are no composites.
    """
    x, y = _plain(nii_halpha), _plain(oiii_hbeta)
    undefined = ~(np.isfinite(x) & np.isfinite(y))
    conditions = [undefined, y > _curve(x, 0.47, 1.19), y > _curve(x, 0.05, 1.3)]
    return np.select(conditions, [-1, 2, 1], default=0).astype(np.int8)


def is_seyfert(nii_halpha: np.ndarray, oiii_hbeta: np.ndarray) -> np.ndarray:
    """Tell Seyfert nuclei from LINERs among active galaxies.

    Parameters
    ----------
    nii_halpha, oiii_hbeta : Quantity ['dex'] or ndarray
        log10([N II]/Halpha) and log10([O III]/Hbeta), any shapes that broadcast.

    Returns
    -------
    ndarray of bool
        Above the line of Schawinski et al. (2007); only means something where `bpt_class` is 2.
    """
    return _plain(oiii_hbeta) > 1.05 * _plain(nii_halpha) + 0.45


def whan_class(
    nii_halpha: np.ndarray, halpha_ew: u.Quantity, nii_ew: u.Quantity | None = None
) -> np.ndarray:
    """Classify in the WHAN diagram.

    Parameters
    ----------
    nii_halpha : Quantity ['dex'] or ndarray
        log10([N II]/Halpha).
    halpha_ew : Quantity ['length'] or ndarray
        Rest-frame equivalent width of Halpha, positive in emission (Angstrom).
    nii_ew : Quantity ['length'] or ndarray, optional
        The same of [N II] 6584; by default from the ratio.

    Returns
    -------
    ndarray of int8
        Numbers of `WHAN_CLASSES`; -1 where a value is not finite.
    """
    x, width = _plain(nii_halpha), _angstrom(halpha_ew)
    of_nii = width * 10**x if nii_ew is None else _angstrom(nii_ew)
    conditions = [
        ~(np.isfinite(x) & np.isfinite(width) & np.isfinite(of_nii)),
        (width < 0.5) & (of_nii < 0.5),
        width < 3,
        x < -0.4,
        width > 6,
    ]
    return np.select(conditions, [-1, 4, 3, 0, 1], default=2).astype(np.int8)


def line_ratios(spectrum: Spectrum) -> dict[str, u.Quantity]:
    """Measure what both diagrams need on one spectrum, for `SpectrumDraws.measure`.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,), observed frame, with its redshift.

    Returns
    -------
    dict of str to Quantity
        ``nii_halpha`` and ``oiii_hbeta`` (dex; NaN if a flux is not positive) and ``halpha_ew`` (Angstrom, rest frame).
    """
    table = measure_lines(spectrum, _DIAGRAM)
    halpha, hbeta, nii, oiii = np.where(table["flux"] > 0, table["flux"].value, np.nan)
    return {
        "nii_halpha": np.log10(nii / halpha) * u.dex,
        "oiii_hbeta": np.log10(oiii / hbeta) * u.dex,
        "halpha_ew": table["equivalent_width"][0],
    }


def classify_bpt(lines: QTable, *, n_samples: int = 2000, seed: int = 0) -> QTable:
    """Classify measured lines in the [N II] diagram, with probabilities.

    Parameters
    ----------
    lines : `~astropy.table.QTable`
        From `~astrogenspec.measure.measure_lines`, with Halpha, Hbeta, [N II] 6584 and [O III] 5007.
    n_samples : int
        Draws of the fluxes.
    seed : int
        Of the draws.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each spectrum: ``nii_halpha`` and ``oiii_hbeta`` (dex), ``class`` (the most probable of `BPT_CLASSES`,
        empty if a line is not measured), ``p_star_forming``, ``p_composite`` and ``p_agn``, which add up to 1,
        ``p_seyfert`` and ``p_liner``, which add up to ``p_agn``, and ``flag``, which names lines below 3 sigma.

    Raises
    ------
    TypeError
        If lines is not a table.
    ValueError
        If a line is absent or ``n_samples`` is not positive.
    """
    values, errors = _fluxes(lines, _DIAGRAM, "flux")
    halpha, hbeta, nii, oiii = np.moveaxis(_draws(values, errors, n_samples, seed), -1, 0)
    x, y = np.log10(nii / halpha), np.log10(oiii / hbeta)
    classes = bpt_class(x, y)
    seyfert = is_seyfert(x, y)
    table = _ratios(values)
    shares = {name: np.mean(classes == k, axis=1) for k, name in enumerate(BPT_CLASSES)}
    shares["seyfert"] = np.mean((classes == 2) & seyfert, axis=1)
    shares["liner"] = np.mean((classes == 2) & ~seyfert, axis=1)
    return _classified(table, shares, BPT_CLASSES, values, errors, _DIAGRAM)


def classify_whan(lines: QTable, *, n_samples: int = 2000, seed: int = 0) -> QTable:
    """Classify measured lines in the WHAN diagram, with probabilities.

    Parameters
    ----------
    lines : `~astropy.table.QTable`
        From `~astrogenspec.measure.measure_lines`, with Halpha and [N II] 6584.
    n_samples : int
        Draws of the equivalent widths.
    seed : int
        Of the draws.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each spectrum: ``nii_halpha`` (dex), ``halpha_ew`` (Angstrom), ``class`` (the most probable of
        `WHAN_CLASSES`, empty if a line is not measured), ``p_`` and the name for each class, which add up to 1, and
        ``flag``, which names lines below 3 sigma.

    Raises
    ------
    TypeError
        If lines is not a table.
    ValueError
        If a line is absent or ``n_samples`` is not positive.
    """
    names = ("halpha", "nii6584")
    values, errors = _fluxes(lines, names, "equivalent_width")
    halpha, nii = np.moveaxis(_draws(values, errors, n_samples, seed), -1, 0)
    classes = whan_class(np.log10(nii / halpha), halpha, nii)
    table = QTable()
    positive = np.where(values > 0, values, np.nan)
    table["nii_halpha"] = np.log10(positive[:, 1] / positive[:, 0]) * u.dex
    table["halpha_ew"] = values[:, 0] * u.AA
    shares = {name: np.mean(classes == k, axis=1) for k, name in enumerate(WHAN_CLASSES)}
    return _classified(table, shares, WHAN_CLASSES, values, errors, names)


def _curve(x: np.ndarray, pole: float, level: float) -> np.ndarray:
    left = x < pole
    return np.where(left, 0.61 / np.where(left, x - pole, -1.0) + level, -np.inf)


def _plain(values: np.ndarray) -> np.ndarray:
    return np.asarray(getattr(values, "value", values), dtype=float)


def _angstrom(values: u.Quantity) -> np.ndarray:
    return np.asarray(values.to_value(u.AA) if hasattr(values, "unit") else values, dtype=float)


def _fluxes(lines: QTable, names: tuple[str, ...], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors, shape (n_spectra, n_lines)."""
    if not hasattr(lines, "colnames") or not {"line", column, f"{column}_err"} <= set(
        lines.colnames
    ):
        raise TypeError(
            f"lines is {type(lines).__name__}; give the table that measure_lines returns, with columns line and {column}."
        )
    absent = [name for name in names if name not in lines["line"]]
    if absent:
        raise ValueError(
            f"the table lacks the lines {', '.join(absent)}; measure at least {', '.join(names)}."
        )
    parts = [lines[lines["line"] == name] for name in names]
    pairs = [
        np.stack([part[key].value for part in parts], axis=1) for key in (column, f"{column}_err")
    ]
    return pairs[0], pairs[1]


def _draws(values: np.ndarray, errors: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """Draw from normal distributions cut at zero, shape (n_spectra, n_samples, n_lines)."""
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
    shares: Mapping[str, np.ndarray],
    classes: tuple[str, ...],
    values: np.ndarray,
    errors: np.ndarray,
    names: tuple[str, ...],
) -> QTable:
    known = np.isfinite(values).all(axis=1) & np.isfinite(errors).all(axis=1)
    best = np.argmax([shares[name] for name in classes], axis=0)
    table["class"] = np.where(known, np.array(classes)[best], "")
    for name, share in shares.items():
        table[f"p_{name}"] = np.where(known, share, np.nan)
    flags = []
    for value, error in zip(values, errors, strict=True):
        missing = [n for n, v in zip(names, value, strict=True) if not np.isfinite(v)]
        weak = [n for n, v, e in zip(names, value, error, strict=True) if v <= _WEAK * e]
        found = [f"not measured: {', '.join(missing)}"] if missing else []
        flags.append("; ".join(found + ([f"below 3 sigma: {', '.join(weak)}"] if weak else [])))
    table["flag"] = np.array(flags, dtype=str)
    return table
