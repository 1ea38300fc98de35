"""Network of galaxy spectra: two diffusions and two contrastive networks with shared conditions.

The distribution of a spectrum given observations and properties is factorised in resolution: a
low-resolution diffusion generates vectors of components (`~astrogenspec.generation.components`),
and a full-resolution diffusion the detail of the continuum given these
(`~astrogenspec.generation.denoisers`). A contrastive network at each resolution scores spectra
(`~astrogenspec.generation.contrastive`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..inputs.features import ModelInputs
from ..surveys import BANDS
from ..wavelengths import (
    BROAD_DECREMENT,
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    REST,
    add_lines,
    narrow_line_velocity,
)
from .components import PER_BIN, Components, Galaxy, conserve, to_bins, to_pixels
from .conditioning import APERTURES, Conditions, reference_log_flux
from .contrastive import ComponentEncoder, Matcher, SpectrumEncoder, info_nce
from .denoisers import (
    CROP,
    ComponentDenoiser,
    DetailDenoiser,
    DetailGuide,
    extract_crops,
    random_starts,
    tiling_starts,
)
from .diffusion import SAMPLERS, Denoiser, NoiseLevels, denoising_loss, guided, precondition

__all__ = ["SamplerSettings", "SpectrumNetwork", "spectrum_with_lines"]

#: Minimum standard deviation of the detail.
_MIN_DETAIL = 3e-4
#: Maximum noise added in training to the components on which the detail is conditioned (standard
#: deviations).
_MAX_GUIDE_NOISE = 0.5
#: Maximum of the standardised detail.
_MAX_DETAIL = 6.0


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the diffusion samplers.

    Attributes
    ----------
    method : {"adams", "heun", "ddim"}
        Two-step method of Adams and Bashforth; Heun's method, with two evaluations per step instead
        of one; or DDIM, which is less accurate.
    low_steps, high_steps : int
        Number of steps of the low- and of the full-resolution diffusion.
    guidance : float
        Strength of classifier-free guidance at low resolution; 1 samples the posterior.
    guide_noise : float
        Noise on the components on which the detail is conditioned (standard deviations).
    """

    method: str = "adams"
    low_steps: int = 14
    high_steps: int = 5
    guidance: float = 1.0
    guide_noise: float = 0.05

    def __post_init__(self) -> None:
        if self.method not in SAMPLERS:
            raise ValueError(f"method is {self.method!r}: it must be one of {', '.join(SAMPLERS)}.")
        for name in ("low_steps", "high_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1.")


