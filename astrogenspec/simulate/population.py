r"""Population of galaxies: masses, redshifts, star formation, chemistry, active nuclei.

With :math:`x = M / M^*`, stellar masses follow a double Schechter function (Baldry et al. 2012)
times the comoving volume in which a galaxy of that mass is brighter than the flux limit,

.. math:: p(\log M) \propto e^{-x} \left(\phi_1 x^{1 + \alpha_1}
          + \phi_2 x^{1 + \alpha_2}\right) V(z_\mathrm{max}(M)) ,

and redshifts are uniform in the comoving volume up to :math:`z_\mathrm{max}`.  The quenched
fraction, :math:`f_0 + (1 - f_0) f_\mathrm{max} \left[1 - e^{-(M / M_q)^p}\right]`, follows Peng et
al. (2010).  Star formation follows the main sequence (Renzini & Peng 2015), gas abundances the
fundamental metallicity relation (Curti et al. 2020), stellar metallicities Gallazzi et al. (2005),
and black holes the relation with bulge mass (Kormendy & Ho 2013).  The values and their sources are
in ``priors/population.ecsv``.

A population is a dictionary of tensors of shape (n,), called `Galaxies`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor

from ..cosmology import default_cosmology
from .interpolation import interpolate, inverse_cdf
from .priors import Priors

__all__ = [
    "Distances",
    "Galaxies",
    "Normal",
    "Uniform",
    "add_properties",
    "draw_population",
    "local_main_sequence",
    "random_deviates",
    "schechter",
]

Galaxies = dict[str, Tensor]

_MAX_REDSHIFT = 0.40
#: Median stellar metallicity against stellar mass, Gallazzi et al. (2005, MNRAS 362, 41), Table 2.
_GALLAZZI_MASS = (8.91, 9.11, 9.31, 9.51, 9.72, 9.91, 10.11, 10.31, 10.51, 10.72, 10.91, 11.11,
                  11.31, 11.51, 11.72, 11.91)  # fmt: skip
_GALLAZZI_METALLICITY = (-0.60, -0.61, -0.65, -0.61, -0.52, -0.41, -0.23, -0.11, -0.01, 0.04,
                         0.07, 0.10, 0.12, 0.13, 0.14, 0.15)  # fmt: skip
_N_UNIFORM, _N_NORMAL = 24, 40


class Uniform(IntEnum):
    """Rows of the uniform deviates of a population; rows without a name are not used."""

    MASS = 0
    REDSHIFT = 1
    QUIESCENT = 2
    GREEN_VALLEY = 3
    PURE_SPHEROID = 4
    INCLINATION = 5
    ACTIVE = 6
    SEYFERT = 7
    BURST = 8
    BURST_AGE = 9
    BURST_STRENGTH = 10
    BULGE_RATE = 11
    SPHEROID_FRACTION = 22
    BROAD_LINE = 23


class Normal(IntEnum):
    """Rows of the standard normal deviates of a population; rows without a name are not used."""

    MAIN_SEQUENCE = 0
    LOW_SFR = 1
    BULGE_FRACTION = 2
    GAS_ABUNDANCE = 3
    STELLAR_METALLICITY = 4
    ATTENUATION = 5
    ATTENUATION_SLOPE = 6
    SIZE = 7
    VELOCITY_DISPERSION = 8
    BLACK_HOLE = 9
    NUCLEAR_OIII = 10
    LIER_WIDTH = 11
    DISK_ONSET = 12
    MIDDLE_AGE_SFR = 13
    LATE_AGE_SFR = 14
    BULGE_ONSET = 15
    R3 = 16
    N2 = 17
    R2 = 18
    NUCLEAR_R3 = 19
    NUCLEAR_N2 = 20
    OLD_GAS_R3 = 21
    OLD_GAS_N2 = 22
    MASS_LABEL = 35
    SFR_LABEL = 36
    LINE_NOISE = 37
    RED_SLOPE = 38
    NUCLEAR_LUMINOSITY = 39


@dataclass(frozen=True)
class Distances:
    """Cosmology tabulated against redshift, shape (800,) each.

    Attributes
    ----------
    redshift : Tensor
    luminosity_distance : Tensor
        Mpc.
    comoving_volume : Tensor
        Mpc3.
    age : Tensor
        Age of the universe (Gyr).
    """

    redshift: Tensor
    luminosity_distance: Tensor
    comoving_volume: Tensor
    age: Tensor

    @classmethod
    def tabulate(
        cls, device: str | torch.device = "cpu", *, max_redshift: float = _MAX_REDSHIFT
    ) -> Distances:
        """Tabulate the default cosmology.

        Parameters
        ----------
        device : str or torch.device
            Device of the tensors.
        max_redshift : float
            Largest redshift.
        """
        cosmology = default_cosmology()
        z = np.linspace(0.0005, max_redshift, 800)
        columns = (
            z,
            cosmology.luminosity_distance(z).to_value("Mpc"),
            cosmology.comoving_volume(z).to_value("Mpc3"),
            cosmology.age(z).to_value("Gyr"),
        )
        return cls(*(torch.tensor(c, dtype=torch.float32, device=device) for c in columns))

    def kpc_per_arcsec(self, redshift: Tensor) -> Tensor:
        """Proper kpc per arcsec at redshifts of shape (n,)."""
        distance = interpolate(redshift, self.redshift, self.luminosity_distance)
        return distance / (1 + redshift) ** 2 * 1e3 / 206265.0


def draw_population(
    n: int,
    generator: torch.Generator,
    priors: Priors,
    line_priors: Priors,
    distances: Distances,
    *,
    magnitude_limit: float = 17.77,
    volume: tuple[float, float, float] | None = None,
) -> Galaxies:
    """Draw galaxies before any selection.

    The number of random deviates does not depend on the priors, so that with the same seed the
    galaxies change smoothly with a prior.

    Parameters
    ----------
    n : int
        Number of galaxies.
    generator : torch.Generator
        Its device is the device of the result.
    priors, line_priors : Priors
        Groups ``population`` and ``lines``.
    distances : Distances
        Cosmology on the same device.
    magnitude_limit : float
        Limit in r (mag) that sets the volume for each mass; the selection itself is made later.
    volume : (z_min, z_max, log_mass_min), optional
        Draw a volume-limited population instead.

    Returns
    -------
    Galaxies
        ``log_mass`` (log10 Msun), ``redshift``, ``log_sfr``, ``log_ssfr``, ``quiescent``,
        ``green_valley``, ``bulge_fraction``, ``cos_inclination``, ``size_deviate``,
        ``gas_abundance``, ``stellar_metallicity`` ([Z/H]), ``velocity_dispersion`` (km/s),
        ``log_black_hole_mass``, ``active``, ``seyfert``, ``log_oiii`` (nuclear [OIII] in log10
        Lsun), ``lier_ew`` (A), ``broad_line``, ``log_nuclear`` (log10 erg/s), and the deviates
        ``uniform``, shape (24, n), and ``normal``, shape (40, n), with rows named by `Uniform` and
        `Normal`.
    """
    uniform, normal = random_deviates(n, generator)
    mass, redshift = _masses_and_redshifts(
        uniform[Uniform.MASS], uniform[Uniform.REDSHIFT], priors, distances, magnitude_limit, volume
    )
    galaxies = {"log_mass": mass, "redshift": redshift, "uniform": uniform, "normal": normal}
    sequence = local_main_sequence(mass, redshift, priors)
    add_properties(galaxies, sequence, priors, line_priors)
    return galaxies


def random_deviates(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the uniform deviates, shape (24, n), and the normal ones, shape (40, n), of n galaxies.

    Parameters
    ----------
    n : int
        Number of galaxies.
    generator : torch.Generator
        Its device is the device of the result.
    """
    device = generator.device
    uniform = torch.rand(_N_UNIFORM, n, generator=generator, device=device)
    return uniform, torch.randn(_N_NORMAL, n, generator=generator, device=device)


