"""Draws and densities of the posterior for a block of galaxies.

Draws of the network are recalibrated if a recalibration is given, and flagged: outliers of the
training distribution, inputs and posteriors outside the training range, and draws that are not
finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.table import Table
from scipy.special import logsumexp

from ..base import Estimator, make_generator
from ..calibration.densities import before_recalibration
from ..calibration.guarantees import CoverageGuarantee
from ..calibration.recalibration import Recalibration
from ..flags import Flag, FlagLog, combine_texts
from ..inputs.filter_sets import is_sdss, sdss_fluxes
from ..inputs.fluxes import ab_magnitudes
from ..inputs.observations import Observations
from ..inputs.photometry import PhotometryBatch
from ..inputs.virtual_photometry import in_sdss_bands
from ..nn.noise import ObjectStreams, standard_normal
from ..quantities import (
    QUANTITIES,
    QuantityInfo,
    plain_values,
    quantities_to_theta,
    theta_to_quantities,
)
from ..results.posterior import Posterior
from ..results.posterior_io import PREDICTIVE
from ..results.quantity import STRETCH
from .light_outside import N_OFFSETS, joined_draws, with_light_outside
from .mixture import MixturePosterior
from .outliers.detector import (
    input_range_flags,
    magnitudes_and_errors,
    outlier_flags,
    posterior_range_flags,
)
from .outliers.predictive import PhotometryEmulator

__all__ = [
    "DRAWS_FOR_MAP",
    "chain_prefix",
    "draw_block",
    "known_values",
    "log_densities",
    "skip_draws",
]


def skip_draws(
    estimator: Estimator, seen: Observations, n_draws: int, generator: torch.Generator
) -> None:
    """Advance a generator by the random numbers that `draw_block` takes without known values.

    Parameters
    ----------
    estimator : Estimator
        Estimator with a `PropertyNetwork`.
    seen : Observations
        n galaxies.
    n_draws : int
        Number of draws for each galaxy.
    generator : `torch.Generator`
        Source of randomness.
    """
    network = estimator.network
    parts = with_light_outside(seen) if seen.photometry.in_fibre else [seen]
    n_numbers = -(-n_draws // len(parts)) * len(network.quantities)
    for part in parts:
        with torch.inference_mode():
            inputs = part.inputs(network.components).to(estimator.device)
            posterior = network.posterior_of(network.posterior_contexts(inputs))
        # A mixture takes one more number for each galaxy.
        shape = (len(seen), n_numbers + isinstance(posterior, MixturePosterior))
        standard_normal(shape, generator, generator.device)


def draw_block(
    estimator: Estimator,
    seen: Observations,
    known: np.ndarray | None,
    n_draws: int,
    generator: torch.Generator | ObjectStreams,
    meta: Mapping[str, Any],
    recalibration: Recalibration | None = None,
    guarantee: CoverageGuarantee | None = None,
) -> Posterior:
    """Draw from the posterior of every galaxy of a block.

    The posterior of photometry in a fibre is a mixture, see
    `astrogenspec.inference.light_outside`.  Unusable galaxies are drawn as well and then set to
    NaN, so that all others get the same random numbers.

    Parameters
    ----------
    estimator : Estimator
        Estimator with a `PropertyNetwork`.
    seen : Observations
        n galaxies.
    known : ndarray, shape (n, q), or None
        Known values of the first q quantities in units of theta; NaN where unknown.
    n_draws : int
        Number of draws for each galaxy.
    generator : `torch.Generator` or ObjectStreams of n galaxies
        Source of randomness; the state of a generator advances by an amount that depends on n and
        ``n_draws`` only.
    meta : mapping
        Metadata of the posterior.
    recalibration : Recalibration, optional
        Recalibration of galaxies without known values.
    guarantee : CoverageGuarantee, optional
        Intervals with guaranteed coverage of galaxies without known values.

    Returns
    -------
    Posterior

    Raises
    ------
    ValueError
        If a known value is outside the bounds of its quantity, or follows an unknown one.
    """
    if not seen.photometry.in_fibre:
        return _draw_total(
            estimator, seen, known, n_draws, generator, meta, recalibration, guarantee
        )
    n_each = -(-n_draws // N_OFFSETS)
    parts = [
        _draw_total(estimator, each, known, n_each, generator, meta, recalibration)
        for each in with_light_outside(seen)
    ]
    return joined_draws(seen, parts, n_draws)


def _draw_total(
    estimator: Estimator,
    seen: Observations,
    known: np.ndarray | None,
    n_draws: int,
    generator: torch.Generator | ObjectStreams,
    meta: Mapping[str, Any],
    recalibration: Recalibration | None = None,
    guarantee: CoverageGuarantee | None = None,
) -> Posterior:
    """Draw from the posterior of galaxies with total photometry; see `draw_block`."""
    network, device = estimator.network, estimator.device
    modes = seen.modes
    if known is not None:
        modes[np.isfinite(known).any(axis=1)] = ""
    with torch.inference_mode():
        inputs = seen.inputs(network.components).to(device)
        lacking = network.lacking(inputs)
        contexts = network.posterior_contexts(inputs)
        if known is not None:
            known = torch.as_tensor(known, dtype=torch.float32, device=device)
        theta = network.posterior_of(contexts).sample(n_draws, generator, known).cpu().numpy()
        measurable = network.measurable(contexts).cpu().numpy().astype(float)
    finite = np.isfinite(theta).all(axis=(1, 2))
    missing = np.zeros(len(seen), bool) if lacking is None else lacking.cpu().numpy()
    blank = ~(seen.usable & finite) | missing
    theta[blank] = np.nan
    measurable[blank] = np.nan
    sdss = in_sdss_bands(seen.photometry, network.components)
    if recalibration is not None:
        magnitudes = _magnitudes(seen.photometry)
        theta = recalibration.correct_theta(theta, magnitudes, modes)
    card = estimator.card or {}
    limits = card.get("training_range") or {}
    log = FlagLog(len(seen))
    for part in (
        outlier_flags(card.get("novelty") or {}, seen, network.components),
        input_range_flags(limits, sdss),
        posterior_range_flags(limits, theta),
    ):
        log.extend(part.codes, part.texts)
    log.add(seen.usable & missing, Flag.NO_DRAWS, f"these weights need {network.needs}")
    log.add(seen.usable & ~finite, Flag.NO_DRAWS, "the draws of the network are not finite")
    photometry = seen.photometry_table()
    if card.get("predictive") is not None:
        emulator = PhotometryEmulator.from_dict(card["predictive"])
        observed = magnitudes_and_errors(sdss)
        photometry[PREDICTIVE] = emulator.p_values(theta, *observed)
    filters = _filters_entry(seen.photometry)
    if guarantee is not None:
        draws = {name: theta[:, :, k] for k, name in enumerate(QUANTITIES)}
        stretch = guarantee.stretch(
            draws, _magnitudes(seen.photometry), modes, filters.get("filters", ())
        )
        for name, values in stretch.items():
            photometry[f"{STRETCH}{name}"] = values
    return Posterior(
        theta_to_quantities(theta),
        names=seen.names,
        flags=combine_texts(seen.flags, log.texts),
        flag_codes=seen.flag_codes | log.codes,
        measurable=measurable,
        photometry=photometry,
        meta=dict(meta) | filters,
        named=seen.named,
    )


def _filters_entry(photometry: PhotometryBatch) -> dict[str, list[str]]:
    """Return the metadata that name the filters, unless they are those of SDSS."""
    filters = photometry.filters
    return {} if is_sdss(filters) else {"filters": [band.name for band in filters]}


#: Number of draws from which the map of the recalibration is computed.
DRAWS_FOR_MAP = 8000


def log_densities(
    estimator: Estimator,
    seen: Observations,
    values: np.ndarray,
    q: int,
    recalibration: Recalibration | None = None,
) -> np.ndarray:
    """Evaluate log densities of the first q quantities.

    Parameters
    ----------
    estimator : Estimator
        Estimator with a `PropertyNetwork`.
    seen : Observations
        n galaxies.
    values : ndarray, shape (n, k, 9)
        Values at which to evaluate, in units of theta; minus infinity for a flux that is not
        positive.
    q : int
        Number of quantities, from the first of the chain.
    recalibration : Recalibration, optional
        Recalibration of the draws, whose density is then evaluated.

    Returns
    -------
    ndarray, shape (n, k)
        Log densities; NaN where a value is NaN or a galaxy is unusable.
    """
    if seen.photometry.in_fibre:
        each = [
            log_densities(estimator, one, values, q, recalibration)
            for one in with_light_outside(seen)
        ]
        return logsumexp(each, axis=0) - np.log(N_OFFSETS)
    n, k, _ = values.shape
    network, device = estimator.network, estimator.device
    infos = list(network.quantities.values())
    with torch.inference_mode():
        contexts = network.posterior_contexts(seen.inputs(network.components).to(device))
        log_derivative = np.zeros((n, k))
        if recalibration is not None:
            # A fixed seed: a density is a function of its arguments.
            draws = network.posterior_of(contexts).sample(DRAWS_FOR_MAP, make_generator(0))
            values, log_derivative = _before_recalibration(
                recalibration, seen, draws.cpu().numpy(), values, infos[:q]
            )
        theta = torch.as_tensor(values, dtype=torch.float32, device=device).flatten(0, 1)
        valid = torch.zeros(theta.shape, dtype=torch.bool, device=device)
        valid[:, :q] = True
        contexts = contexts.repeat_interleave(k)
        # Random numbers affect only quantities after the first q, whose terms are not used.
        posterior = network.posterior_of(contexts)
        terms = posterior.log_prob(theta, valid, make_generator(0))[:, :q]
        outside = torch.isinf(theta[:, :q]).any(dim=-1)
        result = terms.sum(dim=-1).masked_fill(outside, -torch.inf).cpu().numpy()
    result[np.isnan(values[..., :q]).any(axis=-1).ravel()] = np.nan
    result = result.reshape(n, k) + log_derivative
    result[~seen.usable] = np.nan
    return result


def _magnitudes(photometry: PhotometryBatch) -> np.ndarray:
    """Return the magnitudes on which a recalibration depends: those of SDSS, else NaN."""
    return ab_magnitudes(sdss_fluxes(photometry.dereddened()[0], photometry.filters))


def _before_recalibration(
    recalibration: Recalibration,
    seen: Observations,
    draws: np.ndarray,
    values: np.ndarray,
    infos: Sequence[QuantityInfo],
) -> tuple[np.ndarray, np.ndarray]:
    """Invert the recalibration of values (n, k); also return the logarithm of the Jacobian."""
    draws = np.where(np.isfinite(draws).all(axis=(1, 2), keepdims=True), draws, np.nan)
    moved = recalibration.correct_theta(draws, _magnitudes(seen.photometry), seen.modes)
    values, log_derivative = values.copy(), np.zeros(values.shape[:2])
    for j, info in enumerate(infos):
        changed = (moved[:, :, j] != draws[:, :, j]).any(axis=1) & np.isfinite(draws[:, 0, j])
        for k in np.flatnonzero(changed):
            values[k, :, j], change = before_recalibration(
                draws[k, :, j], moved[k, :, j], values[k, :, j], info.lower, info.upper
            )
            log_derivative[k] += change
    return values, log_derivative


def chain_prefix(quantities: Mapping[str, u.Quantity], argument: str) -> tuple[np.ndarray, int]:
    """Stack the first quantities of the chain.

    Parameters
    ----------
    quantities : mapping of str to Quantity, all of one shape
        Values by name.
    argument : str
        Name of the argument of the user, for error messages.

    Returns
    -------
    theta : ndarray, shape (..., 9)
        Values in units of theta; minus infinity for a flux that is not positive.
    q : int
        Number of quantities.

    Raises
    ------
    TypeError
        If `quantities` is not a mapping.
    ValueError
        If a name is unknown, shapes differ, or an earlier quantity of the chain is missing.
    astropy.units.UnitConversionError
        If a unit is not convertible.
    """
    if isinstance(quantities, Table):
        quantities = {name: quantities[name] for name in quantities.colnames}
    if not isinstance(quantities, Mapping):
        raise TypeError(
            f"{argument} is of type {type(quantities).__name__}; a mapping of names to "
            "Quantities is expected."
        )
    if not quantities:
        raise ValueError(f"{argument} is empty; give at least the redshift.")
    theta = quantities_to_theta(quantities)
    first = list(QUANTITIES)[: len(quantities)]
    missing = [name for name in first if name not in quantities]
    if missing:
        last = max(quantities, key=list(QUANTITIES).index)
        raise ValueError(
            f"{argument} has {last} but not {missing[0]}; the first quantities of the chain are "
            f"required without gaps ({', '.join(QUANTITIES)})."
        )
    for k, name in enumerate(first):
        if QUANTITIES[name].logarithmic:
            given = plain_values(quantities[name], QUANTITIES[name].unit, name=name)
            theta[..., k] = np.where(given <= 0, -np.inf, theta[..., k])
    return theta, len(first)


def known_values(
    quantities: Mapping[str, u.Quantity], infos: Mapping[str, QuantityInfo] = QUANTITIES
) -> np.ndarray:
    """Validate and stack known quantities.

    Parameters
    ----------
    quantities : mapping of str to Quantity, each of shape (n,)
        The first quantities of the chain; NaN or masked where unknown.
    infos : mapping of str to QuantityInfo
        All quantities, with the bounds of the network.

    Returns
    -------
    ndarray, shape (n, q)
        Values in units of theta.

    Raises
    ------
    ValueError
        If the shape is wrong, an earlier quantity is missing, or a value is outside the bounds of
        its quantity.
    TypeError, astropy.units.UnitConversionError
        As for `chain_prefix`.
    """
    theta, q = chain_prefix(quantities, "known")
    if theta.ndim != 2:
        raise ValueError(f"known has shape {theta.shape[:-1]}; the shape (n,) is expected.")
    for k, info in enumerate(list(infos.values())[:q]):
        outside = np.flatnonzero((theta[:, k] <= info.lower) | (theta[:, k] >= info.upper))
        for galaxy in outside:
            given = plain_values(quantities[info.name], info.unit, name=info.name)
            value = "log10 of the flux" if info.logarithmic else "it"
            raise ValueError(
                f"galaxy {galaxy}: the known {info.name} is {given[galaxy]:g}, but {value} must be "
                f"between {info.lower:g} and {info.upper:g} for these weights; NaN or a masked "
                "value stands for unknown."
            )
    return theta[:, :q]
