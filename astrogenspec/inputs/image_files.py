"""FITS files of images: which extension holds the image, noise and bad pixels of which band.

The layouts are described in `astrogenspec.inputs.cutout_fits`.  Names of extensions are one word,
or two in any order that are joined by an underscore, a hyphen, a full stop or a space: a band, and
a kind of image (`KINDS`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDUncertainty,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from ..fits_files import MAX_BYTES, FitsExtension, check_damage, scan_fits
from ..surveys import BANDS
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .astrometry import wcs_errors
from .fluxes import check_bands
from .image_units import (
    ZERO_POINT_KEYWORDS,
    ZeroPoint,
    check_zero_point,
    flux_unit,
    is_counts,
    read_image_unit,
    uncertainty_ratio,
    zero_point_note,
)

__all__ = [
    "KINDS",
    "BandFileInfo",
    "inspect_band_file",
    "read_band_file",
    "read_band_files",
    "read_image_file",
]

#: Kinds of images, with their names in extensions.
KINDS = {
    "image": ("sci", "science", "image", "img", "data", "flux", "primary", "compressed_image"),
    "ivar": ("ivar", "invvar", "invvariance"),
    "std": ("uncert", "unc", "uncertainty", "err", "error", "sigma", "std", "stddev", "rms"),
    "var": ("var", "variance"),
    "weight": ("wht", "weight", "wgt", "weights"),
    "mask": ("mask", "dq", "bpm", "badpix"),
    "psf": ("psf", "psfimage"),
}
_UNCERTAINTIES: dict[str, tuple[type[NDUncertainty], int]] = {
    "ivar": (InverseVariance, -2),
    "std": (StdDevUncertainty, 1),
    "var": (VarianceUncertainty, 2),
}
#: Values of the keyword UTYPE, which `~astropy.nddata.CCDData` writes into extensions UNCERT.
_UTYPES = {"StdDevUncertainty": "std", "VarianceUncertainty": "var", "InverseVariance": "ivar"}
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
#: Words in names of filters and extensions that do not name a band.
_SURVEYS = ("sdss", "sloan", "hsc", "decam", "ps1", "band", "filter", "megacam", "des")
_FILTER_KEYWORDS = ("FILTER", "BAND", "FILTNAM", "FILTNAME", "FILTERS")
_COPIED = ("NAME", "PIXSCALE")
_MAX_SIP_ORDER = 9


@dataclass(frozen=True, eq=False)
class _Image:
    """Image extension of a file."""

    name: str
    version: int
    kind: str
    band: str | None
    data: np.ndarray
    header: fits.Header

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.name.upper() or "of the primary array"


@dataclass(frozen=True, eq=False)
class _ImageFile:
    """Image extensions of a file, in order."""

    path: Path
    primary: fits.Header
    images: tuple[_Image, ...]
    extensions: tuple[FitsExtension, ...]

    def value(self, image: _Image, *keywords: str) -> Any:
        """Look keywords up in the header of an image, then in the primary header, or None."""
        for header in (image.header, self.primary):
            for keyword in keywords:
                try:
                    value = header.get(keyword)
                except fits.VerifyError:
                    raise OSError(
                        f"{self.path} cannot be read as a FITS file: the keyword {keyword} is "
                        "damaged."
                    ) from None
                if not (value is None or (isinstance(value, str) and not value.strip())):
                    return value
        return None

    def of(self, kind: str, band: str | None) -> list[_Image]:
        """List the extensions of a kind and band."""
        return [image for image in self.images if (image.kind, image.band) == (kind, band)]

    def companion(self, image: _Image, kind: str, band: str | None) -> _Image | None:
        """Find the noise or mask of an image, with its EXTVER if there are several."""
        found = self.of(kind, band)
        several = len(found) > 1 or len(self.of("image", band)) > 1
        same = [other for other in found if other.version == image.version]
        chosen = same or ([] if several else found)
        if found and not chosen:
            raise ValueError(
                f"{self.path} has several extensions {found[0].name} or {image.label}, and none "
                f"has the EXTVER {image.version} of the image; leave one of each."
            )
        if not chosen:
            return None
        if chosen[0].data.shape != image.data.shape:
            raise ValueError(
                f"extension {chosen[0].name} of {self.path} has shape {chosen[0].data.shape}, but "
                f"its image has {image.data.shape}."
            )
        return chosen[0]


def _load(path: str | PathLike) -> _ImageFile:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    extensions = scan_fits(path, max_bytes=MAX_BYTES)
    images = []
    try:
        with (
            filtered_warnings("ignore", AstropyWarning),
            np.errstate(all="ignore"),
            fits.open(path, memmap=False) as hdus,
        ):
            for hdu in hdus:
                if hdu.is_image and hdu.data is not None and hdu.data.size:
                    name = hdu.name if hdu is not hdus[0] or "EXTNAME" in hdu.header else ""
                    kind, band = _meaning(name)
                    if kind == "std" and "UTYPE" in hdu.header:
                        kind = _UTYPES.get(str(hdu.header["UTYPE"]), "unknown")
                    images.append(_Image(name, hdu.ver, kind, band, hdu.data, hdu.header))
            return _ImageFile(path, hdus[0].header, tuple(images), tuple(extensions))
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise OSError(f"{path} cannot be read as a FITS file: {reason}.") from error


def _meaning(name: str) -> tuple[str, str | None]:
    """Return the kind and band of an extension; the kind is empty for other names."""
    name = name.strip().lower()
    if name in ("", *KINDS["image"]):
        return "image", None
    words = [word for word in re.split(r"[\s_.-]+", name) if word and word not in _SURVEYS]
    bands = [word for word in words if word in BANDS]
    kinds = [_KIND_OF[word] for word in words if word in _KIND_OF]
    if len(bands) + len(kinds) != len(words) or len(bands) > 1 or len(kinds) > 1 or not words:
        return "", None
    return (kinds or ["image"])[0], (bands or [None])[0]


def read_image_file(
    path: str | PathLike, zero_point: ZeroPoint | None = None
) -> dict[str, CCDData]:
    """Read the images of one galaxy; see `astrogenspec.inputs.cutout_fits.read_cutout_fits`.

    Parameters
    ----------
    path : str or path
        File, compressed or not.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for images in counts.

    Returns
    -------
    dict of CCDData
        Images by band.

    Raises
    ------
    OSError, ValueError, TypeError, astropy.units.UnitsError
        If the file cannot be read or used.
    """
    check_zero_point(zero_point)
    file = _load(path)
    images = _images_by_band(file, zero_point)
    check_damage(file.path, file.extensions)
    return images


def _images_by_band(file: _ImageFile, zero_point: ZeroPoint | None) -> dict[str, CCDData]:
    named = [band for band in BANDS if file.of("image", band)]
    if named:
        return {
            band: _ccd(file, _first(file, file.of("image", band)), band, band, zero_point)
            for band in named
        }
    first = next(iter(file.images), None)
    text = None if first is None else file.value(first, "BANDS")
    if first is None or text is None:
        single = _single_image(file)
        band = None if single is None else _filter(file, single)
        if single is not None and band is not None:
            return {band: _ccd(file, single, band, None, zero_point)}
        if single is not None and (stated := file.value(single, *_FILTER_KEYWORDS)) is not None:
            raise ValueError(
                f"the filter of {file.path} is {str(stated)[:60]!r}, which is none of the bands "
                f"{', '.join(BANDS)}; if it "
                'is the same as one, give {"r": path}.'
            )
        names = ", ".join(image.name[:40] or "unnamed" for image in file.images[:10]) or "none"
        raise ValueError(
            f"{file.path} has no image extension named after a band ({', '.join(BANDS)}) and its "
            "first "
            f"image has no keyword BANDS (or, for a single image, FILTER); its images are: {names}."
        )
    bands = check_bands(str(text).strip(), f"the keyword BANDS of {file.path}")
    if first.data.ndim != 3 or len(first.data) != len(bands):
        raise ValueError(
            f"the first image of {file.path} has shape {first.data.shape}, but BANDS names "
            f"{len(bands)} bands: the shape must be (band, y, x)."
        )
    return {
        band: _ccd(file, first, band, None, zero_point, plane=k) for k, band in enumerate(bands)
    }


def read_band_file(path: str | PathLike, band: str, zero_point: ZeroPoint | None = None) -> CCDData:
    """Read the image of one band from a file of its own.

    Parameters
    ----------
    path : str or path
        File with one image, or with an extension named after the band.
    band : str
        Band of the image.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for images in counts.

    Returns
    -------
    CCDData

    Raises
    ------
    OSError, ValueError, TypeError, astropy.units.UnitsError
        If the file cannot be read or used, or is of another band by its header.
    """
    check_zero_point(zero_point)
    file = _load(path)
    image = _band_image(file, band, zero_point)
    check_damage(file.path, file.extensions)
    return image


def _band_image(file: _ImageFile, band: str, zero_point: ZeroPoint | None) -> CCDData:
    named = file.of("image", band)
    if named:
        return _ccd(file, _first(file, named), band, band, zero_point)
    image = _single_image(file)
    if image is None:
        names = ", ".join(found.name[:40] or "unnamed" for found in file.images[:10]) or "none"
        raise ValueError(
            f"{file.path} has no image extension {band.upper()} and not exactly one image (y, x); "
            f"its images are: {names}."
        )
    stated = image.band or _filter(file, image)
    if stated not in (None, band):
        raise ValueError(
            f"{file.path} is given for band {band}, but its image is in band {stated} by its "
            "header."
        )
    return _ccd(file, image, band, image.band, zero_point)


def read_band_files(item: object, zero_point: ZeroPoint | None = None) -> object:
    """Read the files in a mapping from bands to images.

    Parameters
    ----------
    item : object
        Images of one galaxy in any form.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for images in counts.

    Returns
    -------
    object
        ``item`` itself unless it is a mapping with paths.

    Raises
    ------
    OSError, ValueError, TypeError, astropy.units.UnitsError
        If a file cannot be read or used.
    """
    if not isinstance(item, Mapping) or not any(
        isinstance(v, str | PathLike) for v in item.values()
    ):
        return item
    return {
        band: read_band_file(image, band, zero_point)
        if isinstance(image, str | PathLike) and band in BANDS
        else image
        for band, image in item.items()
    }


@dataclass(frozen=True)
class BandFileInfo:
    """Description of a file with one image.

    Attributes
    ----------
    band : str
        Band by the name of the extension, or by the keyword FILTER or BAND; empty if not named.
    name : str
        Keyword NAME; empty if absent.
    wcs : WCS or None
        Celestial WCS.
    shape : tuple of int
        Number of pixels (y, x).
    """

    band: str
    name: str
    wcs: WCS | None
    shape: tuple[int, ...]


def inspect_band_file(path: str | PathLike) -> BandFileInfo | None:
    """Describe a file with one image.

    Parameters
    ----------
    path : str or path
        File, compressed or not.

    Returns
    -------
    BandFileInfo or None
        None if the file has several images or another filter, or cannot be read.
    """
    try:
        file = _load(path)
        image = _single_image(file)
        if image is None or file.value(image, "BANDS") is not None:
            return None
        band = image.band or _filter(file, image) or ""
        if not band and file.value(image, *_FILTER_KEYWORDS) is not None:
            return None
        name = str(file.value(image, "NAME") or "")
        return BandFileInfo(band, name, _wcs(image.header, str(path)), image.data.shape)
    except (OSError, ValueError):
        return None


def _first(file: _ImageFile, images: Sequence[_Image]) -> _Image:
    """Return the first of several images of one band, and warn."""
    if len(images) > 1:
        names = ", ".join(f"{image.label} (EXTVER {image.version})" for image in images[:5])
        warnings.warn(
            f"{file.path} has {len(images)} images of one band: {names}; the first is used.",
            AstroGenSpecWarning,
            stacklevel=4,
        )
    return images[0]


def _single_image(file: _ImageFile) -> _Image | None:
    """Return the only image (y, x) of a file; None if there are several."""
    images = [image for image in file.images if image.kind in ("image", "")]
    if (
        len({(image.kind, image.band, image.name) for image in images}) != 1
        or images[0].data.ndim != 2
    ):
        return None
    return _first(file, images)


def _filter(file: _ImageFile, image: _Image) -> str | None:
    """Return the band that the header names; None without one or for another filter."""
    text = file.value(image, *_FILTER_KEYWORDS)
    if text is None:
        return None
    words = [word for word in re.split(r"[^A-Za-z0-9]+", str(text)) if word]
    survey = any(word.lower() in _SURVEYS for word in words)
    # Capital letters alone are filters of other systems.
    found = {word.lower() for word in words if (word.lower() if survey else word) in BANDS}
    return found.pop() if len(found) == 1 else None


def _ccd(
    file: _ImageFile,
    image: _Image,
    band: str,
    suffix: str | None,
    zero_point: ZeroPoint | None,
    plane: int | None = None,
) -> CCDData:
    """Convert an image, or one band of a cube, with its noise and mask."""
    what = f"{file.path}, image {image.label}"
    part = slice(None) if plane is None else plane
    unit, flux = _units(file, image, band, zero_point, what)
    noise = _noise(file, image, band, suffix, (unit, flux))
    mask = file.companion(image, "mask", suffix)
    bad = None if mask is None else np.asarray(mask.data[part] != 0)
    uncertainty = None
    if noise is not None:
        kind, array, ratio = noise
        array = array[part]
        if kind == "weight":
            unused = ~(np.nan_to_num(array) > 0)
            bad = unused if bad is None else bad | unused
        else:
            uncertainty = _UNCERTAINTIES[kind][0](array if ratio == 1 else array * ratio)
    return CCDData(
        image.data[part],
        unit=flux,
        uncertainty=uncertainty,
        mask=bad,
        wcs=_wcs(image.header, what),
        meta={key: value for key in _COPIED if (value := file.value(image, key)) is not None},
    )


def _units(
    file: _ImageFile, image: _Image, band: str, zero_point: ZeroPoint | None, what: str
) -> tuple[u.UnitBase | None, u.UnitBase]:
    """Return the unit of an image, and the same as a flux density."""
    try:
        unit = read_image_unit(file.value(image, "BUNIT"))
        keywords = (*ZERO_POINT_KEYWORDS, "PHOTFLAM", "PHOTPLAM", "EXPTIME", "MAGSYS", "ZPSYS")
        header: Mapping[str, Any] = {}
        if is_counts(unit):
            header = {key: file.value(image, key) for key in (*keywords, "MAGZSYS", "PHOTSYS")}
            header = {key: value for key, value in header.items() if value is not None}
        flux, keyword = flux_unit(unit, header, band, zero_point)
    except (u.UnitsError, TypeError, ValueError) as error:
        plain = u.UnitTypeError if isinstance(error, u.UnitsError) else type(error)
        raise plain(f"{what}: {error}") from None
    if keyword:
        warnings.warn(zero_point_note(keyword), AstroGenSpecWarning, stacklevel=5)
    if flux is None:
        raise u.UnitTypeError(
            f"{what}, has no unit; write one into BUNIT, such as 'nmgy', or give zero_point (the "
            "AB magnitude of one count)."
        )
    return unit, flux


def _noise(
    file: _ImageFile,
    image: _Image,
    band: str,
    suffix: str | None,
    units: tuple[u.UnitBase | None, u.UnitBase],
) -> tuple[str, np.ndarray, float] | None:
    """Find the noise of an image: its kind, its values, and the factor to the unit of the image."""
    if unknown := file.companion(image, "unknown", suffix):
        raise ValueError(
            f"{file.path}, extension {unknown.name}: its keyword UTYPE is "
            f"{str(unknown.header['UTYPE'])[:40]!r}, but it must be one of {', '.join(_UTYPES)}."
        )
    for kind in (*_UNCERTAINTIES, "weight"):
        found = file.companion(image, kind, suffix)
        if found is None:
            continue
        _, power = _UNCERTAINTIES["ivar" if kind == "weight" else kind]
        what = f"{file.path}, extension {found.name}"
        try:
            own = read_image_unit(found.header.get("BUNIT"))
            ratio = 1.0 if own is None else uncertainty_ratio(own, power, *units, band)
        except (u.UnitsError, fits.VerifyError) as error:
            if kind != "weight":
                raise u.UnitTypeError(f"{what}: {error}") from None
            own = None
        if kind == "weight" and own is None:
            warnings.warn(
                "a WEIGHT extension without the unit of an inverse variance is used as a mask only "
                "(bad where it is not positive); noise is estimated from the image. Name it IVAR "
                "if it is an inverse variance.",
                AstroGenSpecWarning,
                stacklevel=5,
            )
            return kind, found.data, 1.0
        return "ivar" if kind == "weight" else kind, found.data, ratio
    return None


def _wcs(header: fits.Header, what: str) -> WCS | None:
    """Return the celestial WCS of a header; None without one."""
    for card in header["C*"].cards:
        if re.fullmatch(r"CR(?:VAL|PIX)\d|CDELT\d|CD\d_\d", card.keyword) and isinstance(
            card.value, str
        ):
            raise ValueError(
                f"{what}: its WCS cannot be used ({card.keyword} is {card.value[:40]!r}, not a "
                "number); correct its keywords."
            )
    with wcs_errors(f"{what}: its WCS"), filtered_warnings("ignore", AstropyWarning):
        try:
            for keyword in ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER"):
                if keyword in header and not 0 <= int(header[keyword]) <= _MAX_SIP_ORDER:
                    raise WcsError(f"{keyword} is {header[keyword]}")
            wcs = WCS(header)
            return wcs.celestial if wcs.has_celestial else None
        except (WcsError, MemoryError):
            raise
        except Exception as error:
            # The reader of astropy raises errors of many types for keywords of a wrong type.
            raise WcsError(str(error)) from error