def add_properties(
    galaxies: Galaxies,
    sequence: Tensor,
    priors: Priors | SimpleNamespace,
    line_priors: Priors | SimpleNamespace,
) -> None:
    """Add star formation, chemistry, bulges and nuclei to galaxies of given masses and redshifts.

    Parameters
    ----------
    galaxies : Galaxies
        With ``log_mass``, ``redshift``, ``uniform`` and ``normal``; modified in place.
    sequence : Tensor, shape (n,)
        Mean log10 of the star-formation rate of the main sequence at the masses and redshifts.
    priors, line_priors : Priors or SimpleNamespace
        Groups ``population`` and ``lines``; in a namespace, values may be tensors of shape (n,).
    """
    _star_formation(galaxies, sequence, priors)
    _structure_and_chemistry(galaxies, priors)
    _nuclei(galaxies, line_priors)


def schechter(
    x: Tensor,
    phi1: Tensor | float,
    slope1: Tensor | float,
    phi2: Tensor | float,
    slope2: Tensor | float,
) -> Tensor:
    """Compute the double Schechter function per unit of ln M.

    Parameters
    ----------
    x : Tensor
        log10 of the mass over the knee.
    phi1, slope1 : Tensor or float
        Normalisation and slope of the first component.
    phi2, slope2 : Tensor or float
        Normalisation and slope of the second component.
    """
    ratio = 10**x
    return torch.exp(-ratio) * (phi1 * ratio ** (1 + slope1) + phi2 * ratio ** (1 + slope2))


