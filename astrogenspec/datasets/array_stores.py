"""Images and spectra of many galaxies in one HDF5 file or zarr group.

A store has one row for each galaxy:

- ``name`` (n,): names, as in the table;
- images: ``flux`` (n, band, y, x), optionally ``ivar`` and ``mask`` (true where bad) of the same
  shape, and the attributes ``bands`` (such as ``["g", "r", "i"]``), ``pixel_scale`` (arcsec) and
  optionally ``unit`` (of a pixel; nmgy by default).  Galaxies are in the centre, north is up;
- spectra: ``wavelength`` (m,) or (n, m) (vacuum, Angstrom), ``flux`` and ``ivar`` (n, m), and
  optionally the attribute ``unit`` (of the flux density; 1e-17 erg/s/cm2/A by default).

Rows are read one by one; the store can be larger than memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, InverseVariance

from ..extras import optional_package
from ..quantities import FLUX_UNIT
from ..surveys import BANDS
from .spectra import ObservedSpectrum

__all__ = ["ArrayStore", "is_store"]

_HDF5 = (".h5", ".hdf5")
_ZARR_FILES = ("zarr.json", ".zgroup")


def is_store(path: Path) -> bool:
    """Return whether a path is an HDF5 file or a zarr group."""
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / name).is_file() for name in _ZARR_FILES)
    return path.is_file() and path.suffix in _HDF5


class ArrayStore:
    """Images or spectra in one HDF5 file or zarr group.

    Parameters
    ----------
    path : Path
        HDF5 file or folder of a zarr group.

    Raises
    ------
    ImportError
        If the package that reads it is not installed.
    OSError
        If it cannot be read.
    ValueError
        If arrays are missing, or differ in length.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays = _opened(path)
        names = [key for key in ("name", "flux") if key not in self._arrays]
        if names:
            raise ValueError(
                f"{path} has no array {names[0]}; arrays name and flux, with one row for each "
                "galaxy, are required."
            )
        n = self._arrays["name"].shape[0]
        for key in ("flux", "ivar", "mask"):
            if key in self._arrays and self._arrays[key].shape[0] != n:
                raise ValueError(
                    f"{path} has {n} names, but {self._arrays[key].shape[0]} rows of {key}; one "
                    "row for each name is required."
                )
        texts = np.asarray(self._arrays["name"][:]).tolist()
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
        self._rows = {text: k for k, text in enumerate(texts)}

    def _row(self, name: str) -> int:
        if name not in self._rows:
            raise FileNotFoundError(f"{self.path} has no galaxy {name}")
        return self._rows[name]

    def image(self, name: str) -> dict[str, CCDData]:
        """Return the images of a galaxy by band.

        Parameters
        ----------
        name : str
            Name of the galaxy.

        Returns
        -------
        dict of CCDData

        Raises
        ------
        FileNotFoundError
            If the store does not have the galaxy.
        ValueError
            If the arrays are not images, or the bands or the pixel scale are missing.
        """
        k, attributes = self._row(name), self._arrays.attrs
        flux = np.asarray(self._arrays["flux"][k], dtype=float)
        bands = _bands(attributes.get("bands", ()))
        if flux.ndim != 3 or len(bands) != len(flux) or not set(bands) <= set(BANDS):
            raise ValueError(
                f"{self.path} has images of shape {flux.shape} and the attribute bands "
                f"{list(bands)}; (band, y, x) and as many bands of {', '.join(BANDS)} are expected."
            )
        if "pixel_scale" not in attributes:
            raise ValueError(f"{self.path} has no attribute pixel_scale (arcsec); add it.")
        unit = u.Unit(str(attributes.get("unit", "nmgy")))
        ivar = self._optional("ivar", k, flux.shape)
        mask = self._optional("mask", k, flux.shape)
        images = {}
        for number, band in enumerate(bands):
            noise = None if ivar is None else InverseVariance(ivar[number] / unit**2)
            images[band] = CCDData(
                flux[number],
                unit=unit,
                uncertainty=noise,
                mask=None if mask is None else mask[number].astype(bool),
                meta={"PIXSCALE": float(attributes["pixel_scale"])},
            )
        return images

    def spectrum(self, name: str) -> ObservedSpectrum:
        """Return the spectrum of a galaxy.

        Parameters
        ----------
        name : str
            Name of the galaxy.

        Returns
        -------
        ObservedSpectrum

        Raises
        ------
        FileNotFoundError
            If the store does not have the galaxy.
        ValueError
            If the arrays are not spectra.
        """
        k = self._row(name)
        missing = [key for key in ("wavelength", "ivar") if key not in self._arrays]
        if missing:
            raise ValueError(
                f"{self.path} has no array {missing[0]}; wavelength, flux and ivar are required."
            )
        wavelength = self._arrays["wavelength"]
        wavelength = np.asarray(wavelength[k] if len(wavelength.shape) > 1 else wavelength[:])
        factor = u.Unit(str(self._arrays.attrs.get("unit", FLUX_UNIT))).to(FLUX_UNIT)
        flux, ivar = (np.asarray(self._arrays[key][k], dtype=float) for key in ("flux", "ivar"))
        return ObservedSpectrum(wavelength.astype(float), flux * factor, ivar / factor**2)

    def _optional(self, key: str, k: int, shape: tuple[int, ...]) -> np.ndarray | None:
        if key not in self._arrays:
            return None
        values = np.asarray(self._arrays[key][k])
        if values.shape != shape:
            raise ValueError(
                f"{self.path} has {key} of shape {values.shape} for images of shape {shape}."
            )
        return values


def _bands(values: Any) -> tuple[str, ...]:
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(values).tolist())


def _opened(path: Path) -> Any:
    if path.suffix in _HDF5:
        import h5py

        return h5py.File(path, "r")
    zarr = optional_package("zarr", "survey", f"the zarr group {path}")
    return zarr.open_group(path, mode="r")