class SpectrumNetwork(nn.Module):
    """Network that generates rest-frame spectra given images, photometry and property draws.

    Parameters
    ----------
    width : int
        Width of the tokens of the conditions and of the low-resolution transformer.
    depth, heads : int
        Number of blocks and attention heads of the low-resolution transformer.
    detail_width, detail_depth : int
        Width and number of blocks of the full-resolution transformer.
    n_continuum : int
        Number of principal components of the continuum.
    n_domains : int
        1 for a network of simulated spectra, 2 if it also knows observed ones, which it generates.
    n_residual : int
        Number of components of the continuum that simulated galaxies lack.

    Attributes
    ----------
    config : dict
        Arguments of the constructor.
    zero_points : Tensor, shape (5,)
        Magnitude of a galaxy on the survey's system minus that of its spectrum on the AB system.
    """

    #: Options with which spectra are drawn, unless the user gives others.
    default_options: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 5,
        heads: int = 4,
        detail_width: int = 128,
        detail_depth: int = 4,
        n_continuum: int = 24,
        n_domains: int = 1,
        n_residual: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "detail_width": detail_width,
            "detail_depth": detail_depth,
            "n_continuum": n_continuum,
        }
        if n_domains > 1:
            self.config |= {"n_domains": n_domains, "n_residual": n_residual}
        self.n_domains = n_domains
        self.components = Components(n_continuum, n_residual)
        # The other networks do not see the components that simulated galaxies lack.
        self.n_shared = size = self.components.simulated_size
        self.conditions = Conditions(width, n_domains)
        self.low = ComponentDenoiser(self.components.size, width=width, depth=depth, heads=heads)
        self.high = DetailDenoiser(size, width=detail_width, depth=detail_depth)
        self.low_matcher = Matcher(width, ComponentEncoder(size, 128))
        self.high_matcher = Matcher(width, SpectrumEncoder(128))
        self.register_buffer("detail_mean", torch.zeros(REST.size))
        self.register_buffer("detail_scale", torch.ones(REST.size))
        self.register_buffer("zero_points", torch.zeros(len(BANDS)))
        if n_domains > 1:
            self.register_buffer("low_centre", torch.zeros(self.components.size))
            self.register_buffer("low_scale", torch.ones(self.components.size))
        self.low_levels = NoiseLevels()
        self.high_levels = NoiseLevels(mean=-0.3, width=1.3)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpectrumNetwork:
        """Build an untrained network from the `config` of another."""
        return cls(**config)

    @torch.no_grad()
    def fit_scales(self, galaxies: Galaxy, theta: Tensor) -> None:
        """Compute all means and scales from a sample at full resolution and its labels (n, 9)."""
        self.components.fit(galaxies)
        self.conditions.properties.fit(theta)
        detail = torch.cat([self._raw_detail(galaxies[rows]) for rows in _chunks(len(galaxies))])
        self.detail_mean.copy_(detail.mean(0))
        self.detail_scale.copy_(detail.std(0).clamp_min(_MIN_DETAIL))

    def aperture_index(self, aperture: str, *, simulated: bool = False) -> int:
        """Return the index of the token of an aperture, by default for observed galaxies."""
        domain = 0 if simulated else self.n_domains - 1
        return APERTURES.index(aperture) + domain * len(APERTURES)

    def observe(self, inputs: ModelInputs, aperture: Tensor) -> Tensor:
        """Return the tokens of observations, shape (n, 23, width)."""
        return self.conditions.observation(inputs, aperture)

    def loss(
        self,
        inputs: ModelInputs,
        aperture: Tensor,
        galaxies: Galaxy,
        theta: Tensor,
        given: Tensor,
        *,
        n_detail: int,
        known: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of the four networks and their weighted sum ``total``.

        Parameters
        ----------
        inputs : ModelInputs
            Network inputs of n galaxies.
        aperture : Tensor of int64, shape (n,)
            Indices of apertures.
        galaxies : Galaxy
            Spectra in these apertures at full resolution.
        theta : Tensor, shape (n, 9)
            Properties.
        given : Tensor of bool, shape (n, 9)
            Which properties are conditions.
        n_detail : int
            Number of galaxies, from the first, that train the full-resolution networks; with
            0 these have no terms.
        known : Tensor of bool, shape (n, size), optional
            Which elements of the vectors of components are known; all by default. The others are
            replaced by noise and do not count in the loss.
        generator : `torch.Generator`, optional
            Random number generator.
        """
        vectors = self.components.encode(galaxies)
        observed = self.observe(inputs, aperture)
        log_flux = reference_log_flux(inputs.photometry)
        keys = self.low.transformer.keys(self.conditions(observed, theta, given, log_flux))
        data = self._standardise(vectors)
        if known is not None:
            data = torch.where(known, data, torch.randn_like(data))
        low = denoising_loss(
            lambda x, s: self.low(x, s, keys), data, self.low_levels, generator, known
        ).mean()
        match_low, top_low = info_nce(
            self.low_matcher.observation(observed),
            self.low_matcher.spectrum(vectors[:, : self.n_shared]),
            self.low_matcher.scale,
        )
        if n_detail == 0:
            total = low + 0.1 * match_low
            return {"low": low, "match_low": match_low, "top1_low": top_low, "total": total}
        some = slice(0, n_detail)
        high = self.detail_loss(galaxies[some], vectors[some], generator)
        spectra = spectrum_with_lines(galaxies[some])
        match_high, top_high = info_nce(
            self.high_matcher.observation(observed[some]),
            self.high_matcher.spectrum(spectra, galaxies.redshift[some]),
            self.high_matcher.scale,
        )
        return {
            "low": low,
            "high": high,
            "match_low": match_low,
            "match_high": match_high,
            "top1_low": top_low,
            "top1_high": top_high,
            "total": low + high + 0.1 * (match_low + match_high),
        }

    def sample(
        self,
        observed: Tensor,
        theta: Tensor,
        given: Tensor,
        log_flux: Tensor,
        noise: Tensor,
        settings: SamplerSettings,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Sample vectors of components.

        Parameters
        ----------
        observed : Tensor, shape (n, 23, width)
            Tokens of the observations; see `observe`.
        theta, given : Tensor, shape (n, 9)
            Draws of the properties, and which of them are conditions.
        log_flux : Tensor, shape (n,)
            See `~astrogenspec.generation.conditioning.reference_log_flux`.
        noise : Tensor, shape (n, size)
            Standard normal noise.
        settings : SamplerSettings
            Settings of the sampler.
        unconditional : Tensor, shape (n, 23, width), optional
            Tokens of galaxies without observations; required for guidance.

        Returns
        -------
        Tensor, shape (n, size)
        """
        keys = self.low.transformer.keys(self.conditions(observed, theta, given, log_flux))
        denoiser = self._low_denoiser(keys)
        if settings.guidance != 1.0:
            nothing = self.conditions(unconditional, theta, torch.zeros_like(given), log_flux)
            free = self._low_denoiser(self.low.transformer.keys(nothing))
            denoiser = guided(denoiser, free, settings.guidance)
        angles = self.low_levels.steps(settings.low_steps, noise.device)
        return self._restore(SAMPLERS[settings.method](denoiser, noise, angles))

    def refine(self, vectors: Tensor, noise: Tensor, settings: SamplerSettings) -> Galaxy:
        """Add detail to low-resolution spectra.

        Parameters
        ----------
        vectors : Tensor, shape (n, size)
            Vectors of components.
        noise : Tensor, shape (n, 6400)
            Standard normal noise.
        settings : SamplerSettings
            Settings of the sampler.

        Returns
        -------
        Galaxy
            Spectra at full resolution, with the bin averages of the components.
        """
        galaxies = self.components.decode(vectors)
        smooth = to_pixels(galaxies.continuum, PER_BIN, REST.step)
        starts = tiling_starts(vectors.device)
        n, k = len(vectors), len(starts)
        guide = DetailGuide(
            smooth.repeat_interleave(k, 0),
            vectors[:, : self.n_shared].repeat_interleave(k, 0),
            vectors.new_full((n * k,), settings.guide_noise),
            starts.repeat(n),
        )
        angles = self.high_levels.steps(settings.high_steps, vectors.device)
        detail = SAMPLERS[settings.method](
            lambda x, s: precondition(lambda y, t: self.high(y, t, guide), x, s),
            noise.unflatten(1, (k, CROP)).flatten(0, 1),
            angles,
        )
        detail = detail.unflatten(0, (n, k)).flatten(1).clamp(-_MAX_DETAIL, _MAX_DETAIL)
        continuum = smooth * torch.exp(detail * self.detail_scale + self.detail_mean)
        return replace(
            galaxies, continuum=conserve(continuum, galaxies.continuum, PER_BIN, REST.step)
        )

    def detail_loss(
        self, galaxies: Galaxy, vectors: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the mean loss of the full-resolution diffusion.

        Parameters
        ----------
        galaxies : Galaxy
            n galaxies at full resolution.
        vectors : Tensor, shape (n, size)
            Their vectors of components.
        generator : `torch.Generator`, optional
            Random number generator.

        Returns
        -------
        Tensor, shape ()
        """
        n, device = len(vectors), vectors.device
        source = generator.device if generator is not None else device
        amount = _MAX_GUIDE_NOISE * torch.rand(
            n, generator=generator, device=source, dtype=torch.float32
        ).to(device)
        noise = torch.randn(
            vectors.shape, generator=generator, device=source, dtype=torch.float32
        ).to(device)
        noisy = vectors + amount[:, None] * noise
        start = random_starts(n, generator, device)
        detail = (self._raw_detail(galaxies) - self.detail_mean) / self.detail_scale
        guide = DetailGuide(
            self.components.smooth_continuum(noisy), noisy[:, : self.n_shared], amount, start
        )
        crops = extract_crops(detail, start).clamp(-_MAX_DETAIL, _MAX_DETAIL)
        return denoising_loss(
            lambda x, s: self.high(x, s, guide), crops, self.high_levels, generator
        ).mean()

    def _standardise(self, vectors: Tensor) -> Tensor:
        """Return vectors of unit variance among observed and simulated galaxies."""
        if self.n_domains == 1:
            return vectors
        return (vectors - self.low_centre) / self.low_scale

    def _restore(self, standardised: Tensor) -> Tensor:
        """Invert `_standardise`."""
        if self.n_domains == 1:
            return standardised
        return standardised * self.low_scale + self.low_centre

    def _low_denoiser(self, keys: list[tuple[Tensor, Tensor]]) -> Denoiser:
        return lambda x, s: precondition(lambda y, t: self.low(y, t, keys), x, s)

    def _raw_detail(self, galaxies: Galaxy) -> Tensor:
        continuum = galaxies.continuum.float()
        bins = to_bins(continuum, PER_BIN, REST.step)
        return (continuum / to_pixels(bins, PER_BIN, REST.step)).clamp_min(1e-3).log()


def spectrum_with_lines(galaxies: Galaxy) -> Tensor:
    """Return rest-frame spectra with lines, 1e-17 erg/s/cm2/A per nmgy, shape (n, 6400)."""
    rest = torch.zeros_like(galaxies.redshift)
    # Flux densities are the observed ones; in rest-frame wavelength lines, and their integrals, are
    # narrower by 1 + z.
    stretch = (1 + galaxies.redshift)[:, None]
    velocity = narrow_line_velocity(galaxies.dispersion)
    spectra = add_lines(
        galaxies.continuum.float(), REST, LINE_NAMES, galaxies.narrow / stretch, velocity, rest
    )
    shown = (galaxies.broad > 0).nonzero()[:, 0]
    if len(shown):
        broad = galaxies.broad[shown, None] / stretch[shown]
        broad = torch.cat([broad / BROAD_DECREMENT, broad], dim=1)
        velocity = torch.full_like(rest[shown], BROAD_VELOCITY)
        wide = add_lines(spectra[shown], REST, BROAD_LINES, broad, velocity, rest[shown])
        spectra = spectra.index_copy(0, shown, wide)
    return spectra


def _chunks(n: int, size: int = 1000) -> list[slice]:
    return [slice(k, k + size) for k in range(0, n, size)]
