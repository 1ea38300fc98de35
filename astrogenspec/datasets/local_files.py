"""Data sets from files of the user: a table, cutouts in FITS files, spectra.

The table has one row a galaxy: ``name`` (or ``objID``), ``ra`` and ``dec`` (degrees), photometry
with the column names of any survey (:doc:`inputs`), labels named as the quantities, with units, and
optionally ``velocity_dispersion`` (km/s) and ``metallicity_measurable`` (0 or 1).  The files of a
galaxy are found by its name, ``NAME.fits`` or one file for each band, ``NAME-g.fits`` or
``NAME_g.fits``, or by the columns ``image`` and ``spectrum``, with paths inside the folders.
Instead of folders, HDF5 files and zarr groups are read (`astrogenspec.datasets.array_stores`); the
columns then have the names in the store.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from ..downloads import DownloadError
from ..inference.estimator import PropertyEstimator
from ..inference.finetuning.dataset import stack_labels
from ..inputs.catalogues import read_names
from ..inputs.column_names import with_names
from ..inputs.cutout_fits import read_cutout_fits
from ..inputs.cutouts import CutoutBatch, coerce_cutouts
from ..inputs.errors import INPUT_ERRORS
from ..inputs.filter_sets import is_sdss, sdss_filters
from ..inputs.photometry import ANY_FILTER_MODEL, coerce_photometry, measure_photometry
from ..inputs.sed_features import SEDComponents
from ..inputs.survey_images import as_sdss_images
from ..quantities import QUANTITIES, plain_values, quantity_index
from ..surveys import BANDS, CUTOUT_SIZE, SDSS, Survey
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .array_stores import ArrayStore, is_store
from .galaxies import GalaxyRecords, GalaxyTable
from .sky_cells import split_of
from .sources import (
    KEPT_SPECTRUM,
    Cost,
    Source,
    Unit,
    checked_cutout_size,
    cutout_settings,
    find_duplicates,
    kept_image,
    row_blocks,
)
from .spectra import ObservedSpectrum, read_spectrum
from .transfers import NotFoundError

__all__ = ["LocalFiles", "check_band_order", "read_galaxy_table"]

#: Galaxies in a unit of work.
_BLOCK = 50
#: Endings of files, in the order in which they are tried.
_ENDINGS = (".fits", ".fits.gz", ".fits.fz", ".fit")
#: Galaxies per hour that are read, one process; measured on one core with files of 64 x 64 pixels
#: in three bands.
_PER_HOUR = 50_000
#: A permutation of the bands is taken for an error if magnitudes measured on the images differ by
#: this much from the catalogue (mag), and by less than half of it with the permutation.
_WRONG_BANDS = 0.3
_MIN_GALAXIES = 5


def read_galaxy_table(
    table: QTable, *, survey: Any = None, ebv: Any = None
) -> tuple[GalaxyTable, dict[str, str]]:
    """Read names, positions, labels and photometry of a table.

    Parameters
    ----------
    table : QTable
        See the module docstring.
    survey : optional
        Survey or surveys of the photometry, see `~astrogenspec.coerce_photometry`.
    ebv : float or Quantity, optional
        Galactic E(B-V), if the table does not have it.

    Returns
    -------
    galaxies : GalaxyTable
    repeated : dict of str to str
        Reason by name for galaxies at the position of another one.

    Raises
    ------
    ValueError
        If names, positions or labels are missing or repeated.
    """
    table = with_names(table)
    lower = {name.lower(): name for name in table.colnames}
    absent = [name for name in ("name", "ra", "dec") if name not in lower]
    if absent:
        raise ValueError(
            f"the table has no column {absent[0]}; name, ra and dec (degrees) of each galaxy are "
            "required: the position decides whether a galaxy is for training or for testing."
        )
    n = len(table)
    names, named = read_names(table[lower["name"]], n)
    if not named.all():
        raise ValueError(f"row {int(np.argmin(named))} of the table has no name; name each galaxy.")
    if len(set(names)) < n:
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"the table has {twice[:80]!r} more than once; give each galaxy one row.")
    ra, dec = (plain_values(table[lower[k]], u.deg, name=k) for k in ("ra", "dec"))
    split_of(ra, dec)
    labels = [name for name in table.colnames if name in QUANTITIES]
    if not labels:
        raise ValueError(
            "the table has no labels: a column named as a quantity is needed, at least one of "
            f"{', '.join(QUANTITIES)}."
        )
    theta = stack_labels(table[labels], "the table")
    if not np.isfinite(theta).any():
        raise ValueError(
            f"the columns {', '.join(labels)} of the table have no usable value; nothing can be "
            "learnt from it."
        )
    photometry = coerce_photometry(
        table[[name for name in table.colnames if name not in QUANTITIES]],
        survey=survey,
        ebv=ebv,
        on_error="flag",
    )
    metallicity = np.isfinite(theta[:, quantity_index("gas_metallicity")])
    measurable = np.where(metallicity, 1.0, np.nan)
    if "metallicity_measurable" in table.colnames:
        measurable = plain_values(table["metallicity_measurable"], None, name="measurable")
    dispersion = np.full(n, np.nan)
    if "velocity_dispersion" in table.colnames:
        dispersion = plain_values(
            table["velocity_dispersion"], u.km / u.s, name="velocity_dispersion"
        )
    galaxies = GalaxyTable(
        tuple(names), ra, dec, theta, measurable.astype(float), dispersion.astype(float), photometry
    )
    positions = QTable({"ra": ra, "dec": dec})
    repeated = {
        names[k]: f"at the position of {names[first]}, within 1 arcsec"
        for k, first in find_duplicates(positions).items()
    }
    return galaxies, repeated


class LocalFiles(Source):
    """Galaxies from a table, cutouts and spectra of the user.

    Parameters
    ----------
    table : QTable
        See the module docstring.
    images, spectra : path, optional
        Folders of cutouts and of spectra, or HDF5 files or zarr groups
        (`astrogenspec.datasets.array_stores`).
    survey : str, Survey or sequence of these, optional
        Survey of the photometry, and, the first one, of the images; SDSS by default.
    ebv : float or Quantity, optional
        Galactic E(B-V), if the table does not have it.
    n : int, optional
        Use the first ``n`` galaxies only.
    cutout_size : int
        Pixels on a side of the images.

    Attributes
    ----------
    paths : dict of str to list of str
        Values of the columns ``image`` and ``spectrum``, of those that exist.

    Raises
    ------
    ValueError
        If the table cannot be used.
    FileNotFoundError
        If a folder does not exist.
    """

    #: Name of the source in the manifest.
    name = "from-files"

    def __init__(
        self,
        table: QTable,
        *,
        images: Path | None = None,
        spectra: Path | None = None,
        survey: Any = None,
        ebv: Any = None,
        n: int | None = None,
        cutout_size: int = CUTOUT_SIZE,
    ) -> None:
        self.cutout_size = checked_cutout_size(cutout_size)
        self.images, self.spectra = (_opened(path) for path in (images, spectra))
        table = table[:n]
        self.survey = _first_survey(survey)
        self.galaxies, self._repeated = read_galaxy_table(table, survey=survey, ebv=ebv)
        self.filters = self.galaxies.photometry.filters
        self.paths = {
            name: [str(value) for value in table[name]]
            for name in ("image", "spectrum")
            if name in table.colnames
        }
        self._digest = _digest(self.galaxies)

    @property
    def has_images(self) -> bool:
        """Whether the data set has images."""
        return self.images is not None

    @property
    def has_spectra(self) -> bool:
        """Whether the data set has spectra."""
        return self.spectra is not None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide what a data set contains."""
        return {
            "source": self.name,
            "survey": self.survey.name,
            "images": self.has_images,
            "spectra": self.has_spectra,
            "table_sha256": self._digest,
            **cutout_settings(self.cutout_size),
        }

    @property
    def rejected(self) -> dict[str, str]:
        """Galaxies at the position of another one."""
        return self._repeated

    def units(self) -> list[Unit]:
        """Return blocks of rows on the same side of the split."""
        splits = split_of(self.galaxies.ra, self.galaxies.dec)
        for k, name in enumerate(self.galaxies.names):
            if name in self._repeated:
                splits[k] = ""
        return row_blocks(splits, _BLOCK)

    def cost(self) -> Cost:
        """Estimate the cost."""
        n = len(self.galaxies)
        kept = kept_image(self.cutout_size) * self.has_images + KEPT_SPECTRUM * self.has_spectra
        return Cost(n, 0, 0.0, n * kept, n / _PER_HOUR, "files on this machine")

    def records(self, unit: Unit) -> GalaxyRecords:
        """Read the files of a block of galaxies."""
        rows = np.array(unit.rows)
        table = self.galaxies[rows]
        cutouts = self._cutouts(table, rows) if self.has_images else None
        if cutouts is not None:
            check_band_order(cutouts, table)
        spectra = None
        if self.has_spectra:
            spectra = [self._spectrum(table.names[k], int(row)) for k, row in enumerate(rows)]
        return GalaxyRecords(table, cutouts, spectra, self._components)

    @cached_property
    def _components(self) -> SEDComponents | None:
        """Components of the bundled weights for any filters, for images of other surveys."""
        if self.survey is SDSS or not self.has_images:
            return None
        return PropertyEstimator.from_pretrained(ANY_FILTER_MODEL).network.components

    def _cutouts(self, table: GalaxyTable, rows: np.ndarray) -> CutoutBatch:
        size = self.cutout_size
        shape = (len(table), len(BANDS), size, size)
        flux, ivar = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        problems = [""] * len(table)
        for k, row in enumerate(rows):
            try:
                image = self.image(table.names[k], int(row))
                position = None
                if all(each.wcs is not None for each in image.values()):
                    position = SkyCoord([table.ra[k]], [table.dec[k]], unit="deg")
                with filtered_warnings("ignore", AstroGenSpecWarning):
                    # Noise that is estimated from the sky is mentioned in the documentation.
                    batch = coerce_cutouts([image], position=position, size=size)
                flux[k], ivar[k] = batch.flux[0], batch.ivar[0]
            except NotFoundError as error:
                problems[k] = str(error)
            except DownloadError:
                raise
            except (OSError, *INPUT_ERRORS) as error:
                problems[k] = str(error)
        batch = CutoutBatch(flux, ivar, table.names, tuple(problems))
        return as_sdss_images(batch, self.survey)

    def image(self, name: str, row: int) -> dict[str, Any]:
        """Return the images of a galaxy by band.

        Parameters
        ----------
        name : str
            Name of the galaxy.
        row : int
            Its row in the table.

        Returns
        -------
        dict of CCDData

        Raises
        ------
        OSError, ValueError
            If there are none, or they cannot be read.
        """
        if isinstance(self.images, ArrayStore):
            return self.images.image(self.paths.get("image", {row: name})[row])
        folder = self.images or Path()
        if "image" in self.paths:
            return read_cutout_fits(_inside(folder, self.paths["image"][row]))
        path = _find(folder, name)
        if path is not None:
            return read_cutout_fits(path)
        bands = {
            band: found
            for band in BANDS
            for found in (_find(folder, f"{name}-{band}", f"{name}_{band}"),)
            if found is not None
        }
        if not bands:
            raise FileNotFoundError(f"{folder} has no file {name}.fits or {name}-BAND.fits")
        return {band: next(iter(read_cutout_fits(path).values())) for band, path in bands.items()}

    def spectrum(self, name: str, row: int) -> ObservedSpectrum:
        """Return the spectrum of a galaxy.

        Parameters
        ----------
        name : str
            Name of the galaxy.
        row : int
            Its row in the table.

        Returns
        -------
        ObservedSpectrum

        Raises
        ------
        OSError, ValueError
            If there is none, or it cannot be read.
        """
        if isinstance(self.spectra, ArrayStore):
            return self.spectra.spectrum(self.paths.get("spectrum", {row: name})[row])
        folder = self.spectra or Path()
        if "spectrum" in self.paths:
            return read_spectrum(_inside(folder, self.paths["spectrum"][row]))
        path = _find(folder, name)
        if path is None:
            raise FileNotFoundError(f"{folder} has no file {name}.fits")
        return read_spectrum(path)

    def _spectrum(self, name: str, row: int) -> ObservedSpectrum | str:
        """Return the spectrum of a galaxy, or the reason why there is none."""
        try:
            return self.spectrum(name, row)
        except (OSError, *INPUT_ERRORS) as error:
            return str(error)


