"""Inference for the tables of other engines: one table of galaxies in, one table of summaries out.

`predict_table` is a module-level function of a table and plain arguments, so that engines can send
it to other processes.  Random numbers are keyed by the identifiers of the galaxies, so that the
result for a galaxy does not depend on the division of the catalogue into tables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import QTable, Table

from ..flags import Flag
from ..inference.estimator import PropertyEstimator
from ..inputs.arrow_tables import table_from_arrow
from ..inputs.column_names import with_flux_unit
from ..inputs.errors import check_count
from ..inputs.ids import coerce_ids, missing_ids
from ..inputs.survey_names import SurveyLike, resolve_surveys
from ..surveys import SDSS
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .devices import own_device
from .images import ImageFormat, ImageReader, Unreadable, image_reader, image_source
from .spectra import SpectrumSettings, infer_spectra, no_spectra
from .summaries import QUANTILES, arrow_table, astropy_table, join_columns, summary_columns

if TYPE_CHECKING:
    from .summaries import Columns

__all__ = ["Inference", "infer_table", "predict_table"]


@dataclass(frozen=True)
class Inference:
    """What is inferred for each galaxy, and from which columns.

    Attributes
    ----------
    ids : str
        Column of the identifiers, which key the random numbers.
    seed : int
        Seed of the random numbers.
    draws : int
        Number of draws for each galaxy.
    quantiles : int
        Number of nested quantiles: 0, 5, 20 or 99.
    weights : str or None
        Registered model, or path of a ``.safetensors`` file; by default the bundled model.
    columns : mapping of str to str
        Names by which columns are read: ``{"flux_g": "g_cModelFlux"}``.
    keep : sequence of str
        Columns that are copied to the result.
    survey : str or None
        Survey of the photometry, or several, separated by commas.
    ebv : float or None
        Galactic E(B-V) of all galaxies, if there is no column of it.
    flux_unit : str or None
        Unit of flux columns that have none.
    save_draws : {"float16", "float32"} or None
        Type of the draws that are kept; by default none are.
    batch_size : int
        Number of galaxies that are inferred at once.
    device : str
        Device of the network.
    images : str or None
        Images, see `astrogenspec.distributed.images`.
    image_bands : str or None
        Bands of the images, separated by commas, if they do not name them.
    pixel_scale : float or None
        Arcsec per pixel of the images, if they do not have it.
    image_unit : str or None
        Unit of the images, if they do not have it; nanomaggies by default.
    images_only : bool
        Whether to measure the photometry on the images.
    spectra : int
        Number of spectra that are generated for each galaxy; 0 for none.
    spectra_weights : str or None
        Registered weights of spectra, or path of a ``.safetensors`` file.
    spectrum_grid : {"full", "coarse"}
        Grid of the spectra, see `astrogenspec.distributed.spectra`.

    Raises
    ------
    TypeError, ValueError
        If a value is invalid.
    """

    ids: str
    seed: int
    draws: int = 1000
    quantiles: int = 20
    weights: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: Sequence[str] = ()
    survey: str | None = None
    ebv: float | None = None
    flux_unit: str | None = None
    save_draws: str | None = None
    batch_size: int = 256
    device: str = "cpu"
    images: str | None = None
    image_bands: str | None = None
    pixel_scale: float | None = None
    image_unit: str | None = None
    images_only: bool = False
    spectra: int = 0
    spectra_weights: str | None = None
    spectrum_grid: str = "full"

    def __post_init__(self) -> None:
        check_count(self.draws, "draws")
        if self.spectra:
            check_count(self.spectra, "spectra")
        if self.spectrum_grid not in ("full", "coarse"):
            raise ValueError(
                f'spectrum_grid is {self.spectrum_grid!r}; it must be "full" or "coarse".'
            )
        check_count(self.batch_size, "batch_size")
        if self.quantiles not in QUANTILES:
            known = ", ".join(map(str, QUANTILES))
            raise ValueError(f"quantiles is {self.quantiles!r}; it must be one of {known}.")
        if self.save_draws not in (None, "float16", "float32"):
            raise ValueError(
                f'save_draws is {self.save_draws!r}; it must be "float16", "float32" or None.'
            )
        if not isinstance(self.ids, str):
            raise TypeError(f"ids is {self.ids!r}; it must be the name of a column.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer):
            raise TypeError(f"seed is {self.seed!r}; it must be an int, for reproducible draws.")
        if self.images is None and self.images_only:
            raise ValueError("images_only is set, but there are no images; give images.")

    @property
    def image_format(self) -> ImageFormat:
        """What the images do not say of themselves."""
        names = None if self.image_bands is None else self.image_bands.split(",")
        bands = None if names is None else tuple(name.strip() for name in names)
        return ImageFormat(bands, self.pixel_scale, self.image_unit)

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the columns that are copied to the result: the identifiers and ``keep``."""
        return tuple(dict.fromkeys((self.ids, *self.keep)))


