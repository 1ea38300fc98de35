"""From galaxies at rest, per nanomaggy, to spectra as a telescope sees them: redshift, lines, and absolute flux.

The flux of a draw is fixed by the input photometry: its continuum is scaled and tilted so that its synthetic magnitudes fit the
observed ones, see `astrogenspec.generation.flux_calibration`.  Lines whose flux the draw of the properties gives keep that flux.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from astropy import units as u
from torch import Tensor

from ..calibration import SpectrumRecalibration
from ..inputs.features import ModelInputs
from ..nn.chunks import map_chunks
from ..surveys import BANDS, SDSS
from ..synthetic import response_weights
from ..wavelengths import (
    BROAD_DECREMENT,
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    REST,
    WIDE,
    LogGrid,
    add_lines,
    line_index,
    narrow_line_velocity,
)
from .components import Galaxy
from .conditioning import APERTURES, reference_log_flux
from .flux_calibration import (
    N_NOISES,
    REFERENCE_WAVELENGTH,
    Photometry,
    fit_factor,
    fit_slope,
    light_in_fibre,
    perturbed,
    whole_light,
)
from .network import SamplerSettings, SpectrumNetwork, spectrum_with_lines

__all__ = [
    "SELECTIONS",
    "Assembled",
    "DrawnSpectra",
    "Request",
    "ab_flux",
    "assemble",
    "draw_spectra",
    "galaxy_generators",
    "impose_properties",
    "recalibrated",
    "synthetic_nmgy",
    "to_observed",
]

#: Lines that follow each line whose flux the properties give.
_FOLLOWERS = {
    "Halpha": ("HeI5877", "OI6302", "SII6718", "SII6733", "ArIII7138", "SIII9071"),
    "Hbeta": ("Hgamma", "Hdelta", "OII3727", "OII3730"),
    "NII6585": ("NII6550",),
    "OIII5008": ("OIII4960", "NeIII3870"),
}
#: Columns of theta with the log10 of these lines' fluxes.
_FLUX_COLUMNS = {"Halpha": 5, "Hbeta": 6, "NII6585": 7, "OIII5008": 8}
_MAG = 2.5 / np.log(10)


@dataclass(frozen=True)
class Assembled:
    """Spectra of n draws in the frame of the observer.

    Attributes
    ----------
    flux : Tensor, shape (n, 5880)
        1e-17 erg/s/cm2/A on `astrogenspec.wavelengths.WIDE`.
    scale : Tensor, shape (n,)
        nmgy in r through the aperture; NaN without photometry.
    residual : Tensor, shape (n, 5)
        Synthetic minus input magnitude; NaN for a missing band. In the fibre the input is that of its light, see
        `light_in_fibre`; measured on an image, it is that of all light, see `whole_light`.
    lines : Tensor, shape (n, 5880)
        The part of `flux` in lines whose flux the properties give.
    """

    flux: Tensor
    scale: Tensor
    residual: Tensor
    lines: Tensor


def to_observed(spectra: Tensor, redshift: Tensor, grid: LogGrid = WIDE) -> Tensor:
    """Redshift spectra, by cubic interpolation; flux densities stay what they are.

    Parameters
    ----------
    spectra : Tensor, shape (n, 6400)
        On `astrogenspec.wavelengths.REST`.
    redshift : Tensor, shape (n,)
    grid : LogGrid
        Of the result, with the same step.

    Returns
    -------
    Tensor, shape (n, grid.size)
        Beyond its ends a spectrum goes on with its last value.
    """
    first = (grid.start - REST.start - torch.log10(1 + redshift.double())) / REST.step
    whole = torch.floor(first).long()
    t = (first - whole).to(spectra)[:, None]
    # Catmull-Rom: a cubic through the two nearest pixels with the slopes of their neighbours.
    weights = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    pixel = whole[:, None] + torch.arange(grid.size, device=spectra.device)
    result = torch.zeros(len(spectra), grid.size, dtype=spectra.dtype, device=spectra.device)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        result += weight * spectra.gather(1, (pixel + offset).clamp(0, REST.size - 1))
    return result


@cache
def _filters() -> Tensor:
    """Weights that turn spectra on `WIDE` into nmgy, shape (5880, 5)."""
    weights = response_weights(WIDE.wavelength * u.AA, SDSS, BANDS)
    return torch.as_tensor(weights, dtype=torch.float32)


@cache
def _log_wavelength() -> Tensor:
    """Logarithm of the wavelengths of `WIDE` over the one at which a slope changes nothing."""
    return torch.as_tensor(np.log(WIDE.wavelength / REFERENCE_WAVELENGTH), dtype=torch.float32)


def synthetic_nmgy(flux: Tensor) -> Tensor:
    """AB fluxes in ugriz (nmgy, shape (n, 5)) of spectra (n, 5880) on `WIDE`, 1e-17 erg/s/cm2/A."""
    return flux @ _filters().to(flux)


def ab_flux(galaxies: Galaxy) -> Tensor:
    """Synthetic AB fluxes in ugriz per nmgy in r, shape (n, 5), of galaxies with full-resolution continua."""
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    return synthetic_nmgy(_with_broad(_with_lines(continuum, galaxies, galaxies.narrow), galaxies))


def impose_properties(galaxies: Galaxy, theta: Tensor, given: Tensor) -> tuple[Galaxy, Tensor]:
    """Give each draw the redshift of its properties; say by how much its lines have to change.

    Parameters
    ----------
    galaxies : Galaxy
        n draws.
    theta : Tensor, shape (n, 9)
        Properties.
    given : Tensor of bool, shape (n, 9)
        Which of them are known.

    Returns
    -------
    galaxies : Galaxy
        With lines whose *ratios* are those wanted, and the redshift.
    anchor : Tensor, shape (n, 17)
        Absolute flux that each line must have (1e-17 erg/s/cm2); NaN where it is free.
    """
    redshift = torch.where(given[:, 0], theta[:, 0], galaxies.redshift)
    anchor = torch.full_like(galaxies.narrow, torch.nan)
    for name, column in _FLUX_COLUMNS.items():
        k = line_index(name)
        flux = torch.where(given[:, column], 10 ** theta[:, column], torch.nan)
        anchor[:, k] = flux
        for follower in _FOLLOWERS[name]:
            j = line_index(follower)
            anchor[:, j] = flux * galaxies.narrow[:, j] / galaxies.narrow[:, k]
    parts = {**vars(galaxies), "redshift": redshift}
    return Galaxy(**parts), anchor


def assemble(
    galaxies: Galaxy,
    anchor: Tensor,
    photometry: Photometry,
    fibre: bool,
    noise: Tensor | None = None,
) -> Assembled:
    """Make spectra in the frame of the observer, in absolute flux.

    Parameters
    ----------
    galaxies : Galaxy
        n draws with full-resolution continua.
    anchor : Tensor, shape (n, 17)
        See `impose_properties`.
    photometry : Photometry
        Of the n draws.
    fibre : bool
        Whether the spectrum is that of the fibre, so that its light is to be had, or that of the aperture of the photometry.
    noise : Tensor, shape (n, 6), optional
        Standard normal; by what the photometry of each draw is perturbed. Nothing by default.

    Returns
    -------
    Assembled
    """
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    fixed = torch.isfinite(anchor)
    fixed_lines = _with_lines(
        torch.zeros_like(continuum), galaxies, torch.where(fixed, anchor, 0.0)
    )
    free = _with_lines(continuum, galaxies, torch.where(fixed, 0.0, galaxies.narrow))
    free = _with_broad(free, galaxies)
    if noise is None:
        noise = free.new_zeros(len(free), N_NOISES)
    if fibre:
        wanted, error = light_in_fibre(photometry, galaxies.fibre_share, noise[:, -1])
    else:
        wanted, error = whole_light(photometry, noise[:, -1])
    target, weight = perturbed(wanted, error, noise[:, :-1])
    of_lines = synthetic_nmgy(fixed_lines)
    slope = fit_slope(synthetic_nmgy(free), of_lines, target, weight)
    free *= torch.exp(slope[:, None] * _log_wavelength().to(free))
    of_free = synthetic_nmgy(free)
    scale = fit_factor(of_free, of_lines, target, weight)
    flux = free * scale[:, None] + fixed_lines
    synthetic = of_free * scale[:, None] + of_lines
    residual = -_MAG * torch.log(synthetic / wanted.clamp_min(1e-6))
    residual = torch.where(wanted > 0, residual, torch.nan)
    return Assembled(flux, scale, residual, fixed_lines)


def _with_lines(flux: Tensor, galaxies: Galaxy, narrow: Tensor) -> Tensor:
    velocity = narrow_line_velocity(galaxies.dispersion)
    return add_lines(flux, WIDE, LINE_NAMES, narrow, velocity, galaxies.redshift)


def _with_broad(flux: Tensor, galaxies: Galaxy) -> Tensor:
    shown = (galaxies.broad > 0).nonzero()[:, 0]
    if len(shown) == 0:
        return flux
    halpha = galaxies.broad[shown, None]
    velocity = torch.full_like(galaxies.redshift[shown], BROAD_VELOCITY)
    both = torch.cat([halpha / BROAD_DECREMENT, halpha], dim=1)
    wide = add_lines(flux[shown], WIDE, BROAD_LINES, both, velocity, galaxies.redshift[shown])
    return flux.index_copy(0, shown, wide)


#: What the contrastive scores are used for.
SELECTIONS = ("all", "weighted", "best")
#: Spectra of a piece, which one thread makes.
_SPECTRA = 64
_FIELDS = ("flux", "lines", "redshift", "residual", "score", "draw")


@dataclass(frozen=True)
class Request:
    """What is wanted of each galaxy.

    Attributes
    ----------
    n_draws : int
        Spectra.
    n_candidates : int
        Spectra at low resolution from which they are chosen.
    select : str
        One of `SELECTIONS`.
    aperture : str
        One of `~astrogenspec.generation.conditioning.APERTURES`.
    sampler : SamplerSettings
    recalibration : SpectrumRecalibration, optional
        Of the ranges of the draws.
    """

    n_draws: int
    n_candidates: int
    select: str
    aperture: str
    sampler: SamplerSettings
    recalibration: SpectrumRecalibration | None = None


@dataclass(frozen=True)
class DrawnSpectra:
    """Draws for n galaxies, k each.

    Attributes
    ----------
    flux : ndarray, shape (n, k, 5880)
        On `astrogenspec.wavelengths.WIDE`, 1e-17 erg/s/cm2/A.
    lines : ndarray, shape (n, k, 5880)
        The part of it in lines whose flux the properties give.
    redshift : ndarray, shape (n, k)
    residual : ndarray, shape (n, k, 5)
        Synthetic minus input magnitude.
    score : ndarray, shape (n, k)
        Of the full-resolution contrastive network, nats.
    draw : ndarray of int, shape (n, k)
        Number of the draw of the properties each spectrum belongs to.
    """

    flux: np.ndarray
    lines: np.ndarray
    redshift: np.ndarray
    residual: np.ndarray
    score: np.ndarray
    draw: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Probability of each draw by its score, shape (n, k)."""
        relative = np.exp(self.score - self.score.max(1, keepdims=True))
        return relative / relative.sum(1, keepdims=True)


