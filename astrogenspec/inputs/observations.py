"""Observations: images and photometry of the same galaxies, read in batches.

A galaxy may have an image, photometry, or both.  Missing photometry is measured on the image.  With
``on_error="flag"``, a galaxy of which only one of the two is usable is inferred from that one and
flagged; a galaxy without usable data stays in the batch with a flag, so that the order of the
galaxies and the results of all others are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypedDict

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import QTable

from ..flags import Flag, FlagLog
from ..surveys import BANDS, CUTOUT_SIZE, SDSS
from .catalogues import dust_values
from .cutouts import CutoutBatch, Cutouts, read_cutouts
from .errors import (
    InputLog,
    check_bool,
    check_count,
    check_on_error,
    resolve_flag_codes,
    resolve_named,
)
from .features import ModelInputs, make_inputs
from .filter_sets import sdss_bands, union
from .photometry import (
    ANY_FILTER_MODEL,
    Photometry,
    PhotometryBatch,
    check_reddening,
    coerce_photometry,
    measure_photometry,
)
from .sed_features import SEDComponents
from .survey_images import as_sdss_images, colour_terms
from .survey_names import SurveyLike, resolve_surveys

__all__ = ["InputArguments", "InputOptions", "ObservationBatches", "Observations", "observe"]


@dataclass(frozen=True, eq=False)
class Observations:
    """Images and photometry of the same galaxies.

    Attributes
    ----------
    cutouts : CutoutBatch or None
        Images; blank for a galaxy without a usable image. None if no galaxy was given an image.
    photometry : PhotometryBatch
        Fluxes; NaN for a galaxy without usable photometry.
    names : tuple of str
        Names of the galaxies.
    flags : tuple of str
        Reasons to distrust a galaxy; empty strings if nothing is wrong.
    usable : ndarray of bool, shape (n,)
        Whether a galaxy has an image or photometry.
    flag_codes : ndarray of int64, shape (n,)
        Flag codes, see `~astrogenspec.decode_flags`; by default ``TEXT_ONLY`` where there is a
        text.
    named : ndarray of bool, shape (n,)
        Whether a galaxy has a name of its own, rather than only a number; by default True.
    """

    cutouts: CutoutBatch | None
    photometry: PhotometryBatch
    names: tuple[str, ...]
    flags: tuple[str, ...]
    usable: np.ndarray
    flag_codes: np.ndarray = None  # type: ignore[assignment]  # filled in below
    named: np.ndarray = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        codes = resolve_flag_codes(self.flag_codes, self.flags, Flag.TEXT_ONLY)
        object.__setattr__(self, "flag_codes", codes)
        object.__setattr__(self, "named", resolve_named(self.named, True, len(self.names)))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def modes(self) -> np.ndarray:
        """Input mode of each galaxy, str, shape (n,): "image", "photometry", "both" or "" (none).

        Photometry that was measured on the image does not count as photometry.
        """
        blank = np.zeros(len(self), bool)
        image = blank if self.cutouts is None else self.cutouts.bands_present.any(axis=1)
        catalogue = self.photometry.bands_present.any(axis=1) & ~self.photometry.measured
        return np.select([image & catalogue, image, catalogue], ["both", "image", "photometry"], "")

    def inputs(self, components: SEDComponents | None = None) -> ModelInputs:
        """Return the tensors for the networks.

        Parameters
        ----------
        components : SEDComponents, optional
            Components of a network that reads photometry in any filters; without them, photometry
            is that of SDSS.

        Returns
        -------
        ModelInputs
        """
        if components is None:
            return make_inputs(self.cutouts, self.photometry.in_sdss())
        extinction = None
        if self.cutouts is not None:
            extinction = self.photometry.with_filters(self.cutouts.filters).extinction
            extinction = extinction + colour_terms(self.cutouts, self.photometry, components)
        return make_inputs(
            self.cutouts, self.photometry, extinction=extinction, components=components
        )

    def photometry_table(self) -> QTable:
        """Return a table of the photometry as observed, with extinction and morphology.

        Returns
        -------
        QTable
            Columns ``flux_g``, ``flux_err_g``, ``extinction_g`` and so on, with the labels
            `PhotometryBatch.bands` of the filters.
        """
        batch = self.photometry
        table = QTable()
        for k, band in enumerate(batch.bands):
            table[f"flux_{band}"] = batch.flux[:, k] * u.nmgy
            table[f"flux_err_{band}"] = batch.error[:, k] * u.nmgy
            table[f"extinction_{band}"] = batch.extinction[:, k] * u.mag
        if batch.morphology is not None:
            for k, band in enumerate(BANDS):
                table[f"petro_flux_{band}"] = batch.morphology.petro_flux[:, k] * u.nmgy
            table["r50"] = batch.morphology.r50 * u.arcsec
            table["r90"] = batch.morphology.r90 * u.arcsec
            table["axis_ratio"] = batch.morphology.axis_ratio
        table["measured"] = np.asarray(batch.measured, dtype=bool)
        return table


def observe(
    cutouts: CutoutBatch | None,
    photometry: PhotometryBatch | None,
    *,
    ebv: float | np.ndarray | u.Quantity | None = None,
    on_error: str = "raise",
    measure: bool = True,
    start: int = 0,
) -> Observations:
    """Combine images and photometry of the same galaxies, and measure missing photometry.

    Parameters
    ----------
    cutouts : CutoutBatch, optional
        Images.
    photometry : PhotometryBatch, optional
        Photometry; at least one of ``cutouts`` and ``photometry`` is required.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), if there is no photometry.
    on_error : {"raise", "flag"}
        What to do with a galaxy without usable data.
    measure : bool
        Whether to measure missing photometry on the image.
    start : int
        Index of the first of these galaxies in the whole input.

    Returns
    -------
    Observations

    Raises
    ------
    ValueError
        If a galaxy has no usable data, names differ, or ``ebv`` is wrong; the attribute ``galaxy``
        of the exception is the index of the galaxy in the whole input.
    astropy.units.UnitConversionError
        If the unit of ``ebv`` is not a magnitude.
    """
    if cutouts is None:
        if photometry is None:
            raise ValueError(_NO_INPUT)
        n, names, named = len(photometry), photometry.names, photometry.named
        has_image = np.zeros(n, bool)
    else:
        n = len(cutouts)
        names, named = _common_names(cutouts, photometry, start)
        has_image = cutouts.bands_present.any(axis=1) & _unflagged(cutouts.problems)
        if not has_image.all():
            ivar = np.where(has_image[:, None, None, None], cutouts.ivar, np.float32(0))
            cutouts = replace(cutouts, ivar=ivar)
    image_log, flux_log, shape_log = FlagLog(n), FlagLog(n), FlagLog(n)
    if cutouts is not None:
        _add(image_log, ["image not used: "] * n, cutouts.problems, cutouts.flag_codes)
    assumed = photometry is None and ebv is None
    if photometry is None:
        photometry = _blank_photometry(n, ebv, InputLog(n, on_error, first=start))
    rejected = (photometry.flag_codes & ~_BAND_FLAGS) != 0
    prefixes = np.where(rejected, "photometry not used: ", "")
    _add(flux_log, prefixes, photometry.problems, photometry.flag_codes)
    if photometry.morphology is not None:
        shape = photometry.morphology
        _add(shape_log, ["morphology not used: "] * n, shape.problems, shape.flag_codes)
    photometry = _without(photometry, rejected)
    if measure and cutouts is not None:
        # The same columns in every batch, whether or not a galaxy of it is measured.
        filters = union([photometry.filters, cutouts.filters])
        if len(filters) > len(photometry.filters):
            photometry = photometry.with_filters(filters)
    wanted = has_image & ~photometry.bands_present.any(axis=1)
    if measure and cutouts is not None and wanted.any():
        measured = measure_photometry(cutouts[wanted], None if assumed else 0.0)
        photometry = _filled(photometry, wanted, measured)
        flux_log = _with_measurement(flux_log, np.flatnonzero(wanted), measured)
    usable = has_image | photometry.bands_present.any(axis=1)
    log = FlagLog(n)
    for part in (image_log, flux_log, shape_log):
        log.extend(part.codes, part.texts)
    unexplained = ~usable & _unflagged(log.texts)
    log.add(~usable, Flag.NO_DATA, "")
    log.add(unexplained, Flag.NO_DATA, "neither an image nor photometry is available")
    if on_error == "raise" and not usable.all():
        k = int(np.argmin(usable))
        raise InputLog(n, "raise", first=start).error(k, f"{log.texts[k]}.", advice=True)
    return Observations(cutouts, photometry, names, log.texts, usable, log.codes, named)


#: Flags of photometry that concern single bands; the other bands are used.
_BAND_FLAGS = int(Flag.BAND_NOT_USED | Flag.HIGH_SIGNAL)
_NO_INPUT = "neither cutouts nor photometry were given: pass an image, photometry, or both."


def _unflagged(problems: Sequence[str]) -> np.ndarray:
    return np.array([not problem for problem in problems], dtype=bool)


def _add(
    log: FlagLog, prefixes: Sequence[str] | np.ndarray, problems: Sequence[str], codes: np.ndarray
) -> None:
    """Add the flags of a record, with prefixes to their texts."""
    texts = [
        problem and f"{prefix}{problem.rstrip('.')}"
        for prefix, problem in zip(prefixes, problems, strict=True)
    ]
    log.extend(codes, texts)


def _with_measurement(log: FlagLog, rows: np.ndarray, measured: PhotometryBatch) -> FlagLog:
    """Add to the flags of the photometry the outcome of its measurement on the image."""
    codes, texts = log.codes, list(log.texts)
    for k, reason in zip(rows, measured.problems, strict=True):
        if reason:
            codes[k] |= Flag.PHOTOMETRY_NOT_MEASURED
            texts[k] = f"photometry could not be measured on the image: {reason.rstrip('.')}"
        elif texts[k]:
            codes[k] |= Flag.PHOTOMETRY_REPLACED
            texts[k] += "; it was measured on the image instead, assuming no Galactic extinction"
    new = FlagLog(len(log))
    new.extend(codes, texts)
    return new


def _blank_photometry(n: int, ebv: Any, log: InputLog) -> PhotometryBatch:
    """Return a batch without fluxes that has the Galactic extinction."""
    values = np.array(np.broadcast_to(dust_values("ebv", 0.0 if ebv is None else ebv), n))
    rejected: dict[int, str] = {}
    check_reddening(values, rejected)
    for index, text in sorted(rejected.items()):
        log.reject(index, Flag.PHOTOMETRY_NOT_USED, text)
        values[index] = 0
    missing = np.full((n, len(BANDS)), np.nan)
    return PhotometryBatch(
        missing,
        missing,
        values,
        np.zeros(n, bool),
        problems=log.texts,
        flag_codes=log.codes,
    )


def _without(photometry: PhotometryBatch, rows: np.ndarray) -> PhotometryBatch:
    """Blank some galaxies, and set extinction that is not finite to zero."""
    flux, error = (np.where(rows[:, None], np.nan, a) for a in (photometry.flux, photometry.error))
    shape = photometry.morphology
    return replace(
        photometry,
        flux=flux,
        error=error,
        morphology=None if shape is None else shape.without(rows),
        extinction=np.nan_to_num(photometry.extinction, posinf=0.0, neginf=0.0),
    )


def _filled(
    photometry: PhotometryBatch, rows: np.ndarray, other: PhotometryBatch
) -> PhotometryBatch:
    """Replace the fluxes of some galaxies by those of another batch, but not the extinction."""
    other = other.with_filters(photometry.filters)
    flux, error, measured = (
        np.array(a) for a in (photometry.flux, photometry.error, photometry.measured)
    )
    flux[rows], error[rows], measured[rows] = other.flux, other.error, True
    return replace(photometry, flux=flux, error=error, measured=measured)


def _common_names(
    cutouts: CutoutBatch, photometry: PhotometryBatch | None, start: int
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of galaxies from images and photometry, and which galaxies have one.

    Numbers that were assigned to galaxies without a name are not compared.
    """
    if photometry is None:
        return cutouts.names, cutouts.named
    names = []
    for k, (image, other) in enumerate(zip(cutouts.names, photometry.names, strict=True)):
        if cutouts.named[k] and photometry.named[k] and image != other:
            raise InputLog(len(cutouts), "raise", first=start).error(
                k,
                f"the name is {image!r} in cutouts but {other!r} in photometry; give both in the "
                "same order.",
            )
        names.append(other if photometry.named[k] else image)
    return tuple(names), cutouts.named | photometry.named