@dataclass(frozen=True)
class Inferred:
    """Result for one table.

    Attributes
    ----------
    kept : dict of str to array
        Columns of the catalogue.
    columns : dict of str to ndarray
        Columns of the summaries (`astrogenspec.distributed.summaries`).
    reasons : tuple of str
        Why a row is a bad row: the galaxy has no draws, or its identifier is missing or repeated;
        an empty string for other rows.
    units : dict of str to str
        Units of the kept columns that have one.
    """

    kept: dict[str, Any]
    columns: Columns
    reasons: tuple[str, ...]
    units: dict[str, str]


def predict_table(
    frame: Any,
    *,
    ids: str,
    seed: int,
    columns: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    quantiles: int = 20,
    draws: int = 1000,
    weights: str | os.PathLike[str] | None = None,
    survey: str | None = None,
    ebv: float | None = None,
    flux_unit: str | None = None,
    save_draws: str | None = None,
    batch_size: int = 256,
    device: str = "cpu",
    images: str | os.PathLike[str] | Callable[[np.ndarray], Sequence[Any]] | None = None,
    image_bands: str | None = None,
    pixel_scale: float | None = None,
    image_unit: str | None = None,
    images_only: bool = False,
    spectra: int = 0,
    spectra_weights: str | None = None,
    spectrum_grid: str = "full",
    run: str = "",
) -> Any:
    """Infer the galaxies of a table.

    The function can be pickled and accepts tables without rows, as ``map_partitions`` of dask and
    LSDB require.

    Parameters
    ----------
    frame : `pandas.DataFrame`, ``NestedFrame``, `pyarrow.Table` or `~astropy.table.Table`
        Photometry, one galaxy a row, with the columns of
        `~astrogenspec.coerce_photometry`. Rows that cannot be used are flagged.
    ids : str
        Column of the identifiers: integers or strings.
    seed : int
        Seed of the random numbers, which are those of the seed and the identifier.
    columns : mapping of str to str, optional
        Names by which columns are read, such as ``{"flux_g": "g_cModelFlux"}``.
    keep : sequence of str
        Columns that are copied to the result, such as ``["ra", "dec"]``.
    quantiles : int
        Number of quantiles in the nested columns: 0 (no such columns), 5, 20 or 99.
    draws : int
        Number of draws for each galaxy.
    weights : str or path-like, optional
        Registered model (`~astrogenspec.list_models`) or ``.safetensors`` file.
    survey : str, optional
        Survey of the photometry, or several, separated by commas.
    ebv : float, optional
        Galactic E(B-V) of all galaxies, if there is no column of it.
    flux_unit : str, optional
        Unit of flux columns that have none. (Frames of pandas have no units.)
    save_draws : {"float16", "float32"}, optional
        Add the draws, in columns ``<quantity>_draws``; with float16, those of line fluxes as
        logarithms to base 10, in columns ``<quantity>_log10_draws``.
    batch_size : int
        Number of galaxies that are inferred at once.
    device : str
        Device of the network.
    images : path-like or callable, optional
        Images of the galaxies, joined by identifier: HDF5 files or a zarr group with data sets of
        identifiers, images of shape (n, band, y, x) and inverse variances; parquet files with a
        column ``image`` of structures, as in the Multimodal Universe; a folder of FITS files named
        by the identifiers; or a function of a module that takes an array of identifiers and returns
        a list of cutouts. A galaxy without an image is inferred from its photometry.
    image_bands : str, optional
        Bands of the images, separated by commas, if they do not name them.
    pixel_scale : float, optional
        Arcsec per pixel of the images, if they do not have it.
    image_unit : str, optional
        Unit of the images, if they do not have it; nanomaggies by default.
    images_only : bool
        Measure the photometry on the images instead of reading it from the table.
    spectra : int
        Number of spectra that are generated for each galaxy. Columns ``spectrum_best``, the best
        one, and ``spectrum_p16`` and ``_p84`` of each pixel, on vacuum wavelengths from 3800 to
        9200 Angstrom in steps of 1e-4 dex; and ``spectrum_coarse_best`` and so on, in steps of
        0.0016 dex.
    spectra_weights : str, optional
        Registered weights of spectra, or a ``.safetensors`` file.
    spectrum_grid : {"full", "coarse"}
        Write both grids, or only the coarse one.
    run : str
        Text of the column ``run``, such as the digest of a manifest.

    Returns
    -------
    ``NestedFrame`` or `pandas.DataFrame`, `pyarrow.Table`, or `~astropy.table.QTable`
        A table of the kind that was given, with its index: identifiers, kept columns, and for each
        quantity ``_median``, ``_p16``, ``_p84`` and the quantiles ``_20``; then ``measurable``,
        ``predictive_p_value``, ``flags`` and ``run``. Frames have nested columns with the fields
        ``locs`` and ``quants`` if the package nested-pandas is installed, else structures of Arrow.

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitsError
        If an argument is invalid, or a column is missing or has the wrong type or unit.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astrogenspec.distributed import predict_table
    >>> table = Table({"object_id": [7, 8], "g": [17.6, 18.1], "r": [16.8, 17.5]})
    >>> table["g_err"] = table["r_err"] = 0.02
    >>> table["ebv"] = 0.03
    >>> names = {f"mag_{b}": b for b in "gr"} | {f"mag_err_{b}": f"{b}_err" for b in "gr"}
    >>> result = predict_table(  # doctest: +SKIP
    ...     table, ids="object_id", columns=names, seed=1, draws=100
    ... )
    >>> result["object_id", "redshift_median", "redshift_20", "flags"]  # doctest: +SKIP
    """
    inference = Inference(
        ids,
        seed,
        draws,
        quantiles,
        None if weights is None else os.fspath(weights),
        dict(columns or {}),
        tuple(keep),
        survey,
        ebv,
        flux_unit,
        save_draws,
        batch_size,
        device,
        image_source(images),
        image_bands,
        pixel_scale,
        image_unit,
        images_only,
        spectra,
        spectra_weights,
        spectrum_grid,
    )
    if isinstance(frame, Table):
        found = infer_table(frame, inference)
        return astropy_table(found.kept, found.columns, run, quantiles)
    content, restore = _arrow_content(frame)
    found = infer_table(table_from_arrow(content), inference)
    return restore(arrow_table(found.kept, found.columns, run, found.units))


