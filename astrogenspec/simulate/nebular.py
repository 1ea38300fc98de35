r"""Emission lines of HII regions, active nuclei, and gas ionised by old stars.

Line ratios of HII regions are polynomials in :math:`x = 12 + \log_{10}(\mathrm{O/H}) - 8.69`, the
strong-line calibrations of Curti et al. (2017, 2020), at the abundance of the gas inside the fibre;
Halpha follows the star-formation rate (Kennicutt & Evans 2012).  Seyfert and LINER ratios lie in
their regions of the diagram of Baldwin, Phillips & Terlevich.  Broad Halpha follows the continuum
at 5100 A (Greene & Ho 2005, ApJ 630, 122, equation 1),

.. math:: L(\mathrm{H\alpha}) = 5.25 \times 10^{42} \left(L / 10^{44}\right)^{1.157} ,
   \qquad L = \lambda L_\lambda(5100\,\mathrm{A}) ,

in erg/s.  Values and sources are in ``priors/lines.ecsv``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..nn.records import TensorRecord
from ..wavelengths import BROAD_DECREMENT, LINE_NAMES, LINES, line_index
from .dust import lines_curve
from .population import Galaxies, Normal
from .priors import Priors

__all__ = ["RED_LINES", "NebularLines", "nebular_lines", "o3n2_abundance", "red_lines"]

_LSUN_OF_LOG_ERG = -float(np.log10(3.828e33))
#: Case B ratios to Hbeta of Hgamma and Hdelta (Osterbrock & Ferland 2006).
_HGAMMA, _HDELTA = 0.468, 0.259
#: Lines redward of `LINES`: vacuum wavelength (A), and ratio before dust to a line of `LINES`.
#: [SIII] has the ratio of its transition probabilities (Mendoza & Zeippen 1982, MNRAS 199, 1025);
#: hydrogen and helium have those of a photoionisation model (Cloudy, Ferland et al. 2017) of solar
#: abundance and log U = -3.
RED_LINES = {
    "SIII9533": (9533.2, "SIII9071", 2.48),
    "Paepsilon": (9548.6, "Halpha", 0.0133),
    "Padelta": (10052.1, "Halpha", 0.0201),
    "HeI10833": (10833.3, "Halpha", 0.0845),
    "Pagamma": (10941.1, "Halpha", 0.0324),
    "Pabeta": (12821.6, "Halpha", 0.0577),
    "Paalpha": (18756.1, "Halpha", 0.1146),
    "Brdelta": (19450.9, "Halpha", 0.0065),
    "Brgamma": (21661.2, "Halpha", 0.0098),
}
#: Fraction of the optical depth of HII regions in front of the lines of an active nucleus.
_NUCLEAR_DEPTH = 0.5


@dataclass(frozen=True)
class NebularLines(TensorRecord):
    """Line luminosities (Lsun) after attenuation, shape (n, 17) in the order of `LINE_NAMES`.

    Attributes
    ----------
    star_forming : Tensor
        HII regions.
    nuclear : Tensor
        Narrow lines of an active nucleus, attenuated by half the optical depth.
    old_gas : Tensor
        Luminosity per unit of EW(Halpha) and of the old stars' continuum (per A) at Halpha.
    broad_halpha, broad_hbeta : Tensor, shape (n,)
        Broad lines (Lsun).
    continuum_5100 : Tensor, shape (n,)
        Nuclear L_lambda at 5100 A (Lsun/A).
    halpha_intrinsic : Tensor, shape (n,)
        Halpha of the HII regions before dust (Lsun).
    """

    star_forming: Tensor
    nuclear: Tensor
    old_gas: Tensor
    broad_halpha: Tensor
    broad_hbeta: Tensor
    continuum_5100: Tensor
    halpha_intrinsic: Tensor


def o3n2_abundance(fluxes: Tensor) -> Tensor:
    """Compute 12 + log10(O/H) = 8.73 - 0.32 O3N2, shape (n,).

    Equation 3 of Pettini & Pagel (2004, MNRAS 348, L59).

    Parameters
    ----------
    fluxes : Tensor, shape (n, 17)
        Line fluxes in the order of `LINE_NAMES`.
    """
    oiii, hbeta, nii, halpha = (
        fluxes[:, line_index(name)] for name in ("OIII5008", "Hbeta", "NII6585", "Halpha")
    )
    return 8.73 - 0.32 * torch.log10(oiii / hbeta / (nii / halpha))


def _pack(priors: Priors, r3: Tensor, n2: Tensor, r2: Tensor, s2: Tensor, o1: Tensor) -> Tensor:
    """log10 of the ratios to Halpha, given [OIII]/Hb, [NII]/Ha, [OII]/Hb, [SII]/Ha, [OI]/Ha."""
    one = torch.zeros_like(r3)
    hbeta = one - np.log10(priors.balmer_decrement)
    columns = {
        "OII3727": r2 + hbeta + np.log10(0.42),
        "OII3730": r2 + hbeta + np.log10(0.58),
        "NeIII3870": r3 + hbeta - 1.1,
        "Hdelta": hbeta + np.log10(_HDELTA),
        "Hgamma": hbeta + np.log10(_HGAMMA),
        "Hbeta": hbeta,
        "OIII4960": r3 + hbeta - np.log10(2.98),
        "OIII5008": r3 + hbeta,
        "HeI5877": one + np.log10(0.04),
        "OI6302": o1,
        "NII6550": n2 - np.log10(3.05),
        "Halpha": one,
        "NII6585": n2,
        "SII6718": s2 + np.log10(0.57),
        "SII6733": s2 + np.log10(0.43),
        "ArIII7138": one - 1.4,
        "SIII9071": one - 0.9,
    }
    return torch.stack([columns[name] for name in LINE_NAMES], dim=1)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        result = result * x + coefficient
    return result


def nebular_lines(galaxies: Galaxies, priors: Priors, abundance: Tensor) -> NebularLines:
    """Compute the line luminosities of each galaxy.

    Parameters
    ----------
    galaxies : Galaxies
        With the attenuations of `~astrogenspec.simulate.dust.add_dust`.
    priors : Priors
        Group ``lines``.
    abundance : Tensor, shape (n,)
        12 + log10(O/H) of the gas in the fibre, scale of Curti et al. (2020).
    """
    e = galaxies["normal"]
    x = abundance - 8.69
    r3 = _polynomial((-0.277, -3.549, -3.593, -0.981), x) + priors.r3_offset
    r3 = (r3 + priors.r3_scatter * e[Normal.R3]).clamp(-1.2, 0.95)
    n2 = _polynomial((-0.489, 1.513, -2.554, -5.293, -2.867), x) + priors.n2_offset
    n2 = n2 + priors.n2_scatter * (e[Normal.N2] - 0.3 * e[Normal.R3])
    r2 = _polynomial((0.435, -1.362, -5.655, -4.851, -0.478, 0.736), x) + 0.1 * e[Normal.R2]
    s2 = _polynomial((-0.442, -0.360, -6.271, -8.339, -3.559), x) + 0.06 * e[Normal.N2]
    halpha = galaxies["log_sfr"] + priors.halpha_per_sfr + _LSUN_OF_LOG_ERG
    star_forming = halpha[:, None] + _pack(priors, r3, n2, r2, s2, s2 - 1.0)
    seyfert = galaxies["seyfert"]
    choose = lambda a, b: torch.where(seyfert, a, b)  # noqa: E731
    nuclear_r3 = choose(0.85, 0.3) + 0.15 * e[Normal.NUCLEAR_R3]
    nuclear = _pack(
        priors,
        nuclear_r3,
        choose(-0.02, 0.1) + 0.12 * e[Normal.NUCLEAR_N2],
        choose(0.45, 0.6) + 0.15 * e[Normal.N2],
        choose(-0.25, 0.0) + 0.1 * e[Normal.R3],
        choose(-0.8, -0.5) + 0.1 * e[Normal.R3],
    )
    of_halpha = galaxies["log_oiii"] - (nuclear_r3 - np.log10(priors.balmer_decrement))
    nuclear = torch.where(galaxies["active"][:, None], of_halpha[:, None] + nuclear, -30.0)
    full = torch.full_like(x, 1.0)
    old_gas = _pack(
        priors,
        0.25 + 0.15 * e[Normal.OLD_GAS_R3],
        0.1 + 0.12 * e[Normal.OLD_GAS_N2],
        0.6 * full,
        0.0 * full,
        -0.6 * full,
    )
    optical_depth = _optical_depth(galaxies, list(LINES.values()))
    broad_halpha, continuum = _broad_line_nucleus(galaxies)
    return NebularLines(
        star_forming=10**star_forming * torch.exp(-optical_depth),
        nuclear=10**nuclear * torch.exp(-_NUCLEAR_DEPTH * optical_depth),
        old_gas=10**old_gas,
        broad_halpha=broad_halpha,
        broad_hbeta=broad_halpha / BROAD_DECREMENT,
        continuum_5100=continuum,
        halpha_intrinsic=10**halpha,
    )


def _optical_depth(galaxies: Galaxies, wavelengths: list[float]) -> Tensor:
    """Optical depth in front of the lines of HII regions, shape (n, k)."""
    at_halpha = galaxies["attenuation_lines"][:, None]
    curve, halpha = (
        torch.tensor(lines_curve(np.array(values)), dtype=torch.float32).to(at_halpha)
        for values in (wavelengths, [LINES["Halpha"]])
    )
    return 0.4 * np.log(10) * at_halpha * curve / halpha


def red_lines(galaxies: Galaxies, narrow: Tensor) -> Tensor:
    """Compute the luminosities of `RED_LINES` from those of the lines that they follow.

    Parameters
    ----------
    galaxies : Galaxies
        n galaxies with their attenuations.
    narrow : Tensor, shape (n, 17, 4)
        Luminosities of `LINE_NAMES` after attenuation, of the parts of a galaxy: bulge and old disk
        (without attenuation), young disk, and nucleus.

    Returns
    -------
    Tensor, shape (n, 9, 4)
        Luminosities after attenuation, in the unit of ``narrow``.
    """
    wavelengths, followed, ratios = zip(*RED_LINES.values(), strict=True)
    excess = _optical_depth(galaxies, list(wavelengths)) - _optical_depth(
        galaxies, [LINES[name] for name in followed]
    )
    depth = torch.tensor([0.0, 0.0, 1.0, _NUCLEAR_DEPTH]).to(narrow)
    ratio = torch.tensor(ratios).to(narrow)[:, None] * torch.exp(-excess[..., None] * depth)
    return narrow[:, [line_index(name) for name in followed]] * ratio


def _broad_line_nucleus(galaxies: Galaxies) -> tuple[Tensor, Tensor]:
    """Broad Halpha (Lsun) and continuum at 5100 A (Lsun/A), shape (n,) each."""
    log_nuclear = galaxies["log_nuclear"]
    shown = galaxies["broad_line"].float()
    halpha = shown * 10 ** (np.log10(5.25e42) + 1.157 * (log_nuclear - 44) + _LSUN_OF_LOG_ERG)
    continuum = shown * 10 ** (log_nuclear + _LSUN_OF_LOG_ERG) / 5100.0
    return halpha, continuum
