"""Derived quantities of the joint posterior, and classes from emission-line ratios.

Derived quantities are computed for every draw, which preserves the correlations between the
quantities; combining medians would not.

======================  ========================================================  =============
name                    definition                                                unit
======================  ========================================================  =============
``ssfr``                log10(SFR / M*)                                           dex(1 / yr)
``halpha_luminosity``   log10(4 pi D_L(z)^2 F(Halpha)) in the fibre aperture,     dex(erg / s)
                        not corrected for dust
``balmer_decrement``    F(Halpha) / F(Hbeta)                                      dimensionless
``nii_halpha``          log10(F([N II] 6584) / F(Halpha))                         dex
``oiii_hbeta``          log10(F([O III] 5007) / F(Hbeta))                         dex
======================  ========================================================  =============

The diagram of Baldwin, Phillips & Terlevich (1981) with x = log10([N II] 6584 / Halpha) and y =
log10([O III] 5007 / Hbeta) is divided by two curves: y = 0.61 / (x - 0.05) + 1.3 (Kauffmann et al.
2003, equation 1), below which the gas is ionised by stars, and y = 0.61 / (x - 0.47) + 1.19 (Kewley
et al. 2001, equation 5), above which stars alone cannot ionise it.

References
----------
Baldwin, Phillips & Terlevich 1981, PASP 93, 5.  Kauffmann et al. 2003, MNRAS 346, 1055.  Kewley
et al. 2001, ApJ 556, 121.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np

from .cosmology import luminosity_distance
from .quantities import LINE_FLUX_UNIT

__all__ = [
    "BPT_CLASSES",
    "DERIVED_QUANTITIES",
    "DerivedQuantity",
    "bpt_class",
    "bpt_fractions",
    "derivable",
    "derive",
    "kauffmann_curve",
    "kewley_curve",
]

#: Classes of the [N II] diagram, in the order of the codes that `bpt_class` returns.
BPT_CLASSES = ("star_forming", "composite", "agn")
_Draws = Mapping[str, u.Quantity]


@dataclass(frozen=True)
class DerivedQuantity:
    """Definition of a derived quantity.

    Parameters
    ----------
    name : str
        Key in `~astrogenspec.Posterior`.
    unit : `~astropy.units.Unit`
        Unit of the draws.
    label : str
        Axis label (LaTeX).
    description : str
        Definition in words.
    needs : tuple of str
        Names of the quantities from which it is computed.
    compute : callable
        Function of the values of ``needs`` in their own units that returns the values in ``unit``.
    """

    name: str
    unit: u.UnitBase
    label: str
    description: str
    needs: tuple[str, ...]
    compute: Callable[..., np.ndarray]


def _log_luminosity(redshift: np.ndarray, flux: np.ndarray) -> np.ndarray:
    distance = luminosity_distance(redshift).to_value(u.cm)
    scale = np.log10(4 * np.pi) + np.log10(u.Unit(LINE_FLUX_UNIT).to(u.erg / u.s / u.cm**2))
    return scale + 2 * np.log10(distance) + np.log10(flux)


def _log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.log10(numerator) - np.log10(denominator)


_INFOS = (
    DerivedQuantity(
        "ssfr",
        u.dex(1 / u.yr),
        r"$\log_{10}(\mathrm{sSFR}/\mathrm{yr^{-1}})$",
        "Specific star-formation rate: SFR / stellar mass.",
        ("stellar_mass", "sfr"),
        lambda mass, sfr: sfr - mass,
    ),
    DerivedQuantity(
        "halpha_luminosity",
        u.dex(u.erg / u.s),
        r"$\log_{10}(L(\mathrm{H\alpha})/\mathrm{erg\,s^{-1}})$",
        "Luminosity of H alpha in the 3 arcsec fibre, not corrected for dust inside the galaxy.",
        ("redshift", "halpha_flux"),
        _log_luminosity,
    ),
    DerivedQuantity(
        "balmer_decrement",
        u.dimensionless_unscaled,
        r"$F(\mathrm{H\alpha})/F(\mathrm{H\beta})$",
        "Ratio of the observed fluxes of H alpha and H beta; 2.86 without dust (case B, 10^4 K).",
        ("halpha_flux", "hbeta_flux"),
        lambda halpha, hbeta: halpha / hbeta,
    ),
    DerivedQuantity(
        "nii_halpha",
        u.dex,
        r"$\log_{10}([\mathrm{N\,II}]/\mathrm{H\alpha})$",
        "log10 of the flux ratio [N II] 6584 / H alpha.",
        ("nii6584_flux", "halpha_flux"),
        _log_ratio,
    ),
    DerivedQuantity(
        "oiii_hbeta",
        u.dex,
        r"$\log_{10}([\mathrm{O\,III}]/\mathrm{H\beta})$",
        "log10 of the flux ratio [O III] 5007 / H beta.",
        ("oiii5007_flux", "hbeta_flux"),
        _log_ratio,
    ),
)
#: The derived quantities by name.
DERIVED_QUANTITIES: dict[str, DerivedQuantity] = {info.name: info for info in _INFOS}


def derivable(quantities: Collection[str]) -> tuple[str, ...]:
    """Return the names of the derived quantities that can be computed.

    Parameters
    ----------
    quantities : collection of str
        Names of the available quantities.

    Returns
    -------
    tuple of str
    """
    return tuple(
        name
        for name, info in DERIVED_QUANTITIES.items()
        if all(need in quantities for need in info.needs)
    )


def derive(name: str, draws: _Draws) -> u.Quantity:
    """Compute one derived quantity for every draw.

    Parameters
    ----------
    name : str
        A name in `DERIVED_QUANTITIES`.
    draws : mapping of str to Quantity
        Quantities in ``DERIVED_QUANTITIES[name].needs``, in their own units and of equal shape.

    Returns
    -------
    Quantity, shape of the draws
        NaN where undefined, such as for a flux or redshift that is not positive.

    Raises
    ------
    KeyError
        If the name is unknown or a required quantity is missing.
    """
    if name not in DERIVED_QUANTITIES:
        raise KeyError(
            f"unknown derived quantity {name!r}; choose from {', '.join(DERIVED_QUANTITIES)}."
        )
    info = DERIVED_QUANTITIES[name]
    absent = [need for need in info.needs if need not in draws]
    if absent:
        raise KeyError(
            f"{name!r} is computed from {' and '.join(info.needs)}; add {' and '.join(absent)} to "
            f"the draws (they contain {', '.join(draws) or 'no quantity'})."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = info.compute(*(np.asarray(draws[need].value) for need in info.needs))
    values = np.where(np.isfinite(values), values, np.nan)
    return u.Quantity(values, info.unit, subok=True, copy=False)


def kauffmann_curve(nii_halpha: np.ndarray) -> np.ndarray:
    """Return the empirical upper limit of log10([O III]/Hbeta) of star-forming galaxies.

    Parameters
    ----------
    nii_halpha : ndarray
        log10([N II]/Halpha).

    Returns
    -------
    ndarray
        Kauffmann et al. (2003); minus infinity at and beyond the pole of the curve at 0.05.
    """
    return _curve(nii_halpha, 0.05, 1.3)


def kewley_curve(nii_halpha: np.ndarray) -> np.ndarray:
    """Return the theoretical upper limit of log10([O III]/Hbeta) of star-forming galaxies.

    Parameters
    ----------
    nii_halpha : ndarray
        log10([N II]/Halpha).

    Returns
    -------
    ndarray
        Kewley et al. (2001); minus infinity at and beyond the pole of the curve at 0.47.
    """
    return _curve(nii_halpha, 0.47, 1.19)


def bpt_class(nii_halpha: np.ndarray, oiii_hbeta: np.ndarray) -> np.ndarray:
    """Classify line ratios in the [N II] diagram.

    Parameters
    ----------
    nii_halpha, oiii_hbeta : Quantity ['dex'] or ndarray
        log10([N II]/Halpha) and log10([O III]/Hbeta), any shapes that broadcast.

    Returns
    -------
    ndarray of int8
        Index in `BPT_CLASSES`: star-forming below both curves, composite between them, AGN above
        the curve of Kewley et al.; -1 where a ratio is not finite.

    Notes
    -----
    The curves cross at log10([N II]/Halpha) = -1.28; there are no composites at lower ratios.
    """
    x = np.asarray(getattr(nii_halpha, "value", nii_halpha), dtype=float)
    y = np.asarray(getattr(oiii_hbeta, "value", oiii_hbeta), dtype=float)
    conditions = [~(np.isfinite(x) & np.isfinite(y)), y > kewley_curve(x), y > kauffmann_curve(x)]
    return np.select(conditions, [-1, 2, 1], default=0).astype(np.int8)


def bpt_fractions(nii_halpha: u.Quantity, oiii_hbeta: u.Quantity) -> dict[str, np.ndarray]:
    """Return the fraction of the draws of each galaxy in each class of the [N II] diagram.

    Parameters
    ----------
    nii_halpha, oiii_hbeta : Quantity ['dex'] or ndarray, shape (n_galaxies, n_draws)
        Draws of log10([N II]/Halpha) and log10([O III]/Hbeta).

    Returns
    -------
    dict of str to ndarray, shape (n_galaxies,)
        One entry for each class; their sum is 1.  Masked where no draw has both ratios.
    """
    classes = bpt_class(nii_halpha, oiii_hbeta)
    counts = [np.count_nonzero(classes == k, axis=1) for k in range(len(BPT_CLASSES))]
    total = np.sum(counts, axis=0)
    fractions = {}
    for name, count in zip(BPT_CLASSES, counts, strict=True):
        fraction = count / np.maximum(total, 1)
        fractions[name] = np.ma.array(fraction, mask=total == 0) if (total == 0).any() else fraction
    return fractions


def _curve(x: np.ndarray, pole: float, level: float) -> np.ndarray:
    x = np.asarray(getattr(x, "value", x), dtype=float)
    left = x < pole
    return np.where(left, 0.61 / np.where(left, x - pole, -1.0) + level, -np.inf)
