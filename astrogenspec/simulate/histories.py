r"""Star-formation and enrichment histories, as masses formed on the stellar grid.

The disk forms stars at the rate :math:`\psi \propto t\,e^{-kt}` (delayed exponential), where *t* is
the time since the onset and *k* is chosen to give the required mean rate over the last 100 Myr.
The rate is multiplied by log-normal excursions, and bursts are added.  The bulge forms early and
quickly.  Each component has a Gaussian distribution of the logarithm of metallicity.  Onsets, and
decline times of bulges, are shorter by the factor ``age_scale`` of a galaxy, if it has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolation import interpolate
from .population import Distances, Galaxies, Normal, Uniform
from .priors import Priors
from .ssp import StellarGrid

__all__ = ["COMPONENTS", "Histories"]

#: Stellar components; young disk and birth clouds hold stars of 10 to 300 Myr and of less than 10
#: Myr.
COMPONENTS = ("bulge", "old_disk", "young_disk", "birth_clouds")

_QUANTILES = (-1.28, -0.52, 0.0, 0.52, 1.28)
#: Upper age of the bins that define the mean rate of the last 100 Myr (yr).
_RECENT = 1.05e8
#: Surviving over formed mass, to convert the specific rate to a rate per mass formed.
_SURVIVING = 0.62


@dataclass
class Histories:
    """Compute the mass formed in each bin of the stellar grid.

    Parameters
    ----------
    grid : StellarGrid
    priors : Priors
        Group ``population``.
    distances : Distances
        On the device of the grid.
    youngest : float
        Latest onset (Gyr before observation) of the table of decline rates.
    """

    grid: StellarGrid
    priors: Priors
    distances: Distances
    youngest: float = 3.0

    def __post_init__(self):
        onsets = torch.linspace(self.youngest, 13.4, 27)
        rates = torch.cat([torch.linspace(-1.5, 0, 16)[:-1], torch.linspace(0, 5, 51)])
        recent, span = self._recent()
        table = torch.stack(
            [
                self._delayed(
                    torch.full_like(rates, float(t)).to(span.device), rates.to(span.device)
                )[:, recent].sum(1)
                / span
                for t in onsets
            ]
        )
        self._onsets, self._rates = onsets.to(table), rates.to(table)
        self._log_recent = torch.log10(table + 1e-16)

    def _recent(self) -> tuple[Tensor, Tensor]:
        upper = self.grid.age_edges[1:]
        recent = upper <= _RECENT
        return recent, upper[recent][-1]

    def _delayed(self, onset: Tensor, rate: Tensor) -> Tensor:
        """Fraction of the mass formed in each age bin, for onset (Gyr ago) and rate k (1/Gyr)."""
        begin, width = self.grid.age_edges[:-1] / 1e9, self.grid.age_widths / 1e9
        formed = torch.zeros_like(onset[:, None])
        for part in (0.17, 0.5, 0.83):
            time = onset[:, None] - (begin + part * width)
            decay = (-rate[:, None] * (time - onset[:, None])).clamp(-60, 60)
            formed = formed + time.clamp(min=0) * torch.exp(decay) * width
        return formed / formed.sum(1, keepdim=True)

    def _rate_for(self, onset: Tensor, log_recent: Tensor) -> Tensor:
        """Rate k (1/Gyr) for a given log10 of the recent rate per mass formed (1/yr)."""
        k = torch.searchsorted(self._onsets, onset.contiguous()).sub(1)
        k = k.clamp(0, len(self._onsets) - 2)
        part = (onset - self._onsets[k]) / (self._onsets[k + 1] - self._onsets[k])
        row = -(self._log_recent[k] * (1 - part[:, None]) + self._log_recent[k + 1] * part[:, None])
        j = (row < -log_recent[:, None]).sum(1).sub(1).clamp(0, len(self._rates) - 2)
        left, right = (row.gather(1, (j + s)[:, None])[:, 0] for s in (0, 1))
        weight = ((-log_recent - left) / (right - left).clamp(min=1e-9)).clamp(0, 1)
        return self._rates[j] * (1 - weight) + self._rates[j + 1] * weight

    def _metallicities(self, mean: Tensor, width: Tensor) -> Tensor:
        """Weights of the 7 metallicities, shape (n, 7), of Gaussian distributions in log Z."""
        nodes = self.grid.log_metallicity
        weights = torch.zeros(len(mean), len(nodes), device=mean.device)
        for quantile in _QUANTILES:
            value = (mean + quantile * width).clamp(float(nodes[0]), float(nodes[-1]) - 1e-5)
            k = torch.searchsorted(nodes, value.contiguous(), right=True).sub(1)
            k = k.clamp(0, len(nodes) - 2)
            part = ((value - nodes[k]) / (nodes[k + 1] - nodes[k]))[:, None]
            weights.scatter_add_(1, k[:, None], (1 - part) / len(_QUANTILES))
            weights.scatter_add_(1, k[:, None] + 1, part / len(_QUANTILES))
        return weights

    def _disk(self, galaxies: Galaxies, oldest: Tensor) -> Tensor:
        """Mass of the disk formed in each age bin, relative units, shape (n, 61)."""
        p, u, e = self.priors, galaxies["uniform"], galaxies["normal"]
        quiescent = galaxies["quiescent"]
        x = galaxies["log_mass"] - 10
        onset = torch.where(
            quiescent,
            p.onset_quiescent + p.onset_quiescent_slope * x,
            p.onset_star_forming + p.onset_star_forming_slope * x,
        )
        onset = (onset + p.onset_scatter * e[Normal.DISK_ONSET]).clamp(min=3.2)
        onset = torch.minimum(onset * galaxies.get("age_scale", 1.0), oldest)
        log_disk_fraction = torch.log10((1 - galaxies["bulge_fraction"]).clamp(min=0.05))
        log_rate = galaxies["log_ssfr"] + torch.log10(torch.tensor(_SURVIVING)) - log_disk_fraction
        formed = self._delayed(onset, self._rate_for(onset, log_rate.clamp(min=-13.5)))
        age = torch.log10(self.grid.ages)
        middle = ((age > 8) & (age < 9)).float()
        late = ((age >= 9) & (age < 9.5)).float()
        middle_sfr, late_sfr = e[Normal.MIDDLE_AGE_SFR], e[Normal.LATE_AGE_SFR]
        excursion = p.burst_scatter * (
            middle_sfr[:, None] * middle + 0.67 * late_sfr[:, None] * late
        )
        formed = formed * torch.exp(excursion)
        formed = formed / formed.sum(1, keepdim=True)
        chance = torch.where(quiescent, p.burst_fraction_quiescent, p.burst_fraction_star_forming)
        strength = 10 ** (-2.3 + 1.5 * u[Uniform.BURST_STRENGTH])
        strength = torch.where(u[Uniform.BURST] < chance, strength, 0.0)
        burst_age = 8 + 1.3 * u[Uniform.BURST_AGE]
        burst = torch.exp(-0.5 * ((age - burst_age[:, None]) / 0.1) ** 2)
        burst = burst * self.grid.age_widths
        formed = formed + strength[:, None] * burst / burst.sum(1, keepdim=True)
        recent, _ = self._recent()
        now = formed[:, recent].sum(1) / formed.sum(1)
        scale = (10**log_rate * 1e8 / now.clamp(min=1e-12)).clamp(0, 1e6)
        return torch.where(recent, formed * scale[:, None], formed)

    def weights(self, galaxies: Galaxies) -> list[Tensor]:
        """Compute the mass formed (Msun) of each component on the grid.

        Parameters
        ----------
        galaxies : Galaxies

        Returns
        -------
        list of Tensor, each of shape (n, 427)
            In the order of `COMPONENTS`; the surviving masses of all components sum to the stellar
            mass.
        """
        p, u, e = self.priors, galaxies["uniform"], galaxies["normal"]
        quiescent, x = galaxies["quiescent"], galaxies["log_mass"] - 10
        oldest = (
            interpolate(galaxies["redshift"], self.distances.redshift, self.distances.age) - 0.3
        )
        disk = self._disk(galaxies, oldest)
        begin = torch.where(
            quiescent,
            p.onset_bulge + p.onset_bulge_slope * (x - 0.2),
            torch.full_like(x, p.onset_bulge_star_forming),
        )
        scale = galaxies.get("age_scale", 1.0)
        begin = (begin + p.onset_scatter * e[Normal.BULGE_ONSET]).clamp(min=3.2)
        begin = torch.minimum(begin * scale, oldest)
        bulge = self._delayed(begin, (0.9 + 2.6 * u[Uniform.BULGE_RATE]) / scale)
        width = torch.where(
            quiescent, p.metallicity_width_quiescent, p.metallicity_width_star_forming
        )
        stellar = galaxies["stellar_metallicity"]
        of_bulge = self._metallicities(stellar + p.stellar_metallicity_bulge, width)
        of_disk = self._metallicities(stellar + p.stellar_metallicity_disk, width)
        gas = galaxies["gas_abundance"] - 8.69
        of_young = self._metallicities(gas, torch.full_like(gas, 0.05))
        young = self.grid.ages < 3e8
        newborn = self.grid.ages < 1e7
        parts = [
            of_bulge[:, :, None] * bulge[:, None],
            of_disk[:, :, None] * (disk * ~young)[:, None],
            of_young[:, :, None] * (disk * (young & ~newborn))[:, None],
            of_young[:, :, None] * (disk * newborn)[:, None],
        ]
        alive = [(part * self.grid.surviving).sum((1, 2)) for part in parts]
        mass, fraction = 10 ** galaxies["log_mass"], galaxies["bulge_fraction"]
        of_bulge = mass * fraction / alive[0]
        of_disk = mass * (1 - fraction) / (alive[1] + alive[2] + alive[3])
        scales = (of_bulge, of_disk, of_disk, of_disk)
        return [
            (part * scale[:, None, None]).flatten(1)
            for part, scale in zip(parts, scales, strict=True)
        ]
