"""Read what the user passes in, a block of galaxies at a time, so that memory does not grow with their number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData

from .cutouts import CutoutBatch, coerce_cutouts
from .inputs.problems import INPUT_ERRORS
from .observations import Observations, observe
from .photometry import coerce_photometry

__all__ = ["InputArguments", "InputOptions", "ObservationBlocks", "positive_int", "reworded"]

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


class ObservationBlocks:
    """Read images and photometry block by block, so that memory does not grow with the number of galaxies.

    Parameters
    ----------
    cutouts : see `~astrogenspec.coerce_cutouts`, or an iterator of galaxies, or None
        Images of one galaxy or of many. An iterator is read as the blocks are needed.
    photometry : see `~astrogenspec.coerce_photometry`, or None
        Photometry of the same galaxies, in the same order.
    options : InputOptions
        How to read them.
    block_size : int
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
        self, cutouts: Any, photometry: Any, options: InputOptions, *, block_size: int = 256
    ) -> None:
        if cutouts is None and photometry is None:
            raise ValueError(
                "neither cutouts nor photometry were given: pass an image, photometry, or both."
            )
        if options.on_error not in ("raise", "flag"):
            raise ValueError(f'on_error is {options.on_error!r}: it must be "raise" or "flag".')
        self.block_size = positive_int(block_size, "batch_size")
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
        for images in self._image_blocks():
            block = self._block(images, start)
            start += len(block)
            yield block
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

    def _image_blocks(self) -> Iterator[Any]:
        """Cut whatever the user passed in into blocks, without reading it."""
        size, cutouts = self.block_size, self._cutouts
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
            while block := list(islice(galaxies, size)):
                yield block

    def _block(self, images: Any, start: int) -> Observations:
        options = self.options
        if images is None:
            photometry = self._photometry[start : start + self.block_size]
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
    error : one of `astrogenspec.inputs.problems.INPUT_ERRORS`
        A kind that needs more than a sentence becomes its parent.
    sentence : str

    Returns
    -------
    Exception
    """
    return next(kind for kind in _KINDS if isinstance(error, kind))(sentence)


def positive_int(value: Any, argument: str) -> int:
    """Check a count.

    Parameters
    ----------
    value : int
        What the user passed.
    argument : str
        Its name, for the sentence of an error.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is less than 1.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument} is {value!r}: it must be an int.")
    if value.__index__() < 1:
        raise ValueError(f"{argument} is {value}: it must be at least 1.")
    return value.__index__()
