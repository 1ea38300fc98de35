"""One page of the result of a survey run: sky map and densities of any number of galaxies.

The files are read once, block by block, after a look at some row groups that sets the ranges of the
axes. The page holds sums and a random sample, so that neither memory nor the size of the page grows
with the number of galaxies.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..atomic import check_target, write_bytes
from ..derived import kauffmann_curve, kewley_curve
from ..flags import decode_flags
from ..quantities import QUANTITIES
from .figures import view_package
from .labels import column_unit, plain_label
from .packing import ArrayPack, quantised
from .page import embedded_json, page_file
from .sky_maps import sky_map
from .survey_files import SurveyFiles
from .survey_sums import Axis, Density, SkySums, SurveySums, columns_of

__all__ = ["survey_page", "survey_sums"]

#: Row groups that are read to set the ranges, and percentiles of these.
_LOOKS = 24
_RANGE = (0.1, 99.9)
#: Columns with a map of their mean.
_MAPPED = ("redshift", "stellar_mass", "sfr")
#: Galaxies that a pixel of the maps should have.
_PER_PIXEL = 8
_VIEWS = (
    ("redshift", "How well is the redshift known?", "redshift", "redshift_width"),
    ("mass", "Stellar mass", "redshift", "stellar_mass"),
    ("sfr", "Star formation", "stellar_mass", "sfr"),
    ("metallicity", "Mass and metallicity", "stellar_mass", "gas_metallicity"),
    ("bpt", "Emission lines (BPT)", "nii_halpha", "oiii_hbeta"),
    ("black_hole", "Black-hole mass", "stellar_mass", "black_hole_mass"),
)


def survey_page(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write a page of the result of a survey run.

    Parameters
    ----------
    path : path-like
        Name of the page, ending in ``.html``.
    source : path-like
        Output folder of ``astrogenspec survey``, a HATS catalogue, a folder of parquet files, or
        one file.
    title : str, optional
        Heading of the page.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    int
        Number of galaxies.

    Raises
    ------
    FileNotFoundError, OSError
        If there are no files, or the page cannot be written.
    ValueError
        If the files are not those of a survey run, or the name does not end in ``.html``.
    ImportError
        If pyarrow, or for positions cdshealpix, is not installed.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() != ".html":
        raise ValueError(f"path is {str(path)!r}; the name of a page must end in .html.")
    check_target(target, overwrite)
    files = SurveyFiles(Path(source).expanduser())
    sums = survey_sums(files)
    content = _content(files, sums) | {"title": title or f"{sums.n:,} galaxies of a survey"}
    parts = {
        "TITLE": html.escape(content["title"]),
        "STYLE": page_file("page.css"),
        "CONTENT": embedded_json(content),
        "CHARTS": page_file("charts.js"),
        "SCRIPT": page_file("survey.js"),
    }
    head, *rest = page_file("survey.html").split("{{")
    pieces = [head]
    for part in rest:
        name, _, after = part.partition("}}")
        pieces += [parts[name], after]
    write_bytes(target, "".join(pieces).encode(), overwrite=overwrite)
    return sums.n


def survey_sums(files: SurveyFiles) -> SurveySums:
    """Read all files of a survey.

    Parameters
    ----------
    files : SurveyFiles
        Files of the result.

    Returns
    -------
    SurveySums
    """
    looks = list(files.looks(_LOOKS))
    if not looks:
        raise ValueError(f"{files.source} has no rows.")
    seen = [columns_of(block, files.quantities) for block in looks]
    joined = {key: np.concatenate([columns[key] for columns in seen]) for key in seen[0]}
    sums = SurveySums(
        quantities=files.quantities,
        histograms={name: _axis(joined, name) for name in files.quantities},
        widths={name: _width_axis(joined, name) for name in files.quantities},
        densities={
            key: Density(_axis(joined, x), _axis(joined, y))
            for key, _, x, y in _VIEWS
            if {x, y} <= set(joined)
        },
        sky=_sky_sums(files, looks),
        positions=files.positions,
        identifier=files.identifier,
    )
    for block in files.blocks():
        sums.add(block)
    return sums


def _label(key: str) -> str:
    if key.endswith("_width"):
        return "half of the 68% interval"
    return plain_label(key).axis


def _axis(columns: Mapping[str, np.ndarray], key: str) -> Axis:
    finite = columns[key][np.isfinite(columns[key])]
    low, high = np.percentile(finite, _RANGE) if finite.size else (0.0, 1.0)
    pad = 0.05 * (high - low) or 0.5
    low = max(low - pad, 0.0) if key in ("redshift", "redshift_width") else low - pad
    return Axis(key, _label(key), float(low), float(high + pad))


def _width_axis(columns: Mapping[str, np.ndarray], name: str) -> Axis:
    width = columns[f"{name}_width"]
    with np.errstate(all="ignore"):
        logarithm = np.log10(width)
    finite = logarithm[np.isfinite(logarithm)]
    low, high = (finite.min(), finite.max()) if finite.size else (-3.0, 0.0)
    return Axis(f"{name}_width", "", float(low) - 0.05, float(high) + 0.05)


def _sky_sums(files: SurveyFiles, looks: list[dict[str, np.ndarray]]) -> SkySums | None:
    """Choose pixels of which about 300 lie across the part of the sky that was seen."""
    if files.positions is None:
        return None
    ra, dec = (np.concatenate([block[name] for block in looks]) for name in files.positions)
    known = np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return None
    height = max(float(np.ptp(np.percentile(dec[known], [0.5, 99.5]))), 0.1)
    # The side of a pixel is 58.6 degrees at order 0.
    order = int(np.clip(np.ceil(np.log2(58.6 * 300 / height)), 4, 16))
    return SkySums(order, tuple(name for name in _MAPPED if name in files.quantities))


def _content(files: SurveyFiles, sums: SurveySums) -> dict[str, Any]:
    """Return the content of the page as JSON types."""
    pack = ArrayPack()
    views = []
    for key, title, x, y in _VIEWS:
        if key not in sums.densities:
            continue
        density = sums.densities[key]
        pack.add(f"density {key}", _logarithmic(density.counts))
        views.append(
            {
                "key": key,
                "title": title,
                "x": _axis_dict(density.x, x),
                "y": _axis_dict(density.y, y),
                "most": [int(density.counts[0].max()), int(density.counts.sum(axis=0).max())],
                "outside": density.outside,
                "missing": density.missing,
            }
        )
    content = {
        "n": sums.n,
        "n_flagged": sums.n_flagged,
        "n_unusable": sums.n_unusable,
        "n_expected": files.n_expected,
        "n_quarantined": _quarantined(files),
        "flags": _flags(sums),
        "quantities": [_quantity(sums, name) for name in sums.quantities],
        "views": views,
        "curves": _curves() if "bpt" in sums.densities else [],
        "sky": _sky(sums, pack),
        "sample": _sample(sums, pack),
        "colours": _colours(),
        "about": {
            "software": __version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "weights": (files.manifest.get("weights") or {}).get("name", ""),
            "draws": (files.manifest.get("inference") or {}).get("draws"),
            "files": len(files.paths),
        },
    }
    return content | {"arrays": pack.as_dict()}


def _sky(sums: SurveySums, pack: ArrayPack) -> dict[str, Any] | None:
    if sums.sky is None or sums.positions is None:
        return None
    ra, dec = (sums.sample[name] for name in sums.positions)
    return sky_map(sums.sky.coarser(_PER_PIXEL), pack, (ra, dec))


def _colours() -> list[list[int]]:
    """Return the scale cividis, which people with any colour vision can read."""
    found = view_package("matplotlib").colormaps["cividis"](np.linspace(0, 1, 64), bytes=True)
    return [[int(c) for c in colour[:3]] for colour in found]


def _axis_dict(axis: Axis, key: str) -> dict[str, Any]:
    return {"key": key, "label": axis.label, "low": axis.low, "high": axis.high}


def _logarithmic(counts: np.ndarray) -> np.ndarray:
    """Return 16-bit codes of log10(1 + count) for galaxies without flags and for all."""
    both = np.stack([counts[0], counts.sum(axis=0)])
    return quantised(np.log10(1.0 + both), 0.0, 10.0)


def _flags(sums: SurveySums) -> list[dict[str, Any]]:
    ordered = sorted(sums.flag_codes.items(), key=lambda item: -item[1])
    names = decode_flags(np.array([code for code, _ in ordered], np.int64)) if ordered else []
    return [
        {"name": " ".join(name).replace("_", " "), "count": count}
        for name, (_, count) in zip(names, ordered, strict=True)
    ]


def _quantity(sums: SurveySums, name: str) -> dict[str, Any]:
    label, info = plain_label(name), QUANTITIES[name]
    axis, width = sums.histograms[name], sums.widths[name]
    counts, widths = sums.counts[name], sums.width_counts[name].sum(axis=0)
    return {
        "key": name,
        "title": label.title,
        "axis": label.axis,
        "digits": label.digits,
        "unit": column_unit(name, info.unit),
        "description": info.description,
        "logarithmic": info.logarithmic,
        "low": axis.low,
        "high": axis.high,
        "unflagged": counts[0].tolist(),
        "flagged": counts[1].tolist(),
        "typical": _median_of(widths, width),
    }


def _median_of(counts: np.ndarray, axis: Axis) -> float | None:
    """Return the median of values of which there are counts in bins of the logarithm."""
    total = counts.sum()
    if not total:
        return None
    edges = np.linspace(axis.low, axis.high, len(counts) + 1)
    reached = np.concatenate([[0.0], np.cumsum(counts) / total])
    return float(f"{10 ** np.interp(0.5, reached, edges):.4g}")


def _curves() -> list[dict[str, Any]]:
    """Return the curves of Kauffmann et al. (2003) and Kewley et al. (2001) left of their poles."""
    found = []
    for curve, end, dashed in ((kauffmann_curve, 0.0, True), (kewley_curve, 0.42, False)):
        x = np.linspace(-2.0, end, 80)
        y = curve(x)
        points = [[round(float(a), 3), round(float(b), 3)] for a, b in zip(x, y, strict=True)]
        found.append({"dashed": dashed, "points": [p for p in points if p[1] > -2.5]})
    return found


def _sample(sums: SurveySums, pack: ArrayPack) -> dict[str, Any]:
    """Add the sample: 16-bit codes of its columns, identifiers and flags in words."""
    columns: dict[str, dict[str, float]] = {}
    for key, values in sums.sample.items():
        if key in ("flags", sums.identifier) or values.dtype == object:
            continue
        values = np.asarray(values, float)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        pack.add(f"sample {key}", quantised(values, low, high))
        columns[key] = {"low": low, "high": high}
    codes, place = np.unique(sums.sample["flags"], return_inverse=True)
    pack.add("sample flags", place.astype(np.uint16))
    identifiers = sums.sample.get(sums.identifier or "")
    return {
        "n": len(place),
        "columns": columns,
        "positions": list(sums.positions or ()),
        "flags": [" | ".join(names).replace("_", " ") for names in decode_flags(codes)],
        # As text: numbers of 64 bits are not exact in a browser.
        "identifiers": None if identifiers is None else [str(name) for name in identifiers],
        "identifier": sums.identifier,
    }


def _quarantined(files: SurveyFiles) -> int:
    folder = files.source / "quarantine"
    return len(list(folder.glob("*.json"))) if folder.is_dir() else 0
