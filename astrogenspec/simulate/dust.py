r"""Attenuation of stars and of emission lines by dust inside the galaxy.

With :math:`x = \log_{10} M - 10`, the attenuation of the lines at Halpha follows Garn & Best (2010,
MNRAS 409, 421),

.. math:: A(\mathrm{H\alpha}) = 0.91 + 0.77 x + 0.11 x^2 - 0.09 x^3 ,

with an offset, scatter and an inclination term.  A fraction of it applies to all stars, with the
power law :math:`(\lambda / 5500\,\mathrm{A})^n` (Charlot & Fall 2000) with an optional 2175 A bump;
the rest attenuates stars younger than 10 Myr in their birth clouds.  Lines follow the optical curve
of O'Donnell (1994, ApJ 422, 158).
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from .population import Galaxies, Normal
from .priors import Priors

__all__ = ["add_dust", "lines_curve", "stellar_transmission"]

_MAG = -0.4 * float(np.log(10))
_R_V = 3.1
_HALPHA_OVER_V = 0.82


def add_dust(galaxies: Galaxies, priors: Priors | SimpleNamespace) -> None:
    """Add the attenuations (mag) of each galaxy.

    Adds ``attenuation_lines`` (A at Halpha of the lines), ``attenuation_stars`` (A_V of all stars),
    ``attenuation_clouds`` (A_V of the birth clouds) and ``attenuation_slope``, each of shape (n,).
    The offset of the stellar attenuation is constant below 10**9.5 Msun.

    Parameters
    ----------
    galaxies : Galaxies
        Modified in place.
    priors : Priors or SimpleNamespace
        Group ``dust``; in a namespace, values may be tensors of shape (n,).
    """
    x, e = galaxies["log_mass"] - 10, galaxies["normal"]
    quiescent = galaxies["quiescent"]
    by_mass = (0.91 + 0.77 * x + 0.11 * x**2 - 0.09 * x**3).clamp(0.1, 3)
    edge_on = 0.75 * (1 - galaxies["cos_inclination"]) - 0.25
    tilt = priors.halpha_scatter * e[Normal.ATTENUATION] + priors.inclination * edge_on
    factor = torch.where(galaxies["green_valley"], priors.green_valley_factor, 1.0)
    of_quiescent = (priors.quiescent_scatter * e[Normal.ATTENUATION]).abs()

    def total(attenuation: Tensor) -> Tensor:
        return torch.where(quiescent, of_quiescent, factor * (attenuation + tilt).clamp(0.03, 3.5))

    offset = priors.halpha_offset + priors.halpha_mass_slope * x.clamp(min=-0.5)
    total_v = total(by_mass + offset) / _HALPHA_OVER_V
    stars = priors.stellar_to_gas * total_v
    galaxies["attenuation_lines"] = total(by_mass + priors.gas_offset)
    galaxies["attenuation_stars"] = stars
    galaxies["attenuation_clouds"] = (1 - priors.stellar_to_gas) * total_v
    galaxies["attenuation_slope"] = (
        priors.slope
        + priors.slope_attenuation * (torch.log10(stars.clamp(min=0.02)) + 0.4)
        + priors.slope_scatter * e[Normal.ATTENUATION_SLOPE]
    ).clamp(-2.2, -0.2)


def stellar_transmission(
    galaxies: Galaxies, wavelength: Tensor, bump: float
) -> tuple[Tensor, Tensor]:
    """Compute the transmission towards all stars, and that of the birth clouds.

    Parameters
    ----------
    galaxies : Galaxies
        With the attenuations of `add_dust`.
    wavelength : Tensor, shape (m,)
        Rest frame, Angstrom.
    bump : float
        Strength of the 2175 A bump (Drude profile of width 350 A).

    Returns
    -------
    stars, clouds : Tensor, shape (n, m)
    """
    log_ratio = torch.log(wavelength / 5500.0)
    curve = torch.exp(galaxies["attenuation_slope"][:, None] * log_ratio)
    if bump:
        width = 350.0 * wavelength
        curve = curve + bump * width**2 / ((wavelength**2 - 2175.0**2) ** 2 + width**2)
    stars = torch.exp(_MAG * galaxies["attenuation_stars"][:, None] * curve)
    clouds = torch.exp(_MAG * galaxies["attenuation_clouds"][:, None] * torch.exp(-log_ratio))
    return stars, clouds


def lines_curve(wavelength: np.ndarray) -> np.ndarray:
    """Return A(lambda) / A(V) of O'Donnell (1994) for R_V = 3.1.

    Parameters
    ----------
    wavelength : ndarray, shape (m,)
        Angstrom, 3030 to 11,000.
    """
    x = 1e4 / np.asarray(wavelength, dtype=float)
    y = x - 1.82
    a = np.polyval([-0.505, 1.647, -0.827, -1.718, 1.137, 0.701, -0.609, 0.104, 1.0], y)
    b = np.polyval([3.347, -10.805, 5.491, 11.102, -7.985, -3.989, 2.908, 1.952, 0.0], y)
    infrared = 0.574 * x**1.61 - 0.527 * x**1.61 / _R_V
    return np.where(x < 1.1, infrared, a + b / _R_V)
