"""Compare measurements on spectra with the values of the SDSS pipeline and of the simulator.

    python benchmarks/measure_sdss.py FOLDER [--simulated 100]

FOLDER holds ``sdss_spectra.fits``: real SDSS spectra with the redshifts, velocity dispersions and
line fluxes of the survey's pipeline (whose Balmer lines are known to lose flux to stellar
absorption).  ``--simulated`` compares with the true values of simulated fibre spectra, noise-free
and at a signal-to-noise ratio of 15 per pixel.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty
from astropy.table import Table
from specutils import Spectrum

from astrogenspec.measure import (
    measure_kinematics,
    measure_lines,
    measure_populations,
    measure_redshift,
)
from astrogenspec.quantities import QUANTITIES

UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")
PIPELINE = {
    "halpha": "h_alpha",
    "hbeta": "h_beta",
    "oiii5007": "oiii_5007",
    "nii6584": "nii_6584",
    "sii6717": "sii_6717",
}
SIMULATED = {
    "halpha": "Halpha",
    "hbeta": "Hbeta",
    "oiii5007": "OIII5008",
    "nii6584": "NII6585",
    "sii6717": "SII6718",
}
LIGHT_SPEED = 299792.458  # km/s
REDSHIFT = list(QUANTITIES).index("redshift")


def read_spectra(folder: Path) -> tuple[Table, list[Spectrum]]:
    """Read the table and the spectra of the real sample."""
    with fits.open(folder / "sdss_spectra.fits") as hdus:
        table = Table.read(hdus[1])
        wavelength = 10 ** hdus["LOGLAM"].data.astype(float)
        flux, ivar = (np.array(hdus[name].data, dtype=float) for name in ("FLUX", "IVAR"))
    spectra = []
    for row, values, weights in zip(table, flux, ivar, strict=True):
        covered = slice(*(np.flatnonzero(weights > 0)[[0, -1]] + [0, 1]))
        spectra.append(
            Spectrum(
                flux=values[covered] * UNIT,
                spectral_axis=wavelength[covered] * u.AA,
                uncertainty=InverseVariance(weights[covered]),
                mask=weights[covered] <= 0,
                redshift=float(row["z"]),
            )
        )
    return table, spectra


def summary(difference: list[float], error: list[float] | None = None) -> dict[str, float]:
    """Return bias, robust scatter and largest deviation; with errors, also scatter / error."""
    values = np.array(difference, dtype=float)
    finite = np.isfinite(values)
    values = values[finite]
    if not len(values):
        return {"n": 0}
    robust = lambda x: float(1.4826 * np.median(np.abs(x - np.median(x))))  # noqa: E731
    found = {
        "n": len(values),
        "bias": float(np.median(values)),
        "scatter": robust(values),
        "rms": float(np.sqrt(np.mean(values**2))),
        "largest": float(np.abs(values).max()),
    }
    if error is not None:
        found["scatter_over_error"] = robust(values / np.array(error)[finite])
    return found


def timed(function, *arguments, **options):
    """Return the result of a call and its processor time (s)."""
    start = time.process_time()
    result = function(*arguments, **options)
    return result, time.process_time() - start


def real(folder: Path) -> dict:
    """Compare with the survey's pipeline."""
    table, spectra = read_spectra(folder)
    for measure in (measure_lines, measure_redshift, measure_kinematics):
        measure(spectra[0])
    velocity, velocity_err, sigma, sigma_err = [], [], [], []
    fluxes = {f"{name}, {mode}": [] for mode in ("templates", "local") for name in PIPELINE}
    seconds = {"lines": [], "redshift": [], "kinematics": [], "populations": []}
    for row, spectrum in zip(table, spectra, strict=True):
        found, spent = timed(measure_redshift, spectrum)
        seconds["redshift"].append(spent)
        z, dz = found["redshift"][0], found["redshift_err"][0]
        velocity.append(LIGHT_SPEED * (z - row["z"]) / (1 + row["z"]))
        velocity_err.append(LIGHT_SPEED * np.hypot(dz, row["z_err"]) / (1 + row["z"]))
        found, spent = timed(measure_kinematics, spectrum)
        seconds["kinematics"].append(spent)
        seconds["populations"].append(timed(measure_populations, spectrum)[1])
        if row["vdisp"] is not np.ma.masked and row["vdisp"] > 60:
            sigma.append(found["dispersion"][0].value - row["vdisp"])
            sigma_err.append(np.hypot(found["dispersion_err"][0].value, row["vdisp_err"]))
        for mode in ("templates", "local"):
            lines, spent = timed(measure_lines, spectrum, stellar_absorption=mode)
            if mode == "templates":
                seconds["lines"].append(spent)
            of_line = dict(zip(lines["line"], lines["flux"].value, strict=True))
            for name, column in PIPELINE.items():
                flux, error = row[f"{column}_flux"], row[f"{column}_flux_err"]
                if flux > 10 * error:
                    fluxes[f"{name}, {mode}"].append(np.log10(of_line[name] / flux))
    return {
        "redshift (km/s)": summary(velocity, velocity_err),
        "velocity dispersion above 60 km/s (km/s)": summary(sigma, sigma_err),
        **{f"flux of {name} (dex)": summary(values) for name, values in fluxes.items()},
        "processor seconds a spectrum": {k: float(np.mean(v)) for k, v in seconds.items()},
    }


