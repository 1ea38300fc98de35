"""Samples for the summary statistics, from tables of real galaxies and from the simulator.

The real tables are not part of the package.  Expected files: ``sdss_photometry.fits`` (SDSS
galaxies of the kcorrect test sample), ``scaling_mpajhu_ew_mass_sfr.fits`` (MPA-JHU),
``sdss_lines.fits`` (ECO and RESOLVE with MPA-JHU fluxes), ``scaling_xgass.fits`` (xGASS),
``scaling_bh_dynamical.fits`` (black-hole compilation of van den Bosch 2016) and
``sdss_spectra.fits`` (13 SDSS spectra).
"""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table

from ..quantities import QUANTITIES
from ..surveys import BANDS
from ..wavelengths import line_index
from .apertures import measure_petrosian
from .images import ImageRenderer
from .simulator import Sample, SimulatedGalaxies, Simulator
from .spectrum import OBSERVED, PARTS
from .statistics import MASS_EDGES, bpt_class

__all__ = ["SOURCES", "read_real_samples", "simulate_samples"]

#: Sources of the real samples.
SOURCES = {
    "photometry": "SDSS galaxies of the kcorrect test sample (Blanton & Roweis 2007), r < 17.77, "
    "2MASS-matched",
    "lines": "MPA-JHU equivalent widths, masses and SFR (Brinchmann+2004), public teaching sample",
    "nearby lines": "ECO and RESOLVE with MPA-JHU fluxes (Moffett+2015, Eckert+2015)",
    "petrosian": "SDSS galaxies of the kcorrect test sample (Blanton & Roweis 2007), r < 17.77, "
    "2MASS-matched",
    "sizes": "xGASS (Catinella+2018), SDSS Petrosian radii",
    "black holes": "dynamical black-hole masses (van den Bosch 2016)",
    "spectra": "13 SDSS galaxy spectra (Abazajian+2009) and their pipeline equivalent widths "
    "(Bolton+2012)",
}
_INDEX = {name: k for k, name in enumerate(QUANTITIES)}
_LINES = {"halpha": "Halpha", "hbeta": "Hbeta", "oiii": "OIII5008", "nii": "NII6585"}
#: Continuum at the line relative to that at Halpha, typical of star-forming galaxies.
_CONTINUUM = {"halpha": 1.0, "hbeta": 1.12, "oiii": 1.12, "nii": 1.0}
_PIXEL = 0.396  # arcsec
_R = BANDS.index("r")
#: Number of galaxies with spectra.
_N_SPECTRA = 600
#: Pixels on a side of the images on which sizes are measured; nearby galaxies are larger than
#: ordinary cutouts.
_SIZE_IMAGE = 160


def _column(table: Table, name: str) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)


