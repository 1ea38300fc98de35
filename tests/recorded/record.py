"""Draws of the bundled weights in every mode of input, to compare with recorded ones.

``python tests/recorded/record.py`` computes them and writes ``draws.npz`` beside this file.  Record
them anew whenever weights are retrained or a change of the numbers is intended, and say so in the
changelog.
"""

import platform
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import torch

from astrogenspec import PropertyEstimator, SpectrumEstimator, SpectrumOptions
from astrogenspec.demo import load_cutouts, load_galaxies

PATH = Path(__file__).with_name("draws.npz")


def fingerprint():
    """Return what the last bit of a draw depends on: versions, processor and threads."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ()
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = f"torch {torch.__version__.partition('+')[0]}, numpy {np.__version__}"
    threads = f"{torch.get_num_threads()} threads"
    return f"{versions}, {torch.backends.cpu.get_cpu_capability()}, {threads}, {model}"


def compute():
    """Compute the draws of both lanes, as arrays by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {**_properties(), **_latents(), **_spectra()}


def _table(n=8):
    return load_galaxies()[:n]


def _photometry(table, bands="ugriz"):
    keep = {c for b in bands for c in (f"flux_{b}", f"flux_err_{b}", f"extinction_{b}")}
    return table[[name for name in table.colnames if name in keep or name == "name"]]


def _stack(posterior):
    return np.stack([q.value for q in posterior.draws.values()], axis=-1)


def _properties():
    table, (cutouts, _) = _table(), load_cutouts()
    own = {
        f"{kind}_{band}": table[f"{kind}_{band}"][: len(cutouts)]
        for kind in ("flux", "flux_err", "extinction")
        for band in "ugriz"
    }
    redshift = {"redshift": table["z_spec"]}
    broken = [cutouts[0], None, cutouts[2], None]
    found = {}
    for model in (None, "astrogenspec-properties-simulated"):
        estimator = PropertyEstimator.from_pretrained(model)
        label = "default" if model is None else "simulated"

        def add(name, *args, label=label, estimator=estimator, **kwargs):
            posterior = estimator.predict(*args, n_draws=20, seed=3, **kwargs)
            found[f"{label}/{name}"] = _stack(posterior)
            found[f"{label}/{name}/flagged"] = np.array(posterior.flags) != ""

        add("photometry", None, _photometry(table))
        add("photometry, blocks", None, _photometry(table), batch_size=3)
        add("gri", None, _photometry(table, "gri"))
        add("uncalibrated", None, _photometry(table), calibrated=False)
        add("known redshift", None, _photometry(table), known=redshift)
        add("image", cutouts, ebv=0.02)
        add("image, not measured", cutouts, ebv=0.0, measure=False)
        add("both", cutouts, own)
        add("flagged", broken, ebv=0.0, on_error="flag")
        theta = {"redshift": table["z_spec"]}
        densities = estimator.log_prob(theta, photometry=_photometry(table), calibrated=False)
        found[f"{label}/log_prob"] = densities
    return found


def _latents():
    cutouts, _ = load_cutouts()
    estimator = PropertyEstimator.from_pretrained()
    mean, sigma = estimator.encode(cutouts)
    image = estimator.traverse(cutouts[3], "redshift", [0.05, 0.2] * u.one)
    return {
        "latent/mean": mean,
        "latent/sigma": sigma,
        "latent/sample": estimator.sample(1, seed=1).value[:, :, ::8, ::8],
        "latent/traverse": image.value[:, :, ::8, ::8],
    }


def _spectra():
    table, (cutouts, _) = _photometry(_table(2)), load_cutouts()
    properties = PropertyEstimator.from_pretrained()
    estimator = SpectrumEstimator.from_pretrained("astrogenspec-spectra-simulated")
    of_table = properties.predict(photometry=table, n_draws=10, seed=1)
    of_cutouts = properties.predict(cutouts[:2], ebv=0.0, n_draws=10, seed=1)
    found = {}

    def add(name, *args, **kwargs):
        draws = estimator.predict(*args, seed=5, n_draws=2, **kwargs)
        found[f"spectra/{name}/flux"] = draws.flux.value[:, :, ::16]
        found[f"spectra/{name}/redshift"] = np.asarray(draws.redshift)
        found[f"spectra/{name}/weights"] = np.asarray(draws.weights)
        found[f"spectra/{name}/residual"] = draws.photometric_residual.value

    add("photometry", None, table)
    add("posterior", None, table, of_table)
    add("total", None, table, of_table, aperture="total")
    seeing = SpectrumOptions(psf_fwhm=1.3 * u.arcsec)
    add("image", cutouts[:2], None, of_cutouts, ebv=0.0, options=seeing)
    best = SpectrumOptions(select="best", n_candidates=4)
    add("best", cutouts[:2], ebv=0.0, options=best)
    weighted = SpectrumOptions(select="weighted")
    add("weighted, uncalibrated", cutouts[:2], ebv=0.0, options=weighted, calibrated=False)
    return found


if __name__ == "__main__":
    draws = compute()
    np.savez_compressed(PATH, fingerprint=fingerprint(), **draws)
