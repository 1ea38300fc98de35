"""Small surveys of round galaxies with known colours, as files and as frames."""

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS

BANDS = "ugriz"
#: Noise of a pixel (nmgy), and fluxes relative to r.
SIGMA = {"u": 0.05, "g": 0.02, "r": 0.03, "i": 0.04, "z": 0.15}
COLOUR = {"u": 0.2, "g": 0.5, "r": 1.0, "i": 1.35, "z": 1.6}
PIXEL = 0.396 / 3600


def wcs_at(ra, dec, shape):
    """World coordinates of an image centred at a position."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-PIXEL, PIXEL]
    return wcs


def blob(shape, x, y, width=4.0):
    """A round Gaussian of flux 1 at a pixel."""
    yy, xx = np.indices(shape)
    image = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * width**2))
    return image / (2 * np.pi * width**2)


def make_table(n, seed=0, *, ra=180.0, dec=0.0, spread=20.0):
    """Catalogue of galaxies over many sky cells: photometry, extinction, redshift and mass."""
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(1.5, 2.3, n)
    table = QTable(
        {
            "name": [f"G{k:03d}" for k in range(n)],
            "ra": ra + rng.uniform(-spread, spread, n),
            "dec": dec + rng.uniform(-spread, spread, n),
            "ebv": np.full(n, 0.05) * u.mag,
            "redshift": rng.uniform(0.03, 0.2, n) * u.one,
            "stellar_mass": rng.normal(10.5, 0.3, n) * u.dex(u.Msun),
        }
    )
    table["stellar_mass"][::3] = np.nan * u.dex(u.Msun)
    for band in BANDS:
        table[f"flux_{band}"] = flux * COLOUR[band] * u.nmgy
        table[f"flux_err_{band}"] = 0.02 * flux * COLOUR[band] * u.nmgy
    return table


def write_cutout(path, row, bands="gri", seed=0, *, named=None, size=64):
    """Cutout with noise of one galaxy; ``named`` are the (wrong) names of the bands."""
    rng = np.random.default_rng(seed)
    hdus = [fits.PrimaryHDU()]
    for band, label in zip(bands, named or bands, strict=True):
        shape = (size, size)
        image = row[f"flux_{band}"].value * blob(shape, (size - 1) / 2, (size - 1) / 2)
        image += SIGMA[band] * rng.standard_normal(shape)
        header = wcs_at(row["ra"], row["dec"], shape).to_header()
        header["BUNIT"] = "nmgy"
        hdus.append(fits.ImageHDU(image.astype("f4"), header, name=label))
        ivar = np.full(shape, SIGMA[band] ** -2, "f4")
        hdus.append(fits.ImageHDU(ivar, name=f"IVAR_{label}"))
    fits.HDUList(hdus).writeto(path)


def spectrum_columns(redshift, seed=0):
    """SDSS pixels, a flat spectrum with H alpha, its inverse variance and mask."""
    rng = np.random.default_rng(seed)
    loglam = 3.58 + 1e-4 * np.arange(3840)
    sigma = 0.5
    line = 30 * np.exp(-0.5 * ((10**loglam / (1 + redshift) - 6564.61) / 3.0) ** 2)
    flux = 10 + line + sigma * rng.standard_normal(len(loglam))
    ivar, mask = np.full(len(loglam), sigma**-2), np.zeros(len(loglam), int)
    ivar[1000:1020] = 0
    mask[2000:2010] = 1 << 24
    return loglam, flux, ivar, mask


def write_spectrum(path, redshift, seed=0):
    """A ``spec`` file of SDSS."""
    loglam, flux, ivar, mask = spectrum_columns(redshift, seed)
    columns = [
        fits.Column("flux", "E", array=flux),
        fits.Column("loglam", "E", array=loglam),
        fits.Column("ivar", "E", array=ivar),
        fits.Column("and_mask", "J", array=mask),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="COADD")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)


def write_survey(folder, n=40, **options):
    """Table, cutouts and spectra of a survey in a folder; the table is returned."""
    table = make_table(n, **options)
    for name in ("images", "spectra"):
        (folder / name).mkdir(parents=True)
    table.write(folder / "mine.ecsv")
    for k, row in enumerate(table):
        write_cutout(folder / "images" / f"{row['name']}.fits", row, seed=k)
        write_spectrum(folder / "spectra" / f"{row['name']}.fits", float(row["redshift"]), seed=k)
    return table
