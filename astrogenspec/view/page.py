"""One self-contained page of results, which opens in any browser without a network.

The page holds everything it shows: the code of Bokeh, the numbers of all galaxies, the draws that
fit, spectra on as many pixels as fit, and pictures. Names and flags are inserted as text, never as
markup.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from .. import __version__
from ..atomic import check_target, write_bytes
from ..flags import FlagLog
from .content import page_content
from .figures import overview_figures, view_package
from .pictures import picture_of, reconstruction_picture

if TYPE_CHECKING:
    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws

__all__ = [
    "MAX_GALAXIES",
    "NotebookPage",
    "checked_page",
    "embedded_json",
    "galaxies_content",
    "page_file",
    "page_text",
    "results_page",
]

#: Maximum number of galaxies of a page, which a browser shows without delay.
MAX_GALAXIES = 10_000

_TITLE = "Galaxy properties inferred from images and photometry"
#: Largest sides of the pictures, by the largest number of galaxies.
_PICTURE_SIZES = ((50, 256), (300, 128), (2_000, 64), (np.inf, 48))


def results_page(
    path: str | os.PathLike[str],
    posterior: Posterior,
    *,
    overwrite: bool = False,
    **content: Any,
) -> Path:
    """Write a page of results.

    Parameters
    ----------
    path : path-like
        Name of the page, ending in ``.html``.
    posterior : Posterior
        Posterior of all galaxies.
    overwrite : bool
        Whether an existing file may be replaced.
    **content
        Keyword arguments of `page_text`: ``cutouts``, ``reconstructions``, ``spectra``, ``truth``
        and ``title``.

    Returns
    -------
    `~pathlib.Path`

    Raises
    ------
    ValueError
        If the name does not end in ``.html``, or the content does not match the posterior.
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written; no partial file is left.
    ImportError
        If Bokeh or, for pictures, Pillow is not installed.
    """
    target = checked_page(path, len(posterior), overwrite=overwrite)
    text = page_text(posterior, **content)
    write_bytes(target, text.encode(), overwrite=overwrite)
    return target


def checked_page(path: str | os.PathLike[str], n_galaxies: int, *, overwrite: bool = False) -> Path:
    """Check that a page can be written, before a long computation.

    Parameters
    ----------
    path : path-like
        Name of the page.
    n_galaxies : int
        Number of galaxies.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    `~pathlib.Path`

    Raises
    ------
    ValueError
        If the name does not end in ``.html``, or there are too many galaxies.
    OSError
        If the file cannot be written, or exists without ``overwrite``.
    ImportError
        If Bokeh is not installed.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() != ".html":
        raise ValueError(f"path is {str(path)!r}; the name of a page must end in .html.")
    if n_galaxies > MAX_GALAXIES:
        raise ValueError(
            f"there are {n_galaxies} galaxies, but a page has at most {MAX_GALAXIES}; select some "
            "of them, as in posterior[:1000]."
        )
    view_package("bokeh")
    check_target(target, overwrite)
    return target


@dataclass(frozen=True)
class NotebookPage:
    """A page in a frame of a notebook.

    Attributes
    ----------
    text : str
        HTML of the page.
    height : int
        Height of the frame in pixels.
    """

    text: str
    height: int = 800

    def __repr__(self) -> str:
        return f"<NotebookPage of {len(self.text) / 1e6:.1f} MB>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.text)}" title="galaxies" '
            f'style="width:100%;height:{int(self.height)}px;border:0"></iframe>'
        )


def page_text(
    posterior: Posterior,
    *,
    cutouts: Iterable[Any] | None = None,
    reconstructions: np.ndarray | None = None,
    spectra: SpectrumDraws | None = None,
    truth: Mapping[str, Any] | Table | None = None,
    title: str | None = None,
) -> str:
    """Return the text of a page of results.

    Parameters
    ----------
    posterior : Posterior
        Posterior of all galaxies.
    cutouts : iterable of cutouts, optional
        Images of the same galaxies in the same order, as for
        `astrogenspec.PropertyEstimator.predict`; None for a galaxy without an image.
    reconstructions : array_like, shape (n_galaxies, 5, ny, nx), optional
        Images reconstructed by `astrogenspec.PropertyEstimator.reconstruct`.
    spectra : SpectrumDraws, optional
        Spectra of the same galaxies in the same order.
    truth : mapping or table, optional
        True values; rows are matched by a column ``name``, or by order.
    title : str, optional
        Heading of the page.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ValueError
        If there are no or more than `MAX_GALAXIES` galaxies, or the numbers of galaxies differ.
    ImportError
        If Bokeh or, for pictures, Pillow is not installed.
    """
    view_package("bokeh")
    return _laid_out(
        galaxies_content(
            posterior,
            cutouts=cutouts,
            reconstructions=reconstructions,
            spectra=spectra,
            truth=truth,
            title=title,
        )
    )


