"""Observed spectra of a data set, as the fine-tuning of the spectrum network takes them.

The noise-free spectra of each galaxy are drawn from their posterior given the observed one, with
its noise and gaps (`astrogenspec.generation.observed_spectra`): the network learns noise-free
spectra from noisy ones.  Its photometry is that of the spectrum, and the total photometry where all
five bands of SDSS are known; images are not used.  Properties that condition the spectrum are draws
of the bundled weights, given the redshift and the photometry.
"""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from ..generation.components import PER_BIN, Galaxy
from ..generation.conditioning import APERTURES
from ..generation.finetuning import ObservedSample
from ..generation.network import SpectrumNetwork
from ..generation.observed_spectra import ObservedSpectra, draw_noise_free, fit_prior
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

__all__ = ["MIN_GALAXIES", "observed_sample"]

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
    parts = [_usable(folder, n) for folder in (training, validation) if folder is not None]
    columns = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("theta", "flux", "velocity_dispersion", "spectrum", "spectrum_ivar")
    }
    n_training = len(parts[0]["theta"])
    if n_training < MIN_GALAXIES:
        raise ValueError(
            f"{observed} has {n_training} spectra for training with a known redshift that cover a "
            f"third of the wavelengths; at least {MIN_GALAXIES} are needed."
        )
    held_out = list(range(n_training, len(columns["theta"])))
    return _sample(columns, simulated, network, seed), held_out


def _usable(folder: Path, n: int | None) -> dict[str, np.ndarray]:
    """Read the galaxies of a folder with a redshift and enough of a spectrum."""
    columns, filters = read_columns(folder, n)
    if "spectrum" not in columns:
        raise ValueError(f"{folder} has no spectra; make the data set with spectra.")
    if filters != tuple(each.name for each in sdss_filters()):
        # Total photometry in other filters is not used.
        columns["flux"] = np.full((len(columns["theta"]), len(BANDS)), np.nan, np.float32)
    redshift = columns["theta"][:, quantity_index("redshift")]
    covered = (columns["spectrum_ivar"] > 0).mean(axis=1)
    keep = np.isfinite(redshift) & (covered > _MIN_BINS)
    return {name: values[keep] for name, values in columns.items()}


def _sample(
    columns: dict[str, np.ndarray], simulated: Path | str, network: SpectrumNetwork, seed: int
) -> ObservedSample:
    redshift = columns["theta"][:, quantity_index("redshift")].astype(float)
    dispersion = columns["velocity_dispersion"].astype(float)
    spectra = _spectra(columns, redshift, dispersion)
    shards = Shards.read(simulated, LABELS)
    rows = torch.arange(min(_N_PRIOR, len(shards)))
    prior, fits = fit_prior(select_aperture(shards.labels(rows), rows % len(APERTURES)), spectra)
    rng = np.random.default_rng(seed)
    on_survey = 10 ** (-0.4 * float(network.zero_points[_R]))
    parts, fluxes = [], []
    for fitted, sigma, z in zip(fits, dispersion, redshift, strict=True):
        r_band = response_weights(REST.wavelength * (1 + z) * u.AA, bands=("r",))[:, 0] * on_survey
        drawn, flux = draw_noise_free(prior, fitted, sigma, z, r_band, _N_DRAWS, rng)
        parts.append(drawn)
        fluxes.append(flux)
    galaxies = Galaxy.concatenate(parts)
    flux = torch.as_tensor(np.array(fluxes), dtype=torch.float32)
    n = len(redshift)
    observed = (spectra.ivar > 0).float().unflatten(1, (-1, PER_BIN)).mean(2) > _MIN_OBSERVED
    return ObservedSample(
        continuum=galaxies.continuum.unflatten(0, (n, -1)).half(),
        narrow=galaxies.narrow.unflatten(0, (n, -1)),
        broad=galaxies.broad.unflatten(0, (n, -1)),
        redshift=torch.as_tensor(redshift, dtype=torch.float32),
        dispersion=torch.as_tensor(dispersion, dtype=torch.float32),
        flux=flux,
        total=torch.as_tensor(columns["flux"]),
        theta_in_fibre=_properties(redshift, _photometry_in_fibre(network, galaxies, flux)),
        theta_of_total=_properties(redshift, columns["flux"].astype(float)),
        weight=observed.float(),
    )


def _spectra(
    columns: dict[str, np.ndarray], redshift: np.ndarray, dispersion: np.ndarray
) -> ObservedSpectra:
    stars = torch.as_tensor(np.nan_to_num(dispersion, nan=_TYPICAL_DISPERSION))
    return ObservedSpectra(
        torch.as_tensor(columns["spectrum"]),
        torch.as_tensor(columns["spectrum_ivar"]),
        torch.as_tensor(redshift, dtype=torch.float32),
        narrow_line_velocity(stars).float(),
        torch.zeros(len(redshift), dtype=torch.bool),
    )


def _photometry_in_fibre(network: SpectrumNetwork, galaxies: Galaxy, flux: Tensor) -> np.ndarray:
    """Return the fluxes in ugriz (nmgy) of the first draw of each galaxy."""
    first = galaxies[::_N_DRAWS]
    parts = [ab_flux(first[k : k + _CHUNK]) for k in range(0, len(first), _CHUNK)]
    colours = torch.cat(parts) * 10 ** (-0.4 * network.zero_points)
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
