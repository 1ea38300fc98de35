r"""Cutouts of corrected frames of the Sloan Digital Sky Survey, with their noise.

A corrected frame holds an image in nanomaggies and, in two further extensions, the calibration
vector and the subtracted sky.  They allow the counts to be reconstructed, whose noise is known
[1]_:

.. math::

    \mathrm{dn} = I / c + s, \qquad
    \sigma_I = c \sqrt{\mathrm{dn} / \mathrm{gain} + \mathrm{dark\ variance}},

with the calibration :math:`c` (nmgy per DN) of a column and the sky :math:`s` (DN), interpolated
bilinearly.

References
----------
.. [1] Data model of the file type ``frame``, SDSS data release 16,
   https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, InverseVariance, NoOverlapError
from astropy.wcs import WCS, FITSFixedWarning
from scipy.ndimage import map_coordinates

from ..extras import optional_package
from ..fits_files import MAX_BYTES, check_fits
from ..surveys import BANDS, CUTOUT_SIZE
from ..warnings import filtered_warnings
from .astrometry import wcs_errors
from .fluxes import check_bands

__all__ = ["cut_out", "fetch_sdss_cutout", "frame_noise", "read_sdss_frame"]

# Columns u, g, r, i, z; rows are camera columns 1 to 6 (reference 1).
_GAIN = np.array(
    [
        [1.62, 3.32, 4.71, 5.165, 4.745],
        [1.595, 3.855, 4.6, 6.565, 5.155],
        [1.59, 3.845, 4.72, 4.86, 4.885],
        [1.6, 3.995, 4.76, 4.885, 4.775],
        [1.47, 4.05, 4.725, 4.64, 3.48],
        [2.17, 4.035, 4.895, 4.76, 4.69],
    ]
)
_DARK_VARIANCE = np.array(
    [
        [9.61, 15.6025, 1.8225, 7.84, 0.81],
        [12.6025, 1.44, 1.0, 5.76, 1.0],
        [8.7025, 1.3225, 1.3225, 4.6225, 1.0],
        [12.6025, 1.96, 1.3225, 6.25, 9.61],
        [9.3025, 1.1025, 0.81, 7.84, 1.8225],
        [7.0225, 1.8225, 0.9025, 5.0625, 1.21],
    ]
)
# Values after changes of the electronics: (camera column, band) -> value, for later runs than the
# given one.
_GAIN_AFTER = (1100, {(2, "u"): 1.825})
_DARK_VARIANCE_AFTER = (
    1500,
    {(2, "i"): 6.25, (4, "i"): 7.5625, (4, "z"): 12.6025, (5, "z"): 2.1025},
)


def frame_noise(camcol: int, run: int, band: str) -> tuple[float, float]:
    """Look up the noise parameters of a detector.

    Parameters
    ----------
    camcol : int
        Camera column, 1 to 6.
    run : int
        Number of the imaging run.
    band : str
        One of u, g, r, i, z.

    Returns
    -------
    gain : float
        Electrons per DN.
    dark_variance : float
        Read noise and dark current, DN squared.

    Raises
    ------
    ValueError
        If the camera column or band does not exist.

    Examples
    --------
    >>> from astrogenspec.inputs.sdss_frames import frame_noise
    >>> frame_noise(2, 94, "u")
    (1.595, 12.6025)
    """
    if camcol not in range(1, 7):
        raise ValueError(f"camcol is {camcol!r}, but SDSS has camera columns 1 to 6.")
    column = BANDS.index(check_bands([band], "band")[0])
    values = []
    for table, (last, later) in (
        (_GAIN, _GAIN_AFTER),
        (_DARK_VARIANCE, _DARK_VARIANCE_AFTER),
    ):
        value = table[camcol - 1, column]
        values.append(float(later.get((camcol, band), value) if run > last else value))
    return values[0], values[1]


def read_sdss_frame(frame: str | PathLike | fits.HDUList) -> CCDData:
    """Read a corrected frame of SDSS and compute its inverse variance.

    Parameters
    ----------
    frame : str, path or HDUList
        File ``frame-[ugriz]-RUN-CAMCOL-FIELD.fits``, compressed or not.

    Returns
    -------
    CCDData
        Whole frame, nmgy per pixel, with inverse variance and WCS; ``meta["FILTER"]`` is the band.

    Raises
    ------
    ValueError
        If the file is not a corrected frame.
    OSError
        If the file is damaged or truncated.
    """
    if not isinstance(frame, fits.HDUList):
        check_fits(frame, max_bytes=MAX_BYTES)
        try:
            with fits.open(frame, memmap=False) as hdus:
                return read_sdss_frame(hdus)
        except (KeyError, AttributeError, IndexError, fits.VerifyError) as error:
            raise OSError(
                f"{frame} cannot be read as a corrected frame of SDSS: it is damaged ({error})."
            ) from error
    header = frame[0].header
    absent = [key for key in ("FILTER", "CAMCOL", "RUN") if key not in header]
    if absent or len(frame) < 3 or frame[0].data is None:
        what = f"no keyword {absent[0]}" if absent else "no calibration and sky extensions"
        raise ValueError(f"frame has {what}; give a corrected frame of SDSS DR8 or later.")
    band = str(header["FILTER"]).strip()
    try:
        camcol, run = int(header["CAMCOL"]), int(header["RUN"])
    except (TypeError, ValueError):
        raise ValueError(
            f"CAMCOL and RUN of the frame are {header['CAMCOL']!r} and {header['RUN']!r}, but both "
            "must be integers."
        ) from None
    gain, dark_variance = frame_noise(camcol, run, band)
    image = np.asarray(frame[0].data, np.float64)
    calibration = np.asarray(frame[1].data, np.float64)
    if image.ndim != 2 or calibration.shape != image.shape[1:]:
        raise ValueError(
            f"frame has an image of shape {image.shape} but {calibration.size} calibration values; "
            "give a complete corrected frame."
        )
    sky = _sky(frame[2].data, image.shape)
    with np.errstate(all="ignore"):
        counts = image / calibration + sky
        variance = calibration**2 * (np.maximum(counts, 0) / gain + dark_variance)
        # Columns without calibration have no usable pixel.
        ivar = np.where((variance > 0) & np.isfinite(variance), 1 / variance, 0).astype(np.float32)
        pixels = image.astype(np.float32)
    with wcs_errors("the WCS of the frame"), filtered_warnings("ignore", FITSFixedWarning):
        # The headers use an older keyword for the reference system.
        wcs = WCS(header)
    return CCDData(
        pixels,
        unit=u.nmgy,
        uncertainty=InverseVariance(ivar),
        wcs=wcs,
        meta={"FILTER": band, "RUN": header["RUN"], "CAMCOL": header["CAMCOL"]},
    )


def _sky(table: fits.FITS_rec, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate the sky (DN), which is stored on a coarser grid."""
    coarse = np.asarray(table["ALLSKY"], np.float64)
    coarse = coarse.reshape(coarse.shape[-2:])
    x, y = (np.asarray(table[key], np.float64).ravel() for key in ("XINTERP", "YINTERP"))
    if (y.size, x.size) != shape:
        raise ValueError(
            f"frame has a sky for {y.size} x {x.size} pixels but an image of {shape[0]} x "
            f"{shape[1]}."
        )
    return map_coordinates(coarse, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")


def cut_out(image: CCDData, position: SkyCoord, size: int = CUTOUT_SIZE) -> CCDData:
    """Return a square cutout of an image around a position, with its uncertainty, mask and WCS.

    Parameters
    ----------
    image : CCDData
        Image with a WCS and an inverse variance.
    position : SkyCoord
        Centre of the cutout, to the nearest pixel.
    size : int
        Pixels on a side. Pixels outside the image are masked.

    Returns
    -------
    CCDData

    Raises
    ------
    ValueError
        If the position is not on the image.
    """
    shape = (size, size)
    try:
        flux = Cutout2D(
            image.data, position, shape, wcs=image.wcs, mode="partial", fill_value=np.nan
        )
        ivar = Cutout2D(
            image.uncertainty.array, position, shape, image.wcs, mode="partial", fill_value=0.0
        )
    except NoOverlapError:
        flux = None
    if flux is None or not np.isfinite(flux.data[size // 2, size // 2]):
        raise ValueError(
            f"position {position.to_string('decimal')} is not on the "
            f"{image.meta.get('FILTER', '')} image; give an image that contains it."
        )
    mask = ~np.isfinite(flux.data)
    return CCDData(
        flux.data,
        unit=image.unit,
        uncertainty=InverseVariance(ivar.data),
        mask=mask if image.mask is None else mask | _cut_mask(image, position, shape),
        wcs=flux.wcs,
        meta=dict(image.meta),
    )


def _cut_mask(image: CCDData, position: SkyCoord, shape: tuple[int, int]) -> np.ndarray:
    bad = np.asarray(image.mask, np.float32)
    return Cutout2D(bad, position, shape, image.wcs, mode="partial", fill_value=1.0).data > 0


def fetch_sdss_cutout(
    position: SkyCoord,
    *,
    bands: str | Sequence[str] = BANDS,
    size: int = CUTOUT_SIZE,
    cache: bool = True,
) -> Mapping[str, CCDData]:
    """Download SDSS images and return cutouts of a galaxy.

    Requires a network connection and the package ``astroquery`` (``pip install
    astrogenspec[fetch]``). The whole frame of each band is downloaded, about 3 MB.

    Parameters
    ----------
    position : SkyCoord
        Position of the galaxy.
    bands : str or sequence of str
        Bands to download.
    size : int
        Pixels on a side, of 0.396 arcsec.
    cache : bool
        Whether to use the download cache of astropy.

    Returns
    -------
    dict of CCDData
        Cutouts by band, as `astrogenspec.inputs.cutouts.coerce_cutouts` takes them.

    Raises
    ------
    ImportError
        If astroquery is not installed.
    TypeError
        If ``position`` is not a SkyCoord.
    ValueError
        If ``position`` is not one position, or SDSS has no image there.
    """
    if not isinstance(position, SkyCoord):
        raise TypeError(
            f"position is of type {type(position).__name__}, but it must be a SkyCoord."
        )
    if not position.isscalar:
        raise ValueError(f"position has shape {position.shape}; give one position at a time.")
    names = check_bands(bands)
    archive = optional_package("astroquery.sdss", "fetch", "fetch_sdss_cutout").SDSS
    field = _field_at(archive, position, cache)
    frames = archive.get_images(matches=field, band=list(names), cache=cache, show_progress=False)
    if not frames:
        raise ValueError(
            f"SDSS returned no image for position {position.to_string('decimal')}; try again later."
        )
    cutouts = {}
    for frame in frames:
        image = read_sdss_frame(frame)
        cutouts[image.meta["FILTER"]] = cut_out(image, position, size)
    return {band: cutouts[band] for band in names if band in cutouts}


def _field_at(archive: Any, position: SkyCoord, cache: bool) -> object:
    """Return the field of the primary object closest to a position, a table of one row."""
    columns = ["ra", "dec", "run", "rerun", "camcol", "field", "mode"]
    for radius in (3 * u.arcsec, 30 * u.arcsec):
        found = archive.query_region(position, radius=radius, photoobj_fields=columns, cache=cache)
        if found is not None and len(found):
            break
    else:
        raise ValueError(
            f"SDSS has no object within 30 arcsec of position {position.to_string('decimal')}; "
            "the position is outside its images."
        )
    primary = found[found["mode"] == 1] if (found["mode"] == 1).any() else found
    distance = position.separation(SkyCoord(primary["ra"], primary["dec"], unit=u.deg))
    nearest = int(np.argmin(distance))
    return primary[nearest : nearest + 1]
