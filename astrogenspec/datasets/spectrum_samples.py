"""Observed spectra of a data set, as the fine-tuning of the spectrum network takes them.

The noise-free spectra of each galaxy are drawn from their posterior given the observed one, with
its noise and gaps (`astrogenspec.generation.observed_spectra`): the network learns noise-free
spectra from noisy ones.  Its photometry is that of the spectrum, and the total photometry where all
five bands of SDSS are known; images are not used.  Properties that condition the spectrum are draws
of the bundled weights, given the redshift and the photometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from ..generation.components import PER_BIN, Galaxy
from ..generation.conditioning import APERTURES
from ..generation.finetuning import ObservedSample
from ..generation.network import SpectrumNetwork
from ..generation.observed_spectra import (
    NoiseFree,
    ObservedSpectra,
    SpectrumPrior,
    draw_noise_free,
    fit_prior,
)
from ..generation.pipeline import ab_flux
from ..generation.training import LABELS, select_aperture
from ..inference.estimator import PropertyEstimator
from ..inputs.filter_sets import sdss_filters
from ..inputs.photometry import PhotometryBatch
from ..quantities import QUANTITIES, quantities_to_theta, quantity_index
from ..surveys import BANDS
from ..synthetic import response_weights
from ..training.shards import Shards, training_folders
from ..wavelengths import REST, narrow_line_velocity
from .folders import read_columns

__all__ = [
    "COLUMNS",
    "MIN_GALAXIES",
    "check_number",
    "draw_sample",
    "observed_sample",
    "observed_spectra",
    "simulated_spectra",
    "usable_galaxies",
]

#: Columns of real galaxies that are used.
COLUMNS = ("theta", "flux", "velocity_dispersion", "spectrum", "spectrum_ivar")

#: Minimum number of galaxies with spectra.
MIN_GALAXIES = 20
#: Draws of the noise-free spectrum of each galaxy, and simulated galaxies that define the prior.
_N_DRAWS, _N_PRIOR = 4, 6000
#: Relative error of the photometry from which properties are drawn.
_ERROR = 0.02
#: Fraction of observed pixels of a bin that counts as observed, and of bins of a galaxy.
_MIN_OBSERVED, _MIN_BINS = 0.5, 0.3
#: Dispersion of the stars (km/s) that sets the width of narrow lines where it is unknown.
_TYPICAL_DISPERSION = 100.0
#: Smallest and largest continuum of a draw (1e-17 erg/s/cm2/A per nmgy in r), the latter 400 times
#: the mean in r: beyond them the prior extrapolates to wavelengths that were not observed. Half
#: precision, in which draws are kept, would round to zero or to infinity.
_MIN_CONTINUUM, _MAX_CONTINUUM = 1e-4, 100.0
_R = BANDS.index("r")
_CHUNK = 200


def observed_sample(
    observed: Path | str,
    simulated: Path | str,
    network: SpectrumNetwork,
    *,
    n: int | None = None,
    seed: int = 3,
) -> tuple[ObservedSample, list[int]]:
    """Draw noise-free spectra of the galaxies of a data set.

    Parameters
    ----------
    observed : path
        Data set with spectra; its parts for training and for validation are used.
    simulated : path
        Folder of simulated shards with rest-frame spectra.
    network : SpectrumNetwork
        Network that is fine-tuned.
    n : int, optional
        Maximum number of galaxies of each part; all by default.
    seed : int
        Seed of the draws.

    Returns
    -------
    sample : ObservedSample
    held_out : list of int
        Galaxies of the part for validation.

    Raises
    ------
    ValueError
        If the data set has too few spectra with redshifts.
    """
    training, validation = training_folders(observed)
    parts = []
    for folder in (training, validation):
        if folder is not None:
            columns, filters = read_columns(folder, n, COLUMNS)
            parts.append(usable_galaxies(columns, filters, folder)[0])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    n_training = len(parts[0]["theta"])
    check_number(n_training, observed)
    prior, fits = fit_prior(simulated_spectra(simulated), observed_spectra(columns))
    sample, rows = draw_sample(columns, prior, fits, network.zero_points, seed)
    return sample, np.flatnonzero(rows >= n_training).tolist()


def check_number(n: int, folder: Path | str, minimum: int | None = None) -> None:
    """Raise an error if there are too few spectra to train on.

    Parameters
    ----------
    n : int
        Number of usable spectra.
    folder : path
        Data set.
    minimum : int, optional
        Number that is needed; `MIN_GALAXIES` by default.
    """
    minimum = MIN_GALAXIES if minimum is None else minimum
    if n < minimum:
        raise ValueError(
            f"{folder} has {n} spectra for training with a known redshift that cover a third of "
            f"the wavelengths; at least {minimum} are needed."
        )


def usable_galaxies(
    columns: dict[str, np.ndarray], filters: tuple[str, ...], folder: Path | str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Select the galaxies with a redshift and enough of a spectrum.

    Parameters
    ----------
    columns : dict of str to ndarray
        The columns `COLUMNS`.
    filters : tuple of str
        Names of the filters of the photometry; only that of SDSS is used.
    folder : path
        Folder that is named in the message.

    Returns
    -------
    columns : dict of str to ndarray
    rows : ndarray of int
        Their rows among the given galaxies.

    Raises
    ------
    ValueError
        If the columns have no spectra.
    """
    if "spectrum" not in columns:
        raise ValueError(f"{folder} has no spectra; make the data set with spectra.")
    if filters != tuple(each.name for each in sdss_filters()):
        unknown = np.full((len(columns["theta"]), len(BANDS)), np.nan, np.float32)
        columns = columns | {"flux": unknown}
    redshift = columns["theta"][:, quantity_index("redshift")]
    covered = (columns["spectrum_ivar"] > 0).mean(axis=1)
    rows = np.flatnonzero(np.isfinite(redshift) & (covered > _MIN_BINS))
    return {name: columns[name][rows] for name in COLUMNS}, rows