def local_main_sequence(mass: Tensor, redshift: Tensor, priors: Priors) -> Tensor:
    """Compute the mean log10 of the star-formation rate (Msun/yr) of local galaxies.

    Parameters
    ----------
    mass : Tensor
        log10 Msun.
    redshift : Tensor
        Shape that broadcasts with that of ``mass``.
    priors : Priors
        Group ``population``.
    """
    return (
        priors.main_sequence_slope * mass
        + priors.main_sequence_intercept
        + priors.main_sequence_evolution * torch.log10((1 + redshift) / 1.05)
    )


def _masses_and_redshifts(
    u_mass: Tensor,
    u_z: Tensor,
    priors: Priors,
    distances: Distances,
    magnitude_limit: float,
    volume: tuple[float, float, float] | None,
) -> tuple[Tensor, Tensor]:
    mass = torch.linspace(7.5, 12.2, 500, device=u_mass.device)
    density = schechter(
        mass - priors.mass_function_knee,
        priors.mass_function_phi1,
        priors.mass_function_slope1,
        priors.mass_function_phi2,
        priors.mass_function_slope2,
    )
    tables = distances.redshift, distances.comoving_volume
    if volume is None:
        light_to_mass = (10 ** (-0.25 + 0.25 * (mass - 9.5))).clamp(0.25, 1.6)
        absolute = 4.65 - 2.5 * (mass - torch.log10(light_to_mass))
        reach = 10 ** ((magnitude_limit + 0.15 - absolute) / 5 - 5)
        z_max = interpolate(reach, distances.luminosity_distance, distances.redshift)
        volume_min = torch.zeros((), device=u_mass.device)
    else:
        z_min, z_top, mass_min = volume
        z_max = torch.full_like(mass, z_top)
        density = density * (mass > mass_min)
        volume_min = interpolate(torch.tensor([z_min]).to(mass), *tables)[0]
    volume_max = interpolate(z_max, *tables)
    drawn = inverse_cdf(u_mass, mass, density * (volume_max - volume_min).clamp(min=0))
    top = interpolate(interpolate(drawn, mass, z_max), *tables)
    inside = volume_min + u_z * (top - volume_min)
    redshift = interpolate(inside, distances.comoving_volume, distances.redshift)
    return drawn, redshift.clamp(min=0.003)


def _star_formation(galaxies: Galaxies, sequence: Tensor, priors: Priors | SimpleNamespace) -> None:
    mass, u, e = (galaxies[k] for k in ("log_mass", "uniform", "normal"))
    by_mass = 1 - torch.exp(-((10 ** (mass - priors.quenched_mass)) ** priors.quenched_power))
    fraction = priors.quenched_base + (1 - priors.quenched_base) * priors.quenched_max * by_mass
    quiescent = u[Uniform.QUIESCENT] < fraction
    green = ~quiescent & (u[Uniform.GREEN_VALLEY] < priors.green_valley_fraction)
    sequence = sequence + priors.main_sequence_scatter * e[Normal.MAIN_SEQUENCE]
    valley = mass + priors.green_valley_ssfr + priors.green_valley_scatter * e[Normal.LOW_SFR]
    quenched = mass + priors.quiescent_ssfr + priors.quiescent_scatter * e[Normal.LOW_SFR]
    sfr = torch.where(quiescent, quenched, torch.where(green, valley, sequence))
    galaxies |= {
        "quiescent": quiescent,
        "green_valley": green,
        "log_sfr": sfr,
        "log_ssfr": sfr - mass,
    }