class InputArguments(TypedDict, total=False):
    """Fields of `InputOptions` as keyword arguments, for type hints."""

    bands: str | Sequence[str] | None
    position: SkyCoord | None
    pixel_scale: u.Quantity | None
    ebv: float | np.ndarray | u.Quantity | None
    survey: SurveyLike | None
    on_error: str


@dataclass(frozen=True)
class InputOptions:
    """Options for reading images and photometry.

    Attributes
    ----------
    bands : str or sequence of str, optional
        Names of the bands of cubes, see `~astrogenspec.coerce_cutouts`.
    position : SkyCoord, optional
        Positions of the galaxies in their images.
    pixel_scale : Quantity ['angle'], optional
        Pixel scale of images without a WCS.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used.
    measure : bool
        Whether to measure missing photometry on the image.
    screening : bool
        Whether to apply the limits of the training galaxies of SDSS to bands of SDSS.
    survey : str, Survey, or a sequence of these, optional
        Survey or surveys of the photometry, see `~astrogenspec.coerce_photometry`; images are those
        of the first one (`astrogenspec.inputs.survey_images`).
    size : int
        Pixels on a side of the images that the network reads.
    """

    bands: str | Sequence[str] | None = None
    position: SkyCoord | None = None
    pixel_scale: u.Quantity | None = None
    ebv: float | np.ndarray | u.Quantity | None = None
    on_error: str = "raise"
    measure: bool = True
    screening: bool = True
    survey: SurveyLike | None = None
    size: int = CUTOUT_SIZE


