"""The demonstration: ``python -m astrogenspec.demo --out results/demo``.

It infers the properties of 24 real SDSS galaxies with photometry and spectroscopic redshift, and
the properties and spectra of four simulated galaxies with images, whose true properties are known.
Tables and figures are written to the output folder.  All data are included in the package.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from .atomic import save_figure
from .quantities import QUANTITIES

if TYPE_CHECKING:
    from astropy.nddata import CCDData

    from .inference.estimator import PropertyEstimator
    from .results.posterior import Posterior

__all__ = ["load_cutouts", "load_galaxies", "main"]


def load_galaxies() -> QTable:
    """Load the 24 SDSS galaxies included in the package.

    Returns
    -------
    `~astropy.table.QTable`, 24 rows
        ``name``, ``ra``, ``dec`` [deg], ``z_spec``, and for each band ``flux_u``, ``flux_err_u``
        [nmgy] (model flux as observed) and ``extinction_u`` [mag].

    Notes
    -----
    From the test sample of kcorrect (M. Blanton, BSD 3-Clause).

    References
    ----------
    Blanton & Roweis 2007, AJ 133, 734 (kcorrect). Abazajian et al. 2009, ApJS 182, 543 (SDSS DR7).
    """
    return QTable.read(_data("sdss_demo_galaxies.ecsv"), format="ascii.ecsv")


def load_cutouts() -> tuple[list[dict[str, CCDData]], QTable]:
    """Load the simulated galaxies included in the package.

    Returns
    -------
    cutouts : list of dict of `~astropy.nddata.CCDData`
        Images by band, with the noise of SDSS and without Galactic extinction.
    truth : `~astropy.table.QTable`
        One row for each galaxy: ``file``, and the true quantities named as in
        `~astrogenspec.quantities.QUANTITIES`.
    """
    from .inputs.cutout_fits import read_cutout_fits

    truth = QTable.read(_data("demo_cutouts_truth.ecsv"), format="ascii.ecsv")
    return [read_cutout_fits(_data(str(name))) for name in truth["file"]], truth


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command-line arguments; those of the process by default.

    Returns
    -------
    int
        Exit status, 0.
    """
    parser = argparse.ArgumentParser(prog="python -m astrogenspec.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="output folder")
    parser.add_argument("--model", default=None, help="registered weights, or a .safetensors file")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the draws")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    import matplotlib as mpl

    from .inference.estimator import PropertyEstimator

    mpl.use("Agg")
    estimator = PropertyEstimator.from_pretrained(options.model)
    print(f"{estimator}\n")
    _show_galaxies(estimator, options.out, options.seed)
    posterior = _show_cutouts(estimator, options.out, options.seed)
    _show_spectra(posterior, options.out, options.seed)
    print(f"Done in {time.perf_counter() - start:.0f} s. Results in {options.out}:")
    for path in sorted(options.out.iterdir()):
        print(f"  {path.name}")
    return 0


def _data(name: str) -> Path:
    return Path(str(files("astrogenspec") / "data" / name))


def _show_galaxies(estimator: PropertyEstimator, out: Path, seed: int) -> None:
    from . import plotting

    galaxies = load_galaxies()
    posterior, seconds = _timed(estimator.predict, photometry=galaxies, seed=seed)
    posterior.write(out / "galaxies.fits", overwrite=True)
    posterior.write(out / "galaxies.ecsv", overwrite=True)
    print(
        f"{len(galaxies)} SDSS galaxies, photometry only: {posterior.n_draws} draws each in "
        f"{seconds:.1f} s."
    )
    print("Medians and 68% intervals (mass in dex(Msun), star-formation rate in dex(Msun / yr)):\n")
    print(_summary(posterior, galaxies))
    low, high = posterior["redshift"].interval(0.68)
    inside = (low.value <= galaxies["z_spec"]) & (galaxies["z_spec"] <= high.value)
    print(
        f"\n{np.count_nonzero(inside)} of {len(galaxies)} spectroscopic redshifts lie inside the "
        "68% interval "
        "(see the card of the model for the accuracy of large samples)."
    )
    _comment_on_misses(posterior, galaxies)
    axes = plotting.prediction_vs_truth(posterior["redshift"], galaxies["z_spec"])
    axes.set(xlabel="spectroscopic redshift", ylabel="redshift from photometry (median, 68%)")
    _save(axes.figure, out / "galaxies_redshift.png")


def _comment_on_misses(posterior: Posterior, galaxies: QTable) -> None:
    """Print the galaxies whose spectroscopic redshift lies outside the 95% interval."""
    low, high = (bound.value for bound in posterior["redshift"].interval(0.95))
    for k in np.flatnonzero((galaxies["z_spec"] < low) | (galaxies["z_spec"] > high)):
        flag = posterior.flags[k] or "no flag"
        print(
            f"{galaxies['name'][k]}: the spectroscopic redshift {galaxies['z_spec'][k]:.4f} lies "
            f"outside the 95% interval [{low[k]:.3f}, {high[k]:.3f}] ({flag})."
        )
    print(
        "About 1 in 20 galaxies is expected outside: a single photometric redshift can be wrong "
        "without any sign in the "
        "photometry.\n"
    )


def _show_cutouts(estimator: PropertyEstimator, out: Path, seed: int) -> Posterior:
    from . import plotting
    from .inputs.cutouts import coerce_cutouts

    cutouts, truth = load_cutouts()
    posterior, seconds = _timed(estimator.predict, cutouts, ebv=0.0, seed=seed)
    posterior.write(out / "cutouts.fits", overwrite=True)
    print(
        f"{len(cutouts)} simulated galaxies, images only: {seconds:.1f} s. True values and "
        "posteriors (medians and 68% "
        "intervals):\n"
    )
    print(_compared(posterior, truth))
    for name, flag in zip(posterior.names, posterior.flags, strict=True):
        if flag:
            print(f"{name}: {flag}")
    print()
    batch = coerce_cutouts(cutouts)
    images = estimator.reconstruct(batch)
    for k, galaxy in enumerate(posterior.names):
        known = {name: truth[name][k] for name in posterior.quantities if name in truth.colnames}
        _save(posterior.plot_corner(k, truth=known), out / f"{galaxy}_corner.png")
        figure = plotting.reconstruction(batch.flux[k], images[k], ivar=batch.ivar[k])
        _save(figure, out / f"{galaxy}_image.png")
    return posterior


def _show_spectra(posterior: Posterior, out: Path, seed: int) -> None:
    from .generation.estimator import SpectrumEstimator
    from .measure import line_flux

    cutouts, truth = load_cutouts()
    estimator = SpectrumEstimator.from_pretrained()
    spectra, seconds = _timed(estimator.predict, cutouts, None, posterior, ebv=0.0, seed=seed)
    spectra.write(out / "cutouts_spectra.fits", overwrite=True)
    print(f"{spectra.n_draws} spectra of each galaxy, in a fibre of 3 arcsec: {seconds:.1f} s.")
    for k, galaxy in enumerate(spectra.names):
        _save(spectra.plot(k).figure, out / f"{galaxy}_spectrum.png")
    first = spectra[0]
    measured = first.measure(line_flux("halpha"))
    table = posterior["halpha_flux"].draws[0, : first.n_draws]
    print(
        f"Halpha flux of {spectra.names[0]} in {table.unit}: "
        f"{measured.pdf_median()[0].value:.3g} +- "
        f"{measured.pdf_std()[0].value:.2g} measured on the spectra, "
        f"{np.median(table.value):.3g} in the posterior, "
        f"true value {truth['halpha_flux'][0].value:.3g}.\n"
    )


def _timed(function: Any, *args: Any, **kwargs: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - start


def _summary(posterior: Posterior, galaxies: QTable) -> str:
    """Format spectroscopic redshifts, and medians and intervals of the main quantities."""
    columns: dict[str, Any] = {"name": galaxies["name"]}
    columns["z_spec"] = [f"{z:.4f}" for z in galaxies["z_spec"]]
    for name in ("redshift", "stellar_mass", "sfr"):
        columns[name] = [_interval(posterior, name, k) for k in range(len(posterior))]
    if any(posterior.flags):
        columns["flag"] = posterior.flags
    return "\n".join(Table(columns).pformat(-1, -1))


def _compared(posterior: Posterior, truth: QTable) -> str:
    """Format true values, medians and intervals, one line for each galaxy and quantity."""
    rows = [
        (galaxy, name, _number(truth[name][k], name), _interval(posterior, name, k), str(info.unit))
        for k, galaxy in enumerate(posterior.names)
        for name, info in QUANTITIES.items()
        if name in truth.colnames
    ]
    table = Table(rows=rows, names=("galaxy", "quantity", "true", "posterior", "unit"))
    return "\n".join(table.pformat(-1, -1))


def _interval(posterior: Posterior, name: str, k: int) -> str:
    low, middle, high = (value[k] for value in posterior[name].percentiles([16, 50, 84]))
    return f"{_number(middle, name)} [{_number(low, name)}, {_number(high, name)}]"


def _number(value: Any, name: str) -> str:
    digits = 3 if name == "redshift" else 2
    number = float(u.Quantity(value, QUANTITIES[name].unit, subok=True).value)
    return f"{number:.3g}" if QUANTITIES[name].logarithmic else f"{number:.{digits}f}"


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    save_figure(figure, path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
