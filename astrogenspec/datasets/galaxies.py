"""Columns of real galaxies as they are stored in shards.

The columns have the names of simulated shards (`astrogenspec.simulate.write_shards`) where they
mean the same, and others where they do not: observed fluxes are ``flux``, not ``true_flux``, and
``image`` has noise, with ``ivar``.

======================= ======================= ===============================================
column                  shape, type             content
======================= ======================= ===============================================
``name``                (n,) bytes              name of the galaxy
``ra``, ``dec``         (n,) float64            position (ICRS, degrees)
``theta``               (n, 9) float32          labels in internal units, NaN where unknown
``measurable``          (n,) float32            1 if the gas metallicity is measurable, 0 if
                                                not, NaN if unknown
``flux``, ``error``     (n, m) float32          total flux and error in the filters of the
                                                attribute ``filters`` (nmgy), NaN if missing
``ebv``                 (n,) float32            Galactic E(B-V) (mag) that was corrected for
``r50``, ``r90``        (n,) float32            radii (arcsec), NaN where unknown
``axis_ratio``          (n,) float32            minor over major axis, NaN where unknown
``velocity_dispersion`` (n,) float32            of the stars (km/s), NaN where unknown
``image``               (n, 5, m, m) float16    nmgy per pixel of 0.396 arcsec, 0 where bad;
                                                m is 64 unless another size was chosen
``ivar``                (n, 5, m, m) float32    inverse variance (nmgy**-2), 0 where bad
``measured_flux``       (n, 5) float32          flux measured on the image (nmgy), NaN where
                                                impossible
``measured_error``      (n, 5) float32          its error
``spectrum``            (n, 6400) float32       rest frame, `astrogenspec.datasets.spectra`; 0
                                                where bad
``spectrum_ivar``       (n, 6400) float32       inverse variance; 0 where bad
======================= ======================= ===============================================

All fluxes are corrected for Galactic extinction.  Columns of images and of spectra exist only in
data sets that have any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..inputs.cutouts import CutoutBatch
from ..inputs.photometry import PhotometryBatch, measure_photometry
from ..inputs.sed_features import SEDComponents
from ..inputs.survey_images import colour_terms
from ..quantities import quantity_index
from ..surveys import Filter
from ..wavelengths import REST
from .spectra import ObservedSpectrum, to_rest_frame

__all__ = ["GalaxyRecords", "GalaxyTable", "make_columns"]

#: Largest pixel value that half precision holds with a margin (nmgy); brighter pixels are bad.
_MAX_PIXEL = 6e4


@dataclass(frozen=True, eq=False)
class GalaxyTable:
    """What is known of n galaxies apart from images and spectra.

    Attributes
    ----------
    names : tuple of str
    ra, dec : ndarray, shape (n,)
        Position (ICRS, degrees).
    theta : ndarray, shape (n, 9)
        Labels in internal units, NaN where unknown.
    measurable : ndarray, shape (n,)
        1 where the gas metallicity is measurable, 0 where not, NaN where unknown.
    velocity_dispersion : ndarray, shape (n,)
        Of the stars (km/s), NaN where unknown.
    photometry : PhotometryBatch
        Photometry as observed, with the Galactic extinction.
    """

    names: tuple[str, ...]
    ra: np.ndarray
    dec: np.ndarray
    theta: np.ndarray
    measurable: np.ndarray
    velocity_dispersion: np.ndarray
    photometry: PhotometryBatch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray) -> GalaxyTable:
        """Select galaxies by an array of integers."""
        rows = np.asarray(rows, dtype=int)
        return GalaxyTable(
            tuple(self.names[k] for k in rows),
            self.ra[rows],
            self.dec[rows],
            self.theta[rows],
            self.measurable[rows],
            self.velocity_dispersion[rows],
            self.photometry[rows],
        )

    @property
    def redshift(self) -> np.ndarray:
        """Known redshifts, NaN where unknown, shape (n,)."""
        return self.theta[:, quantity_index("redshift")]


@dataclass(frozen=True, eq=False)
class GalaxyRecords:
    """Galaxies with their images and spectra.

    Attributes
    ----------
    table : GalaxyTable
        n galaxies.
    cutouts : CutoutBatch or None
        Images as observed of the same galaxies; None if the data set has no images.
    spectra : sequence of ObservedSpectrum or str, or None
        Spectra as observed; for a galaxy without one, the reason, or an empty string. None if the
        data set has no spectra.
    components : SEDComponents or None
        Components with which images in other filters are brought to those of SDSS
        (`astrogenspec.inputs.survey_images.colour_terms`); not needed for images of SDSS.
    """

    table: GalaxyTable
    cutouts: CutoutBatch | None = None
    spectra: Sequence[ObservedSpectrum | str] | None = None
    components: SEDComponents | None = None


def make_columns(
    records: GalaxyRecords, filters: Sequence[Filter]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Make the columns of the galaxies that can be used.

    Parameters
    ----------
    records : GalaxyRecords
    filters : sequence of Filter
        Filters of the photometry of the data set.

    Returns
    -------
    columns : dict of str to ndarray
        Columns listed above, without the galaxies that cannot be used.
    rejected : dict of str to str
        Reason by name: galaxies that cannot be used, and those that lack their image or spectrum.
    """
    table, cutouts = records.table, records.cutouts
    photometry = table.photometry.with_filters(filters)
    columns = _table_columns(table, photometry)
    notes: dict[str, list[str]] = {}

    def note(k: int, text: str) -> None:
        if text:
            notes.setdefault(table.names[k], []).append(text.rstrip("."))

    usable = np.isfinite(columns["flux"]).any(axis=1)
    if cutouts is not None:
        columns |= _image_columns(cutouts, photometry, records.components)
        usable |= (columns["ivar"] > 0).any(axis=(1, 2, 3))
        for k, text in enumerate(cutouts.problems):
            note(k, text and f"no image: {text}")
    if records.spectra is not None:
        spectra, problems = _spectrum_columns(table, records.spectra)
        columns |= spectra
        for k, text in enumerate(problems):
            note(k, text and f"no spectrum: {text}")
    for row in np.flatnonzero(~usable):
        note(
            int(row),
            table.photometry.problems[row] or "neither photometry nor an image can be used",
        )
    columns = {name: values[usable] for name, values in columns.items()}
    return columns, {name: "; ".join(texts) for name, texts in notes.items()}