class ObservationBatches:
    """Iterator over images and photometry in batches of bounded memory.

    Parameters
    ----------
    cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, or None
        Images of one or more galaxies. An iterator is read batch by batch.
    photometry : see `~astrogenspec.coerce_photometry`, or None
        Photometry of the same galaxies, in the same order.
    options : InputOptions
        Options for reading them.
    batch_size : int
        Number of galaxies in a batch.

    Attributes
    ----------
    n_galaxies : int or None
        Number of galaxies; None for an iterator of unknown length.

    Raises
    ------
    ValueError
        If neither is given, the numbers of galaxies differ, or images are given with photometry in
        a fibre.
    TypeError, astropy.units.UnitsError
        If the photometry cannot be read.
    """

    def __init__(
        self,
        cutouts: Cutouts | None,
        photometry: Photometry | None,
        options: InputOptions,
        *,
        batch_size: int = 256,
    ) -> None:
        if cutouts is None and photometry is None:
            raise ValueError(_NO_INPUT)
        check_on_error(options.on_error)
        check_bool(options.measure, "measure")
        check_bool(options.screening, "screening")
        self.batch_size = check_count(batch_size, "batch_size")
        self.options = options
        self._cutouts = cutouts
        self._photometry: PhotometryBatch | None = None
        self._required: dict[str, int] = {}
        self.n_galaxies = None if cutouts is None else _number_of(cutouts)
        if photometry is None:
            resolve_surveys(options.survey)
        else:
            # A batch has its own filters: the survey is that of the images.
            of_images = cutouts is not None and isinstance(photometry, PhotometryBatch)
            self._photometry = coerce_photometry(
                photometry,
                survey=None if of_images else options.survey,
                ebv=options.ebv,
                on_error=options.on_error,
                screening=options.screening,
            )
            if cutouts is None:
                self.n_galaxies = len(self._photometry)
            elif self._photometry.in_fibre:
                raise ValueError(
                    "photometry is that in a fibre, but images of the whole galaxies were given "
                    "too; omit it: total fluxes are measured on the images."
                )
        if self.n_galaxies is not None:
            self._check_lengths(self.n_galaxies)

    @property
    def in_fibre(self) -> bool:
        """Whether the photometry is that in a fibre."""
        return self._photometry is not None and self._photometry.in_fibre

    @property
    def is_sdss(self) -> bool:
        """Whether images, if any, and photometry, if any, are in filters of SDSS."""
        surveys = resolve_surveys(self.options.survey)
        if self._cutouts is not None and surveys and surveys[0] is not SDSS:
            return False
        if self._photometry is None:
            return True
        used = np.any(self._photometry.bands_present, axis=0).tolist()
        bands = sdss_bands(self._photometry.filters)
        return all(band is not None for k, band in enumerate(bands) if used[k])

    def require_filters(self, components: SEDComponents | None) -> None:
        """Check that a network can read the filters of the photometry.

        Parameters
        ----------
        components : SEDComponents or None
            Components of a network for any filters; None for a network that reads the five filters
            of SDSS, in which the photometry is then read.

        Raises
        ------
        ValueError
            If a filter reaches beyond the spectra of the network, or images or photometry are not
            those of SDSS; the message names weights for any filters.
        """
        surveys = resolve_surveys(self.options.survey)
        if components is None and self._cutouts is not None and surveys and surveys[0] is not SDSS:
            raise ValueError(
                f"survey is {surveys[0].name!r}, but these weights read images of SDSS only; use "
                f"weights for any filters, {ANY_FILTER_MODEL!r}."
            )
        if self._photometry is None:
            return
        if components is None:
            self._photometry = self._photometry.in_sdss()
        else:
            components.responses_of(self._photometry.filters)

    def require(self, n: int, argument: str) -> None:
        """Require a number of galaxies; it is checked when the last batch was read.

        Parameters
        ----------
        n : int
            Number of rows of another argument, which must be those of the same galaxies.
        argument : str
            Name of this argument, for the error message.

        Raises
        ------
        ValueError
            If the number of galaxies is known to differ.
        """
        self._required[argument] = n
        if self.n_galaxies is not None:
            self._check_lengths(self.n_galaxies)

    def __iter__(self) -> Iterator[Observations]:
        start = 0
        for batch in self._batches():
            yield batch
            start += len(batch)
        self._check_lengths(start)

    def _batches(self) -> Iterator[Observations]:
        start = 0
        if self._cutouts is None:
            photometry = self._photometry
            for start in range(0, 0 if photometry is None else len(photometry), self.batch_size):
                yield observe(
                    None,
                    None if photometry is None else photometry[start : start + self.batch_size],
                    on_error=self.options.on_error,
                    start=start,
                )
            return
        for images, n in _split(self._cutouts, self.batch_size):
            if self.n_galaxies is None:
                self._check_lengths(start + n, complete=False)
            yield self._batch(images, start, n)
            start += n

    def _check_lengths(self, n: int, *, complete: bool = True) -> None:
        """Raise unless all arguments are of n galaxies (n or more, if n is not complete)."""

        def differs(length: int) -> bool:
            return length != n if complete else length < n

        for argument, length in self._required.items():
            if differs(length):
                raise ValueError(
                    f"{argument} has {length} rows, but {n}{'' if complete else ' or more'} "
                    "galaxies were given; one row for each is required, in the same order."
                )
        if self._photometry is not None and differs(len(self._photometry)):
            raise ValueError(
                f"cutouts holds {n} galaxies but photometry {len(self._photometry)}: give one row "
                "of photometry for each cutout, in the same order (with on_error='flag', None "
                "stands for no image and NaN for no photometry)."
            )
        if self._photometry is None:
            shape = np.asanyarray(self.options.ebv).shape
            if len(shape) > 1 or shape and differs(shape[0]):
                raise ValueError(
                    f"ebv has shape {shape} for {n} galaxies: give one value for all or one for "
                    "each."
                )
        position = self.options.position
        if not isinstance(position, SkyCoord):
            return
        shape = position.shape
        if len(shape) > 1 or (differs(shape[0]) if shape else n != 1):
            raise ValueError(
                f"position has shape {shape} for {n} galaxies: give one position for each."
            )

    def _batch(self, images: Any, start: int, n: int) -> Observations:
        options, rows = self.options, slice(start, start + n)
        ebv = np.asanyarray(options.ebv)
        position = options.position
        if isinstance(position, SkyCoord) and position.shape:
            position = position[rows]
        surveys = resolve_surveys(options.survey)
        scale = SDSS.pixel_scale if surveys is None else surveys[0].pixel_scale
        cutouts = read_cutouts(
            images,
            bands=options.bands,
            position=position,
            pixel_scale=options.pixel_scale,
            on_error=options.on_error,
            default_scale=SDSS.pixel_scale if scale is None else scale,
            first=start,
            size=options.size,
        )
        if surveys is not None:
            cutouts = as_sdss_images(cutouts, surveys[0])
        photometry = None if self._photometry is None else self._photometry[rows]
        return observe(
            cutouts,
            photometry,
            ebv=ebv[rows] if ebv.shape else options.ebv,
            on_error=options.on_error,
            measure=options.measure,
            start=start,
        )