def _structure_and_chemistry(galaxies: Galaxies, priors: Priors | SimpleNamespace) -> None:
    mass, u, e = (galaxies[k] for k in ("log_mass", "uniform", "normal"))
    quiescent, green = galaxies["quiescent"], galaxies["green_valley"]
    x = mass - 10
    grid = torch.linspace(0.001, 0.999, 400, device=mass.device)
    spheroidal = interpolate(
        u[Uniform.SPHEROID_FRACTION],
        grid,
        torch.tensor(beta(4, 2.2).ppf(grid.cpu().numpy())).to(grid),
    )
    disky = 10 ** (
        (priors.bulge_star_forming + priors.bulge_star_forming_slope * x).clamp(-2, -0.35)
        + priors.bulge_star_forming_scatter * e[Normal.BULGE_FRACTION]
    )
    bulge = torch.where(
        quiescent, (spheroidal * (0.95 + 0.12 * x)).clamp(0.05, 0.98), disky.clamp(0, 0.8)
    )
    bulge = torch.where(green, (0.4 + 0.15 * e[Normal.BULGE_FRACTION]).clamp(0.05, 0.85), bulge)
    pure = quiescent & (u[Uniform.PURE_SPHEROID] < (0.15 + 0.35 * (x - 0.3)).clamp(0.05, 0.75))
    bulge = torch.where(pure, torch.full_like(bulge, 0.97), bulge)
    sfr_of_gas = torch.where(quiescent, mass - 11.3, galaxies["log_sfr"])
    turn_over = priors.abundance_mass + priors.abundance_sfr * sfr_of_gas
    abundance = (
        priors.abundance_normalisation
        - priors.abundance_gamma
        / priors.abundance_beta
        * torch.log10(1 + 10 ** (-priors.abundance_beta * (mass - turn_over)))
        + priors.abundance_scatter * e[Normal.GAS_ABUNDANCE]
        + priors.abundance_tilt * (mass - 9.8).clamp(-1.8, 0.9)
    )
    tables = (torch.tensor(t).to(mass) for t in (_GALLAZZI_MASS, _GALLAZZI_METALLICITY))
    stellar = (
        interpolate(mass, *tables)
        + priors.stellar_metallicity_scatter * e[Normal.STELLAR_METALLICITY]
        + torch.where(
            quiescent,
            priors.stellar_metallicity_quiescent
            + priors.stellar_metallicity_quiescent_slope * (x - 0.7),
            priors.stellar_metallicity_star_forming + torch.zeros_like(mass),
        )
    )
    slope = torch.where(mass < 10.26, 0.403, 0.293)
    dispersion = (
        2.073
        + slope * (mass - 10.26)
        + priors.velocity_dispersion_scatter * e[Normal.VELOCITY_DISPERSION]
    )
    bulge_mass = mass + torch.log10(bulge.clamp(min=0.01))
    galaxies |= {
        "bulge_fraction": bulge,
        "cos_inclination": u[Uniform.INCLINATION],
        "size_deviate": e[Normal.SIZE],
        "gas_abundance": abundance.clamp(7.6, 9.0),
        "stellar_metallicity": stellar,
        "velocity_dispersion": 10 ** torch.where(quiescent, dispersion, dispersion - 0.05),
        "log_black_hole_mass": priors.black_hole_normalisation
        + priors.black_hole_slope * (bulge_mass - 11)
        + priors.black_hole_scatter * e[Normal.BLACK_HOLE],
    }


def _nuclei(galaxies: Galaxies, priors: Priors | SimpleNamespace) -> None:
    mass, u, e = (galaxies[k] for k in ("log_mass", "uniform", "normal"))
    active = u[Uniform.ACTIVE] < priors.agn_fraction * torch.sigmoid(
        (mass - priors.agn_mass) / priors.agn_mass_width
    )
    seyfert = u[Uniform.SEYFERT] < torch.where(
        galaxies["quiescent"], priors.seyfert_fraction_quiescent, priors.seyfert_fraction
    )
    galaxies |= {
        "active": active,
        "seyfert": seyfert,
        "log_oiii": torch.where(
            seyfert,
            priors.seyfert_oiii + priors.seyfert_oiii_scatter * e[Normal.NUCLEAR_OIII],
            priors.liner_oiii + priors.liner_oiii_scatter * e[Normal.NUCLEAR_OIII],
        ),
        "lier_ew": 10 ** (priors.lier_ew + priors.lier_scatter * e[Normal.LIER_WIDTH]),
        "broad_line": (u[Uniform.BROAD_LINE] < priors.broad_line_fraction) & (mass > 10),
        "log_nuclear": priors.broad_line_luminosity
        + priors.broad_line_luminosity_scatter * e[Normal.NUCLEAR_LUMINOSITY],
    }
