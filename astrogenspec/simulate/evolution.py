r"""Deep population: galaxies to z = 1.3, as an evolution of the local population.

Every relation equals that of the local population (`~astrogenspec.simulate.population`) at z < 0.1
and evolves beyond.

- The mass function is the double Schechter function of Leja et al. (2020), the logarithms of whose
  normalisations and knee are quadratic functions of redshift.
- The main sequence is that of Popesso et al. (2023), with the age of the universe *t* in Gyr,

  .. math:: \log \mathrm{SFR} = a_0 + a_1 t - \log_{10}\left[1 + 10^{a_2 + a_3 t} / M\right] .

  Both relations are reached at z = 0.3, and joined linearly to the local ones.
- The mass scale of quenching increases, and the quenched fraction at low mass decreases, with
  redshift, as do published fractions of quiescent galaxies (Muzzin et al. 2013, Tomczak et al.
  2014).  Dwarf galaxies beyond z = 0.1, which the local sample does not contain, are quenched less
  often and have less dust than an extrapolation of the local relations gives.
- Star formation began, and declined, in proportion to the age of the universe: onsets and decline
  times are those of the local population times :math:`t(z) / t(0.1)`, and still shorter for
  quenched galaxies.
- Gas abundances follow the same fundamental relation of mass and star-formation rate; stellar
  metallicities decrease (Gallazzi et al. 2014, Beverage et al. 2021), sizes shrink as powers of
  1 + z (van der Wel et al. 2014), Seyferts become more frequent (Aird et al. 2012), and attenuation
  at given mass does not change (Whitaker et al. 2017).
- The empirical correction of the stellar spectra below 3500 A, which the bands of SDSS constrain
  for bright galaxies of z < 0.3 only, has other values.

Values and sources are in ``priors/evolution.ecsv``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from astropy.table import vstack
from torch import Tensor

from .dust import add_dust
from .interpolation import interpolate, inverse_cdf
from .population import (
    Distances,
    Galaxies,
    Uniform,
    add_properties,
    local_main_sequence,
    random_deviates,
    schechter,
)
from .priors import Priors

__all__ = ["MAX_REDSHIFT", "MIN_ONSET", "Evolution"]

#: Largest redshift of the population.
MAX_REDSHIFT = 1.3
#: Latest onset of star formation, Gyr before observation: the local one at the largest redshift.
MIN_ONSET = 1.2

#: Redshifts of the three values of each parameter of the mass function (Leja et al. 2020).
_ANCHORS = (0.2, 1.6, 3.0)
#: Redshift and mass grids of the joint distribution.
_N_REDSHIFTS, _N_MASSES = 260, 320
_MASSES = (6.5, 12.2)
#: Area of the sky.
_SQUARE_DEGREES = 41252.96
#: Magnitude limit to which the priors ``reach_*`` refer.
_REFERENCE_LIMIT = 23.5


@dataclass
class Evolution:
    """Draw the deep population.

    Parameters
    ----------
    priors : mapping of str to Priors
        Groups ``population``, ``lines``, ``dust`` and ``evolution``.
    distances : Distances
        Tabulated up to the largest redshift of the population.
    """

    priors: Mapping[str, Priors]
    distances: Distances

    def __post_init__(self):
        self._local, self._own = self.priors["population"], self.priors["evolution"]

    def _since(self, redshift: Tensor) -> Tensor:
        """Redshift in excess of that of the local population."""
        return (redshift - self._own.local_redshift).clamp(min=0)

    def _growth(self, redshift: Tensor) -> Tensor:
        """(1 + z) over that of the local population, at least 1."""
        return ((1 + redshift) / (1 + self._own.local_redshift)).clamp(min=1)

    def _published(self, redshift: Tensor) -> Tensor:
        """Weight of the published relations: 0 for the local population, 1 beyond z = 0.3."""
        own = self._own
        return (self._since(redshift) / (own.joined_redshift - own.local_redshift)).clamp(max=1)

    def _joined(self, value: Tensor | float, local: Tensor | float, redshift: Tensor) -> Tensor:
        """Interpolate from the local value to that beyond z = 0.3."""
        return local + self._published(redshift) * (value - local)

    def _age(self, redshift: Tensor) -> Tensor:
        return interpolate(redshift, self.distances.redshift, self.distances.age)

    def mass_function(self, log_mass: Tensor, redshift: Tensor) -> Tensor:
        """Compute the number of galaxies per Mpc3 (comoving) and dex of mass.

        Parameters
        ----------
        log_mass : Tensor
            log10 Msun.
        redshift : Tensor
            Shape that broadcasts with that of ``log_mass``.
        """
        local, own = self._local, self._own

        def quadratic(name: str) -> Tensor:
            values = [own[f"mass_function_{name}_{at}"] for at in ("low", "middle", "high")]
            return _polynomial(np.polyfit(_ANCHORS, values, 2), redshift)

        log_phi1, log_phi2 = np.log10([local.mass_function_phi1, local.mass_function_phi2])
        return np.log(10) * schechter(
            log_mass - self._joined(quadratic("knee"), local.mass_function_knee, redshift),
            10 ** self._joined(quadratic("log_phi1"), log_phi1, redshift),
            self._joined(own.mass_function_slope1, local.mass_function_slope1, redshift),
            10 ** self._joined(quadratic("log_phi2"), log_phi2, redshift),
            self._joined(own.mass_function_slope2, local.mass_function_slope2, redshift),
        )

    def main_sequence(self, log_mass: Tensor, redshift: Tensor) -> Tensor:
        """Compute the mean log10 of the star-formation rate (Msun/yr) of the main sequence.

        Parameters
        ----------
        log_mass : Tensor
            log10 Msun.
        redshift : Tensor
            Shape that broadcasts with that of ``log_mass``.
        """
        own, age = self._own, self._age(redshift)
        maximum = own.main_sequence_maximum + own.main_sequence_maximum_time * age
        turn_over = own.main_sequence_mass + own.main_sequence_mass_time * age
        published = maximum - torch.log10(1 + 10 ** (turn_over - log_mass))
        published = published + own.main_sequence_offset
        local = local_main_sequence(log_mass, redshift, self._local)
        return self._joined(published, local, redshift)

    def population(self, log_mass: Tensor, redshift: Tensor) -> SimpleNamespace:
        """Return the group ``population`` with values for each galaxy where it evolves.

        Parameters
        ----------
        log_mass, redshift : Tensor, shape (n,)
        """
        local, own, since = self._local, self._own, self._since(redshift)
        typical = torch.full_like(redshift, 10.5)
        start = torch.full_like(redshift, own.local_redshift)
        faster = self.main_sequence(typical, torch.maximum(redshift, start))
        faster = faster - self.main_sequence(typical, start)
        dwarf = (own.dwarf_mass - log_mass).clamp(0, 1) * self._published(redshift)
        evolved = dict(local) | {
            "quenched_mass": local.quenched_mass + own.quenched_mass_evolution * since,
            "quenched_base": local.quenched_base
            * self._growth(redshift) ** own.quenched_base_evolution
            * (1 - own.quenched_dwarfs * dwarf),
            "green_valley_fraction": self._joined(
                own.green_valley_fraction, local.green_valley_fraction, redshift
            )
            * (1 - own.green_valley_dwarfs * dwarf),
            "green_valley_ssfr": local.green_valley_ssfr + own.green_valley_evolution * faster,
            "quiescent_ssfr": local.quiescent_ssfr + own.quiescent_ssfr_evolution * faster,
            "stellar_metallicity_quiescent": local.stellar_metallicity_quiescent
            + own.metallicity_quiescent_evolution * since,
            "stellar_metallicity_star_forming": local.stellar_metallicity_star_forming
            + own.metallicity_star_forming_evolution * since,
        }
        return SimpleNamespace(**evolved)

    def lines(self, redshift: Tensor) -> SimpleNamespace:
        """Return the group ``lines`` with values for each galaxy where it evolves.

        Parameters
        ----------
        redshift : Tensor, shape (n,)
        """
        local, own, growth = self.priors["lines"], self._own, self._growth(redshift)
        seyferts = growth**own.seyfert_evolution
        evolved = dict(local) | {
            name: (local[name] * seyferts).clamp(max=own.seyfert_maximum)
            for name in ("seyfert_fraction", "seyfert_fraction_quiescent")
        }
        evolved["broad_line_fraction"] = local.broad_line_fraction * (
            growth**own.broad_line_evolution
        )
        return SimpleNamespace(**evolved)

    def dust(self, log_mass: Tensor, redshift: Tensor) -> SimpleNamespace:
        """Return the group ``dust`` with values for each galaxy where it evolves.

        Parameters
        ----------
        log_mass, redshift : Tensor, shape (n,)
        """
        local, own = self.priors["dust"], self._own
        change = own.dust_evolution * self._since(redshift)
        dwarf = (log_mass - own.dust_dwarf_mass).clamp(max=0) * self._published(redshift)
        return SimpleNamespace(
            **dict(local)
            | {
                "halpha_offset": local.halpha_offset + change + own.dust_dwarfs * dwarf,
                "gas_offset": local.gas_offset + change,
                "green_valley_factor": self._joined(
                    own.green_valley_dust, local.green_valley_factor, redshift
                ),
            }
        )

    def stellar_correction(self) -> Priors:
        """Return the group ``stellar_correction`` with the knots of the deep population."""
        local, own = self.priors["stellar_correction"].table, self._own.table
        knots = [str(name).startswith(("old_", "young_")) for name in own["name"]]
        kept = ~np.isin(local["name"], own["name"][knots])
        return Priors(vstack([local[kept], own[knots]]))

    def draw(
        self,
        n: int,
        generator: torch.Generator,
        magnitude_limit: float,
        volume: tuple[float, float, float] | None = None,
    ) -> Galaxies:
        """Draw galaxies before any selection.

        Parameters
        ----------
        n : int
            Number of galaxies.
        generator : torch.Generator
            Its device is the device of the result.
        magnitude_limit : float
            Limit in r (mag) that sets the smallest mass at each redshift; the selection itself is
            made later.
        volume : (z_min, z_max, log_mass_min), optional
            Draw a volume-limited population instead.

        Returns
        -------
        Galaxies
            Properties as from `~astrogenspec.simulate.population.draw_population`, attenuations as
            from `~astrogenspec.simulate.dust.add_dust`, ``age_scale`` (age of the universe over
            that of the local population) and ``size_factor`` (size over that of local galaxies).
        """
        uniform, normal = random_deviates(n, generator)
        mass, redshift = self._masses_and_redshifts(
            uniform[Uniform.MASS], uniform[Uniform.REDSHIFT], magnitude_limit, volume
        )
        galaxies = {"log_mass": mass, "redshift": redshift, "uniform": uniform, "normal": normal}
        sequence = self.main_sequence(mass, redshift)
        add_properties(galaxies, sequence, self.population(mass, redshift), self.lines(redshift))
        add_dust(galaxies, self.dust(mass, redshift))
        own, growth = self._own, self._growth(redshift)
        slope = torch.where(
            galaxies["quiescent"], own.size_early_evolution, own.size_late_evolution
        )
        start = torch.tensor(own.local_redshift).to(redshift)
        galaxies["size_factor"] = growth**slope
        younger = torch.where(galaxies["quiescent"], growth**own.quiescent_age_evolution, 1.0)
        galaxies["age_scale"] = (self._age(redshift) / self._age(start)).clamp(max=1) * younger
        return galaxies

    def surface_density(self, magnitude_limit: float) -> float:
        """Return the number of galaxies per square degree among which `draw` draws.

        Parameters
        ----------
        magnitude_limit : float
            Limit in r (mag).
        """
        _, _, number = self._distribution(magnitude_limit, None)
        return float(number.sum()) / _SQUARE_DEGREES

    def _distribution(
        self, magnitude_limit: float, volume: tuple[float, float, float] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Redshifts (m,), masses (k,), and the number of galaxies of the whole sky (m, k)."""
        own, device = self._own, self.distances.redshift.device
        z_min, z_max = (0.003, MAX_REDSHIFT) if volume is None else volume[:2]
        z = torch.linspace(z_min, z_max, _N_REDSHIFTS, device=device)
        mass = torch.linspace(*_MASSES, _N_MASSES, device=device)
        if volume is None:
            smallest = own.reach_mass + own.reach_distance * torch.log10(z)
            smallest = smallest + own.reach_redshift * (z - 1)
            smallest = smallest - 0.4 * (magnitude_limit - _REFERENCE_LIMIT)
        else:
            smallest = torch.full_like(z, volume[2])
        density = self.mass_function(mass, z[:, None]) * (mass > smallest[:, None])
        tables = self.distances.redshift, self.distances.comoving_volume
        shells = torch.gradient(interpolate(z, *tables))[0]
        return z, mass, density * shells[:, None] * (mass[1] - mass[0])

    def _masses_and_redshifts(
        self,
        u_mass: Tensor,
        u_z: Tensor,
        magnitude_limit: float,
        volume: tuple[float, float, float] | None,
    ) -> tuple[Tensor, Tensor]:
        """Masses and redshifts, shape (n,)."""
        z, mass, number = self._distribution(magnitude_limit, volume)
        redshift = inverse_cdf(u_z, z, number.sum(1))
        row = torch.round((redshift - z[0]) / (z[1] - z[0])).long().clamp(0, len(z) - 1)
        cumulative = torch.cumsum(number, 1)
        cumulative = (cumulative / cumulative[:, -1:])[row]
        above = torch.searchsorted(cumulative, u_mass[:, None]).clamp(1, len(mass) - 1)
        low, high = (cumulative.gather(1, above - k)[:, 0] for k in (1, 0))
        part = ((u_mass - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
        return mass[above[:, 0] - 1] + part * (mass[1] - mass[0]), redshift


def _polynomial(coefficients: np.ndarray, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for coefficient in coefficients:
        result = result * x + float(coefficient)
    return result