def _arrow_content(frame: Any) -> tuple[Any, Any]:
    """Return the plain columns of a frame, and the function that makes a frame of a result."""
    import pyarrow as pa

    if isinstance(frame, pa.Table):
        return frame, lambda result: result
    try:
        import pandas as pd
    except ModuleNotFoundError:
        pd = None
    if pd is None or not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"frame is a {type(frame).__name__}; it must be a table of pandas, pyarrow or astropy."
        )
    # Nested columns cannot be photometry.
    nested = set(getattr(frame, "nested_columns", ()))
    plain = pd.DataFrame(frame)[[name for name in frame.columns if name not in nested]]
    return pa.Table.from_pandas(plain, preserve_index=False), lambda result: _framed(
        result, frame.index
    )


def _framed(result: Any, index: Any) -> Any:
    """Return a frame with an index, nested if nested-pandas is installed."""
    import pandas as pd

    frame = result.to_pandas(types_mapper=pd.ArrowDtype)
    try:
        import nested_pandas
        from nested_pandas import NestedDtype
    except ModuleNotFoundError:
        pass
    else:
        frame = nested_pandas.NestedFrame(frame)
        for name in result.column_names:
            kind = result.schema.field(name).type
            if hasattr(kind, "num_fields") and kind.num_fields == 2:
                frame[name] = frame[name].astype(NestedDtype(kind))
    frame.index = index
    return frame