@torch.inference_mode()
def draw_spectra(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    photometry: Photometry,
    theta: Tensor | None,
    generators: list[torch.Generator],
    request: Request,
) -> DrawnSpectra:
    """Draw spectra.

    Parameters
    ----------
    network : SpectrumNetwork
    inputs : ModelInputs
        n galaxies.
    photometry : Photometry
        What their flux is scaled to.
    theta : Tensor, shape (n, m, 9), or None
        Draws of the properties, NaN for a quantity that is not known; None to generate redshifts too.
    generators : list of `torch.Generator`
        One for each galaxy.
    request : Request

    Returns
    -------
    DrawnSpectra
    """
    per_block = max(1, _SPECTRA // request.n_candidates)
    parts: dict[int, DrawnSpectra] = {}

    def draw(rows: slice) -> None:
        parts[rows.start] = _draw_block(
            network,
            inputs[rows],
            photometry[rows],
            None if theta is None else theta[rows],
            generators[rows],
            request,
        )

    map_chunks(draw, len(inputs), per_block, inputs.photometry.device)
    ordered = [parts[start] for start in sorted(parts)]
    return DrawnSpectra(
        *(np.concatenate([getattr(part, name) for part in ordered]) for name in _FIELDS)
    )


def _draw_block(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    photometry: Photometry,
    theta: Tensor | None,
    generators: list[torch.Generator],
    request: Request,
) -> DrawnSpectra:
    n, device = len(inputs), inputs.photometry.device
    if theta is None:
        theta = inputs.photometry.new_full((n, 1, 9), torch.nan)
    low_noise, high_noise, flux_noise = _noise(network, generators, request)
    # Draws of a posterior are exchangeable: the first ones are as good as any, and easy to find again.
    chosen = torch.arange(request.n_candidates, device=device) % theta.shape[1]
    picked = theta[:, chosen]
    aperture = torch.full((n,), APERTURES.index(request.aperture), device=device)
    observed = network.observe(inputs, aperture)
    nothing = _nothing(network, inputs, aperture) if request.sampler.guidance != 1.0 else None
    vectors = _low_resolution(
        network, inputs, observed, nothing, picked, low_noise.to(device), request
    )
    order = _ranking(network, observed, vectors, request)
    draw = chosen[order]
    vectors = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2]))
    picked = picked.gather(1, order[..., None].expand(-1, -1, picked.shape[2])).flatten(0, 1)
    fine = network.refine(
        vectors.flatten(0, 1), high_noise.to(device).flatten(0, 1), request.sampler
    )
    given = torch.isfinite(picked)
    fine, anchor = impose_properties(fine, picked, given)
    in_fibre = request.aperture == "fibre"
    if not in_fibre:
        anchor = torch.full_like(anchor, torch.nan)
    assembled = assemble(
        fine,
        anchor,
        photometry.repeat_interleave(request.n_draws),
        in_fibre,
        flux_noise.to(device).flatten(0, 1),
    )
    score = _fine_scores(network, observed, fine, anchor, assembled.scale, request.n_draws)
    of_draws = (assembled.flux, assembled.lines, fine.redshift, assembled.residual)
    values = [*(value.unflatten(0, (n, -1)) for value in of_draws), score, draw]
    return DrawnSpectra(*(value.cpu().numpy() for value in values))