def _is_stack(cutouts: Any) -> bool:
    if isinstance(cutouts, NDData):
        return np.ndim(cutouts.data) == 4
    return isinstance(cutouts, np.ndarray) and cutouts.ndim == 4


def _is_one_galaxy(cutouts: Any) -> bool:
    return isinstance(cutouts, NDData | Mapping | np.ndarray | str | bytes)


def _number_of(cutouts: Any) -> int | None:
    """Return the number of galaxies; None if it is unknown."""
    if _is_stack(cutouts):
        return len(cutouts.data if isinstance(cutouts, NDData) else cutouts)
    if _is_one_galaxy(cutouts):
        return 1
    return len(cutouts) if hasattr(cutouts, "__len__") else None


def _split(cutouts: Any, size: int) -> Iterator[tuple[Any, int]]:
    """Split images into batches without reading them; yield a batch and its number of galaxies."""
    n = _number_of(cutouts)
    if n is not None and (
        isinstance(cutouts, CutoutBatch | Sequence)
        and not _is_one_galaxy(cutouts)
        or _is_stack(cutouts)
    ):
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield _rows(cutouts, slice(start, stop)), stop - start
    elif _is_one_galaxy(cutouts) or not isinstance(cutouts, Iterable):
        yield cutouts, 1
    else:
        galaxies = iter(cutouts)
        while batch := list(islice(galaxies, size)):
            yield batch, len(batch)


def _rows(cutouts: Any, rows: slice) -> Any:
    """Select galaxies of a stack, a batch or a sequence."""
    if isinstance(cutouts, CutoutBatch) or _is_stack(cutouts) and not isinstance(cutouts, NDData):
        return cutouts[rows]
    if not isinstance(cutouts, NDData):
        return [cutouts[k] for k in range(rows.start, rows.stop)]
    uncertainty, mask = cutouts.uncertainty, cutouts.mask
    if uncertainty is not None and np.ndim(uncertainty.array) == 4:
        uncertainty = type(uncertainty)(uncertainty.array[rows], unit=uncertainty.unit, copy=False)
    if mask is not None and np.ndim(mask) == 4:
        mask = mask[rows]
    return NDData(
        cutouts.data[rows],
        uncertainty=uncertainty,
        mask=mask,
        unit=cutouts.unit,
        wcs=cutouts.wcs,
        meta=cutouts.meta,
    )