def galaxies_content(
    posterior: Posterior,
    *,
    cutouts: Iterable[Any] | None = None,
    reconstructions: np.ndarray | None = None,
    spectra: SpectrumDraws | None = None,
    truth: Mapping[str, Any] | Table | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """Collect everything that a page shows about galaxies, as JSON types.

    Parameters
    ----------
    posterior, cutouts, reconstructions, spectra, truth, title
        As for `page_text`.

    Returns
    -------
    dict
        See `astrogenspec.view.content.page_content`, with ``pictures`` and ``about``.

    Raises
    ------
    ValueError
        If there are no or more than `MAX_GALAXIES` galaxies, or the numbers of galaxies differ.
    ImportError
        If Pillow is not installed, for pictures.
    """
    _check(posterior, reconstructions, spectra)
    content = page_content(_with_flags_of(posterior, spectra), spectra=spectra, truth=truth)
    if cutouts is not None or reconstructions is not None:
        content["pictures"] = _pictures(posterior, cutouts, reconstructions)
    content["about"] = _about(posterior, title)
    return content


def _check(posterior: Posterior, reconstructions: Any, spectra: SpectrumDraws | None) -> None:
    n = len(posterior)
    if not 0 < n <= MAX_GALAXIES:
        raise ValueError(f"the posterior has {n} galaxies, but a page shows 1 to {MAX_GALAXIES}.")
    for argument, value in (("reconstructions", reconstructions), ("spectra", spectra)):
        if value is not None and len(value) != n:
            raise ValueError(
                f"{argument} has {len(value)} galaxies, but the posterior has {n}; give the same "
                "galaxies in the same order."
            )


def _with_flags_of(posterior: Posterior, spectra: SpectrumDraws | None) -> Posterior:
    """Add the flags of the spectra to those of the posterior."""
    if spectra is None:
        return posterior
    log = FlagLog(len(posterior))
    for row, texts in enumerate(zip(posterior.flags, spectra.flags, strict=True)):
        code = posterior.flag_codes[row] | spectra.flag_codes[row]
        parts = [part for text in texts for part in text.split("; ") if part]
        own = [part.removeprefix("posterior: ") for part in parts]
        log.add(row, int(code), "; ".join(dict.fromkeys(own)))
    return posterior._replaced(_flags=np.array(log.texts, dtype=object), _flag_codes=log.codes)


def _pictures(
    posterior: Posterior, cutouts: Iterable[Any] | None, reconstructions: Any
) -> dict[str, list[Any]]:
    n = len(posterior)
    largest = next(side for most, side in _PICTURE_SIZES if n <= most)
    made: dict[str, list[Any]] = {}
    if cutouts is not None:
        one = isinstance(cutouts, Mapping)
        made["image"] = [
            picture.as_dict() if picture is not None else None
            for picture in (picture_of(c, largest=largest) for c in ([cutouts] if one else cutouts))
        ]
        if len(made["image"]) != n:
            raise ValueError(
                f"cutouts has {len(made['image'])} galaxies, but the posterior has {n}; give the "
                "same galaxies in the same order, and None for one without an image."
            )
    if reconstructions is not None:
        images = np.asarray(getattr(reconstructions, "value", reconstructions), float)
        made["reconstruction"] = [
            reconstruction_picture(image, largest=largest).as_dict()
            if np.isfinite(image).any()
            else None
            for image in images
        ]
    return made


def _about(posterior: Posterior, title: str | None) -> dict[str, Any]:
    meta = posterior.meta
    return {
        "title": title or _TITLE,
        "draws": posterior.n_draws,
        "model": str(meta.get("model") or ""),
        "version": str(meta.get("version") or ""),
        "calibrated": bool(meta.get("calibrated")),
        "known": [str(name) for name in meta.get("known") or []],
        "software": __version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _laid_out(content: dict[str, Any]) -> str:
    """Fill the template."""
    from bokeh.document import Document
    from bokeh.embed.util import standalone_docs_json_and_render_items
    from bokeh.resources import Resources

    figures = overview_figures(content)
    document = Document()
    for figure in figures.values():
        document.add_root(figure)
    documents, items = standalone_docs_json_and_render_items(list(figures.values()))
    plots = {
        "documents": documents,
        "items": [item.to_json() for item in items],
        "places": {key: figure.id for key, figure in figures.items()},
    }
    parts = {
        "TITLE": html.escape(content["about"]["title"]),
        "STYLE": page_file("page.css"),
        "BOKEH": "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw),
        "CONTENT": embedded_json(content),
        "PLOTS": embedded_json(plots),
        "CHARTS": page_file("charts.js"),
        "SCRIPT": page_file("page.js"),
    }
    text = page_file("page.html")
    head, *rest = text.split("{{")
    pieces = [head]
    for part in rest:
        name, _, after = part.partition("}}")
        pieces += [parts[name], after]
    return "".join(pieces)


def page_file(name: str) -> str:
    """Return the text of a file of this package: a style sheet, a script or a template.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    str
    """
    return (files(__package__) / name).read_text(encoding="utf-8")


def embedded_json(value: Any) -> str:
    """Return JSON that cannot end the element of the page in which it stands.

    Parameters
    ----------
    value : object
        JSON types without NaN.

    Returns
    -------
    str
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
