"""Arguments of `astrogenspec.SpectrumEstimator.predict`: checked, and brought to the form the networks need."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np

from ..blocks import positive_int
from ..posterior import Posterior
from ..quantities import QUANTITIES, quantities_to_theta
from ..surveys import BANDS
from .candidates import SELECTIONS, Request
from .cascade import SamplerSettings
from .conditions import APERTURES

__all__ = ["checked_psf", "checked_request", "theta_of"]


def checked_request(
    n_draws: int,
    n_candidates: int | None,
    select: str,
    aperture: str,
    sampler: SamplerSettings | None,
) -> Request:
    """Check what is asked for.

    Parameters
    ----------
    n_draws, n_candidates, select, aperture, sampler
        As for `SpectrumEstimator.predict`.

    Returns
    -------
    Request

    Raises
    ------
    ValueError, TypeError
        If something makes no sense.
    """
    n_draws = positive_int(n_draws, "n_draws")
    if select not in SELECTIONS:
        raise ValueError(f"select is {select!r}: it must be one of {', '.join(SELECTIONS)}.")
    if aperture not in APERTURES:
        raise ValueError(f"aperture is {aperture!r}: it must be one of {', '.join(APERTURES)}.")
    if n_candidates is None:
        n_candidates = 2 * n_draws if select == "best" else n_draws
    if positive_int(n_candidates, "n_candidates") < n_draws:
        raise ValueError(
            f"n_candidates is {n_candidates}, but {n_draws} draws are to be chosen from them: give at least as many."
        )
    if select != "best" and n_candidates > n_draws:
        raise ValueError(
            f'n_candidates is {n_candidates} with select={select!r}: only select="best" chooses among more than n_draws.'
        )
    if sampler is not None and not isinstance(sampler, SamplerSettings):
        raise TypeError(f"sampler is a {type(sampler).__name__}: it must be a SamplerSettings.")
    return Request(n_draws, n_candidates, select, aperture, sampler or SamplerSettings())


def theta_of(posterior: Posterior, n: int | None) -> np.ndarray:
    """Bring the draws of a posterior to internal units.

    Parameters
    ----------
    posterior : Posterior
    n : int or None
        Number of galaxies wanted, if it is known.

    Returns
    -------
    ndarray, shape (n, m, 9)
        NaN for a quantity that the posterior lacks.

    Raises
    ------
    TypeError
        If it is no posterior.
    ValueError
        If it is of another number of galaxies, or has no redshift.
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is a {type(posterior).__name__}: it must be the Posterior that PropertyEstimator.predict returns."
        )
    if n is not None and len(posterior) != n:
        raise ValueError(
            f"posterior is of {len(posterior)} galaxies, but {n} were given: give the posterior of the same "
            "galaxies, in the same order."
        )
    if "redshift" not in posterior.quantities:
        raise ValueError(
            "posterior has no redshift: give one that PropertyEstimator.predict returned."
        )
    known = {name: q for name, q in posterior.draws.items() if name in QUANTITIES}
    return quantities_to_theta(known)


def checked_psf(psf_fwhm: Any, cutouts: Any, n: int | None) -> np.ndarray | None:
    """Check the seeing of images.

    Parameters
    ----------
    psf_fwhm : Quantity ['angle'] or None
        One for all, one for each galaxy, or shape (n, 5).
    cutouts : object
        The images; None if there are none.
    n : int or None
        Number of galaxies; None if it is not known before the end.

    Returns
    -------
    ndarray, shape (n, 5), or None
        Full width at half maximum (arcsec).

    Raises
    ------
    TypeError
        If it is no Quantity.
    ValueError
        If it is not positive, has another shape, there are no images, or the number of galaxies is not known.
    astropy.units.UnitConversionError
        If its unit is no angle.
    """
    if psf_fwhm is None:
        return None
    if not isinstance(psf_fwhm, u.Quantity):
        raise TypeError(
            f"psf_fwhm is a {type(psf_fwhm).__name__}: give a Quantity, such as 1.3 * u.arcsec."
        )
    values = np.asarray(psf_fwhm.to_value(u.arcsec), dtype=float)
    if cutouts is None:
        raise ValueError("psf_fwhm was given without cutouts: leave it out, it is that of images.")
    if n is None:
        raise ValueError(
            "psf_fwhm was given with an iterator of cutouts, whose number is not known: give a list of cutouts."
        )
    if values.shape not in ((), (n,), (n, len(BANDS))):
        raise ValueError(
            f"psf_fwhm has shape {values.shape} for {n} galaxies: give one for all, one for each, or shape "
            f"({n}, {len(BANDS)})."
        )
    if not (values > 0).all():
        raise ValueError(
            "psf_fwhm holds values that are not positive: give the seeing of each image."
        )
    values = values[:, None] if values.ndim == 1 else values
    return np.broadcast_to(values, (n, len(BANDS)))
