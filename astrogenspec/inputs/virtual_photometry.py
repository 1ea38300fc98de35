r"""Virtual photometry: fluxes of a galaxy in filters in which it was not observed.

The fluxes follow from the spectral energy distribution that `astrogenspec.inputs.sed_features`
infers from the photometry at hand, with the population as the prior; their errors include what the
photometry leaves open.  Errors of different bands are correlated, which a
`~astrogenspec.inputs.photometry.PhotometryBatch` does not state.

Networks for SDSS use this photometry in place of ugriz, with a loss of accuracy; outlier tests and
recalibration use it to compare galaxies of any survey with limits in ugriz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .filter_sets import extinction_coefficients, is_sdss, sdss_filters
from .photometry import PhotometryBatch
from .sed_features import SEDComponents, infer_photometry

if TYPE_CHECKING:
    from ..surveys import Filter

__all__ = ["in_sdss_bands", "virtual_photometry"]


def virtual_photometry(
    photometry: PhotometryBatch, filters: Sequence[Filter], components: SEDComponents
) -> PhotometryBatch:
    """Predict the fluxes of galaxies in other filters.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.
    filters : sequence of Filter
        Filters of the result.
    components : SEDComponents
        Components of the spectra of the population.

    Returns
    -------
    PhotometryBatch
        Fluxes as they would be observed, with the same Galactic E(B-V), names and flags; NaN for
        galaxies without photometry.

    Raises
    ------
    ValueError
        If a filter reaches beyond the modelled spectra.
    """
    inferred = infer_photometry(components, photometry)
    flux, error = (
        values.double().numpy()
        for values in components.predict(inferred, components.responses_of(filters))
    )
    coefficients = extinction_coefficients(filters)
    extinction = np.asarray(photometry.ebv, dtype=float)[:, None] * coefficients
    factor = 10 ** (-0.4 * extinction)
    return replace(
        photometry,
        flux=flux * factor,
        error=error * factor,
        extinction=extinction,
        filters=tuple(filters),
        calibration_error=np.zeros(len(filters)),
    )


def in_sdss_bands(photometry: PhotometryBatch, components: SEDComponents | None) -> PhotometryBatch:
    """Return photometry in ugriz: measured where it is at hand, else virtual.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.
    components : SEDComponents, optional
        Components of the spectra of the population; not needed for photometry in ugriz.

    Returns
    -------
    PhotometryBatch
        The same object if its filters are those of SDSS. Else every galaxy has virtual fluxes in
        the bands that it does not have.

    Raises
    ------
    ValueError
        If components are needed.
    """
    filters = sdss_filters()
    if components is None or is_sdss(photometry.filters):
        return photometry.in_sdss()
    virtual = virtual_photometry(photometry, filters, components)
    flux, error, extinction = virtual.flux, virtual.error, virtual.extinction
    for k, band in enumerate(filters):
        if band in photometry.filters:
            column = photometry.filters.index(band)
            rows = photometry.bands_present[:, column]
            flux[rows, k] = photometry.flux[rows, column]
            error[rows, k] = photometry.error[rows, column]
            extinction[rows, k] = photometry.extinction[rows, column]
    return replace(virtual, flux=flux, error=error, extinction=extinction)
