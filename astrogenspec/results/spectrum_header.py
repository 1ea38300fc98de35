"""FITS keywords of generated spectra, written and restored through specutils.

`specutils` writes flux, uncertainty and mask, and the header in the meta data, but not the
redshift.  The header of a generated spectrum therefore has ``OBJECT``, ``REDSHIFT``, ``FRAME``,
``AIRORVAC`` (always "vac"), ``SPECKIND`` (best, mean, ...), ``DRAW``, ``POSTDRAW`` (number of the
draw of the posterior) and ``FLAGS``.  Once this package has made or measured a spectrum,
`specutils.Spectrum.read` restores the redshift and the meta data from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.io import fits

if TYPE_CHECKING:
    from specutils import Spectrum

__all__ = ["register_reader", "spectrum_header", "stored_redshift"]

_CREATOR = "astrogenspec"
#: Keyword of each entry of the meta data, and its comment.
_KEYWORDS = {
    "name": ("OBJECT", "name of the galaxy"),
    "frame": ("FRAME", "observed or rest frame"),
    "kind": ("SPECKIND", "best, mean, median, percentile, draw or draws"),
    "draw": ("DRAW", "number of the draw"),
    "posterior_draw": ("POSTDRAW", "number of the draw of the posterior"),
    "flags": ("FLAGS", "flag codes"),
}
_MAX_TEXT = 60


def spectrum_header(meta: Mapping[str, Any], redshift: float) -> fits.Header:
    """Return the FITS header of a generated spectrum.

    Parameters
    ----------
    meta : mapping
        Meta data of the spectrum.
    redshift : float
        Redshift; omitted if it is NaN.

    Returns
    -------
    `~astropy.io.fits.Header`
    """
    header = fits.Header()
    header["CREATOR"] = _CREATOR
    header["AIRORVAC"] = ("vac", "wavelengths are in vacuum")
    if np.isfinite(redshift):
        header["REDSHIFT"] = (float(redshift), "redshift")
    for name, (keyword, comment) in _KEYWORDS.items():
        value = meta.get(name, "observed" if name == "frame" else None)
        if isinstance(value, str):
            value = "".join(c if c.isprintable() else "?" for c in value)
            value = value.encode("ascii", "replace").decode()[:_MAX_TEXT]
        if isinstance(value, str | int | np.integer):
            header[keyword] = (value, comment)
    return header


def stored_redshift(spectrum: Spectrum) -> float | None:
    """Return the redshift in the header of a spectrum of this package that another reader has read.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Any spectrum.

    Returns
    -------
    float or None
        None without such a header.
    """
    header = spectrum.meta.get("header")
    if not isinstance(header, fits.Header) or header.get("CREATOR") != _CREATOR:
        return None
    return float(header.get("REDSHIFT", np.nan))


@cache
def register_reader() -> None:
    """Register the reader of written spectra with specutils, once."""
    from specutils.io.parsing_utils import read_fileobj_or_hdulist
    from specutils.io.registers import data_loader

    def is_ours(origin: str, *args: Any, **kwargs: Any) -> bool:
        with read_fileobj_or_hdulist(*args, **kwargs) as units:
            table = len(units) > 1 and isinstance(units[1], fits.BinTableHDU)
            return table and units[0].header.get("CREATOR") == _CREATOR

    data_loader(_CREATOR, identifier=is_ours, extensions=["fits", "fit"], priority=20, force=True)(
        _read
    )


def _read(file: Any, **kwargs: Any) -> Spectrum:
    from specutils import Spectrum
    from specutils.io.default_loaders.tabular_fits import tabular_fits_loader

    found = tabular_fits_loader(file, **kwargs)
    header = found.meta["header"]
    entries = {name: header[key] for name, (key, _) in _KEYWORDS.items() if key in header}
    return Spectrum(
        flux=found.flux,
        spectral_axis=u.Quantity(found.spectral_axis.value, found.spectral_axis.unit),
        redshift=stored_redshift(found),
        uncertainty=found.uncertainty,
        mask=found.mask,
        meta=entries | {"header": header},
    )