def _table_columns(table: GalaxyTable, photometry: PhotometryBatch) -> dict[str, np.ndarray]:
    flux, error = photometry.dereddened()
    present = np.isfinite(flux) & np.isfinite(error)
    columns = {
        "name": np.array([name.encode() for name in table.names], dtype="S64"),
        "ra": np.asarray(table.ra, dtype=float),
        "dec": np.asarray(table.dec, dtype=float),
        "theta": table.theta.astype(np.float32),
        "measurable": table.measurable.astype(np.float32),
        "flux": np.where(present, flux, np.nan).astype(np.float32),
        "error": np.where(present, error, np.nan).astype(np.float32),
        "ebv": np.asarray(photometry.ebv, dtype=np.float32),
        "velocity_dispersion": table.velocity_dispersion.astype(np.float32),
    }
    shape = photometry.morphology
    for name in ("r50", "r90", "axis_ratio"):
        values = np.full(len(table), np.nan) if shape is None else getattr(shape, name)
        columns[name] = np.asarray(values, dtype=np.float32)
    return columns


def _image_columns(
    cutouts: CutoutBatch, photometry: PhotometryBatch, components: SEDComponents | None
) -> dict[str, np.ndarray]:
    """Return images in the filters of SDSS corrected for extinction, and photometry on them."""
    extinction = photometry.with_filters(cutouts.filters).extinction
    if components is not None:
        extinction = extinction + colour_terms(cutouts, photometry, components)
    factor = 10 ** (0.4 * np.nan_to_num(np.asarray(extinction, dtype=float)))
    measured = measure_photometry(cutouts, ebv=0.0)
    plane = factor[:, :, None, None]
    flux = cutouts.flux * plane
    good = (cutouts.ivar > 0) & np.isfinite(flux) & (np.abs(np.nan_to_num(flux)) < _MAX_PIXEL)
    return {
        "image": np.where(good, flux, 0).astype(np.float16),
        "ivar": np.where(good, cutouts.ivar / plane**2, 0).astype(np.float32),
        "measured_flux": (measured.flux * factor).astype(np.float32),
        "measured_error": (measured.error * factor).astype(np.float32),
    }


def _spectrum_columns(
    table: GalaxyTable, spectra: Sequence[ObservedSpectrum | str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return spectra in the rest frame, and the reason for each galaxy without one."""
    flux, ivar = np.zeros((2, len(table), REST.size), np.float32)
    problems = []
    for k, spectrum in enumerate(spectra):
        problem = spectrum if isinstance(spectrum, str) else ""
        if not isinstance(spectrum, str):
            try:
                flux[k], ivar[k] = to_rest_frame(
                    spectrum, float(table.redshift[k]), float(table.photometry.ebv[k])
                )
            except ValueError as error:
                problem = str(error)
        problems.append(problem)
    return {"spectrum": flux, "spectrum_ivar": ivar}, problems
