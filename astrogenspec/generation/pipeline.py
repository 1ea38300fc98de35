"""From components to observed spectra: sampling, selection, redshift, lines and absolute flux.

For each draw of the properties,

1. the low-resolution diffusion samples candidate vectors of components;
2. optionally, candidates are selected by the low-resolution contrastive score;
3. the full-resolution diffusion adds the detail of the continuum;
4. the spectrum is redshifted, and lines with a known flux get that flux;
5. the continuum is scaled to the photometry (`astrogenspec.generation.flux_calibration`);
6. the full-resolution contrastive score is computed.
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
from ..calibration.line_factors import STRONGEST, LineFactors, sidebands
from ..inputs.features import ModelInputs
from ..nn.chunks import map_chunks
from ..nn.noise import ObjectStreams, normal, standard_normal
from ..quantities import QUANTITIES
from ..surveys import BANDS, SDSS
from ..synthetic import response_weights
from ..wavelengths import (
    BROAD_DECREMENT,
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    LINES,
    MEASURED_LINES,
    REST,
    WIDE,
    LogGrid,
    add_lines,
    line_index,
    narrow_line_velocity,
)
from .completion import Completion
from .components import Galaxy
from .conditioning import reference_log_flux
from .flux_calibration import (
    N_NOISES,
    REFERENCE_WAVELENGTH,
    TargetPhotometry,
    fibre_target,
    fit_scale,
    fit_slope,
    perturb,
    total_target,
)
from .network import SamplerSettings, SpectrumNetwork, spectrum_with_lines

__all__ = [
    "SELECTIONS",
    "AssembledSpectra",
    "DrawnSpectra",
    "Request",
    "ab_flux",
    "assemble",
    "candidate_draws",
    "draw_spectra",
    "galaxy_generators",
    "galaxy_seed",
    "impose_properties",
    "observed_flux",
    "recalibrate_continua",
    "synthetic_nmgy",
    "to_observed",
]

#: For each line with a flux among the properties, the lines whose ratio to it is kept.
_FOLLOWERS = {
    "Halpha": ("HeI5877", "OI6302", "SII6718", "SII6733", "ArIII7138", "SIII9071"),
    "Hbeta": ("Hgamma", "Hdelta", "OII3727", "OII3730"),
    "NII6585": ("NII6550",),
    "OIII5008": ("OIII4960", "NeIII3870"),
}
#: Columns of theta with the log10 of the fluxes of these lines.
_FLUX_COLUMNS = {
    line: list(QUANTITIES).index(name)
    for line, name in (
        ("Halpha", "halpha_flux"),
        ("Hbeta", "hbeta_flux"),
        ("NII6585", "nii6584_flux"),
        ("OIII5008", "oiii5007_flux"),
    )
}
_REDSHIFT = list(QUANTITIES).index("redshift")
_MAG = 2.5 / np.log(10)


@dataclass(frozen=True)
class AssembledSpectra:
    """Observed-frame spectra of n draws.

    Attributes
    ----------
    flux : Tensor, shape (n, 5880)
        Spectra on `astrogenspec.wavelengths.WIDE`, 1e-17 erg/s/cm2/A.
    scale : Tensor, shape (n,)
        Flux in r through the aperture (nmgy); NaN without photometry.
    residual : Tensor, shape (n, 5)
        Synthetic magnitude minus that of the photometry in the aperture (`fibre_target` or
        `total_target`); NaN for a missing band.
    lines : Tensor, shape (n, 5880)
        The part of `flux` in emission lines.
    line_flux : Tensor, shape (n, 17)
        Fluxes of the narrow lines (1e-17 erg/s/cm2).
    """

    flux: Tensor
    scale: Tensor
    residual: Tensor
    lines: Tensor
    line_flux: Tensor


def to_observed(spectra: Tensor, redshift: Tensor, grid: LogGrid = WIDE) -> Tensor:
    """Redshift spectra by cubic interpolation; flux densities are not rescaled.

    Parameters
    ----------
    spectra : Tensor, shape (n, 6400)
        Rest-frame spectra on `astrogenspec.wavelengths.REST`.
    redshift : Tensor, shape (n,)
        Redshifts.
    grid : LogGrid
        Wavelength grid of the result, of the same step.

    Returns
    -------
    Tensor, shape (n, grid.size)
        Spectra, extrapolated by their first and last values.
    """
    first = (grid.start - REST.start - torch.log10(1 + redshift.double())) / REST.step
    whole = torch.floor(first).long()
    t = (first - whole).to(spectra)[:, None]
    # Catmull-Rom spline: slopes at the two nearest pixels from their neighbours.
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
    """Weights of synthetic photometry (nmgy) of spectra on `WIDE`, shape (5880, 5)."""
    weights = response_weights(WIDE.wavelength * u.AA, SDSS, BANDS)
    return torch.as_tensor(weights, dtype=torch.float32)


@cache
def _log_wavelength() -> Tensor:
    """Natural logarithm of the wavelengths of `WIDE` over the reference wavelength of slopes."""
    return torch.as_tensor(np.log(WIDE.wavelength / REFERENCE_WAVELENGTH), dtype=torch.float32)


def synthetic_nmgy(flux: Tensor) -> Tensor:
    """Return AB fluxes in ugriz (nmgy), shape (n, 5), of spectra on `WIDE`.

    The spectra have shape (n, 5880) and are in 1e-17 erg/s/cm2/A.
    """
    return flux @ _filters().to(flux)


def observed_flux(galaxies: Galaxy) -> Tensor:
    """Return observed spectra with lines on `WIDE` per nmgy in r, shape (n, 5880).

    Parameters
    ----------
    galaxies : Galaxy
        At full resolution.
    """
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    return _with_broad(_with_lines(continuum, galaxies, galaxies.narrow), galaxies)


def ab_flux(galaxies: Galaxy) -> Tensor:
    """Return synthetic AB fluxes in ugriz per nmgy in r, shape (n, 5), at full resolution."""
    return synthetic_nmgy(observed_flux(galaxies))


def impose_properties(galaxies: Galaxy, theta: Tensor, given: Tensor) -> tuple[Galaxy, Tensor]:
    """Apply the redshift and line fluxes of the properties.

    Parameters
    ----------
    galaxies : Galaxy
        n draws.
    theta : Tensor, shape (n, 9)
        Properties.
    given : Tensor of bool, shape (n, 9)
        Which properties are known.

    Returns
    -------
    galaxies : Galaxy
        The draws at the redshift of the properties.
    line_flux : Tensor, shape (n, 17)
        Absolute flux of each line (1e-17 erg/s/cm2): that of the properties; for lines without one,
        scaled with a line that has it; NaN where unknown.
    """
    redshift = torch.where(given[:, _REDSHIFT], theta[:, _REDSHIFT], galaxies.redshift)
    line_flux = torch.full_like(galaxies.narrow, torch.nan)
    for name, column in _FLUX_COLUMNS.items():
        k = line_index(name)
        flux = torch.where(given[:, column], 10 ** theta[:, column], torch.nan)
        line_flux[:, k] = flux
        for follower in _FOLLOWERS[name]:
            j = line_index(follower)
            line_flux[:, j] = flux * galaxies.narrow[:, j] / galaxies.narrow[:, k]
    return replace(galaxies, redshift=redshift), line_flux


def assemble(
    galaxies: Galaxy,
    line_flux: Tensor,
    photometry: TargetPhotometry,
    fibre: bool,
    noise: Tensor | None = None,
) -> AssembledSpectra:
    """Make observed-frame spectra in absolute flux.

    Parameters
    ----------
    galaxies : Galaxy
        n draws at full resolution.
    line_flux : Tensor, shape (n, 17)
        Absolute flux of each line, NaN where unknown; see `impose_properties`.
    photometry : TargetPhotometry
        Photometry of the n draws.
    fibre : bool
        Whether to scale to the light in the fibre or to the total light.
    noise : Tensor, shape (n, 6), optional
        Standard normal numbers by which the photometry of each draw is perturbed; zero by default.

    Returns
    -------
    AssembledSpectra
    """
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    known = torch.isfinite(line_flux)
    nothing = torch.zeros_like(continuum)
    known_lines = _with_lines(nothing, galaxies, torch.where(known, line_flux, 0.0))
    drawn_lines = _with_lines(nothing, galaxies, torch.where(known, 0.0, galaxies.narrow))
    drawn_lines = _with_broad(drawn_lines, galaxies)
    free = continuum + drawn_lines
    if noise is None:
        noise = free.new_zeros(len(free), N_NOISES)
    if fibre:
        wanted, error = fibre_target(photometry, galaxies.fibre_fraction, noise[:, -1])
    else:
        wanted, error = total_target(photometry, noise[:, -1])
    target, weight = perturb(wanted, error, noise[:, :-1])
    known_nmgy = synthetic_nmgy(known_lines)
    slope = fit_slope(synthetic_nmgy(free), known_nmgy, target, weight)
    tilt = torch.exp(slope[:, None] * _log_wavelength().to(free))
    free *= tilt
    free_nmgy = synthetic_nmgy(free)
    scale = fit_scale(free_nmgy, known_nmgy, target, weight)
    flux = free * scale[:, None] + known_lines
    lines = drawn_lines * tilt * scale[:, None] + known_lines
    synthetic = free_nmgy * scale[:, None] + known_nmgy
    residual = -_MAG * torch.log(synthetic / wanted.clamp_min(1e-6))
    residual = torch.where(wanted > 0, residual, torch.nan)
    free_lines = galaxies.narrow * scale[:, None] * _tilt_of_lines(slope, galaxies.redshift)
    line_flux = torch.where(known, line_flux, free_lines)
    return AssembledSpectra(flux, scale, residual, lines, line_flux)


def _tilt_of_lines(slope: Tensor, redshift: Tensor) -> Tensor:
    """Return the factor of a slope at the wavelengths of the lines, shape (n, 17)."""
    rest = torch.tensor(list(LINES.values()), dtype=redshift.dtype, device=redshift.device)
    wavelength = rest * (1 + redshift[:, None]) / REFERENCE_WAVELENGTH
    return torch.exp(slope[:, None] * torch.log(wavelength))


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


#: Uses of the contrastive scores; see `~astrogenspec.generation.estimator.SpectrumOptions`.
SELECTIONS = ("all", "weighted", "best")
#: Number of spectra in a chunk, which one thread makes.
_CHUNK = 64
_FIELDS = ("flux", "lines", "redshift", "residual", "score", "draw", "line_flux")


@dataclass(frozen=True)
class Request:
    """Number and kind of the spectra to draw.

    Attributes
    ----------
    n_draws : int
        Number of spectra per galaxy.
    n_candidates : int
        Number of low-resolution candidates per galaxy.
    select : str
        One of `SELECTIONS`.
    aperture : str
        One of `~astrogenspec.generation.conditioning.APERTURES`.
    sampler : SamplerSettings
        Settings of the diffusion samplers.
    recalibration : SpectrumRecalibration, optional
        Recalibration of the spread of the draws.
    photometry_in_fibre : bool
        Whether the photometry is that in a fibre, which the network takes as that of the spectrum.
    """

    n_draws: int
    n_candidates: int
    select: str
    aperture: str
    sampler: SamplerSettings
    recalibration: SpectrumRecalibration | None = None
    photometry_in_fibre: bool = False

    @property
    def case(self) -> str:
        """One of `~astrogenspec.calibration.spectra.CASES`."""
        return "fibre photometry" if self.photometry_in_fibre else self.aperture


@dataclass(frozen=True)
class DrawnSpectra:
    """k draws of the spectra of n galaxies.

    Attributes
    ----------
    flux : ndarray, shape (n, k, 5880)
        Spectra on `astrogenspec.wavelengths.WIDE`, 1e-17 erg/s/cm2/A.
    lines : ndarray, shape (n, k, 5880)
        The part of `flux` in emission lines.
    redshift : ndarray, shape (n, k)
        Redshifts.
    residual : ndarray, shape (n, k, 5)
        Synthetic minus input magnitude.
    score : ndarray, shape (n, k)
        Score of the full-resolution contrastive network (nats).
    draw : ndarray of int, shape (n, k)
        Index of the draw of the properties of each spectrum.
    line_flux : ndarray, shape (n, k, 17), optional
        Fluxes of the narrow lines (1e-17 erg/s/cm2); None if the network generates none.
    """

    flux: np.ndarray
    lines: np.ndarray
    redshift: np.ndarray
    residual: np.ndarray
    score: np.ndarray
    draw: np.ndarray
    line_flux: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """Softmax of the scores of each galaxy, shape (n, k)."""
        relative = np.exp(self.score - self.score.max(1, keepdims=True))
        return relative / relative.sum(1, keepdims=True)


@torch.inference_mode()
def draw_spectra(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    photometry: TargetPhotometry,
    theta: Tensor | None,
    generators: list[torch.Generator] | ObjectStreams,
    request: Request,
    completion: Completion | None = None,
    line_factors: LineFactors | None = None,
) -> DrawnSpectra:
    """Draw spectra of n galaxies.

    Parameters
    ----------
    network : SpectrumNetwork
        The network.
    inputs : ModelInputs
        Network inputs of the galaxies.
    photometry : TargetPhotometry
        Photometry to which spectra are scaled.
    theta : Tensor, shape (n, m, 9), or None
        Draws of the properties, NaN for an unknown quantity; None to generate redshifts and lines
        too.
    generators : list of `torch.Generator`, or ObjectStreams
        Random numbers of each galaxy.
    request : Request
        Number and kind of the spectra.
    completion : Completion, optional
        Photometry of each candidate, in place of that of the galaxy.
    line_factors : LineFactors, optional
        Factors of the free lines of the galaxies; 1 by default.

    Returns
    -------
    DrawnSpectra
    """
    galaxies_per_chunk = max(1, _CHUNK // request.n_candidates)
    parts: dict[int, DrawnSpectra] = {}

    def draw(rows: slice) -> None:
        parts[rows.start] = _draw_chunk(
            network,
            inputs[rows],
            photometry[rows],
            None if theta is None else theta[rows],
            generators[rows],
            request,
            None if completion is None else completion[rows],
            None if line_factors is None else line_factors[rows],
        )

    map_chunks(draw, len(inputs), galaxies_per_chunk, inputs.photometry.device)
    ordered = [parts[start] for start in sorted(parts)]
    return DrawnSpectra(
        *(np.concatenate([getattr(part, name) for part in ordered]) for name in _FIELDS)
    )


def _draw_chunk(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    photometry: TargetPhotometry,
    theta: Tensor | None,
    generators: list[torch.Generator] | ObjectStreams,
    request: Request,
    completion: Completion | None,
    line_factors: LineFactors | None,
) -> DrawnSpectra:
    n, device = len(inputs), inputs.photometry.device
    if theta is None:
        theta = inputs.photometry.new_full((n, 1, len(QUANTITIES)), torch.nan)
    low_noise, high_noise, flux_noise = _noise(generators, _noise_shapes(network, request))
    chosen = candidate_draws(request, theta.shape[1]).to(device)
    properties = theta[:, chosen]
    if completion is not None:
        # A draw of the photometry is perturbed by its errors already.
        flux_noise[..., :-1] = 0.0
        repeated = inputs.repeat_interleave(request.n_candidates)
        inputs = replace(repeated, photometry=completion.features.flatten(0, 1))
    aperture = torch.full((len(inputs),), network.aperture_index(request.aperture), device=device)
    observed = network.observe(inputs, aperture)
    vectors = _sample_candidates(
        network, inputs, observed, aperture, properties, low_noise.to(device), request
    )
    if completion is not None:
        observed = observed.unflatten(0, (n, -1)).mean(1)
    order = _select_candidates(network, observed, vectors, request)
    draw = chosen[order]
    vectors = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2]))
    properties = properties.gather(1, order[..., None].expand(-1, -1, properties.shape[2]))
    fine = network.refine(
        vectors.flatten(0, 1), high_noise.to(device).flatten(0, 1), request.sampler
    )
    properties = properties.flatten(0, 1)
    fine, line_flux = impose_properties(fine, properties, torch.isfinite(properties))
    if line_factors is not None:
        (noise,) = _noise(generators, [(request.n_draws, 1)])
        widths = _strongest_width(fine).unflatten(0, (n, -1))
        factors = line_factors.evaluate(widths.cpu().numpy(), noise[..., 0].cpu().numpy())
        narrow = fine.narrow * torch.as_tensor(factors).to(fine.narrow).flatten()[:, None]
        fine = replace(fine, narrow=narrow)
    in_fibre = request.aperture == "fibre"
    if not in_fibre:
        # Line fluxes of the properties are those in the fibre.
        line_flux = torch.full_like(line_flux, torch.nan)
    assembled = assemble(
        fine,
        line_flux,
        _target_of_draws(photometry, completion, order),
        in_fibre,
        flux_noise.to(device).flatten(0, 1),
    )
    score = _fine_scores(network, observed, fine, line_flux, assembled.scale, request.n_draws)
    per_draw = (assembled.flux, assembled.lines, fine.redshift, assembled.residual)
    line_flux = assembled.line_flux.unflatten(0, (n, -1))
    values = [*(value.unflatten(0, (n, -1)) for value in per_draw), score, draw, line_flux]
    return DrawnSpectra(*(value.cpu().numpy() for value in values))


def _strongest_width(galaxies: Galaxy) -> Tensor:
    """Return the equivalent widths of Halpha and [N II] (Angstrom, rest frame), shape (n,)."""
    beside = torch.as_tensor(sidebands(REST.wavelength), device=galaxies.continuum.device)
    level = galaxies.continuum[:, beside].median(dim=1).values
    columns = [MEASURED_LINES.index(name) for name in STRONGEST]
    return galaxies.narrow[:, columns].sum(dim=1) / level / (1 + galaxies.redshift)


def candidate_draws(request: Request, n_draws: int) -> Tensor:
    """Return the index of the draw of the properties of each candidate, shape (n_candidates,).

    Draws of a posterior are exchangeable; the first ones are easy to identify.

    Parameters
    ----------
    request : Request
    n_draws : int
        Number of draws of the properties.
    """
    return torch.arange(request.n_candidates) % n_draws


def _target_of_draws(
    photometry: TargetPhotometry, completion: Completion | None, order: Tensor
) -> TargetPhotometry:
    """Return the photometry to which each draw is scaled; ``order`` has their candidates."""
    if completion is None:
        return photometry.repeat_interleave(order.shape[1])
    galaxy = torch.arange(len(order), device=order.device)[:, None]
    return completion.target.map_tensors(lambda values: values[galaxy, order].flatten(0, 1))


def _noise_shapes(network: SpectrumNetwork, request: Request) -> list[tuple[int, ...]]:
    """Return the shapes of the noise of both diffusions and of the photometry of a galaxy."""
    return [
        (request.n_candidates, network.components.size),
        (request.n_draws, network.detail_mean.numel()),
        (request.n_draws, N_NOISES),
    ]


def _noise(
    generators: list[torch.Generator] | ObjectStreams, shapes: list[tuple[int, ...]]
) -> list[Tensor]:
    """Return standard normal numbers of these shapes, galaxy by galaxy."""
    if isinstance(generators, ObjectStreams):
        return [standard_normal((len(generators), *shape), generators) for shape in shapes]
    drawn = [[normal(shape, generator) for shape in shapes] for generator in generators]
    return [torch.stack(noise) for noise in zip(*drawn, strict=True)]


def _sample_candidates(
    network: SpectrumNetwork,
    inputs: ModelInputs,
    observed: Tensor,
    aperture: Tensor,
    properties: Tensor,
    noise: Tensor,
    request: Request,
) -> Tensor:
    """Sample candidate vectors of components, shape (n, n_candidates, size)."""
    n, k = properties.shape[:2]
    theta = properties.flatten(0, 1)
    given = torch.isfinite(theta)
    # One row for each galaxy, or for each candidate if these differ in their photometry.
    each = n * k // len(inputs)
    unconditional = None
    if request.sampler.guidance != 1.0:
        nothing = _observe_nothing(network, inputs, aperture)
        unconditional = nothing.repeat_interleave(each, dim=0)
    vectors = network.sample(
        observed.repeat_interleave(each, dim=0),
        torch.where(given, theta, 0.0),
        given,
        reference_log_flux(inputs.photometry).repeat_interleave(each),
        noise.flatten(0, 1),
        request.sampler,
        unconditional,
    )
    return vectors.unflatten(0, (n, k))


def _observe_nothing(network: SpectrumNetwork, inputs: ModelInputs, aperture: Tensor) -> Tensor:
    """Return the tokens of galaxies without image and photometry."""
    zero = torch.zeros_like(inputs.image_bands)
    blank = ModelInputs(None, None, zero, zero, torch.zeros_like(inputs.photometry))
    return network.observe(blank, aperture)


def _select_candidates(
    network: SpectrumNetwork, observed: Tensor, vectors: Tensor, request: Request
) -> Tensor:
    """Return the indices of the candidates that are kept, shape (n, n_draws)."""
    n, k, _ = vectors.shape
    if request.select == "all" or k == request.n_draws:
        return torch.arange(request.n_draws, device=vectors.device).expand(n, -1)
    embedded = network.low_matcher.spectrum(vectors.flatten(0, 1)[:, : network.n_shared]).unflatten(
        0, (n, k)
    )
    scores = network.low_matcher.scores(network.low_matcher.observation(observed), embedded)
    return scores.topk(request.n_draws, dim=1).indices


def _fine_scores(
    network: SpectrumNetwork,
    observed: Tensor,
    fine: Galaxy,
    line_flux: Tensor,
    scale: Tensor,
    n_draws: int,
) -> Tensor:
    """Return the scores of the final spectra, shape (n, n_draws)."""
    narrow = torch.where(torch.isfinite(line_flux), line_flux / scale[:, None], fine.narrow)
    spectra = spectrum_with_lines(replace(fine, narrow=narrow))
    embedded = network.high_matcher.spectrum(spectra, fine.redshift)
    return network.high_matcher.scores(
        network.high_matcher.observation(observed), embedded.unflatten(0, (-1, n_draws))
    )


def galaxy_seed(generator: torch.Generator) -> int:
    """Draw the seed of `galaxy_generators`."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def galaxy_generators(seed: int, start: int, n: int) -> Iterator[torch.Generator]:
    """Yield independent random number generators of the galaxies from index ``start`` on."""
    for k in range(start, start + n):
        mixed = (seed * 0x9E3779B97F4A7C15 + k * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
        yield torch.Generator().manual_seed(mixed)


#: Minimum flux of a continuum, of which the logarithm is taken.
_MIN_FLUX = 1e-12
#: Lane of the streams of random numbers that scatter the factors. The next streams of the lane of
#: the spectra have been drawn from slices, by the diffusions.
_SCALE_LANE = 3


def recalibrate_continua(
    drawn: DrawnSpectra,
    recalibration: SpectrumRecalibration,
    modes: np.ndarray,
    case: str,
    generators: list[torch.Generator] | ObjectStreams,
) -> DrawnSpectra:
    """Recalibrate the spread of the continua about their median.

    Median, redshifts, lines and scores do not change.

    Parameters
    ----------
    drawn : DrawnSpectra
        Draws of n galaxies.
    recalibration : SpectrumRecalibration
        Factors of the spread.
    modes : ndarray of str, shape (n,)
        Input of each galaxy: image, photometry or both.
    case : str
        One of `~astrogenspec.calibration.spectra.CASES`.
    generators : list of `torch.Generator`, or ObjectStreams
        Random numbers of each galaxy; used if the factors of draws scatter.

    Returns
    -------
    DrawnSpectra
    """
    factors = recalibration.factors(modes, case, np.median(drawn.redshift, axis=1), WIDE.wavelength)
    continuum = np.log(np.maximum(drawn.flux - drawn.lines, _MIN_FLUX))
    median = np.median(continuum, axis=1, keepdims=True)
    scaled = factors[:, None].astype(np.float32) * (continuum - median)
    scatter = recalibration.scale_scatter(modes, case)
    if scatter.any():
        if isinstance(generators, ObjectStreams):
            generators = ObjectStreams(generators.seed, generators.keys, lane=_SCALE_LANE)
        (noise,) = _noise(generators, [(continuum.shape[1], 1)])
        scaled *= np.exp(scatter[:, None, None] * noise.cpu().numpy()).astype(np.float32)
    continuum = np.exp(median + scaled)
    flux = continuum + drawn.lines
    before, after = (synthetic_nmgy(torch.as_tensor(f)).numpy() for f in (drawn.flux, flux))
    return replace(drawn, flux=flux, residual=drawn.residual - 2.5 * np.log10(after / before))
