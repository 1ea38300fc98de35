"""Fine-tune the spectrum network on real spectra.

    python recipes/finetune_spectra.py sample FOLDER --data runs/images44 --out runs/real-spectra.pt
    python recipes/finetune_spectra.py fit runs/real-spectra.pt --data runs/images44 \
        --minutes 85 --out runs/spectra-folds/fold-0 --without-fold 0 [--model MODEL]

``sample`` reads ``sdss_galaxy_spectra.fits.gz`` in FOLDER, draws noise-free spectra from their
posterior (`astrogenspec.generation.observed_spectra`) and properties given photometry and redshift.
``fit`` fine-tunes on them and on the simulated galaxies of --data, and writes
``spectra.safetensors``; it resumes an interrupted run. With --without-fold, the galaxies of one of
five folds are used for validation only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from real_spectra import RealSpectra, read_real_spectra
from torch import Tensor

from astrogenspec import PropertyEstimator, SpectrumEstimator
from astrogenspec.generation.components import PER_BIN, Components, Galaxy
from astrogenspec.generation.conditioning import APERTURES
from astrogenspec.generation.finetuning import (
    FineTuningRecipe,
    ObservedSample,
    finetune_spectra,
)
from astrogenspec.generation.network import SpectrumNetwork
from astrogenspec.generation.observed_spectra import draw_noise_free, fit_prior
from astrogenspec.generation.pipeline import ab_flux
from astrogenspec.generation.training import LABELS, select_aperture
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.quantities import QUANTITIES, quantities_to_theta
from astrogenspec.synthetic import response_weights
from astrogenspec.training.loop import TrainingConfig
from astrogenspec.training.shards import Shards
from astrogenspec.wavelengths import LINE_NAMES, REST

#: Weights of simulated spectra, from which fine-tuning starts.
BASE = "astrogenspec-spectra-simulated"
#: Draws of the noise-free spectrum of each galaxy, and simulated galaxies that define the prior.
_N_DRAWS, _N_PRIOR = 4, 6000
#: Components of line fluxes that vary among simulated galaxies; the ratios of the others are fixed.
_N_LINE_COMPONENTS = 8
#: Lines that keep their fluxes, and weight of the others.
_STRONG_LINES = (
    "Halpha", "Hbeta", "NII6550", "NII6585", "OIII4960", "OIII5008", "OII3727", "OII3730",
    "SII6718", "SII6733",
)  # fmt: skip
_WEAK = 0.01
#: Dispersion of the stars (km/s) that sets the width of narrow lines where it is unknown.
_TYPICAL_DISPERSION = 100.0
#: Relative error of the photometry from which properties are drawn.
_ERROR = 0.02
#: Minimum fraction of observed pixels of a bin that counts as observed.
_MIN_OBSERVED = 0.5
_N_FOLDS = 5
_BATCHES = ("observed_batch", "photometry_batch", "image_batch", "detail")
_CHUNK = 200


def fold_of(n: int) -> np.ndarray:
    """Return the fold of each of n galaxies, 0 to 4, in a fixed random order."""
    fold = np.empty(n, int)
    fold[np.random.default_rng(0).permutation(n)] = np.arange(n) % _N_FOLDS
    return fold


def make_sample(folder: Path, data: Path, network: SpectrumNetwork) -> ObservedSample:
    """Draw noise-free spectra and properties of the real galaxies.

    Parameters
    ----------
    folder : Path
        Folder of the real tables.
    data : Path
        Folder of simulated shards with rest-frame spectra.
    network : SpectrumNetwork
        Network of simulated spectra.
    """
    real = read_real_spectra(folder)
    shards = Shards.read(data, LABELS)
    rows = torch.arange(_N_PRIOR)
    simulated = select_aperture(shards.labels(rows), rows % len(APERTURES))
    spectra = real.at_rest()
    prior, fits = fit_prior(simulated, spectra)
    rng = np.random.default_rng(3)
    dispersion, redshift, parts, fluxes = real.dispersion(), real.redshift, [], []
    on_survey = 10 ** (-0.4 * float(network.zero_points[2]))
    width = np.nan_to_num(dispersion, nan=_TYPICAL_DISPERSION)
    for fitted, sigma, z in zip(fits, width, redshift, strict=True):
        if fitted is None:
            raise ValueError("a spectrum has no good pixel, or cannot be fitted; leave it out.")
        r_band = response_weights(REST.wavelength * (1 + z) * u.AA, bands=("r",))[:, 0] * on_survey
        drawn, flux = draw_noise_free(prior, fitted, sigma, z, r_band, _N_DRAWS, rng)
        parts.append(drawn)
        fluxes.append(flux)
    galaxies = Galaxy.concatenate(parts)
    flux = torch.as_tensor(np.array(fluxes), dtype=torch.float32)
    narrow = with_simulated_ratios(network.components, galaxies.narrow)
    return ObservedSample(
        continuum=galaxies.continuum.unflatten(0, (len(real), -1)).half(),
        narrow=narrow.unflatten(0, (len(real), -1)),
        broad=galaxies.broad.unflatten(0, (len(real), -1)),
        redshift=torch.as_tensor(redshift, dtype=torch.float32),
        dispersion=torch.as_tensor(dispersion, dtype=torch.float32),
        flux=flux,
        total=torch.as_tensor(real.total, dtype=torch.float32),
        theta_in_fibre=properties(real, photometry_in_fibre(network, galaxies, flux)),
        theta_of_total=properties(real, real.total),
        weight=(
            (spectra.ivar > 0).float().unflatten(1, (-1, PER_BIN)).mean(2) > _MIN_OBSERVED
        ).float(),
    )


def with_simulated_ratios(components: Components, narrow: Tensor) -> Tensor:
    """Project line fluxes on the line ratios that vary among simulated galaxies.

    The projection is a least-squares fit of the logarithms, in which weak lines, whose draws are
    noisy, have small weights: the fluxes of strong lines hardly change.
    """
    logs = narrow.clamp_min(1e-3).log10() - components.line_mean
    weight = torch.tensor([1.0 if name in _STRONG_LINES else _WEAK for name in LINE_NAMES])
    first = components.n_continuum
    centre = components.centre[first : first + len(LINE_NAMES)]
    fixed = centre[_N_LINE_COMPONENTS:] @ components.line_basis[_N_LINE_COMPONENTS:]
    basis = components.line_basis[:_N_LINE_COMPONENTS]
    normal = (basis * weight) @ basis.T
    coefficients = torch.linalg.solve(normal, (basis * weight) @ (logs - fixed).T)
    return 10 ** (coefficients.T @ basis + fixed + components.line_mean)


def photometry_in_fibre(network: SpectrumNetwork, galaxies: Galaxy, flux: Tensor) -> np.ndarray:
    """Return the fluxes in ugriz (nmgy) of the first draw of each galaxy."""
    first = galaxies[::_N_DRAWS]
    parts = [ab_flux(first[k : k + _CHUNK]) for k in range(0, len(first), _CHUNK)]
    colours = torch.cat(parts) * 10 ** (-0.4 * network.zero_points)
    return (colours / colours[:, 2:3] * flux[:, :1]).double().numpy()


def properties(real: RealSpectra, flux: np.ndarray) -> Tensor:
    """Draw properties given photometry and redshift, shape (n, 4, 9); NaN without photometry."""
    n = len(flux)
    batch = PhotometryBatch(flux, _ERROR * flux, np.zeros(n), np.zeros(n, bool))
    posterior = PropertyEstimator.from_pretrained().predict(
        photometry=batch,
        n_draws=_N_DRAWS,
        known={"redshift": real.redshift},
        seed=1,
        progress=False,
        on_error="flag",
    )
    draws = {name: values for name, values in posterior.draws.items() if name in QUANTITIES}
    return torch.as_tensor(quantities_to_theta(draws), dtype=torch.float32)


def run_fit(arguments: argparse.Namespace) -> None:
    """Fine-tune, and write the weights."""
    sample = ObservedSample(**torch.load(arguments.source))
    held_out: list[int] = []
    if arguments.without_fold is not None:
        held_out = np.flatnonzero(fold_of(len(sample)) == arguments.without_fold).tolist()
    network, history = finetune_spectra(
        SpectrumEstimator.from_pretrained(arguments.model).network,
        sample,
        arguments.data,
        arguments.out,
        TrainingConfig(
            max_seconds=60 * arguments.minutes,
            learning_rate=arguments.learning_rate,
            validate_every=100,
            ema_decay=0.998,
            checkpoint_minutes=2,
        ),
        recipe=FineTuningRecipe(
            **dict(zip(_BATCHES, arguments.batches, strict=True)), seed=arguments.seed
        ),
        held_out=held_out,
    )
    card = {
        "name": "fine-tuned",
        "minutes": arguments.minutes,
        "learning_rate": arguments.learning_rate,
        "batches": arguments.batches,
        "seed": arguments.seed,
        "best_step": history.best_step,
    }
    SpectrumEstimator(network, card=card).save(
        arguments.out / "spectra.safetensors", overwrite=True
    )


def main() -> None:
    """Make the sample, or fine-tune on it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("sample", "fit"))
    parser.add_argument("source", type=Path, help="folder of the real tables, or the sample")
    parser.add_argument("--data", type=Path, required=True, help="simulated shards with spectra")
    parser.add_argument("--model", default=BASE, help="weights from which to start")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument(
        "--batches", type=int, nargs=4, default=(128, 96, 16, 12), metavar="N",
        help="real galaxies, simulated ones without and with images in a batch, and maximum of "
        "each that train the full-resolution network",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--without-fold", type=int, choices=range(_N_FOLDS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.what == "sample":
        network = SpectrumEstimator.from_pretrained(arguments.model).network
        sample = make_sample(arguments.source, arguments.data, network)
        torch.save(vars(sample), arguments.out)
    else:
        run_fit(arguments)


if __name__ == "__main__":
    main()
