"""The simulator: labelled galaxies from priors and a seed.

`Simulator.draw` returns a flux-limited sample with labels and broad-band photometry;
`Simulator.images` and `Simulator.spectra` make images and fibre spectra of the same galaxies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..nn.precision import single_precision
from ..quantities import QUANTITIES
from ..surveys import CUTOUT_SIZE, SDSS, Survey, get_survey
from ..wavelengths import line_index
from .apertures import fibre_fractions
from .dust import add_dust
from .evolution import MAX_REDSHIFT, MIN_ONSET, Evolution
from .histories import Histories
from .images import ImageRenderer, RenderedImages
from .nebular import NebularLines, nebular_lines, o3n2_abundance
from .photometry import (
    Observation,
    band_curves,
    observe,
    selection_probability,
    zero_point_curve,
)
from .population import Distances, Galaxies, Normal, draw_population
from .priors import Priors, load_priors, prior_groups
from .spectrum import PARTS, BroadBand, RestFrame, SpectralSynthesis
from .ssp import StellarGrid
from .structure import Structure, draw_structure

__all__ = ["Sample", "SimulatedGalaxies", "Simulator", "default_sample"]

#: Lines whose fluxes are labels, by the name of the quantity.
_LABEL_LINES = {
    "halpha_flux": "Halpha",
    "hbeta_flux": "Hbeta",
    "nii6584_flux": "NII6585",
    "oiii5007_flux": "OIII5008",
}
_CANDIDATES = 4096
#: Number of spectra per chunk; larger chunks do not fit the cache of a core.
_CHUNK = 128
#: Index of the point source in the centre, the last of `PARTS`.
_NUCLEUS = PARTS.index("nucleus")


@dataclass(frozen=True)
class Sample:
    """Selection of a sample of galaxies.

    Attributes
    ----------
    magnitude_limit : float
        Petrosian limit in r (mag); that of the SDSS main galaxy sample is 17.77.
    near_infrared : bool
        Also require a 2MASS extended source.
    volume : (z_min, z_max, log_mass_min), optional
        Draw a volume-limited sample, without magnitude limit.
    """

    magnitude_limit: float = 17.77
    near_infrared: bool = False
    volume: tuple[float, float, float] | None = None


#: Populations, and the selection of their samples by default.
_POPULATIONS = {"local": Sample(), "deep": Sample(magnitude_limit=23.5)}


def default_sample(population: str) -> Sample:
    """Return the selection of samples of a population that is used if none is given.

    Parameters
    ----------
    population : {"local", "deep"}
        Population, as for `Simulator`.

    Raises
    ------
    ValueError
        If there is no such population.
    """
    if population not in _POPULATIONS:
        raise ValueError(
            f"population is {population!r}; one of {', '.join(_POPULATIONS)} is expected."
        )
    return _POPULATIONS[population]


@dataclass(frozen=True)
class SimulatedGalaxies:
    """Galaxies with labels and photometry; a mask or slice as index selects galaxies.

    Attributes
    ----------
    theta : Tensor, shape (n, 9)
        Labels in the order and internal units of `astrogenspec.quantities.QUANTITIES`.
    measurable : Tensor of bool, shape (n,)
        Whether a gas abundance can be measured: four lines at S/N > 3 and a star-forming spectrum.
    observation : Observation
        Photometry with errors, and the magnitudes used in the selection.
    component_flux : Tensor, shape (n, 5, 4)
        Fluxes of `~astrogenspec.simulate.spectrum.PARTS` (nmgy), on the survey's zero points.
    fibre : Tensor, shape (n, 4)
        Fraction of the light of each part that enters the fibre.
    line_flux : Tensor, shape (n, 17)
        Fluxes of the emission lines in the fibre (1e-17 erg/s/cm2).
    halpha_width : Tensor, shape (n,)
        Rest-frame equivalent width of Halpha in the fibre (A).
    structure : Structure
        Sizes, shapes and orientation.
    properties : dict of str to Tensor
        Masses, rates, abundances, dust, and the random deviates; see `draw_population`.
    weights : list of Tensor
        Mass formed on the stellar grid, by component.
    lines : NebularLines
        Luminosities of the emission lines.
    """

    theta: Tensor
    measurable: Tensor
    observation: Observation
    component_flux: Tensor
    fibre: Tensor
    line_flux: Tensor
    halpha_width: Tensor
    structure: Structure
    properties: Galaxies
    weights: list[Tensor]
    lines: NebularLines

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, index: Tensor | slice) -> SimulatedGalaxies:
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                chosen[field.name] = _rows(value, index)
            elif isinstance(value, list):
                chosen[field.name] = [v[index] for v in value]
            else:
                chosen[field.name] = value[index]
        return replace(self, **chosen)

    @classmethod
    def concatenate(cls, parts: list[SimulatedGalaxies]) -> SimulatedGalaxies:
        """Concatenate several sets of galaxies."""
        return cls(
            **{
                field.name: _joined([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )


def _rows(galaxies: Galaxies, index: Tensor | slice) -> Galaxies:
    """Select galaxies of a population."""
    return {k: v[:, index] if k in ("uniform", "normal") else v[index] for k, v in galaxies.items()}


def _joined(values: list) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, dict):
        return {
            k: torch.cat([v[k] for v in values], dim=1 if k in ("uniform", "normal") else 0)
            for k in first
        }
    if isinstance(first, list):
        return [torch.cat(column) for column in zip(*values, strict=True)]
    return type(first).concatenate(values)


class Simulator:
    """Simulate the galaxies of one survey.

    Parameters
    ----------
    survey : Survey
        Bands, pixels, seeing and noise.
    population : {"local", "deep"}
        ``local``: fitted to the main galaxy sample of SDSS, z < 0.4.  ``deep``: evolves to z = 1.3,
        for samples to r = 23.5; see `~astrogenspec.simulate.evolution`.
    priors : dict of str to Priors, optional
        Groups that replace the default ones.
    device : str or torch.device
        Device of all tensors.

    Examples
    --------
    >>> from astrogenspec.simulate import Simulator          # doctest: +SKIP
    >>> galaxies = Simulator().draw(1000, seed=1)             # doctest: +SKIP
    """

    @single_precision()
    def __init__(
        self,
        survey: Survey = SDSS,
        *,
        population: str = "local",
        priors: dict[str, Priors] | None = None,
        device: str | torch.device = "cpu",
    ):
        self.default_sample = default_sample(population)
        self.survey = survey
        self.population = population
        self.device = torch.device(device)
        self.priors = {name: load_priors(name) for name in prior_groups()} | (priors or {})
        grid = StellarGrid.load().to(self.device)
        if population == "deep":
            self.distances = Distances.tabulate(self.device, max_redshift=MAX_REDSHIFT)
            self.evolution: Evolution | None = Evolution(self.priors, self.distances)
            correction = self.evolution.stellar_correction()
            youngest = MIN_ONSET
        else:
            self.distances = Distances.tabulate(self.device)
            self.evolution, correction = None, self.priors["stellar_correction"]
            youngest = 3.0
        self.histories = Histories(grid, self.priors["population"], self.distances, youngest)
        self.synthesis = SpectralSynthesis(
            grid, self.distances, self.priors["dust"], correction, survey
        )
        renderer = ImageRenderer(survey, device=self.device)
        self._renderers = {(survey, renderer.size): renderer}

    def generator(self, seed: int) -> torch.Generator:
        """Return a seeded random generator on the simulator's device."""
        return torch.Generator(self.device).manual_seed(seed)

    @single_precision()
    def candidates(self, n: int, generator: torch.Generator, sample: Sample) -> SimulatedGalaxies:
        """Draw galaxies before selection."""
        population, line_priors = self.priors["population"], self.priors["lines"]
        properties = self._properties(n, generator, sample)
        structure = draw_structure(
            properties,
            self.priors["structure"],
            generator,
            self.distances.kpc_per_arcsec(properties["redshift"]),
        )
        fibre = fibre_fractions(structure)
        fibre = torch.cat([fibre, torch.ones_like(fibre[:, :1])], dim=1)
        abundance = properties["gas_abundance"] + population.abundance_gradient * (
            _fibre_radius(structure.radius_disk) - population.abundance_pivot
        )
        lines = nebular_lines(properties, line_priors, abundance.clamp(7.6, 9.05))
        weights = self.histories.weights(properties)
        light = self._broad_band(properties, weights, lines)
        total = light.flux
        fluxes = (light.line_flux * fibre[:, None]).sum(2)
        continuum = (light.halpha_continuum * fibre).sum(1)
        observation = observe(total.sum(2), self.priors["observation"], generator)
        bands = len(self.survey.bands)
        system = observation.true_flux / total[:, :bands].sum(2)
        theta = self._labels(properties, fluxes)
        noise = 10 ** (0.35 + 0.2 * properties["normal"][Normal.LINE_NOISE])
        return SimulatedGalaxies(
            theta=theta,
            measurable=_measurable(fluxes, noise),
            observation=observation,
            component_flux=total[:, :bands] * system[..., None],
            fibre=fibre,
            line_flux=fluxes,
            halpha_width=fluxes[:, line_index("Halpha")] / continuum,
            structure=structure,
            properties=properties,
            weights=weights,
            lines=lines,
        )

    def _properties(self, n: int, generator: torch.Generator, sample: Sample) -> Galaxies:
        """Physical properties, with the attenuations, of galaxies before selection."""
        if self.evolution is not None:
            return self.evolution.draw(n, generator, sample.magnitude_limit, sample.volume)
        properties = draw_population(
            n,
            generator,
            self.priors["population"],
            self.priors["lines"],
            self.distances,
            magnitude_limit=sample.magnitude_limit,
            volume=sample.volume,
        )
        add_dust(properties, self.priors["dust"])
        return properties

    def _broad_band(
        self, properties: Galaxies, weights: list[Tensor], lines: NebularLines
    ) -> BroadBand:
        """Broad-band and line fluxes; the spectra of the deep population are made in chunks."""
        if self.evolution is None:
            return self.synthesis.broad_band(properties, weights, lines)
        chunks = [slice(k, k + _CHUNK) for k in range(0, len(properties["redshift"]), _CHUNK)]
        return BroadBand.concatenate(
            [
                self.synthesis.broad_band(
                    _rows(properties, chunk), [w[chunk] for w in weights], lines[chunk]
                )
                for chunk in chunks
            ]
        )

    def _labels(self, properties: Galaxies, fluxes: Tensor) -> Tensor:
        """Labels in the order of `QUANTITIES`, with systematic scatter of masses and rates."""
        population, e = self.priors["population"], properties["normal"]
        labels = {
            "redshift": properties["redshift"],
            "stellar_mass": properties["log_mass"]
            + population.mass_systematic * e[Normal.MASS_LABEL],
            "sfr": properties["log_sfr"] + population.sfr_systematic * e[Normal.SFR_LABEL],
            "gas_metallicity": o3n2_abundance(fluxes).clamp(7.4, 9.3),
            "black_hole_mass": properties["log_black_hole_mass"],
        } | {
            name: torch.log10(fluxes[:, line_index(line)].clamp(min=1e-3))
            for name, line in _LABEL_LINES.items()
        }
        return torch.stack([labels[name] for name in QUANTITIES], dim=1)

    def draw(self, n: int, seed: int, sample: Sample | None = None) -> SimulatedGalaxies:
        """Draw a sample of galaxies.

        Parameters
        ----------
        n : int
            Number of galaxies.
        seed : int
            Random seed.
        sample : Sample, optional
            Selection; by default, the main galaxy sample of SDSS, or r < 23.5 in the deep
            population.

        Raises
        ------
        ValueError
            If ``n`` is not positive.
        """
        if n < 1:
            raise ValueError(f"n is {n}; a positive number of galaxies is expected.")
        parts, total = [], 0
        for galaxies in self.accepted(seed, sample):
            parts.append(galaxies)
            total += len(galaxies)
            if total >= n:
                break
        return SimulatedGalaxies.concatenate(parts)[:n]

    def accepted(
        self, seed: int, sample: Sample | None = None, *, candidates: int = _CANDIDATES
    ) -> Iterator[SimulatedGalaxies]:
        """Iterate endlessly over batches of selected galaxies of varying length.

        Parameters
        ----------
        seed : int
            Batch k is drawn with a generator seeded by seed and k, and can be drawn on its own with
            `batch`.
        sample : Sample, optional
            Selection, as for `draw`.
        candidates : int
            Number of galaxies drawn for each batch before selection.
        """
        sample = sample or self.default_sample
        batch = 0
        while True:
            yield self.batch(seed, batch, sample, candidates=candidates)
            batch += 1

    @single_precision()
    def batch(
        self, seed: int, batch: int, sample: Sample, *, candidates: int = _CANDIDATES
    ) -> SimulatedGalaxies:
        """Draw one batch; see `accepted`."""
        generator = self.generator(seed * 1_000_003 + batch)
        drawn = self.candidates(candidates, generator, sample)
        if sample.volume is not None:
            return drawn
        probability = selection_probability(
            drawn.observation,
            self.priors["observation"],
            near_infrared=sample.near_infrared,
            magnitude_limit=sample.magnitude_limit,
        )
        chosen = torch.rand(len(drawn), generator=generator, device=self.device) < probability
        return drawn[chosen]

    @single_precision()
    def component_fluxes(self, galaxies: SimulatedGalaxies, survey: Survey | str) -> Tensor:
        """Compute the fluxes of the parts of galaxies in the bands of any survey.

        Parameters
        ----------
        galaxies : SimulatedGalaxies
            n galaxies.
        survey : Survey or str
            Survey with filter curves, or its name.

        Returns
        -------
        Tensor, shape (n, n_bands, 4)
            Fluxes of `~astrogenspec.simulate.spectrum.PARTS` (nmgy), on the zero points of
            `~astrogenspec.simulate.photometry.zero_point_curve`.

        Raises
        ------
        ValueError
            If the curves are not available, or the simulated range does not cover a band.
        """
        offset = torch.tensor(10 ** (-0.4 * zero_point_curve(self.priors["observation"])))
        weights = (band_curves(get_survey(survey)) * offset[:, None]).float().to(self.device)
        fluxes = []
        for k in range(0, len(galaxies), _CHUNK):
            part = galaxies[k : k + _CHUNK]
            seds = self.synthesis.part_seds(part.properties, part.weights, part.lines)
            fluxes.append((seds @ weights).transpose(1, 2))
        return torch.cat(fluxes)

    @single_precision()
    def images(
        self,
        galaxies: SimulatedGalaxies,
        generator: torch.Generator,
        *,
        neighbours: bool = True,
        survey: Survey | str | None = None,
        size: int = CUTOUT_SIZE,
    ) -> RenderedImages:
        """Render noise-free images.

        Parameters
        ----------
        galaxies : SimulatedGalaxies
            n galaxies.
        generator : torch.Generator
            Source of all randomness.
        neighbours : bool
            Add unrelated sources and companions.
        survey : Survey or str, optional
            Any survey with filter curves, pixel scale and seeing, or its name; by default that of
            the simulator.
        size : int, optional
            Pixels on a side, an even number of at least 16.

        Returns
        -------
        RenderedImages
            See `~astrogenspec.simulate.images.ImageRenderer.render`.
        """
        target = self.survey if survey is None else get_survey(survey)
        if target is self.survey:
            flux = galaxies.component_flux
        else:
            flux = self.component_fluxes(galaxies, target)
        if (target, size) not in self._renderers:
            self._renderers[target, size] = ImageRenderer(target, size, device=self.device)
        return self._renderers[target, size].render(
            galaxies.structure,
            flux[..., :_NUCLEUS],
            generator,
            neighbours=neighbours,
            agn_flux=flux[..., _NUCLEUS],
        )

    @single_precision()
    def seds(self, galaxies: SimulatedGalaxies) -> Tensor:
        """Compute the observed spectral energy distributions of whole galaxies.

        Parameters
        ----------
        galaxies : SimulatedGalaxies
            n galaxies.

        Returns
        -------
        Tensor, shape (n, 490)
            AB nanomaggies in the bins of `~astrogenspec.wavelengths.SED_GRID`; see
            `~astrogenspec.simulate.spectrum.SpectralSynthesis.seds`.
        """
        parts = (galaxies[k : k + _CHUNK] for k in range(0, len(galaxies), _CHUNK))
        return torch.cat(
            [self.synthesis.seds(part.properties, part.weights, part.lines) for part in parts]
        )

    @single_precision()
    def spectra(self, galaxies: SimulatedGalaxies) -> Tensor:
        """Compute fibre spectra.

        Parameters
        ----------
        galaxies : SimulatedGalaxies
            n galaxies.

        Returns
        -------
        Tensor, shape (n, 5830)
            1e-17 erg/s/cm2/A on `~astrogenspec.simulate.spectrum.OBSERVED`; NaN blueward of 2188 A
            in the rest frame for the deep population.
        """
        parts = (galaxies[k : k + _CHUNK] for k in range(0, len(galaxies), _CHUNK))
        spectra = [
            self.synthesis.spectra(part.properties, part.weights, part.lines, part.fibre)
            for part in parts
        ]
        return torch.cat(spectra)

    @single_precision()
    def rest_frame(self, galaxies: SimulatedGalaxies) -> RestFrame:
        """Compute rest-frame spectra through the fibre and of the whole galaxy (second axis)."""
        parts = []
        for k in range(0, len(galaxies), _CHUNK):
            part = galaxies[k : k + _CHUNK]
            apertures = torch.stack([part.fibre, torch.ones_like(part.fibre)], dim=1)
            parts.append(
                self.synthesis.rest_frame(part.properties, part.weights, part.lines, apertures)
            )
        return _joined(parts)


def _fibre_radius(radius: Tensor, aperture: float = 1.5) -> Tensor:
    """Compute the mean radius of an exponential disk's light inside the aperture.

    Parameters
    ----------
    radius : Tensor, shape (n,)
        Half-light radius, arcsec.
    aperture : float
        Radius of the fibre, arcsec.
    """
    x = (1.678 * aperture / radius).double()
    decay = torch.exp(-x)
    numerator = 2 - decay * (x**2 + 2 * x + 2)
    denominator = 1 - decay * (x + 1)
    return (numerator / denominator / 1.678).float()


def _measurable(fluxes: Tensor, noise: Tensor) -> Tensor:
    """Whether four lines have S/N > 3 and lie below the curve of Kauffmann et al. (2003)."""
    halpha, hbeta, nii, oiii = (fluxes[:, line_index(name)] for name in _LABEL_LINES.values())
    detected = torch.stack([halpha, hbeta, nii, oiii]).min(0).values > 3 * noise
    x, y = torch.log10(nii / halpha), torch.log10(oiii / hbeta)
    below = (x < 0.05) & (y < 0.61 / (x.clamp(max=0.049) - 0.05) + 1.3)
    return detected & below
