"""FITS files of cutouts: one galaxy per file, in one of two layouts.

One extension for each band
    Image extensions whose ``EXTNAME`` is the band (u, g, r, i or z), with the unit in ``BUNIT``.  In addition, optionally
    ``IVAR_g`` (inverse variance) or ``UNCERT_g`` (standard deviation), and ``MASK_g`` (not zero where bad).

A cube
    The first image of the file has three axes (band, y, x) in numpy's order, and the keyword ``BANDS``, such as
    ``'gri'`` or ``'g,r,i'``; likewise ``IVAR`` or ``UNCERT``, and ``MASK``, extensions of the same shape.

The pixel scale is that of the celestial WCS in the header of the band (or cube), or else of the keyword ``PIXSCALE`` in
arcsec.  The keyword ``NAME`` is the name of the galaxy.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty
from astropy.wcs import WCS

from ..surveys import BANDS, CUTOUT_SIZE, SDSS
from .cutouts import CutoutBatch
from .fluxes import check_bands, read_unit

__all__ = ["read_cutout_fits", "write_cutout_fits"]


def read_cutout_fits(path: str | PathLike) -> dict[str, CCDData]:
    """Read the images of one galaxy from a FITS file (layouts: see `astrogenspec.inputs.cutout_fits`).

    Parameters
    ----------
    path : str or path
        File, compressed or not.

    Returns
    -------
    dict of CCDData
        Images by band, with the unit, uncertainty, mask and WCS that are in the file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    OSError
        If the file is not a FITS file.
    ValueError
        If the file has neither layout.
    astropy.units.UnitsError
        If an image has no unit.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with fits.open(path, memmap=False) as hdus:
            images = {
                hdu.name.lower(): hdu for hdu in hdus if hdu.is_image and hdu.data is not None
            }
    except OSError as error:
        raise OSError(f"{path} cannot be read as a FITS file: {error}.") from error
    first = next(iter(images.values()), None)
    named = [band for band in BANDS if band in images]
    if named:
        return {band: _read_image(path, images, band, f"_{band}", None) for band in named}
    if first is None or "BANDS" not in first.header:
        names = ", ".join(hdu.name or "unnamed" for hdu in images.values()) or "none"
        raise ValueError(
            f"{path} has no image extension named after a band ({', '.join(BANDS)}) and its first "
            f"image has no keyword BANDS; its images are: {names}."
        )
    bands = check_bands(str(first.header["BANDS"]).strip(), f"the keyword BANDS of {path}")
    if first.data.ndim != 3 or len(first.data) != len(bands):
        raise ValueError(
            f"the first image of {path} has shape {first.data.shape}, but BANDS names "
            f"{len(bands)} bands: the shape must be (band, y, x)."
        )
    name = next(iter(images))
    return {band: _read_image(path, images, name, "", k) for k, band in enumerate(bands)}


def _read_image(path: Path, images: dict, name: str, suffix: str, index: int | None) -> CCDData:
    def data_of(key: str) -> np.ndarray | None:
        if key not in images:
            return None
        array = images[key].data
        if array.shape != images[name].data.shape:
            raise ValueError(
                f"extension {key.upper()} of {path} has shape {array.shape}, but its image has "
                f"{images[name].data.shape}."
            )
        return array if index is None else array[index]

    header = images[name].header
    try:
        unit = read_unit(header.get("BUNIT"))
    except u.UnitsError as error:
        raise u.UnitTypeError(f"{path}, image {name.upper()}: {error}") from None
    if unit is None:
        raise u.UnitTypeError(
            f"{path}, image {name.upper()}, has no unit; write one into BUNIT, such as 'nmgy'."
        )
    uncertainty = None
    if (ivar := data_of(f"ivar{suffix}")) is not None:
        uncertainty = InverseVariance(ivar)
    elif (sigma := data_of(f"uncert{suffix}")) is not None:
        uncertainty = StdDevUncertainty(sigma)
    mask = data_of(f"mask{suffix}")
    wcs = WCS(header)
    return CCDData(
        data_of(name),
        unit=unit,
        uncertainty=uncertainty,
        mask=None if mask is None else mask != 0,
        wcs=wcs.celestial if wcs.has_celestial else None,
        meta={key: header[key] for key in ("NAME", "PIXSCALE") if key in header},
    )


def write_cutout_fits(
    path: str | PathLike,
    batch: CutoutBatch,
    index: int = 0,
    *,
    position: SkyCoord | None = None,
    overwrite: bool = False,
) -> None:
    """Write one galaxy of a batch, with an image and an inverse-variance extension for each band.

    Parameters
    ----------
    path : str or path
        File to write.
    batch : CutoutBatch
        Images.
    index : int
        Index of the galaxy.
    position : SkyCoord, optional
        Position of the centre of the cutout, for a WCS with north up; without it only the pixel scale is written.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    ValueError
        If the galaxy has no band.
    OSError
        If the file exists and ``overwrite`` is false.
    """
    galaxy = batch[index]
    bands = [band for band, present in zip(BANDS, galaxy.bands_present[0], strict=True) if present]
    if not bands:
        raise ValueError(
            f"galaxy {index} of the batch has no band to write: {galaxy.problems[0] or 'all blank'}."
        )
    header = fits.Header() if position is None else _header_at(position)
    header["PIXSCALE"] = (SDSS.pixel_scale.value, "arcsec per pixel")
    header["NAME"] = (galaxy.names[0], "galaxy")
    hdus = [fits.PrimaryHDU()]
    for band in bands:
        k = BANDS.index(band)
        image = fits.ImageHDU(galaxy.flux[0, k], header, name=band)
        image.header["BUNIT"] = "nmgy"
        ivar = fits.ImageHDU(galaxy.ivar[0, k], header, name=f"IVAR_{band}")
        ivar.header["BUNIT"] = "nmgy-2"
        hdus += [image, ivar]
    fits.HDUList(hdus).writeto(path, overwrite=overwrite)


def _header_at(position: SkyCoord) -> fits.Header:
    degrees = SDSS.pixel_scale.to_value(u.deg)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [position.icrs.ra.deg, position.icrs.dec.deg]
    wcs.wcs.crpix = [(CUTOUT_SIZE + 1) / 2] * 2
    wcs.wcs.cdelt = [-degrees, degrees]
    wcs.wcs.radesys = "ICRS"
    return wcs.to_header()