def infer_table(table: Table, inference: Inference, images: ImageReader | None = None) -> Inferred:
    """Infer the galaxies of a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Photometry, one galaxy a row.
    inference : Inference
        What is inferred.
    images : ImageReader, optional
        Reader of the images; by default that of ``inference.images``.

    Returns
    -------
    Inferred

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitsError
        If a column is missing or has the wrong type or unit.
    """
    for name in inference.kept:
        if name not in table.colnames:
            raise ValueError(
                f"the table has no column {name!r}; it has {', '.join(table.colnames[:20])}"
                f"{', ...' if len(table.colnames) > 20 else ''}."
            )
    kept = {name: table[name] for name in inference.kept}
    units = {name: str(c.unit) for name, c in kept.items() if getattr(c, "unit", None)}
    surveys = None
    if inference.survey is not None:
        surveys = resolve_surveys([name.strip() for name in inference.survey.split(",")])
    if images is None and inference.images is not None:
        images = image_reader(inference.images, inference.image_format)
    photometry = _photometry(table, inference, surveys)
    if not len(table):
        return Inferred(kept, _no_rows(inference), (), units)
    missing = missing_ids(table[inference.ids])
    keys = np.asarray(np.ma.getdata(table[inference.ids]))[~missing]
    columns, reasons = _infer(photometry, keys, missing, inference, surveys, images)
    for row in np.flatnonzero(~missing)[_repeated(keys)]:
        text = "the identifier is that of several rows, which share their random numbers"
        reasons[row] = "; ".join(filter(None, (reasons[row], text)))
    return Inferred(kept, columns, tuple(reasons), units)


def _photometry(table: Table, inference: Inference, surveys: Any) -> QTable:
    """Return the photometry with the names and units that the estimator reads."""
    photometry = QTable(table, copy=False)
    for new, old in inference.columns.items():
        if old not in table.colnames:
            raise ValueError(
                f"the table has no column {old!r}, which is to be read as {new!r}; it has "
                f"{', '.join(table.colnames[:20])}."
            )
        photometry[new] = table[old]
    photometry.remove_columns(
        [name for name in {*inference.columns.values()} if name not in inference.columns]
    )
    if inference.flux_unit is not None:
        bands = [band for survey in surveys or (SDSS,) for band in survey.bands]
        photometry = with_flux_unit(photometry, inference.flux_unit, bands)
    return photometry


def _infer(
    photometry: QTable,
    keys: np.ndarray,
    missing: np.ndarray,
    inference: Inference,
    surveys: Any,
    images: ImageReader | None,
) -> tuple[Columns, list[str]]:
    """Infer the rows with identifiers; the others have no draws."""
    reasons = np.full(len(missing), "", dtype=object)
    columns = _no_rows(inference)
    if not missing.all():
        cutouts = None if images is None else _Cutouts(images, keys, np.flatnonzero(~missing))
        given = photometry if not missing.any() else photometry[~missing]
        columns, reasons[~missing] = _summaries(given, keys, inference, surveys, cutouts)
        if cutouts is not None:
            columns["has_image"] = np.array(cutouts.found, dtype=bool)
            for k, text in cutouts.reasons.items():
                columns["flags"][k] |= int(Flag.FILE_NOT_READ)
                row = np.flatnonzero(~missing)[k]
                reasons[row] = "; ".join(filter(None, (reasons[row], text)))
    if missing.any():
        reasons[missing] = f"there is no identifier in the column {inference.ids!r}"
        columns = {name: _spread(values, missing) for name, values in columns.items()}
        columns["flags"][missing] = int(Flag.NO_DATA)
    return columns, list(reasons)