def simulated(n: int, signal_to_noise: float | None) -> dict:
    """Compare with the true values of simulated spectra."""
    from astrogenspec.simulate import Simulator
    from astrogenspec.simulate.nebular import line_index
    from astrogenspec.simulate.spectrum import OBSERVED

    simulator = Simulator()
    galaxies = simulator.draw(n, seed=1)
    inside = (OBSERVED.wavelength > 3800) & (OBSERVED.wavelength < 9200)
    fluxes = simulator.spectra(galaxies).numpy().astype(float)[:, inside]
    rng = np.random.default_rng(0)
    shifts, sigmas, sigma_errors = [], [], []
    lines = {name: ([], []) for name in SIMULATED}
    for k, flux in enumerate(fluxes):
        error = None
        if signal_to_noise is not None:
            typical = np.median(flux)
            error = np.sqrt(np.maximum(flux, 0.1 * typical) * typical) / signal_to_noise
            flux = flux + error * rng.normal(size=len(flux))
        z = float(galaxies.theta[k, REDSHIFT])
        spectrum = Spectrum(
            flux=flux * UNIT,
            spectral_axis=OBSERVED.wavelength[inside] * u.AA,
            uncertainty=None if error is None else StdDevUncertainty(error),
            redshift=z,
        )
        shifts.append(measure_redshift(spectrum)["redshift"][0] - z)
        motion = measure_kinematics(spectrum)[0]
        sigmas.append(
            motion["dispersion"].value - float(galaxies.properties["velocity_dispersion"][k])
        )
        sigma_errors.append(motion["dispersion_err"].value)
        table = {str(row["line"]): row for row in measure_lines(spectrum)}
        for name, label in SIMULATED.items():
            row, true = table[name], float(galaxies.line_flux[k, line_index(label)])
            if row["equivalent_width"].value > 3:
                lines[name][0].append(np.log10(row["flux"].value / true))
                lines[name][1].append(row["flux_err"].value / row["flux"].value / np.log(10))
    return {
        "redshift": summary(shifts),
        "velocity dispersion (km/s)": summary(sigmas, sigma_errors),
        **{f"flux of {name}, EW > 3 A (dex)": summary(*pair) for name, pair in lines.items()},
    }


def main() -> None:
    """Run the comparison, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with sdss_spectra.fits")
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="simulated spectra")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    result = {"real": real(arguments.folder)}
    if arguments.simulated:
        result["simulated, noise-free"] = simulated(arguments.simulated, None)
        result["simulated, S/N 15"] = simulated(arguments.simulated, 15.0)
    for title, rows in result.items():
        print(title)
        for name, values in rows.items():
            shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            print(f"  {name:45s} {shown}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "measure_sdss.json"
    path.write_text(json.dumps(result, indent=1))
    print("written to", path)


if __name__ == "__main__":
    main()
