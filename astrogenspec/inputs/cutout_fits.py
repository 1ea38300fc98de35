"""FITS files of cutouts: one galaxy per file, in one of three layouts.

One extension for each band
    Image extensions whose ``EXTNAME`` is the band (u, g, r, i or z), with the unit in ``BUNIT``.
    In addition, optionally ``IVAR_g`` (inverse variance), ``UNCERT_g`` or ``ERR_g`` (standard
    deviation) or ``VAR_g``, and ``MASK_g`` or ``DQ_g`` (not zero where bad).  The order of the two
    words does not matter (``g_IVAR``), nor does the case.  ``WHT_g`` is an inverse variance if its
    ``BUNIT`` is that of one; otherwise pixels with a weight of zero are bad.

A cube
    The first image of the file has three axes (band, y, x) in numpy's order, and the keyword
    ``BANDS``, such as ``'gri'`` or ``'g,r,i'``; likewise ``IVAR``, ``UNCERT`` or ``VAR``, and
    ``MASK``, extensions of the same shape.

A single image
    The only image has two axes, and the keyword ``FILTER`` or ``BAND`` names the band; ``IVAR`` and
    so on as above.  For several files of one galaxy, give `~astrogenspec.coerce_cutouts` a mapping
    such as ``{"g": "g.fits", "r": "r.fits"}``.

The unit of an uncertainty is its own ``BUNIT``, or that of the image if it has none.  Counts are
converted with the zero point of the header, the AB magnitude of one count in the unit of the image:
``MAGZERO``, ``MAGZPT``, ``ZEROPNT``, ``ZP``, ``PHOTZPT`` and similar, or ``PHOTFLAM`` with
``PHOTPLAM`` (`astrogenspec.inputs.image_units`).  Of several images of one band (``EXTVER``), the
first is used.  The pixel scale is that of the celestial WCS in the header of the band (or cube), or
else of the keyword ``PIXSCALE`` in arcsec.  The keyword ``NAME`` is the name of the galaxy.

Files are checked before their data are read (`astrogenspec.fits_files`): a file that is truncated,
that declares more than 1 GB, or whose data do not match ``DATASUM`` is refused.  Written files have
checksums and the number of extensions (``NEXTEND``).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import astropy.units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

from ..atomic import atomic_write
from ..fits_files import CREATOR
from ..surveys import BANDS, CUTOUT_SIZE, SDSS
from .cutouts import CutoutBatch
from .image_files import read_image_file
from .image_units import ZeroPoint

__all__ = ["read_cutout_fits", "write_cutout_fits"]


def read_cutout_fits(
    path: str | PathLike, *, zero_point: ZeroPoint | None = None
) -> dict[str, CCDData]:
    """Read the images of one galaxy from a FITS file in one of the layouts of this module.

    Parameters
    ----------
    path : str or path
        File, compressed or not.
    zero_point : float, Quantity or dict, optional
        AB magnitude of one count, or one for each band, for images in counts or without BUNIT; by
        default that of the header. Images in flux units do not use it.

    Returns
    -------
    dict of CCDData
        Images by band, with the unit, uncertainty, mask and WCS that are in the file. Uncertainties
        are converted to the unit of the image.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    OSError
        If the file is not a FITS file, is truncated or damaged, or larger than 1 GB.
    ValueError
        If the file has none of the layouts, or its WCS or zero point cannot be used.
    astropy.units.UnitsError
        If an image has no unit, or the unit of an uncertainty is not that of its image.

    Warns
    -----
    AstroGenSpecWarning
        If the first of several images of one band is used, or a zero point of the header is taken
        as an AB magnitude.
    """
    return read_image_file(path, zero_point)


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
        Position of the centre of the cutout, for a WCS with north up; without it only the pixel
        scale is written.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    ValueError
        If the galaxy has no band.
    FileExistsError
        If the file exists and ``overwrite`` is false.
    OSError
        If the file cannot be written; no partial file is left.
    """
    galaxy = batch[index]
    bands = [band for band, present in zip(BANDS, galaxy.bands_present[0], strict=True) if present]
    if not bands:
        raise ValueError(
            f"galaxy {index} of the batch has no band to write: "
            f"{galaxy.problems[0] or 'all blank'}."
        )
    header = fits.Header() if position is None else _header_at(position)
    header["PIXSCALE"] = (SDSS.pixel_scale.value, "arcsec per pixel")
    if galaxy.named[0]:
        header["NAME"] = (galaxy.names[0], "galaxy")
    hdus = [fits.PrimaryHDU()]
    for band in bands:
        k = BANDS.index(band)
        image = fits.ImageHDU(galaxy.flux[0, k], header, name=band)
        image.header["BUNIT"] = "nmgy"
        ivar = fits.ImageHDU(galaxy.ivar[0, k], header, name=f"IVAR_{band}")
        ivar.header["BUNIT"] = "nmgy-2"
        hdus += [image, ivar]
    hdus[0].header["CREATOR"] = CREATOR
    hdus[0].header["NEXTEND"] = (len(hdus) - 1, "number of extensions")
    with atomic_write(Path(path).expanduser(), overwrite=overwrite) as temporary:
        fits.HDUList(hdus).writeto(temporary, checksum=True)


def _header_at(position: SkyCoord) -> fits.Header:
    degrees = SDSS.pixel_scale.to_value(u.deg)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [position.icrs.ra.deg, position.icrs.dec.deg]
    wcs.wcs.crpix = [(CUTOUT_SIZE + 1) / 2] * 2
    wcs.wcs.cdelt = [-degrees, degrees]
    wcs.wcs.radesys = "ICRS"
    return wcs.to_header()
