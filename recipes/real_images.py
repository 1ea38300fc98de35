"""Real galaxies with g r i cutouts, and fine-tuning of a properties network on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS, SDSS

SEED = 5
#: Options of `PropertyEstimator.fit`.  Heads that read photometry alone keep their weights, because
#: many more galaxies trained them; the few held-out galaxies are too few for early stopping.
SETTINGS = {
    "epochs": 100,
    "learning_rate": 1e-3,
    "validation_fraction": 0.1,
    "patience": None,
    "images_alone": True,
    "progress": False,
}
#: Sky noise of the survey and of the cutouts in g, r, i (nmgy per pixel); the difference in
#: quadrature is added.
_SKY_NOISE, _NOISE = (0.017, 0.028, 0.041), (0.004, 0.006, 0.008)
_RELATIVE_ERROR = 0.03


@dataclass
class RealImages:
    """Cutouts in g, r and i of real galaxies, with magnitudes and labels.

    Attributes
    ----------
    cutouts : CutoutBatch
    photometry : PhotometryBatch
        In u, g, r, i, where known, with Galactic extinction.
    labels : QTable
        Redshifts, and masses and star-formation rates from GSWLC where available, else NaN.
    """

    cutouts: CutoutBatch
    photometry: PhotometryBatch
    labels: QTable

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> RealImages:
        """Select galaxies."""
        return RealImages(self.cutouts[rows], self.photometry[rows], self.labels[rows])

    @property
    def redshift(self) -> np.ndarray:
        """Spectroscopic redshifts."""
        return self.labels["redshift"].value

    @property
    def ebv(self) -> np.ndarray:
        """Galactic E(B-V) (mag)."""
        return self.photometry.extinction[:, BANDS.index("r")] / SDSS.extinction_coefficient["r"]

    def without_extinction(self) -> RealImages:
        """Return the same galaxies without correction for Galactic extinction."""
        batch = self.photometry
        bare = _photometry(batch.flux, batch.error, np.zeros_like(batch.flux))
        return RealImages(self.cutouts, bare, self.labels)

    @classmethod
    def read(cls, folder: Path) -> RealImages:
        """Read the files in a folder, and add the missing sky noise to the images.

        Files: ``sdss_images.npz``, ``sdss_images.fits`` and, for the Galactic extinction,
        ``sdss_photometry.fits``.
        """
        data, table = np.load(folder / "sdss_images.npz"), Table.read(folder / "sdss_images.fits")
        n = len(table)

        def column(name: str) -> np.ndarray:
            return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)

        flux, ivar = np.zeros((2, n, len(BANDS), 64, 64), np.float32)
        missing = np.sqrt(np.square(_SKY_NOISE) - np.square(_NOISE))
        noise = np.random.default_rng(0).normal(size=data["flux"].shape) * missing[:, None, None]
        flux[:, 1:4] = data["flux"] + noise
        ivar[:, 1:4] = data["ivar"]
        names = ("mag_u", "mag_g", "mag_r", "mag_i", "mag_i")
        magnitude = np.stack([column(name) for name in names], axis=1)
        magnitude[:, 3] = np.where(
            np.isfinite(magnitude[:, 3]), magnitude[:, 3], column("mag_i_img")
        )
        magnitude[:, 4] = np.nan
        total = 10 ** (0.4 * (22.5 - magnitude))
        photometry = _photometry(
            total, _RELATIVE_ERROR * total, interpolated_extinction(table, folder)
        )
        labels = QTable({"redshift": column("z") * u.one})
        for name, source in (("stellar_mass", "logMstar"), ("sfr", "logSFR")):
            of_gswlc = np.asarray(table[f"{source}_source"]).astype(str) == "GSWLC"
            labels[name] = np.where(of_gswlc, column(source), np.nan) * QUANTITIES[name].unit
        return cls(CutoutBatch(flux, ivar), photometry, labels)


def _photometry(flux: np.ndarray, error: np.ndarray, extinction: np.ndarray) -> PhotometryBatch:
    n = len(flux)
    return PhotometryBatch(flux, error, np.zeros(n), np.zeros(n, bool), extinction=extinction)


def interpolated_extinction(table: Table, folder: Path, n_neighbours: int = 7) -> np.ndarray:
    """Interpolate the Galactic extinction (mag) from neighbours in ``sdss_photometry.fits``.

    Where both are known, interpolated and tabulated values agree to a few per cent: the dust is
    smooth on the scale of the half a degree between the galaxies.
    """
    source = Table.read(folder / "sdss_photometry.fits")
    known = np.stack([np.asarray(source[f"ext_{band}"], float) for band in BANDS], axis=1)
    positions = [SkyCoord(t["ra"], t["dec"], unit="deg") for t in (table, source)]
    total, weights = np.zeros((len(table), len(BANDS))), np.zeros((len(table), 1))
    for k in range(1, n_neighbours + 1):
        nearest, distance, _ = positions[0].match_to_catalog_sky(positions[1], nthneighbor=k)
        weight = 1 / (distance.deg[:, None] + 0.1) ** 2
        total, weights = total + weight * known[nearest], weights + weight
    return total / weights


def fine_tune(
    estimator: PropertyEstimator, images: RealImages, shards: list[Path], seed: int = SEED
) -> PropertyEstimator:
    """Fine-tune on real galaxies with images."""
    return estimator.fit(
        images.cutouts,
        images.photometry,
        labels=images.labels,
        rehearsal=shards,
        seed=seed,
        **SETTINGS,
    )