def read_real_samples(folder: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """Read the real samples from a folder of tables.

    Parameters
    ----------
    folder : path
        Folder with the files listed in the module docstring.

    Returns
    -------
    dict of str to dict of str to ndarray
        Columns by sample; the samples are those of `SOURCES`.

    Raises
    ------
    FileNotFoundError
        If a table is missing.
    """
    folder = Path(folder)
    photometry = Table.read(folder / "sdss_photometry.fits")
    return {
        "photometry": _real_photometry(photometry),
        "petrosian": _real_petrosian(photometry),
        "lines": _real_lines(Table.read(folder / "scaling_mpajhu_ew_mass_sfr.fits")),
        "nearby lines": _real_nearby(Table.read(folder / "sdss_lines.fits")),
        "sizes": _real_sizes(Table.read(folder / "scaling_xgass.fits")),
        "black holes": _real_black_holes(Table.read(folder / "scaling_bh_dynamical.fits")),
        "spectra": _real_spectra(folder / "sdss_spectra.fits"),
    }


def _magnitudes(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Model and Petrosian magnitudes, shape (n, 5), and whether galaxies are in the sample."""
    extinction = np.stack([_column(table, f"ext_{b}") for b in BANDS], axis=1)
    model, petrosian = (
        22.5 - 2.5 * np.log10(np.maximum(flux, 1e-2)) - extinction
        for flux in (
            np.stack([_column(table, f"{kind}flux_{b}") for b in BANDS], axis=1)
            for kind in ("model", "petro")
        )
    )
    use = (petrosian[:, _R] < 17.77) & (model[:, _R] > 13.5)
    return model, petrosian, use & np.isfinite(_column(table, "tmass_J"))


def _real_photometry(table: Table) -> dict[str, np.ndarray]:
    model, _, use = _magnitudes(table)
    return {"magnitude": model[use], "redshift": _column(table, "z")[use]}


def _real_petrosian(table: Table) -> dict[str, np.ndarray]:
    model, petrosian, use = _magnitudes(table)
    return {
        "colour": (model[:, _R - 1] - model[:, _R])[use],
        "difference": (petrosian[:, _R] - model[:, _R])[use],
    }


def _real_lines(table: Table) -> dict[str, np.ndarray]:
    names = {"halpha": "h_alpha", "hbeta": "h_beta", "oiii": "oiii_5007", "nii": "nii_6584"}
    sample = {f"ew_{name}": _column(table, f"ew_{column}") for name, column in names.items()}
    sample |= {"log_mass": _column(table, "logMstar"), "log_sfr": _column(table, "logSFR")}
    use = np.all([np.isfinite(column) for column in sample.values()], axis=0)
    return {name: column[use] for name, column in sample.items()} | {"weight": np.ones(use.sum())}


def _real_nearby(table: Table) -> dict[str, np.ndarray]:
    use = np.array(table["bpt_class"]).astype(str) == "SF"
    decrement = _column(table, "h_alpha_flux") / _column(table, "h_beta_flux") / 2.86
    columns = {
        "log_mass": _column(table, "logmstar"),
        "log_nii_halpha": _column(table, "log_nii_ha"),
        "log_oiii_hbeta": _column(table, "log_oiii_hb"),
        "log_decrement": np.log10(np.where(decrement > 0, decrement, np.nan)),
        "oh_o3n2": _column(table, "oh_o3n2_pp04"),
    }
    return {name: column[use] for name, column in columns.items()}


def _real_sizes(table: Table) -> dict[str, np.ndarray]:
    from ..cosmology import default_cosmology

    z = _column(table, "z")
    scale = default_cosmology().kpc_proper_per_arcmin(z).value / 60
    r50, r90 = _column(table, "petror50_r"), _column(table, "petror90_r")
    mass = _column(table, "logMstar")
    return {
        "log_mass": mass,
        "log_ssfr": np.log10(np.maximum(_column(table, "SFR"), 1e-5)) - mass,
        "r50_kpc": r50 * scale,
        "concentration": r90 / r50,
    }


def _real_black_holes(table: Table) -> dict[str, np.ndarray]:
    sigma, mass = _column(table, "logsigma"), _column(table, "logMBH")
    use = (_column(table, "upperlimit") == 0) & np.isfinite(sigma) & (sigma > 1.8)
    return {"log_sigma": sigma[use], "log_black_hole_mass": mass[use]}


def _real_spectra(path: Path) -> dict[str, np.ndarray]:
    with fits.open(path) as hdus:
        table = Table(hdus["SPECTRA"].data)
        wavelength = 10.0 ** np.atleast_2d(hdus["LOGLAM"].data)
        flux = np.where(hdus["IVAR"].data > 0, hdus["FLUX"].data, np.nan)
    z = np.asarray(table["z"], float)
    wavelength = np.broadcast_to(wavelength, flux.shape)
    breaks = [dn4000(w / (1 + zz), f) for w, zz, f in zip(wavelength, z, flux, strict=True)]
    return {"dn4000": np.array(breaks), "ew_halpha": _column(table, "h_alpha_ew") / (1 + z)}


def dn4000(wavelength: np.ndarray, flux: np.ndarray) -> float:
    """Compute the 4000 A break of Balogh et al. (1999, ApJ 527, 54).

    It is the ratio of the mean F_nu in 4000-4100 A to that in 3850-3950 A.

    Parameters
    ----------
    wavelength : ndarray, shape (m,)
        Rest frame, Angstrom.
    flux : ndarray, shape (m,)
        F_lambda; NaN where bad.
    """
    per_frequency = flux * wavelength**2
    red = (wavelength > 4000) & (wavelength < 4100)
    blue = (wavelength > 3850) & (wavelength < 3950)
    return float(np.nanmean(per_frequency[red]) / np.nanmean(per_frequency[blue]))


def simulate_samples(
    simulator: Simulator, *, n: int = 12000, n_images: int = 800, seed: int = 0,
    masses: np.ndarray | None = None,
) -> dict[str, dict[str, np.ndarray]]:  # fmt: skip
    """Simulate samples selected like the real ones.

    Parameters
    ----------
    simulator : Simulator
        Source of the galaxies.
    n : int
        Number of galaxies of the flux-limited samples.
    n_images : int
        Number of galaxies whose sizes are measured on images; 0 for no sample of sizes.
    seed : int
        Random seed.
    masses : ndarray, optional
        log10 masses of the real ``lines`` sample, to which simulated galaxies are matched by
        weights.

    Returns
    -------
    dict of str to dict of str to ndarray
        Columns by sample, as from `read_real_samples`.
    """
    infrared = simulator.draw(n, seed, Sample(near_infrared=True))
    main = simulator.draw(n, seed + 1)
    nearby = simulator.batch(seed + 2, 0, Sample(volume=(0.010, 0.025, 8.3)), candidates=6000)
    flux = torch.maximum(infrared.observation.flux, 0.15 * infrared.observation.true_flux)
    magnitude = (22.5 - 2.5 * torch.log10(flux)).numpy().astype(float)
    samples = {
        "photometry": {
            "magnitude": magnitude,
            "redshift": infrared.theta[:, _INDEX["redshift"]].numpy().astype(float),
        },
        "petrosian": {
            "colour": magnitude[:, _R - 1] - magnitude[:, _R],
            "difference": _simulated_petrosian(simulator, infrared),
        },
        "lines": _simulated_lines(main, masses),
        "nearby lines": _simulated_nearby(nearby),
        "black holes": {
            "log_sigma": torch.log10(main.properties["velocity_dispersion"]).numpy(),
            "log_black_hole_mass": main.theta[:, _INDEX["black_hole_mass"]].numpy(),
        },
        "spectra": _simulated_breaks(simulator, main[:_N_SPECTRA]),
    }
    if n_images:
        galaxies = simulator.batch(
            seed + 3, 0, Sample(volume=(0.038, 0.05, 9.5)), candidates=n_images
        )
        samples["sizes"] = _simulated_sizes(simulator, galaxies, seed)
    return samples


def _simulated_petrosian(simulator: Simulator, galaxies: SimulatedGalaxies) -> np.ndarray:
    seeing = simulator.survey.psf_fwhm["r"].to_value(u.arcsec)
    found = measure_petrosian(galaxies.structure, galaxies.component_flux, seeing).flux[:, _R]
    return -2.5 * np.log10((found / galaxies.component_flux[:, _R].sum(1)).numpy().astype(float))


def _simulated_lines(galaxies: SimulatedGalaxies, masses: np.ndarray | None) -> dict:
    halpha = galaxies.line_flux[:, line_index("Halpha")]
    width = galaxies.halpha_width
    sample = {
        f"ew_{name}": (
            width * galaxies.line_flux[:, line_index(line)] / halpha / _CONTINUUM[name]
        ).numpy()
        for name, line in _LINES.items()
    }
    mass = galaxies.properties["log_mass"].numpy().astype(float)
    sample |= {"log_mass": mass, "log_sfr": galaxies.properties["log_sfr"].numpy()}
    sample["weight"] = np.ones(len(mass))
    use = galaxies.theta[:, _INDEX["redshift"]].numpy() > 0.02
    if masses is not None:
        wanted, given = (np.histogram(m, MASS_EDGES)[0] for m in (masses, mass[use]))
        bins = np.digitize(mass, MASS_EDGES) - 1
        use &= (bins >= 0) & (bins < len(wanted))
        ratio = wanted / np.maximum(given, 1)
        sample["weight"] = ratio[np.clip(bins, 0, len(wanted) - 1)]
    return {name: column[use] for name, column in sample.items()}


def _simulated_nearby(galaxies: SimulatedGalaxies) -> dict:
    flux = {name: galaxies.line_flux[:, line_index(line)].numpy() for name, line in _LINES.items()}
    columns = {
        "log_mass": galaxies.properties["log_mass"].numpy(),
        "log_nii_halpha": np.log10(flux["nii"] / flux["halpha"]),
        "log_oiii_hbeta": np.log10(flux["oiii"] / flux["hbeta"]),
        "log_decrement": np.log10(flux["halpha"] / flux["hbeta"] / 2.86),
        "oh_o3n2": galaxies.theta[:, _INDEX["gas_metallicity"]].numpy(),
    }
    use = bpt_class(columns["log_nii_halpha"], columns["log_oiii_hbeta"]) == 0
    use &= galaxies.halpha_width.numpy() > 6
    return {name: column[use] for name, column in columns.items()}


def _simulated_breaks(simulator: Simulator, galaxies: SimulatedGalaxies) -> dict:
    rest = OBSERVED.wavelength / (
        1 + galaxies.theta[:, _INDEX["redshift"], None].numpy().astype(float)
    )
    spectra = simulator.spectra(galaxies).numpy()
    breaks = [dn4000(w, f) for w, f in zip(rest, spectra, strict=True)]
    return {"dn4000": np.array(breaks), "ew_halpha": galaxies.halpha_width.numpy()}


def _simulated_sizes(simulator: Simulator, galaxies: SimulatedGalaxies, seed: int) -> dict:
    renderer = ImageRenderer(simulator.survey, _SIZE_IMAGE, simulator.device)
    images = renderer.render(
        galaxies.structure,
        galaxies.component_flux[..., : PARTS.index("nucleus")],
        simulator.generator(seed),
        neighbours=False,
    ).flux[:, _R]
    radii = np.array([petrosian_radii(image) for image in images.cpu().numpy()]) * _PIXEL
    scale = simulator.distances.kpc_per_arcsec(galaxies.theta[:, _INDEX["redshift"]]).numpy()
    return {
        "log_mass": galaxies.properties["log_mass"].numpy(),
        "log_ssfr": galaxies.properties["log_ssfr"].numpy(),
        "r50_kpc": radii[:, 0] * scale,
        "concentration": radii[:, 1] / radii[:, 0],
    }


def petrosian_radii(image: np.ndarray) -> tuple[float, float]:
    """Measure radii (pixels) of 50 and 90% of the Petrosian flux of a noise-free, centred image.

    Circular apertures of twice the radius at which the local surface brightness is a fifth of the
    mean inside it (Blanton et al. 2001, AJ 121, 2358).
    """
    half = image.shape[0] / 2
    y, x = np.indices(image.shape) + 0.5 - half
    radius = np.hypot(x, y).ravel()
    order = np.argsort(radius)
    edges = np.arange(0, half, 0.5)
    growth = np.interp(edges, radius[order], np.cumsum(image.ravel()[order]), left=0)
    growth[0] = 0

    def inside(r: np.ndarray) -> np.ndarray:
        return np.interp(r, edges, growth)

    r = edges[3:]
    outer = np.minimum(1.25 * r, edges[-1])
    local = (inside(outer) - inside(0.8 * r)) / (outer**2 - (0.8 * r) ** 2)
    below = np.flatnonzero(local / (inside(r) / r**2) < 0.2)
    petrosian = r[below[0]] if len(below) else edges[-1]
    total = inside(min(2 * petrosian, edges[-1]))
    r50, r90 = np.interp([0.5 * total, 0.9 * total], growth, edges)
    return float(r50), float(r90)