def _noise(
    network: SpectrumNetwork, generators: list[torch.Generator], request: Request
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of both diffusions and of the photometry; that of a galaxy depends on its own generator alone."""
    low, high, flux = [], [], []
    for generator in generators:
        shape = (request.n_candidates, network.components.size)
        low.append(torch.randn(shape, generator=generator))
        shape = (request.n_draws, network.detail_mean.numel())
        high.append(torch.randn(shape, generator=generator))
        flux.append(torch.randn((request.n_draws, N_NOISES), generator=generator))
    return torch.stack(low), torch.stack(high), torch.stack(flux)


def _low_resolution(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    observed: Tensor,
    nothing: Tensor | None,
    picked: Tensor,
    noise: Tensor,
    request: Request,
) -> Tensor:
    """Sample candidates: vectors of components, shape (n, n_candidates, size)."""
    k = request.n_candidates
    theta = picked.flatten(0, 1)
    given = torch.isfinite(theta)
    vectors = network.sample(
        observed.repeat_interleave(k, dim=0),
        torch.where(given, theta, 0.0),
        given,
        reference_log_flux(inputs.photometry).repeat_interleave(k),
        noise.flatten(0, 1),
        request.sampler,
        None if nothing is None else nothing.repeat_interleave(k, dim=0),
    )
    return vectors.unflatten(0, (len(inputs), k))


def _nothing(network: SpectrumNetwork, inputs: ModelInputs, aperture: Tensor) -> Tensor:
    zero = torch.zeros_like(inputs.image_bands)
    blank = ModelInputs(None, None, zero, zero, torch.zeros_like(inputs.photometry))
    return network.observe(blank, aperture)


def _ranking(
    network: SpectrumNetwork, observed: Tensor, vectors: Tensor, request: Request
) -> Tensor:
    """Numbers of the candidates that are kept, shape (n, n_draws)."""
    n, k, _ = vectors.shape
    if request.select == "all" or k == request.n_draws:
        return torch.arange(request.n_draws, device=vectors.device).expand(n, -1)
    embedded = network.low_matcher.spectrum(vectors.flatten(0, 1)).unflatten(0, (n, k))
    scores = network.low_matcher.scores(network.low_matcher.observation(observed), embedded)
    return scores.topk(request.n_draws, dim=1).indices


def _fine_scores(
    network: SpectrumNetwork,
    observed: Tensor,
    fine: Galaxy,
    anchor: Tensor,
    scale: Tensor,
    n_draws: int,
) -> Tensor:
    """Scores at full resolution, with the lines the spectrum ends up with; shape (n, n_draws)."""
    narrow = torch.where(torch.isfinite(anchor), anchor / scale[:, None], fine.narrow)
    whole = spectrum_with_lines(Galaxy(**{**vars(fine), "narrow": narrow}))
    embedded = network.high_matcher.spectrum(whole, fine.redshift)
    return network.high_matcher.scores(
        network.high_matcher.observation(observed), embedded.unflatten(0, (-1, n_draws))
    )


def galaxy_generators(seed: int, start: int, n: int) -> Iterator[torch.Generator]:
    """Make the generators of galaxies ``start`` and after, each independent of the others."""
    for k in range(start, start + n):
        mixed = (seed * 0x9E3779B97F4A7C15 + k * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        yield torch.Generator().manual_seed(mixed)


_LEAST_FLUX = 1e-12


def recalibrated(
    drawn: DrawnSpectra, recalibration: SpectrumRecalibration, modes: np.ndarray, aperture: str
) -> DrawnSpectra:
    """Widen or narrow the ranges of the continua.

    Parameters
    ----------
    drawn : DrawnSpectra
        n galaxies.
    recalibration : SpectrumRecalibration
    modes : ndarray of str, shape (n,)
        What each galaxy was inferred from.
    aperture : str

    Returns
    -------
    DrawnSpectra
        With the median of the continua, redshifts, lines and scores as they were; a single draw does not change.
    """
    factors = recalibration.factors(
        modes, aperture, np.median(drawn.redshift, axis=1), WIDE.wavelength
    )
    continuum = np.log(np.maximum(drawn.flux - drawn.lines, _LEAST_FLUX))
    middle = np.median(continuum, axis=1, keepdims=True)
    continuum = np.exp(middle + factors[:, None].astype(np.float32) * (continuum - middle))
    flux = continuum + drawn.lines
    before, after = (synthetic_nmgy(torch.as_tensor(f)).numpy() for f in (drawn.flux, flux))
    return replace(drawn, flux=flux, residual=drawn.residual - 2.5 * np.log10(after / before))
