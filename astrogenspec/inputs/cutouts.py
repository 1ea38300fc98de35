"""Cutouts: images in any supported form, converted to the pixel grid of the networks.

A cutout of the batch has 64 x 64 pixels of 0.396 arcsec in each of the bands u, g, r, i, z, in
nanomaggies per pixel as observed, with the galaxy at its centre.  An image with this pixel scale
(to 0.5%) is cropped or padded by whole pixels: its noise does not change, and the galaxy is centred
to half a pixel.  Any other image is resampled with conservation of flux
(`astrogenspec.inputs.resampling`) and centred exactly.  Pixels without data have an inverse
variance of zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TypeAlias, TypeGuard

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D, NDData

from ..flags import Flag
from ..surveys import BANDS, CUTOUT_SIZE, SDSS, Filter
from ..warnings import AstroGenSpecWarning
from .astrometry import check_scale
from .band_images import BandImage, PixelScale, split_array, split_bands
from .errors import (
    INPUT_ERRORS,
    InputLog,
    check_count,
    check_on_error,
    resolve_flag_codes,
    resolve_named,
    select_galaxies,
)
from .filter_sets import sdss_filters
from .image_calibration import calibrate, find_flux_units, why_unusable
from .image_files import read_band_files
from .image_units import ZeroPoint, check_zero_point, read_image_unit, zero_point_note
from .images import place_on_grid
from .resampling import crop_or_pad, resampling_step, to_grid

__all__ = ["Cutout", "CutoutBatch", "Cutouts", "coerce_cutouts", "read_cutouts"]

#: Images of one galaxy: a cube (band, y, x), or a mapping from names of bands to images (y, x)
#: or their files.
Cutout: TypeAlias = (
    NDData | u.Quantity | Mapping[str, NDData | u.Quantity | Cutout2D | str | PathLike]
)
#: Images of one or more galaxies, as `coerce_cutouts` accepts them; None for a galaxy without an
#: image. Estimators also accept an iterator of galaxies.
Cutouts: TypeAlias = "Cutout | Iterable[Cutout | None] | CutoutBatch"


@dataclass(frozen=True, eq=False)
class CutoutBatch:
    """Images of many galaxies on the pixel grid of the networks.

    Parameters
    ----------
    flux : ndarray of float32, shape (n, 5, size, size)
        nmgy per pixel as observed, bands u, g, r, i, z; 0 where bad or missing. Most networks read
        64 x 64 pixels.
    ivar : ndarray of float32, shape (n, 5, size, size)
        Inverse variance, nmgy**-2; 0 where bad or missing.
    names : tuple of str, optional
        Names of the galaxies; "0", "1", ... by default.
    problems : tuple of str, optional
        Reasons why galaxies cannot be used; empty strings by default.
    flag_codes : ndarray of int64, shape (n,), optional
        Flag codes, see `~astrogenspec.decode_flags`; by default ``IMAGE_NOT_USED`` where there is a
        problem.
    named : ndarray of bool, shape (n,), optional
        Whether a galaxy has a name of its own, rather than only a number; by default True if
        ``names`` are given.
    filters : tuple of `~astrogenspec.surveys.Filter`, optional
        Filters of the five bands, by default those of SDSS; see
        `astrogenspec.inputs.survey_images`.

    Raises
    ------
    ValueError
        If shapes or lengths differ.
    """

    flux: np.ndarray
    ivar: np.ndarray
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    flag_codes: np.ndarray = None  # type: ignore[assignment]  # filled in below
    named: np.ndarray = None  # type: ignore[assignment]  # filled in below
    filters: tuple[Filter, ...] = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        size = self.flux.shape[-1]
        wanted = (len(self.flux), len(BANDS), size, size)
        if self.flux.shape != wanted or self.ivar.shape != wanted or size < CUTOUT_SIZE:
            raise ValueError(
                f"flux and ivar have shapes {self.flux.shape} and {self.ivar.shape}, but both must "
                f"be (n, {len(BANDS)}, {CUTOUT_SIZE}, {CUTOUT_SIZE}), or larger squares."
            )
        named = resolve_named(self.named, bool(self.names), len(self.flux))
        names = self.names or tuple(str(k) for k in range(len(self.flux)))
        problems = self.problems or ("",) * len(self.flux)
        for what, values in (("names", names), ("problems", problems)):
            if len(values) != len(self.flux):
                raise ValueError(f"{what} has {len(values)} entries for {len(self.flux)} galaxies.")
        object.__setattr__(self, "names", tuple(names))
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "problems", tuple(problems))
        codes = resolve_flag_codes(self.flag_codes, problems, Flag.IMAGE_NOT_USED)
        object.__setattr__(self, "flag_codes", codes)
        filters: tuple[Filter, ...] | None = self.filters
        object.__setattr__(self, "filters", sdss_filters() if filters is None else filters)

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return len(self.flux)

    @property
    def bands_present(self) -> np.ndarray:
        """Whether a band has any usable pixel; bool, shape (n, 5)."""
        return np.any(self.ivar > 0, axis=(2, 3))

    @property
    def pixel_scale(self) -> u.Quantity:
        """Side of a pixel, angle: that of the survey."""
        return SDSS.pixel_scale

    @property
    def size(self) -> int:
        """Number of pixels on a side."""
        return self.flux.shape[-1]

    def resized(self, size: int) -> CutoutBatch:
        """Return the centre of the images, or the images with bad pixels around them.

        Parameters
        ----------
        size : int
            Number of pixels on a side.

        Returns
        -------
        CutoutBatch
        """
        if size == self.size:
            return self
        first = (self.size - size) // 2
        flux, ivar = crop_or_pad(self.flux, self.ivar, offset=(first, first), size=size)
        return replace(self, flux=flux, ivar=ivar)

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> CutoutBatch:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        return select_galaxies(self, item, shared=("filters",))

    def __repr__(self) -> str:
        bad = sum(map(bool, self.problems))
        return f"<CutoutBatch of {len(self)} galaxies, {bad} with problems>"


def coerce_cutouts(
    cutouts: Cutouts,
    *,
    bands: str | Sequence[str] | None = None,
    position: SkyCoord | None = None,
    pixel_scale: u.Quantity | None = None,
    zero_point: ZeroPoint | None = None,
    on_error: str = "raise",
    size: int = CUTOUT_SIZE,
) -> CutoutBatch:
    """Convert images of galaxies, in any supported form, to one batch.

    Parameters
    ----------
    cutouts : NDData, Quantity, dict, or a list of these
        One galaxy is a cube (band, y, x), as an NDData or a Quantity, or a mapping from names of
        bands to two-dimensional NDData (CCDData), Quantity or Cutout2D, or to FITS files with one
        image each. Many galaxies are a list of these (None for a galaxy without an image) or an
        array (galaxy, band, y, x), as a Quantity or an NDData. A batch is returned as it is. Units,
        masks, uncertainties and world coordinate systems are taken into account. Fluxes are per
        pixel.
    bands : str or sequence of str, optional
        Names of the bands of a cube, such as ``"gri"``; by default ``meta["bands"]`` of an NDData.
    position : SkyCoord, optional
        Positions of the galaxies, one for each; by default the centres of the images. Requires a
        WCS.
    pixel_scale : Quantity ['angle'], optional
        Pixel scale of images that have neither a WCS nor ``meta["PIXSCALE"]`` (arcsec).
    zero_point : float, Quantity or dict, optional
        AB magnitude of one count, or one for each band, for images in counts or without a unit; by
        default that of the header (`astrogenspec.inputs.image_units`). Images in flux units do not
        use it.
    on_error : {"raise", "flag"}
        What to do if a galaxy cannot be used: raise an exception whose attribute ``galaxy`` is its
        index, or leave the galaxy blank and give the reason in ``problems`` and ``flag_codes``.
        Errors that concern the whole call are always raised.
    size : int
        Number of pixels on a side, at least 64, which most networks read.

    Returns
    -------
    CutoutBatch

    Raises
    ------
    TypeError
        If an object is not an image.
    ValueError
        If shapes, names of bands, positions or world coordinate systems cannot be used.
    astropy.units.UnitsError
        If units are not a flux density.

    Warns
    -----
    AstroGenSpecWarning
        If a pixel scale is assumed, or noise is estimated from the image
        (`astrogenspec.inputs.image_calibration`).

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astropy.nddata import NDData, StdDevUncertainty
    >>> from astrogenspec.inputs.cutouts import coerce_cutouts
    >>> ones = np.ones((3, 64, 64))
    >>> cube = NDData(ones, unit=u.nmgy, uncertainty=StdDevUncertainty(ones))
    >>> batch = coerce_cutouts(cube, bands="gri", pixel_scale=0.396 * u.arcsec)
    >>> batch.bands_present
    array([[False,  True,  True,  True, False]])
    """
    return read_cutouts(
        cutouts,
        bands=bands,
        position=position,
        pixel_scale=pixel_scale,
        zero_point=zero_point,
        on_error=on_error,
        size=size,
    )


def read_cutouts(
    cutouts: Cutouts,
    *,
    bands: str | Sequence[str] | None,
    position: SkyCoord | None,
    pixel_scale: u.Quantity | None,
    on_error: str,
    zero_point: ZeroPoint | None = None,
    default_scale: u.Quantity = SDSS.pixel_scale,
    first: int = 0,
    size: int = CUTOUT_SIZE,
) -> CutoutBatch:
    """Convert part of the images of an input, as `coerce_cutouts` does.

    Parameters
    ----------
    cutouts, bands, position, pixel_scale, on_error, zero_point
        As for `coerce_cutouts`.
    default_scale : Quantity ['angle']
        Pixel scale that is assumed, with a warning, if there is none.
    first : int
        Index of the first of these galaxies in the whole input.
    size : int
        As for `coerce_cutouts`.

    Returns
    -------
    CutoutBatch
        Galaxies without a name are named by their index in the whole input.
    """
    check_on_error(on_error)
    check_zero_point(zero_point)
    if check_count(size, "size") < CUTOUT_SIZE or size % 2:
        raise ValueError(f"size is {size}, but it must be an even number, at least {CUTOUT_SIZE}.")
    if isinstance(cutouts, CutoutBatch):
        return cutouts.resized(size)
    given = None if pixel_scale is None else _check_pixel_scale(pixel_scale)
    scale = PixelScale(given, float(default_scale.to_value(u.arcsec)))
    assumed: set[str] = set()
    if _is_stack(cutouts):
        log = InputLog(_n_in_stack(cutouts), on_error, first=first)
        if position is not None:
            raise ValueError(
                "position was given with an array of cutouts, which has no WCS of its own for each "
                "galaxy; give a list of NDData with a WCS, or leave position out."
            )
        batch = _coerce_stack(cutouts, bands, scale, zero_point, log, assumed, size)
    else:
        items = _list_of(cutouts)
        log = InputLog(len(items), on_error, first=first)
        galaxies = []
        for index, item in enumerate(items):
            try:
                item = read_band_files(item, zero_point)
            except (OSError, *INPUT_ERRORS) as error:
                log.reject(index, Flag.FILE_NOT_READ, error)
                item = None
            try:
                galaxies.append(None if item is None else split_bands(item, bands))
            except INPUT_ERRORS as error:
                raise log.error(index, error) from error
        positions = _positions(position, len(items))
        batch = _coerce_bands(galaxies, positions, scale, zero_point, log, assumed, size)
    _warn(assumed)
    return batch


def _is_stack(cutouts: object) -> TypeGuard[u.Quantity | NDData]:
    if isinstance(cutouts, u.Quantity):
        return True
    return isinstance(cutouts, NDData) and np.ndim(cutouts.data) == 4


def _n_in_stack(cutouts: u.Quantity | NDData) -> int:
    shape = np.shape(cutouts if isinstance(cutouts, u.Quantity) else cutouts.data)
    if len(shape) not in (3, 4):
        raise ValueError(
            f"cutouts is an array of shape {shape}, but it must be (band, y, x) for one galaxy or "
            "(galaxy, band, y, x) for many."
        )
    if 0 in shape:
        raise ValueError(f"cutouts is an array of shape {shape}: it is empty.")
    return shape[0] if len(shape) == 4 else 1


def _list_of(cutouts: object) -> list:
    if isinstance(cutouts, NDData | Mapping):
        return [cutouts]
    if isinstance(cutouts, np.ndarray):
        raise u.UnitTypeError(
            f"cutouts is an array of shape {cutouts.shape} without a unit; multiply it by the unit "
            "of its pixels, such as u.nmgy."
        )
    if isinstance(cutouts, str | bytes) or not isinstance(cutouts, Iterable):
        raise TypeError(
            f"cutouts is of type {type(cutouts).__name__}, but it must be an NDData cube, a "
            "mapping from bands to CCDData, a Quantity array, or a list of these; read a file with "
            "read_cutout_fits first."
        )
    items = list(cutouts)
    if not items:
        raise ValueError("cutouts is empty; give at least one galaxy.")
    return items


def _check_pixel_scale(pixel_scale: object) -> float:
    try:
        value = u.Quantity(pixel_scale).to_value(u.arcsec)
    except (u.UnitConversionError, TypeError):
        raise u.UnitConversionError(
            f"pixel_scale is {pixel_scale!r}, but it must be an angle, such as 0.396 * u.arcsec."
        ) from None
    if np.ndim(value):
        raise ValueError(f"pixel_scale is {pixel_scale!r}, but it must be one angle for all.")
    check_scale((float(value), float(value)), "pixel_scale")
    return float(value)


def _positions(position: SkyCoord | None, n: int) -> list[SkyCoord | None]:
    if position is None:
        return [None] * n
    if not isinstance(position, SkyCoord):
        raise TypeError(
            f"position is of type {type(position).__name__}, but it must be a SkyCoord with one "
            "position for each galaxy."
        )
    if position.isscalar and n == 1:
        return [position]
    if position.shape != (n,):
        raise ValueError(
            f"position has shape {position.shape} for {n} galaxies; give one position for each."
        )
    return list(position)


def _coerce_stack(
    cutouts: u.Quantity | NDData,
    bands: object,
    pixel_scale: PixelScale,
    zero_point: ZeroPoint | None,
    log: InputLog,
    assumed: set[str],
    size: int,
) -> CutoutBatch:
    """Convert an array of galaxies as a whole."""
    stack = split_array(cutouts, bands)
    values = stack.values if stack.values.ndim == 4 else stack.values[None]
    flux, ivar = calibrate(
        values,
        read_image_unit(stack.unit),
        stack.bands,
        uncertainty=stack.uncertainty,
        mask=stack.mask,
        flux_units=find_flux_units(stack, stack.bands, zero_point, assumed),
    )
    if stack.uncertainty is None:
        assumed.add("noise")
    step = resampling_step(stack.scale(pixel_scale, assumed))
    ny, nx = values.shape[-2:]
    flux, ivar = to_grid(flux, ivar, (step, ((ny - 1) / 2, (nx - 1) / 2)), size)
    for k in np.flatnonzero(~(ivar > 0).any(axis=(1, 2, 3))):
        mask = None if stack.mask is None else np.broadcast_to(stack.mask, stack.values.shape)
        mask = mask if mask is None or mask.ndim < 4 else mask[k]
        reason = why_unusable(values[k], mask, stack.uncertainty is not None)
        log.reject(int(k), Flag.IMAGE_NOT_USED, f"no band has a usable pixel: {reason}.")
    if stack.bands != BANDS:
        order = [BANDS.index(band) for band in stack.bands]
        full = np.zeros((2, len(flux), len(BANDS), size, size), np.float32)
        full[0][:, order], full[1][:, order] = flux, ivar
        flux, ivar = full
    names = tuple(str(log.first + k) for k in range(len(log)))
    return CutoutBatch(flux, ivar, names, log.texts, log.codes, np.zeros(len(log), bool))


def _coerce_bands(
    galaxies: list[dict[str, BandImage] | None],
    positions: list[SkyCoord | None],
    pixel_scale: PixelScale,
    zero_point: ZeroPoint | None,
    log: InputLog,
    assumed: set[str],
    size: int,
) -> CutoutBatch:
    """Convert galaxies one by one, each with its own WCS and size."""
    shape = (len(galaxies), len(BANDS), size, size)
    flux, ivar = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    names = [str(log.first + k) for k in range(len(galaxies))]
    named = np.zeros(len(galaxies), bool)
    for k, (images, position) in enumerate(zip(galaxies, positions, strict=True)):
        if images is None:
            continue
        given = next((image.name for image in images.values() if image.name), "")
        names[k], named[k] = given or names[k], bool(given)
        assumed_here: set[str] = set()
        try:
            on_grid = place_on_grid(images, position, pixel_scale, assumed_here, zero_point, size)
        except INPUT_ERRORS as error:
            log.reject(k, Flag.IMAGE_NOT_USED, error)
            continue
        assumed |= assumed_here
        for band, (band_flux, band_ivar) in on_grid.items():
            flux[k, BANDS.index(band)] = band_flux
            ivar[k, BANDS.index(band)] = band_ivar
    return CutoutBatch(flux, ivar, tuple(names), log.texts, log.codes, named)


def _warn(assumed: set[str]) -> None:
    for what in sorted(assumed):
        if what == "noise":
            text = (
                "a cutout has no uncertainty: its noise is estimated from the sky in the image "
                "itself."
            )
        elif what.startswith("scale "):
            text = (
                f"a cutout has no WCS and no pixel scale: {what.removeprefix('scale ')} arcsec per "
                "pixel are assumed (argument pixel_scale)."
            )
        else:
            text = zero_point_note(what.removeprefix("zero point "))
        warnings.warn(text, AstroGenSpecWarning, stacklevel=4)
