"""Draw spectra for one block of galaxies: candidates, ranking, detail, absolute flux."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..calibration import SpectrumRecalibration
from ..nn.pieces import each_piece
from ..preprocessing import ModelInputs
from .assembly import assemble, impose_properties
from .cascade import SamplerSettings, SpectrumNetwork, spectrum_with_lines
from .components import Galaxy
from .conditions import APERTURES, reference_log_flux
from .flux_scale import N_NOISES, Photometry

__all__ = ["SELECTIONS", "DrawnSpectra", "Request", "draw_spectra", "galaxy_generators"]

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
        One of `~astrogenspec.generation.conditions.APERTURES`.
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

    each_piece(draw, len(inputs), per_block, inputs.photometry.device)
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
        photometry.repeated(request.n_draws),
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