def simulated_spectra(folder: Path | str) -> Galaxy:
    """Return the first spectra of a folder of simulated shards, which define the prior."""
    shards = Shards.read(folder, LABELS)
    rows = torch.arange(min(_N_PRIOR, len(shards)))
    return select_aperture(shards.labels(rows), rows % len(APERTURES))


def draw_sample(
    columns: dict[str, np.ndarray],
    prior: SpectrumPrior,
    fits: Sequence[NoiseFree | None],
    zero_points: Tensor,
    seed: int,
) -> tuple[ObservedSample, np.ndarray]:
    """Draw noise-free spectra of galaxies, and their properties.

    Parameters
    ----------
    columns : dict of str to ndarray
        The columns `COLUMNS` of usable galaxies.
    prior : SpectrumPrior
    fits : sequence of NoiseFree or None
        Fit of each galaxy, or None for a spectrum that cannot be described by the prior.
    zero_points : Tensor, shape (5,)
        Those of `~astrogenspec.generation.network.SpectrumNetwork`.
    seed : int
        Seed of the draws.

    Returns
    -------
    sample : ObservedSample
    rows : ndarray of int
        Rows of the galaxies of the sample: those whose spectra could be drawn.

    Raises
    ------
    ValueError
        If there are none.
    """
    rng = np.random.default_rng(seed)
    on_survey = 10 ** (-0.4 * float(zero_points[_R]))
    parts, fluxes, rows = [], [], []
    for row, fitted in enumerate(fits):
        z = float(columns["theta"][row, quantity_index("redshift")])
        sigma = float(columns["velocity_dispersion"][row])
        sigma = sigma if np.isfinite(sigma) else _TYPICAL_DISPERSION
        r_band = response_weights(REST.wavelength * (1 + z) * u.AA, bands=("r",))[:, 0] * on_survey
        try:
            drawn = _drawn(prior, fitted, sigma, z, r_band, rng)
        except np.linalg.LinAlgError:
            drawn = None
        if drawn is not None:
            parts.append(drawn[0])
            fluxes.append(drawn[1])
            rows.append(row)
    if not rows:
        raise ValueError("no spectrum can be described by the prior; check their units and noise.")
    columns = {name: values[rows] for name, values in columns.items()}
    redshift = columns["theta"][:, quantity_index("redshift")].astype(float)
    dispersion = columns["velocity_dispersion"].astype(float)
    galaxies = Galaxy.concatenate(parts)
    flux = torch.as_tensor(np.array(fluxes), dtype=torch.float32)
    n = len(rows)
    ivar = torch.as_tensor(columns["spectrum_ivar"])
    observed = (ivar > 0).float().unflatten(1, (-1, PER_BIN)).mean(2) > _MIN_OBSERVED
    sample = ObservedSample(
        continuum=galaxies.continuum.unflatten(0, (n, -1)).half(),
        narrow=galaxies.narrow.unflatten(0, (n, -1)),
        broad=galaxies.broad.unflatten(0, (n, -1)),
        redshift=torch.as_tensor(redshift, dtype=torch.float32),
        dispersion=torch.as_tensor(dispersion, dtype=torch.float32),
        flux=flux,
        total=torch.as_tensor(columns["flux"]),
        theta_in_fibre=_properties(redshift, _photometry_in_fibre(zero_points, galaxies, flux)),
        theta_of_total=_properties(redshift, columns["flux"].astype(float)),
        weight=observed.float(),
    )
    return sample, np.array(rows)


