r"""Star-formation and enrichment histories, as masses formed on the stellar grid.

The disk forms stars at the rate :math:`\psi \propto t\,e^{-kt}` (delayed exponential), where *t* runs from the onset
and *k* is chosen so that the mean rate of the last 100 Myr is the wanted one; log-normal excursions and bursts are
multiplied in.  The bulge has an early, short history.  Each component has a Gaussian distribution of metallicity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolation import interpolate
from .population import Distances, Galaxies
from .priors import Priors
from .ssp import StellarGrid

__all__ = ["COMPONENTS", "Histories"]

#: Stellar components: the last two are younger than 300 Myr and 10 Myr.
COMPONENTS = ("bulge", "old_disk", "young_disk", "birth_clouds")

_QUANTILES = (-1.28, -0.52, 0.0, 0.52, 1.28)
_RECENT = 1.05e8  # yr; age bins up to here make the mean rate of the last 100 Myr
_RETURNED = 0.62  # surviving over formed mass, to turn sSFR into a rate per mass formed


@dataclass
class Histories:
    """Turn galaxies into weights of the stellar grid.

    Parameters
    ----------
    grid : StellarGrid
    priors : Priors
        Group ``population``.
    distances : Distances
        On the device of the grid.
    """

    grid: StellarGrid
    priors: Priors
    distances: Distances

    def __post_init__(self):
        onsets = torch.linspace(3, 13.4, 27)
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
        """Fraction of the mass formed in each age bin; onset (Gyr ago) and rate k (1/Gyr) of shape (n,)."""
        begin, width = self.grid.age_edges[:-1] / 1e9, self.grid.age_widths / 1e9
        formed = torch.zeros_like(onset[:, None])
        for part in (0.17, 0.5, 0.83):
            time = onset[:, None] - (begin + part * width)
            decay = (-rate[:, None] * (time - onset[:, None])).clamp(-60, 60)
            formed = formed + time.clamp(min=0) * torch.exp(decay) * width
        return formed / formed.sum(1, keepdim=True)

    def _rate_for(self, onset: Tensor, log_recent: Tensor) -> Tensor:
        """Rate k that gives the wanted log10 of the recent rate per mass formed (1/yr)."""
        k = torch.searchsorted(self._onsets, onset.contiguous()).sub(1)
        k = k.clamp(0, len(self._onsets) - 2)
        part = (onset - self._onsets[k]) / (self._onsets[k + 1] - self._onsets[k])
        row = -(self._log_recent[k] * (1 - part[:, None]) + self._log_recent[k + 1] * part[:, None])
        j = (row < -log_recent[:, None]).sum(1).sub(1).clamp(0, len(self._rates) - 2)
        left, right = (row.gather(1, (j + s)[:, None])[:, 0] for s in (0, 1))
        share = ((-log_recent - left) / (right - left).clamp(min=1e-9)).clamp(0, 1)
        return self._rates[j] * (1 - share) + self._rates[j + 1] * share

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
        """Fractions of the disk's mass formed in each age bin, shape (n, 61)."""
        p, u, e = self.priors, galaxies["uniform"], galaxies["normal"]
        quiescent = galaxies["quiescent"]
        x = galaxies["log_mass"] - 10
        onset = torch.where(
            quiescent,
            p.onset_quiescent + p.onset_quiescent_slope * x,
            p.onset_star_forming + p.onset_star_forming_slope * x,
        )
        onset = torch.minimum((onset + p.onset_scatter * e[12]).clamp(min=3.2), oldest)
        disk_share = torch.log10((1 - galaxies["bulge_fraction"]).clamp(min=0.05))
        wanted = galaxies["log_ssfr"] + torch.log10(torch.tensor(_RETURNED)) - disk_share
        formed = self._delayed(onset, self._rate_for(onset, wanted.clamp(min=-13.5)))
        age = torch.log10(self.grid.ages)
        middle = ((age > 8) & (age < 9)).float()
        late = ((age >= 9) & (age < 9.5)).float()
        excursion = p.burst_scatter * (e[13, :, None] * middle + 0.67 * e[14, :, None] * late)
        formed = formed * torch.exp(excursion)
        formed = formed / formed.sum(1, keepdim=True)
        chance = torch.where(quiescent, p.burst_fraction_quiescent, p.burst_fraction_star_forming)
        strength = torch.where(u[8] < chance, 10 ** (-2.3 + 1.5 * u[10]), 0.0)
        burst = torch.exp(-0.5 * ((age - (8 + 1.3 * u[9])[:, None]) / 0.1) ** 2)
        burst = burst * self.grid.age_widths
        formed = formed + strength[:, None] * burst / burst.sum(1, keepdim=True)
        recent, _ = self._recent()
        now = formed[:, recent].sum(1) / formed.sum(1)
        scale = (10**wanted * 1e8 / now.clamp(min=1e-12)).clamp(0, 1e6)
        return torch.where(recent, formed * scale[:, None], formed)

    def weights(self, galaxies: Galaxies) -> list[Tensor]:
        """Mass formed (Msun) of each component on the grid.

        Parameters
        ----------
        galaxies : Galaxies

        Returns
        -------
        list of Tensor, each of shape (n, 427)
            In the order of `COMPONENTS`; the surviving mass of a galaxy adds up to its stellar mass.
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
        begin = torch.minimum((begin + p.onset_scatter * e[15]).clamp(min=3.2), oldest)
        bulge = self._delayed(begin, 0.9 + 2.6 * u[11])
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
        mass, share = 10 ** galaxies["log_mass"], galaxies["bulge_fraction"]
        of_bulge = mass * share / alive[0]
        of_disk = mass * (1 - share) / (alive[1] + alive[2] + alive[3])
        scales = (of_bulge, of_disk, of_disk, of_disk)
        return [
            (part * scale[:, None, None]).flatten(1)
            for part, scale in zip(parts, scales, strict=True)
        ]