def _spread(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Insert NaN, or zeros for integers, for rows without a result."""
    blank = np.nan if values.dtype.kind == "f" else values.dtype.type(0)
    spread = np.full((len(missing), *values.shape[1:]), blank, dtype=values.dtype)
    spread[~missing] = values
    return spread


class _Cutouts:
    """Images of the galaxies of a table, read as they are needed."""

    def __init__(self, images: ImageReader, keys: np.ndarray, rows: np.ndarray) -> None:
        self._images, self._keys, self._rows = images, keys, rows
        #: Whether there was an image, for each galaxy that was read.
        self.found: list[bool] = []
        #: Why an image could not be read, by galaxy.
        self.reasons: dict[int, str] = {}
        self._read: list[Any] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Any]:
        for k, cutout in enumerate(self._images.read(self._keys, self._rows)):
            if isinstance(cutout, Unreadable):
                self.reasons[k], cutout = f"the image cannot be read: {cutout.reason}", None
            self.found.append(cutout is not None)
            self._read.append(cutout)
            yield cutout

    def take(self, n: int) -> list[Any]:
        """Return the images of the next n galaxies that were read, and forget them."""
        taken, self._read = self._read[:n], self._read[n:]
        return taken


def _summaries(
    photometry: QTable,
    keys: np.ndarray,
    inference: Inference,
    surveys: SurveyLike | None,
    cutouts: _Cutouts | None,
) -> tuple[Columns, list[str]]:
    """Infer galaxies batch by batch."""
    estimator = _estimator(inference.weights, inference.device)
    ebv: Any = inference.ebv
    if inference.images_only and "ebv" in photometry.colnames:
        ebv = photometry["ebv"]
    # Repeated identifiers are listed as bad rows.
    with filtered_warnings("ignore", AstroGenSpecWarning, ".* ids are repeated"):
        batches = estimator.predict_iter(
            None if cutouts is None else iter(cutouts),
            None if inference.images_only else photometry,
            ebv=ebv,
            survey=surveys,
            n_draws=inference.draws,
            seed=int(inference.seed),
            ids=keys,
            on_error="flag",
            batch_size=inference.batch_size,
            progress=False,
        )
    parts, reasons = [], []
    start = 0
    for posterior in batches:
        rows = slice(start, start + len(posterior))
        start = rows.stop
        found = summary_columns(posterior, inference.quantiles, inference.save_draws)
        taken = None if cutouts is None else cutouts.take(len(posterior))
        if inference.spectra:
            given = None if inference.images_only else photometry[rows]
            dust = ebv[rows] if inference.images_only and np.ndim(ebv) else ebv
            settings = SpectrumSettings(
                inference.spectra,
                int(inference.seed),
                inference.spectra_weights,
                inference.spectrum_grid,
                inference.device,
            )
            found |= infer_spectra(
                given, keys[rows], posterior, taken, settings, ebv=dust, survey=surveys
            )
        parts.append(found)
        reasons += [
            "" if usable else flag or "there are no draws"
            for usable, flag in zip(posterior.usable, posterior.flags, strict=True)
        ]
    return join_columns(parts), reasons


@lru_cache(maxsize=2)
def _estimator(weights: str | None, device: str) -> PropertyEstimator:
    return PropertyEstimator.from_pretrained(weights, device=own_device(device))


def _no_rows(inference: Inference) -> Columns:
    """Return the columns of a table without rows: those of an unusable galaxy, without its row."""
    columns = _empty_columns(
        inference.weights,
        inference.device,
        inference.quantiles,
        inference.save_draws,
        inference.draws,
    )
    if inference.spectra:
        columns = {**columns, **no_spectra(inference.spectrum_grid)}
    return columns if inference.images is None else {**columns, "has_image": np.zeros(0, bool)}


@lru_cache(maxsize=2)
def _empty_columns(
    weights: str | None, device: str, quantiles: int, save_draws: str | None, n_draws: int
) -> Columns:
    estimator = _estimator(weights, device)
    bands = {f"flux_{band}": [np.nan] for band in "gri"}
    bands |= {f"flux_err_{band}": [np.nan] for band in "gri"}
    with filtered_warnings("ignore", AstroGenSpecWarning):
        trial = estimator.predict(
            photometry=_in_nanomaggies(bands), ebv=0.0, n_draws=n_draws, seed=0, on_error="flag"
        )
    return {
        name: values[:0] for name, values in summary_columns(trial, quantiles, save_draws).items()
    }


def _in_nanomaggies(bands: Mapping[str, list[float]]) -> QTable:
    return QTable(bands, units=dict.fromkeys(bands, "nmgy"))


def _repeated(keys: np.ndarray) -> np.ndarray:
    """Return which identifiers are repeated."""
    with filtered_warnings("ignore", AstroGenSpecWarning):
        pairs = coerce_ids(keys)
    _, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    return counts[inverse.ravel()] > 1