def _drawn(
    prior: SpectrumPrior,
    fitted: NoiseFree | None,
    sigma: float,
    z: float,
    r_band: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Galaxy, np.ndarray] | None:
    """Draw the spectra of one galaxy; None if they are impossible or have no light."""
    if fitted is None:
        return None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        drawn, flux = draw_noise_free(prior, fitted, sigma, z, r_band, _N_DRAWS, rng)
    values = (drawn.continuum, drawn.narrow, drawn.broad)
    finite = all(bool(each.isfinite().all()) for each in values) and np.isfinite(flux).all()
    drawn = replace(drawn, continuum=drawn.continuum.clamp_min(_MIN_CONTINUUM))
    possible = finite and (flux > 0).all() and bool((drawn.continuum < _MAX_CONTINUUM).all())
    return (drawn, flux) if possible else None


def observed_spectra(columns: dict[str, np.ndarray]) -> ObservedSpectra:
    """Return the spectra of the columns `COLUMNS`."""
    redshift = columns["theta"][:, quantity_index("redshift")]
    stars = columns["velocity_dispersion"].astype(float)
    stars = torch.as_tensor(np.nan_to_num(stars, nan=_TYPICAL_DISPERSION))
    return ObservedSpectra(
        torch.as_tensor(columns["spectrum"]),
        torch.as_tensor(columns["spectrum_ivar"]),
        torch.as_tensor(redshift, dtype=torch.float32),
        narrow_line_velocity(stars).float(),
        torch.zeros(len(redshift), dtype=torch.bool),
    )


def _photometry_in_fibre(zero_points: Tensor, galaxies: Galaxy, flux: Tensor) -> np.ndarray:
    """Return the fluxes in ugriz (nmgy) of the first draw of each galaxy."""
    first = galaxies[::_N_DRAWS]
    parts = [ab_flux(first[k : k + _CHUNK]) for k in range(0, len(first), _CHUNK)]
    colours = torch.cat(parts) * 10 ** (-0.4 * zero_points)
    return (colours / colours[:, _R : _R + 1] * flux[:, :1]).double().numpy()


def _properties(redshift: np.ndarray, flux: np.ndarray) -> Tensor:
    """Draw properties given photometry and redshift, shape (n, 4, 9); NaN without photometry."""
    n = len(flux)
    batch = PhotometryBatch(flux, _ERROR * np.abs(flux), np.zeros(n), np.zeros(n, bool))
    posterior = PropertyEstimator.from_pretrained().predict(
        photometry=batch,
        n_draws=_N_DRAWS,
        known={"redshift": redshift},
        seed=1,
        progress=False,
        on_error="flag",
    )
    draws = {name: values for name, values in posterior.draws.items() if name in QUANTITIES}
    return torch.as_tensor(quantities_to_theta(draws), dtype=torch.float32)
