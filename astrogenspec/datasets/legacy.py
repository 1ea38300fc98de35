"""Galaxies of the Legacy Surveys: cutouts of the viewer, for a table of the user.

The cutouts of data release 10 are cubes in g, r, i and z (where observed) in nanomaggies, on pixels
of 0.262 arcsec, from the FITS service of the viewer [1]_.  It gives no noise, which is estimated
from the sky in each cutout.  The images are brought to the pixels, the seeing and the depth of SDSS
(`astrogenspec.inputs.survey_images`).  One connection and one request per second are used.

References
----------
.. [1] https://www.legacysurvey.org/viewer
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..inputs.cutout_fits import read_cutout_fits
from ..surveys import CUTOUT_SIZE, SDSS
from .local_files import LocalFiles
from .sources import Cost, kept_image
from .transfers import Client

__all__ = ["LegacySurvey"]

_VIEWER = "https://www.legacysurvey.org/viewer"
_LAYER, _BANDS, _SCALE = "ls-dr10", "griz", 0.262
#: The largest cutout of the service (pixels), and the limit of the size of a file (bytes).
_MAX_SIZE, _MAX_BYTES = 512, 30_000_000
#: AB magnitude of one nanomaggy.
_NANOMAGGY = 22.5
#: Four bands of single precision.
_BYTES_PER_PIXEL = 4 * len(_BANDS)


class LegacySurvey(LocalFiles):
    """Galaxies of a table, with cutouts of the Legacy Surveys.

    Parameters
    ----------
    table : QTable
        Names, positions, photometry and labels, see `astrogenspec.datasets.local_files`.
    client : Client
        Downloads.
    viewer : str
        Address of the viewer.
    survey : str
        Survey of the photometry.
    ebv : float or Quantity, optional
        Galactic E(B-V), if the table does not have it.
    n : int, optional
        Use the first ``n`` galaxies only.
    cutout_size : int
        Pixels on a side of the images.
    """

    name = "legacy"

    def __init__(
        self,
        table: QTable,
        client: Client,
        *,
        viewer: str = _VIEWER,
        survey: Any = "legacy-dr10",
        ebv: Any = None,
        n: int | None = None,
        cutout_size: int = CUTOUT_SIZE,
    ) -> None:
        super().__init__(table, survey=survey, ebv=ebv, n=n, cutout_size=cutout_size)
        self.client, self.viewer = client, viewer.rstrip("/")
        width = cutout_size * SDSS.pixel_scale.to_value(u.arcsec)
        # A margin for the interpolation and the blurring at the edges.
        self.size = min(int(np.ceil(width / _SCALE)) + 12, _MAX_SIZE)

    @property
    def has_images(self) -> bool:
        """Whether the data set has images."""
        return True

    @property
    def details(self) -> dict[str, Any]:
        """Service and traffic."""
        return {
            "servers": [self.viewer],
            "layer": _LAYER,
            "requests": self.client.n_requests,
            "bytes": self.client.n_bytes,
            "noise": "estimated from the sky in each cutout",
        }

    def cost(self) -> Cost:
        """Estimate the cost."""
        n = len(self.galaxies)
        hours = n / self.client.per_second / 3600
        size = 1e-9 * _BYTES_PER_PIXEL * self.size**2
        basis = f"{1e3 * size:.2f} MB for a cutout, {self.client.per_second:g} per second"
        return Cost(n, n, n * size, n * kept_image(self.cutout_size), hours, basis)

    def image(self, name: str, row: int) -> dict[str, Any]:
        """Download the images of a galaxy.

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
        OSError
            If they cannot be downloaded or read.
        """
        query = {
            "ra": f"{self.galaxies.ra[row]:.6f}",
            "dec": f"{self.galaxies.dec[row]:.6f}",
            "layer": _LAYER,
            "pixscale": _SCALE,
            "bands": _BANDS,
            "size": self.size,
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cutout.fits"
            address = f"{self.viewer}/fits-cutout?{urlencode(query)}"
            self.client.fetch(address, path, max_bytes=_MAX_BYTES)
            # The headers do not state the unit: one count is a nanomaggy.
            return read_cutout_fits(path, zero_point=_NANOMAGGY)
