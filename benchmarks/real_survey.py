"""Write the real images and spectra in FOLDER as a survey of a user's own.

    python benchmarks/real_survey.py FOLDER --out OUT

The folders that ``astrogenspec dataset from-files`` reads are written: OUT/images.ecsv and
OUT/images with the cutouts, OUT/spectra.ecsv and OUT/spectra with the spectra of SDSS, and
OUT/fors2.ecsv and OUT/fors2 with those of FORS2.  The rest is done by the commands of the
documentation (docs/real_survey.rst).

The spectra of FORS2 have neither positions nor errors nor absolute fluxes.  Here each is at a
position of its own, its noise is estimated from the differences of neighbouring pixels, it is
scaled to r = 20, and its photometry is synthetic, in r and, where the spectrum covers it, in i:
they test the way of spectra of another instrument to a network, and no more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _path  # noqa: F401
import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table
from real_images import RealImages
from real_spectra import plain, read_real_spectra

from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS
from astrogenspec.synthetic import response_weights

#: Relative error of the photometry, and magnitude to which spectra of FORS2 are scaled.
_ERROR, _FAINT = 0.03, 20.0
#: Ranges (Angstrom) that a spectrum must cover for its synthetic fluxes.
_COVERED = {"r": (5400.0, 7000.0), "i": (6800.0, 8350.0)}
_LINES = {
    "halpha_flux": "h_alpha",
    "hbeta_flux": "h_beta",
    "nii6584_flux": "nii_6584",
    "oiii5007_flux": "oiii_5007",
}
#: Extinction in r per E(B-V) of Schlegel, Finkbeiner & Davis (1998), the scale of the tables.
_EXT_R = 2.751


def _fluxes(table: QTable, flux: np.ndarray) -> None:
    """Add total fluxes with their errors, where they are known."""
    for k, band in enumerate(BANDS):
        if np.isfinite(flux[:, k]).any():
            table[f"flux_{band}"] = flux[:, k] * u.nmgy
            table[f"flux_err_{band}"] = _ERROR * np.abs(flux[:, k]) * u.nmgy


def write_images(folder: Path, out: Path) -> int:
    """Write cutouts and their table; return the number of galaxies."""
    images = RealImages.read(folder)
    source = Table.read(folder / "sdss_images.fits")
    table = QTable({"name": [f"I{k:04d}" for k in range(len(source))]})
    table["ra"], table["dec"] = plain(source["ra"]) * u.deg, plain(source["dec"]) * u.deg
    table["ebv"] = images.photometry.extinction[:, BANDS.index("r")] / _EXT_R * u.mag
    _fluxes(table, images.photometry.flux)
    for name in images.labels.colnames:
        table[name] = images.labels[name]
    for name, line in _LINES.items():
        table[name] = plain(source[f"{line}_flux"]) * QUANTITIES[name].unit
    table["gas_metallicity"] = plain(source["oh_o3n2_pp04"]) * QUANTITIES["gas_metallicity"].unit
    (out / "images").mkdir(parents=True)
    for k, row in enumerate(table):
        write_cutout_fits(out / "images" / f"{row['name']}.fits", images.cutouts, k)
    table.write(out / "images.ecsv")
    return len(table)


def _write_spectrum(path: Path, columns: dict[str, np.ndarray]) -> None:
    fits_columns = [fits.Column(name, "D", array=values) for name, values in columns.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(fits_columns)]).writeto(path)


def write_spectra(folder: Path, out: Path) -> int:
    """Write the spectra of SDSS and their table; return the number of galaxies."""
    spectra = read_real_spectra(folder)
    source = spectra.table
    table = QTable({"name": [f"S{k:04d}" for k in range(len(source))]})
    table["ra"], table["dec"] = plain(source["ra"]) * u.deg, plain(source["dec"]) * u.deg
    # Spectra and photometry are corrected for Galactic extinction.
    table["ebv"] = np.zeros(len(source)) * u.mag
    total = spectra.total
    in_fibre = np.stack([plain(source[f"spectroflux_{band}"]) for band in BANDS], axis=1)
    _fluxes(table, total)
    table["redshift"] = spectra.redshift * u.one
    for name, line in _LINES.items():
        flux, error = plain(source[f"{line}_flux"]), plain(source[f"{line}_flux_err"])
        found = (error > 0) & (flux > 3 * error)
        table[name] = np.where(found, flux, np.nan) * QUANTITIES[name].unit
    table["velocity_dispersion"] = spectra.dispersion() * u.km / u.s
    unknown = ~np.isfinite(total).any(axis=1)
    # Galaxies whose total flux is unknown: that in the fibre, with a large error.
    factor = np.nanmedian((total / in_fibre)[:, 2])
    rough = np.where(in_fibre[:, 2] > 0, factor * in_fibre[:, 2], np.nan)
    table["flux_r"][unknown] = rough[unknown] * u.nmgy
    table["flux_err_r"][unknown] = 0.5 * rough[unknown] * u.nmgy
    (out / "spectra").mkdir(parents=True)
    for k, name in enumerate(table["name"]):
        columns = {"loglam": spectra.log_wavelength, "flux": spectra.flux[k]}
        _write_spectrum(out / "spectra" / f"{name}.fits", columns | {"ivar": spectra.ivar[k]})
    table.write(out / "spectra.ecsv")
    return len(table)


def write_fors2(folder: Path, out: Path) -> int:
    """Write the spectra of FORS2 and their table; return the number of galaxies."""
    with fits.open(folder / "fors2_cluster_field_spectra.fits.gz") as hdus:
        source = Table.read(hdus["GALAXIES"])
        wave, flux, bad = (np.array(hdus[name].data, float) for name in ("WAVE", "FLUX", "BAD"))
    n = len(source)
    rng = np.random.default_rng(0)
    table = QTable({"name": [f"F{k:04d}" for k in range(n)]})
    table["ra"], table["dec"] = 360 * rng.random(n) * u.deg, 80 * rng.random(n) * u.deg
    table["ebv"] = np.zeros(n) * u.mag
    table["redshift"] = plain(source["z"]) * u.one
    photometry = np.full((n, len(BANDS)), np.nan)
    (out / "fors2").mkdir(parents=True)
    for k, name in enumerate(table["name"]):
        used = np.isfinite(wave[k]) & (wave[k] > 0)
        good = used & (bad[k] == 0) & (flux[k] != 0)
        seen = _synthetic(wave[k][good], flux[k][good])
        scale = 10 ** (0.4 * (22.5 - _FAINT)) / seen[BANDS.index("r")]
        if not np.isfinite(scale):
            # One nanomaggy in r is about 2.8e-17 erg/s/cm2/A at 6200 Angstrom.
            scale = 2.8 * 10 ** (0.4 * (22.5 - _FAINT)) / np.median(flux[k][good])
        photometry[k] = scale * seen
        step = np.diff(flux[k][used], append=flux[k][used][-1])
        # A robust standard deviation: neighbours of white noise differ by sqrt(2) sigma.
        sigma = 1.4826 * np.median(np.abs(step[good[used]])) / np.sqrt(2) * scale
        _write_spectrum(
            out / "fors2" / f"{name}.fits",
            {
                "wavelength": wave[k][used],
                "flux": scale * flux[k][used],
                "ivar": np.where(good[used], sigma**-2, 0.0),
            },
        )
    _fluxes(table, photometry)
    table.write(out / "fors2.ecsv")
    return n


def _synthetic(wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Return synthetic fluxes in r and i (nmgy), NaN where the spectrum does not cover them."""
    found = np.full(len(BANDS), np.nan)
    for band in "ri":
        low, high = _COVERED[band]
        if wavelength[0] < low and wavelength[-1] > high:
            found[BANDS.index(band)] = (
                flux @ response_weights(wavelength * u.AA, bands=(band,))[:, 0]
            )
    return found


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the real tables")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for write in (write_images, write_spectra, write_fors2):
        print(write.__name__, write(options.folder, options.out))


if __name__ == "__main__":
    main()
