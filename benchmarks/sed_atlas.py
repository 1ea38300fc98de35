"""Compare the spectral energy distributions of simulated galaxies with real ones.

    python benchmarks/sed_atlas.py DATA --out results/sed_atlas

DATA is a folder with ``brown2014_seds.fits``, the atlas of 92 integrated spectra of Brown et al.
(2014, ApJS 212, 18), corrected for Galactic extinction, and ``ptf_ccsn_hosts_ps1_sdss.fits``, hosts
of supernovae with photometry in matched apertures.  Simulated galaxies are placed at the redshift
of the atlas.  The report has

- *colours*: medians of rest-frame colours in bins of g - r of simulated galaxies, of the atlas and
  of the hosts below z = 0.06 (observed frame; corrected for a mean Galactic E(B-V) of 0.03);
- *contours*: the fraction of the atlas inside the contours of pairs of colours that hold 95 and 99%
  of the simulated galaxies, and inside the range of each colour;
- *residuals*: rms in magnitudes between each distribution, smoothed, and its fit with 15 principal
  components of simulated galaxies, for the atlas and for simulated galaxies that were kept apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import uniform_filter1d
from scipy.stats import gaussian_kde

from astrogenspec.simulate import Sample, Simulator
from astrogenspec.simulate.photometry import zero_point_curve
from astrogenspec.surveys import get_filter
from astrogenspec.wavelengths import SED_GRID

BANDS = {"NUV": "galex-nuv"} | {band: f"sdss2010-{band}" for band in "ugriz"}
BANDS |= {band: f"twomass-{band}" for band in ("J", "H", "Ks")}
COLOURS = ("NUV-r", "u-g", "g-r", "r-i", "i-z", "z-J", "J-H", "H-Ks", "r-Ks")
PAIRS = (
    ("NUV-r", "g-r"),
    ("u-g", "g-r"),
    ("g-r", "r-i"),
    ("r-i", "i-z"),
    ("g-r", "z-J"),
    ("z-J", "J-H"),
    ("g-r", "r-Ks"),
)
#: Samples: to the limit of the main galaxy sample, and in a volume, which has fainter galaxies.
SAMPLES = (Sample(), Sample(volume=(0.01, 0.05, 8.0)))
BLUE_EDGES = (0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)
RANGES = {"1500-3000 A": (1500, 3000), "3000-4000 A": (3000, 4000), "4000-7000 A": (4000, 7000)}
RANGES |= {"7000-10000 A": (7000, 10000), "10000-24000 A": (10000, 24000)}
_NEARBY, _COMPONENTS, _SMOOTHING = 1e-3, 15, 13
#: Extinction over E(B-V): Schlafly & Finkbeiner (2011), and Yuan et al. (2013) for NUV, J, H, Ks.
_EXTINCTION = dict(
    zip(BANDS, (7.24, 4.239, 3.303, 2.285, 1.698, 1.263, 0.72, 0.46, 0.306), strict=True)
)
_HOSTS_EBV = 0.03


def simulated(batches: int, seed: int) -> np.ndarray:
    """Return distributions (n, 490) of simulated galaxies, with the zero points of SDSS."""
    simulator = Simulator()
    zero_points = 10 ** (-0.4 * zero_point_curve(simulator.priors["observation"]))
    parts = []
    for k in range(batches):
        galaxies = simulator.batch(seed, k, SAMPLES[k % 2])[:1400]
        galaxies.properties["redshift"] = torch.full_like(galaxies.theta[:, 0], _NEARBY)
        parts.append(simulator.seds(galaxies).numpy())
    return np.concatenate(parts) * zero_points


def read_atlas(path: Path) -> np.ndarray:
    """Return the rest-frame distributions (92, 490) of the atlas, mean f_nu in each bin."""
    rows = []
    with fits.open(path) as hdus:
        for galaxy, row, flux in zip(
            hdus["GALAXIES"].data, hdus["WAVE_REST"].data, hdus["FLUX"].data, strict=True
        ):
            n = galaxy["npix"]
            known, f_nu = np.log(row[:n].astype(float)), flux[:n] * row[:n].astype(float) ** 2
            area = 0.5 * (f_nu[1:] + f_nu[:-1]) * np.diff(known)
            cumulative = np.concatenate([[0], np.cumsum(area)])
            at_edges = np.interp(np.log(SED_GRID.edges), known, cumulative)
            rows.append(np.diff(at_edges) / np.diff(np.log(SED_GRID.edges)))
    return np.array(rows)


def colours(sed: np.ndarray) -> dict[str, np.ndarray]:
    """Return the colours of distributions (n, 490)."""
    magnitudes = {}
    for band, name in BANDS.items():
        curve = get_filter(name)
        weights = SED_GRID.average_weights(curve.wavelength, curve.response)
        magnitudes[band] = -2.5 * np.log10(sed @ weights)
    return {c: magnitudes[c.split("-")[0]] - magnitudes[c.split("-")[1]] for c in COLOURS}


def read_hosts(path: Path) -> dict[str, np.ndarray]:
    """Return the colours of hosts of supernovae with spectroscopic redshifts below 0.06."""
    table = Table.read(path)
    names = {"NUV": "galex_nuv", "J": "2mass_j", "H": "2mass_h", "Ks": "2mass_ks"}
    names |= {band: f"sdss_{band}" for band in "ugriz"}
    magnitudes = {
        band: np.ma.filled(np.ma.asarray(table[f"mag_{names[band]}"], float), np.nan)
        - _HOSTS_EBV * _EXTINCTION[band]
        for band in BANDS
    }
    method = np.char.strip(np.asarray(table["zmethod"], str))
    use = np.isin(method, ["GAL.LINES", "SDSS", "NED"]) & (magnitudes["r"] < 17.77)
    use &= (table["z"] > 0.005) & (table["z"] < 0.06)
    return {c: (magnitudes[c.split("-")[0]] - magnitudes[c.split("-")[1]])[use] for c in COLOURS}


def binned(values: dict[str, np.ndarray]) -> dict:
    """Return number, medians and half of the 16-84% range of colours in bins of g - r."""
    result = {}
    for low, high in zip(BLUE_EDGES[:-1], BLUE_EDGES[1:], strict=True):
        inside = (values["g-r"] > low) & (values["g-r"] < high)
        row: dict = {"n": int(inside.sum())}
        for name in COLOURS:
            p16, p50, p84 = np.nanpercentile(values[name][inside], [16, 50, 84])
            row[name] = [round(float(p50), 3), round(float((p84 - p16) / 2), 3)]
        result[f"{low}-{high}"] = row
    return result


def contours(population: dict[str, np.ndarray], atlas: dict[str, np.ndarray]) -> dict:
    """Return the fractions of the atlas inside contours of pairs of colours, and in ranges."""
    result: dict[str, list[float] | float] = {}
    for pair in PAIRS:
        known, real = (np.stack([c[name] for name in pair]) for c in (population, atlas))
        density = gaussian_kde(known[:, ::4])
        levels = np.percentile(density(known[:, 1::8]), [5, 1])
        result[" ".join(pair)] = [float((density(real) > level).mean()) for level in levels]
    for name in COLOURS:
        low, high = np.percentile(population[name], [0.1, 99.9])
        result[name] = float(((atlas[name] > low) & (atlas[name] < high)).mean())
    return result


def residuals(train: np.ndarray, *others: np.ndarray) -> list[dict]:
    """Return the rms residuals (mag) of distributions fitted with components of others."""

    def prepared(sed: np.ndarray) -> np.ndarray:
        smooth = uniform_filter1d(sed, _SMOOTHING, axis=1, mode="nearest")
        return smooth / smooth[:, np.argmin(abs(SED_GRID.wavelength - 6177))][:, None]

    train = prepared(train)
    mean = train.mean(0)
    components = np.linalg.svd((train - mean) / mean, full_matrices=False)[2][:_COMPONENTS]
    result = []
    for other in others:
        sed = prepared(other)
        inside = (SED_GRID.wavelength > 1500) & (SED_GRID.wavelength < 24000)
        # Weights make the residual relative to each distribution itself.
        weight = np.where(inside, mean / sed, 0)
        fitted = np.stack(
            [
                np.linalg.lstsq((components * w).T, (s / mean - 1) * w, rcond=None)[0]
                for s, w in zip(sed, weight, strict=True)
            ]
        )
        model = np.clip(mean * (1 + fitted @ components), 1e-6, None)
        off = -2.5 * np.log10(model / sed)
        row = {}
        for name, (low, high) in RANGES.items():
            use = (SED_GRID.wavelength > low) & (SED_GRID.wavelength < high)
            rms = np.sqrt((off[:, use] ** 2).mean(1))
            row[name] = [round(float(p), 4) for p in np.percentile(rms, [50, 90])]
        result.append(row)
    return result


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with the tables")
    parser.add_argument("--batches", type=int, default=8, help="batches of simulated galaxies")
    parser.add_argument("--out", type=Path, default=Path("results/sed_atlas"))
    arguments = parser.parse_args()
    population = simulated(arguments.batches, 5)
    atlas = read_atlas(arguments.data / "brown2014_seds.fits")
    found = {"simulated": colours(population), "atlas": colours(atlas)}
    hosts = read_hosts(arguments.data / "ptf_ccsn_hosts_ps1_sdss.fits")
    of_atlas, of_simulated = residuals(population[::2], atlas, population[1::8])
    result = {
        "galaxies": len(population),
        "colours": {name: binned(values) for name, values in found.items()}
        | {"hosts": binned(hosts)},
        "contours": contours(found["simulated"], found["atlas"]),
        "residuals": {"atlas": of_atlas, "simulated": of_simulated},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
