"""Spectra drawn by `astrogenspec.generation.galaxy_spectroscopy`, in physical units.

For each galaxy, candidates of low resolution are sampled and ranked, the best are refined and
ranked again.  Each spectrum is scaled to the light in r in the aperture, and its redshift is
measured on it.  It covers 4000 to 8500 Angstrom; beyond, its first and last values are repeated,
which is not trusted.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import astropy.units as u
import numpy as np
import torch
from specutils import Spectrum
from torch import Tensor

from ..inputs.features import ModelInputs
from ..measure import measure_redshift
from ..nn.noise import ObjectStreams, normal, standard_normal
from ..quantities import FLUX_UNIT, QUANTITIES
from ..surveys import BANDS
from ..wavelengths import WIDE
from .flux_calibration import (
    N_NOISES,
    TargetPhotometry,
    fibre_target,
    fit_scale,
    perturb,
    total_target,
)
from .galaxy_spectroscopy import WAVELENGTH, GalaxySpectroscopyNetwork
from .pipeline import DrawnSpectra, Request, synthetic_nmgy

__all__ = ["draw_image_spectra"]

#: Fraction of the light in the fibre where it cannot be measured on the image.
_TYPICAL_FRACTION = 0.3
#: Bands that the spectra cover.
_COVERED = [BANDS.index(band) for band in "gri"]
_R = BANDS.index("r")
_MAG = 2.5 / np.log(10)


@torch.inference_mode()
def draw_image_spectra(
    network: GalaxySpectroscopyNetwork,
    inputs: ModelInputs,
    photometry: TargetPhotometry,
    generators: list[torch.Generator] | ObjectStreams,
    request: Request,
) -> DrawnSpectra:
    """Draw spectra of n galaxies, one after the other.

    Parameters
    ----------
    network : GalaxySpectroscopyNetwork
        The networks.
    inputs : ModelInputs
        Network inputs of the galaxies.
    photometry : TargetPhotometry
        Photometry to which spectra are scaled.
    generators : list of `torch.Generator`, or ObjectStreams
        Random numbers of each galaxy.
    request : Request
        Number and kind of the spectra.

    Returns
    -------
    DrawnSpectra
        NaN for a galaxy that lacks a band of the image, or whose spectra have no features from
        which a redshift could be measured.
    """
    lacking = network.lacking(inputs).cpu().numpy()
    parts = []
    for k in range(len(inputs)):
        rows = slice(k, k + 1)
        if lacking[k] or inputs.image is None:
            parts.append(_nothing(request.n_draws))
        else:
            parts.append(
                _draw(network, inputs.image[rows], photometry[rows], generators[rows], request)
            )
    names = [field.name for field in fields(DrawnSpectra) if field.name != "line_flux"]
    return DrawnSpectra(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def _draw(
    network: GalaxySpectroscopyNetwork,
    image: Tensor,
    photometry: TargetPhotometry,
    generators: list[torch.Generator] | ObjectStreams,
    request: Request,
) -> DrawnSpectra:
    """Draw the spectra of one galaxy, given its image of shape (1, 5, 64, 64)."""
    device = image.device

    def noise(rows: int, size: int) -> Tensor:
        if isinstance(generators, ObjectStreams):
            return standard_normal((1, rows, size), generators)[0].to(device)
        return normal((rows, size), generators[0]).to(device)

    n, k, sampler = request.n_draws, request.n_candidates, request.sampler
    low = network.candidates(image, k, lambda m: noise(k, m), sampler)
    rank = network.scores(network.low_contrast, image, low)[0]
    best = rank.topk(n).indices if request.select == "best" else torch.arange(n, device=device)
    data = network.refine(image, low[:, best], lambda m: noise(n, m), sampler)
    score = network.scores(network.high_contrast, image, data)
    relative = network.restore(data[0])
    flux, residual = _scaled(
        _on_wide_grid(relative), photometry.repeat_interleave(n), noise(n, N_NOISES), request
    )
    redshift = _redshifts(relative.double().cpu().numpy())
    if not np.isfinite(redshift).all():
        return _nothing(n)
    return DrawnSpectra(
        flux[None].cpu().numpy(),
        np.zeros((1, *flux.shape), np.float32),
        redshift[None],
        residual[None].cpu().numpy(),
        score.cpu().numpy(),
        np.zeros((1, n), int),
    )


def _nothing(n: int) -> DrawnSpectra:
    """Return draws of a galaxy without spectra."""
    empty = np.full((1, n, WIDE.size), np.nan, np.float32)
    return DrawnSpectra(
        empty,
        np.zeros_like(empty),
        np.full((1, n), np.nan),
        np.full((1, n, len(BANDS)), np.nan, np.float32),
        np.zeros((1, n), np.float32),
        np.zeros((1, n), int),
    )


@cache
def _positions() -> tuple[Tensor, Tensor]:
    """Return the pixel of `WAVELENGTH` before each pixel of `WIDE`, and the distance from it."""
    position = np.clip(WIDE.wavelength - WAVELENGTH[0], 0, len(WAVELENGTH) - 1)
    before = np.minimum(position.astype(int), len(WAVELENGTH) - 2)
    return torch.from_numpy(before), torch.from_numpy((position - before).astype(np.float32))


def _on_wide_grid(flux: Tensor) -> Tensor:
    """Interpolate spectra (n, 4501) to the grid `WIDE`."""
    before, distance = (values.to(flux.device) for values in _positions())
    return torch.lerp(flux[:, before], flux[:, before + 1], distance)


def _scaled(
    shape: Tensor, photometry: TargetPhotometry, noise: Tensor, request: Request
) -> tuple[Tensor, Tensor]:
    """Scale spectra to the light in r, and return them with their photometric residuals."""
    if request.aperture == "fibre":
        fraction = photometry.fibre_flux[:, _R] / photometry.flux[:, _R]
        known = (fraction > 0) & fraction.isfinite()
        fraction = torch.where(known, fraction, _TYPICAL_FRACTION).clamp(1e-3, 1.0)
        wanted, error = fibre_target(photometry, fraction, noise[:, -1])
    else:
        wanted, error = total_target(photometry, noise[:, -1])
    target, weight = perturb(wanted, error, noise[:, :-1])
    in_r = torch.zeros_like(weight)
    in_r[:, _R] = weight[:, _R]
    synthetic = synthetic_nmgy(shape)
    scale = fit_scale(synthetic, torch.zeros_like(synthetic), target, in_r)[:, None]
    residual = torch.full_like(synthetic, torch.nan)
    ratio = (scale * synthetic / wanted.clamp_min(1e-6))[:, _COVERED]
    residual[:, _COVERED] = torch.where(
        wanted[:, _COVERED] > 0, -_MAG * torch.log(ratio), torch.nan
    )
    return shape * scale, residual


def _redshifts(flux: np.ndarray) -> np.ndarray:
    """Measure the redshifts of spectra (n, 4501), NaN where there are no features, shape (n,)."""
    finite = np.isfinite(flux).all(axis=1)
    redshift = np.full(len(flux), np.nan)
    if finite.any():
        spectra = Spectrum(flux=flux[finite] * FLUX_UNIT, spectral_axis=WAVELENGTH * u.AA)
        limits = (0.0, QUANTITIES["redshift"].upper)
        redshift[finite] = measure_redshift(spectra, redshift_range=limits)["redshift"]
    return redshift
