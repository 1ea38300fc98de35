"""What was observed of each galaxy: images and photometry brought together.

A galaxy may have an image, photometry, or both.  Photometry that is missing is measured on the image.  With
``on_error="flag"`` a galaxy of which only one of the two can be used goes on with that one, flagged with the reason; a
galaxy of which nothing can be used keeps its place, so that it changes nothing for the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypedDict

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import QTable

from ..surveys import BANDS
from .catalogues import dust_values
from .cutouts import CutoutBatch, coerce_cutouts
from .errors import INPUT_ERRORS, check_count
from .features import ModelInputs, make_inputs
from .photometry import PhotometryBatch, coerce_photometry, measure_photometry

__all__ = [
    "InputArguments",
    "InputOptions",
    "ObservationBatches",
    "Observations",
    "observe",
    "reworded",
]


@dataclass(frozen=True, eq=False)
class Observations:
    """Images and photometry of the same galaxies.

    Attributes
    ----------
    cutouts : CutoutBatch or None
        Images; blank for a galaxy without a usable one. None if no galaxy was given an image.
    photometry : PhotometryBatch
        Fluxes; NaN for a galaxy without usable ones.
    names : tuple of str
        One for each galaxy.
    flags : tuple of str
        Why not to trust a galaxy; empty strings if nothing is wrong.
    usable : ndarray of bool, shape (n,)
        Whether there is anything to infer from.
    """

    cutouts: CutoutBatch | None
    photometry: PhotometryBatch
    names: tuple[str, ...]
    flags: tuple[str, ...]
    usable: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def modes(self) -> np.ndarray:
        """What each galaxy is inferred from, str, shape (n,): image, photometry or both; empty if there is nothing.

        Photometry measured on its image counts as the image.
        """
        blank = np.zeros(len(self), bool)
        image = blank if self.cutouts is None else self.cutouts.bands_present.any(axis=1)
        catalogue = self.photometry.bands_present.any(axis=1) & ~self.photometry.measured
        return np.select([image & catalogue, image, catalogue], ["both", "image", "photometry"], "")

    def inputs(self) -> ModelInputs:
        """Make the tensors for the networks."""
        return make_inputs(self.cutouts, self.photometry)

    def photometry_table(self) -> QTable:
        """Tabulate the photometry that the network saw, as observed, with its Galactic extinction and its morphology."""
        batch = self.photometry
        table = QTable()
        for k, band in enumerate(BANDS):
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
    """Bring images and photometry of the same galaxies together; measure what is missing.

    Parameters
    ----------
    cutouts : CutoutBatch, optional
        Images.
    photometry : PhotometryBatch, optional
        Photometry; at least one of the two.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), if there is no photometry.
    on_error : {"raise", "flag"}
        What to do with a galaxy of which nothing can be used.
    measure : bool
        Whether to measure on the image the photometry that is missing.
    start : int
        Number of the first of these galaxies in the whole input.

    Returns
    -------
    Observations

    Raises
    ------
    ValueError
        If nothing can be used of a galaxy, names differ, or ``ebv`` is wrong.
    astropy.units.UnitConversionError
        If the unit of ``ebv`` is no magnitude.
    """
    if cutouts is None:
        n, names = len(photometry), photometry.names
        has_image = np.zeros(n, bool)
        image_problems = [""] * n
    else:
        n = len(cutouts)
        others = None if photometry is None else photometry.names
        names = _common_names(cutouts.names, others, start)
        has_image = cutouts.bands_present.any(axis=1) & _fine(cutouts.problems)
        image_problems = _prefixed("image not used: ", cutouts.problems)
        if not has_image.all():
            ivar = np.where(has_image[:, None, None, None], cutouts.ivar, np.float32(0))
            cutouts = replace(cutouts, ivar=ivar)
    assumed = photometry is None and ebv is None
    if photometry is None:
        photometry = _blank_photometry(n, ebv, start)
    flux_problems = _prefixed("photometry not used: ", photometry.problems)
    morphology = photometry.morphology
    size_problems = [""] * n
    if morphology is not None:
        size_problems = _prefixed("morphology not used: ", morphology.problems)
    photometry = _without(photometry, ~_fine(photometry.problems))
    wanted = has_image & ~photometry.bands_present.any(axis=1)
    if measure and wanted.any():
        measured = measure_photometry(cutouts[wanted], None if assumed else 0.0)
        photometry = _filled(photometry, wanted, measured)
        _note_measured(flux_problems, np.flatnonzero(wanted), measured.problems)
    usable = has_image | photometry.bands_present.any(axis=1)
    problems = zip(image_problems, flux_problems, size_problems, strict=True)
    flags = [_sentence(parts) for parts in problems]
    for k in np.flatnonzero(~usable):
        flags[k] = flags[k] or "there is neither an image nor photometry"
        if on_error == "raise":
            raise ValueError(f"galaxy {start + k}: {flags[k]}.")
    return Observations(cutouts, photometry, names, tuple(flags), usable)


def _fine(problems: Sequence[str]) -> np.ndarray:
    return np.array([not problem for problem in problems], dtype=bool)


def _prefixed(prefix: str, problems: Sequence[str]) -> list[str]:
    return [prefix + problem.rstrip(".") if problem else "" for problem in problems]


def _note_measured(notes: list[str], rows: np.ndarray, problems: Sequence[str]) -> None:
    """Say how it went with photometry that was measured on the image."""
    for k, problem in zip(rows, problems, strict=True):
        if problem:
            notes[k] = f"photometry could not be measured on the image: {problem.rstrip('.')}"
        elif notes[k]:
            notes[k] += "; it was measured on the image instead, for no Galactic extinction"


def _blank_photometry(n: int, ebv: Any, start: int) -> PhotometryBatch:
    """Make a batch without fluxes that carries the Galactic extinction."""
    values = np.broadcast_to(dust_values("ebv", 0.0 if ebv is None else ebv), n)
    for k in np.flatnonzero(~(np.isfinite(values) & (values >= 0))):
        raise ValueError(
            f"galaxy {start + k}: ebv is {values[k]:g}, but it must be 0 mag or more, and finite."
        )
    missing = np.full((n, len(BANDS)), np.nan)
    return PhotometryBatch(missing, missing, np.array(values), np.zeros(n, bool))


def _without(photometry: PhotometryBatch, rows: np.ndarray) -> PhotometryBatch:
    """Blank some galaxies; extinction that is not finite becomes zero."""
    flux, error = (np.where(rows[:, None], np.nan, a) for a in (photometry.flux, photometry.error))
    morphology = photometry.morphology
    return replace(
        photometry,
        flux=flux,
        error=error,
        morphology=None if morphology is None else morphology.without(rows),
        extinction=np.nan_to_num(photometry.extinction, posinf=0.0, neginf=0.0),
    )


def _filled(
    photometry: PhotometryBatch, rows: np.ndarray, other: PhotometryBatch
) -> PhotometryBatch:
    """Put the fluxes of another batch in some rows; the extinction stays."""
    flux, error, measured = (
        np.array(a) for a in (photometry.flux, photometry.error, photometry.measured)
    )
    flux[rows], error[rows], measured[rows] = other.flux, other.error, True
    return replace(photometry, flux=flux, error=error, measured=measured)


def _common_names(
    of_images: Sequence[str], of_photometry: Sequence[str] | None, start: int
) -> tuple[str, ...]:
    """Agree on the names of galaxies; those that only count the galaxies of a part say nothing."""
    names = []
    for k, image in enumerate(of_images):
        number = str(start + k)
        other = number if of_photometry is None else of_photometry[k]
        image = number if image == str(k) else image
        if number not in (image, other) and image != other:
            raise ValueError(
                f"galaxy {number} is named {image!r} in cutouts but {other!r} in photometry: "
                "give both in the same order."
            )
        names.append(other if image == number else image)
    return tuple(names)


def _sentence(parts: Sequence[str]) -> str:
    return "; ".join(part.rstrip(". ") for part in parts if part)


_KINDS = (u.UnitConversionError, u.UnitsError, TypeError, ValueError)
_GALAXY_NUMBER = re.compile(r"^galaxy (\d+): ")


class InputArguments(TypedDict, total=False):
    """The fields of `InputOptions` as keyword arguments, for type hints."""

    bands: str | Sequence[str] | None
    position: SkyCoord | None
    pixel_scale: u.Quantity | None
    ebv: float | np.ndarray | u.Quantity | None
    on_error: str


@dataclass(frozen=True)
class InputOptions:
    """How to read what the user passes in.

    Attributes
    ----------
    bands : str or sequence of str, optional
        Names of the bands of cubes, see `~astrogenspec.coerce_cutouts`.
    position : SkyCoord, optional
        Where the galaxies are in their images.
    pixel_scale : Quantity ['angle'], optional
        Pixel scale of images without a WCS.
    ebv : float, array or Quantity ['mag'], optional
        Galactic E(B-V), one for all galaxies or one for each.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used.
    measure : bool
        Whether to measure on the image the photometry that is missing.
    """

    bands: str | Sequence[str] | None = None
    position: SkyCoord | None = None
    pixel_scale: u.Quantity | None = None
    ebv: float | np.ndarray | u.Quantity | None = None
    on_error: str = "raise"
    measure: bool = True


class ObservationBatches:
    """Read images and photometry block by block, so that memory does not grow with the number of galaxies.

    Parameters
    ----------
    cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, or None
        Images of one galaxy or of many. An iterator is read as the blocks are needed.
    photometry : see `~astrogenspec.coerce_photometry`, or None
        Photometry of the same galaxies, in the same order.
    options : InputOptions
        How to read them.
    batch_size : int
        Number of galaxies in a block.

    Attributes
    ----------
    n_galaxies : int or None
        Number of galaxies; None for an iterator of unknown length.

    Raises
    ------
    ValueError
        If nothing was given, or the numbers of galaxies differ.
    TypeError, astropy.units.UnitsError
        If the photometry cannot be read.
    """

    def __init__(
        self, cutouts: Any, photometry: Any, options: InputOptions, *, batch_size: int = 256
    ) -> None:
        if cutouts is None and photometry is None:
            raise ValueError(
                "neither cutouts nor photometry were given: pass an image, photometry, or both."
            )
        if options.on_error not in ("raise", "flag"):
            raise ValueError(f'on_error is {options.on_error!r}: it must be "raise" or "flag".')
        self.batch_size = check_count(batch_size, "batch_size")
        self.options = options
        self._cutouts = cutouts
        self._photometry = None
        if photometry is not None:
            self._photometry = coerce_photometry(
                photometry, ebv=options.ebv, on_error=options.on_error
            )
        self.n_galaxies = len(self._photometry) if cutouts is None else _number_of(cutouts)
        if self.n_galaxies is not None:
            self._check_numbers(self.n_galaxies)

    def __iter__(self) -> Iterator[Observations]:
        start = 0
        for images in self._image_batches():
            batch = self._batch(images, start)
            start += len(batch)
            yield batch
        self._check_numbers(start)

    def _check_numbers(self, n: int) -> None:
        """Raise unless everything else is of as many galaxies as the images."""
        if self._photometry is not None and len(self._photometry) != n:
            raise ValueError(
                f"cutouts holds {n} galaxies but photometry {len(self._photometry)}: give one row of photometry "
                "for each cutout, in the same order (with on_error='flag', None stands for no image and NaN for no photometry)."
            )
        if self._photometry is None:
            shape = np.shape(self.options.ebv)
            if shape not in ((), (n,)):
                raise ValueError(
                    f"ebv has shape {shape} for {n} galaxies: give one value for all or one for each."
                )
        position = self.options.position
        if isinstance(position, SkyCoord) and position.shape not in ((n,), () if n == 1 else (n,)):
            raise ValueError(
                f"position has shape {position.shape} for {n} galaxies: give one position for each."
            )

    def _image_batches(self) -> Iterator[Any]:
        """Cut whatever the user passed in into blocks, without reading it."""
        size, cutouts = self.batch_size, self._cutouts
        if cutouts is None:
            yield from (None for _ in range(0, len(self._photometry), size))
        elif isinstance(cutouts, CutoutBatch | Sequence) or _is_stack(cutouts):
            n = _number_of(cutouts)
            yield from (
                _rows(cutouts, slice(start, min(start + size, n))) for start in range(0, n, size)
            )
        elif _is_one_galaxy(cutouts) or not hasattr(cutouts, "__iter__"):
            yield cutouts
        else:
            galaxies = iter(cutouts)
            while batch := list(islice(galaxies, size)):
                yield batch

    def _batch(self, images: Any, start: int) -> Observations:
        options = self.options
        if images is None:
            photometry = self._photometry[start : start + self.batch_size]
            return observe(None, photometry, on_error=options.on_error, start=start)
        n = _number_of(images)
        rows = slice(start, start + n)
        position = options.position
        if isinstance(position, SkyCoord) and position.shape:
            position = position[rows]
        try:
            cutouts = coerce_cutouts(
                images,
                bands=options.bands,
                position=position,
                pixel_scale=options.pixel_scale,
                on_error=options.on_error,
            )
        except INPUT_ERRORS as error:
            raise _renumbered(error, start, n) from error
        photometry = None if self._photometry is None else self._photometry[rows]
        if photometry is not None and len(photometry) != n:
            self._check_numbers(start + n)
        return observe(
            cutouts,
            photometry,
            ebv=np.asanyarray(options.ebv)[rows] if np.shape(options.ebv) else options.ebv,
            on_error=options.on_error,
            measure=options.measure,
            start=start,
        )


def _renumbered(error: Exception, start: int, n: int) -> Exception:
    """Name the galaxy by its number in the whole input instead of that in its block."""
    message = str(error)
    found = _GALAXY_NUMBER.match(message)
    if start == 0 or (found is None and n > 1):
        return error
    rest = message if found is None else message[found.end() :]
    return reworded(error, f"galaxy {start + (0 if found is None else int(found[1]))}: {rest}")


def _is_stack(cutouts: Any) -> bool:
    if isinstance(cutouts, NDData):
        return np.ndim(cutouts.data) == 4
    return isinstance(cutouts, np.ndarray) and cutouts.ndim == 4


def _is_one_galaxy(cutouts: Any) -> bool:
    return isinstance(cutouts, NDData | Mapping | np.ndarray | str | bytes)


def _number_of(cutouts: Any) -> int | None:
    if _is_stack(cutouts):
        return np.shape(cutouts.data if isinstance(cutouts, NDData) else cutouts)[0]
    if _is_one_galaxy(cutouts):
        return 1
    return len(cutouts) if hasattr(cutouts, "__len__") else None


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


def reworded(error: Exception, sentence: str) -> Exception:
    """Make an error of the same kind with another sentence.

    Parameters
    ----------
    error : one of `astrogenspec.inputs.errors.INPUT_ERRORS`
        A kind that needs more than a sentence becomes its parent.
    sentence : str

    Returns
    -------
    Exception
    """
    return next(kind for kind in _KINDS if isinstance(error, kind))(sentence)