def check_band_order(cutouts: CutoutBatch, table: GalaxyTable) -> None:
    """Raise an error if another order of the bands of the images fits the catalogue much better.

    Parameters
    ----------
    cutouts : CutoutBatch
        Images of n galaxies.
    table : GalaxyTable
        The same galaxies.

    Raises
    ------
    ValueError
        If the bands are in the wrong order.
    """
    photometry = table.photometry
    if not is_sdss(photometry.filters) or cutouts.filters != sdss_filters():
        return
    present = cutouts.bands_present & photometry.bands_present
    bands = np.flatnonzero(present.mean(axis=0) > 0.8)
    rows = np.flatnonzero(present[:, bands].all(axis=1)) if len(bands) > 1 else np.arange(0)
    if len(rows) < _MIN_GALAXIES:
        return
    measured = measure_photometry(cutouts[rows], ebv=0.0).flux[:, bands]
    catalogue = photometry.flux[rows][:, bands]
    with np.errstate(all="ignore"):
        own, other = -2.5 * np.log10(measured), -2.5 * np.log10(catalogue)

    def distance(order: tuple[int, ...]) -> float:
        return float(np.nanmedian(np.nanmean(np.abs(own[:, list(order)] - other), axis=1)))

    plain = tuple(range(len(bands)))
    found = min(permutations(plain), key=distance)
    if distance(plain) > _WRONG_BANDS and distance(found) < 0.5 * distance(plain):
        said = "".join(BANDS[k] for k in bands)
        fits = "".join(BANDS[bands[found.index(k)]] for k in plain)
        raise ValueError(
            f"the bands of the images seem to be in another order: images of {said} fit the "
            f"catalogue as {fits}, with differences of {distance(found):.2f} instead of "
            f"{distance(plain):.2f} mag; correct the names of their bands."
        )


def _first_survey(survey: Any) -> Survey:
    from ..inputs.survey_names import resolve_surveys

    surveys = resolve_surveys(survey)
    return SDSS if surveys is None else surveys[0]


def _opened(path: Path | str | None) -> ArrayStore | Path | None:
    """Return a store, a folder, or None."""
    if path is None:
        return None
    if is_store(Path(path)):
        return ArrayStore(Path(path))
    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder, HDF5 file or zarr group {path}.")
    return Path(path)


def _find(folder: Path, *stems: str) -> Path | None:
    paths = (Path(folder) / f"{stem}{ending}" for stem in stems for ending in _ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def _inside(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _digest(galaxies: GalaxyTable) -> str:
    """Return a hash of everything in the table that the shards contain."""
    digest = hashlib.sha256()
    photometry = galaxies.photometry
    for values in (
        np.array(galaxies.names, dtype="S64"),
        galaxies.ra,
        galaxies.dec,
        galaxies.theta,
        photometry.flux,
        photometry.error,
        photometry.extinction,
    ):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
