"""Compare the deep population of the simulator with real faint galaxies.

    python benchmarks/deep_population.py DATA --out results/deep_population

DATA is a folder with ``zcosmos_bright_multiband.fits`` (zCOSMOS, i < 22.5; Subaru and CFHT),
``deep23_3dhst_cfht.fits`` (DEEP2, DEEP3 and 3D-HST; CFHTLS), ``vvds_deep_cfhtls.fits`` and
``vvds_wide_cfh12k.fits`` (VVDS; CFHTLS), ``boss_dr10_annz.fits`` (BOSS) and
``filters_cfht_subaru_galex.npz``, the curves of the filters.  The report has

- *counts*: galaxies per square degree in r and i, and published numbers;
- *redshifts*: percentiles of the redshifts of galaxies of i < 22.5, and the statistic of
  Kolmogorov and Smirnov between real and simulated ones, and between two surveys;
- *colours*: in bins of redshift, the median and half of the 16-84% range of real colours, the
  difference of simulated from real medians, and the ratio of the ranges, for galaxies of
  19.5 < i < 22.5 (noise is not simulated);
- *red*: u - g of red galaxies, which shows their remaining star formation;
- *boss*: the same as *colours* for the colour selections CMASS and LOWZ of Dawson et al. (2013);
- *rate*: simulated galaxies per second of processor time.

Magnitudes are compared as they are in the tables: total or aperture, with the zero points of each
survey, which are uncertain by 0.05 to 0.1 mag, and those of zCOSMOS by more.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from scipy.stats import ks_2samp

from astrogenspec.simulate import Sample, Simulator
from astrogenspec.wavelengths import SED_GRID

#: Galaxies per square degree brighter than r: Strauss et al. (2002), targets of the main sample of
#: SDSS; Hahn et al. (2023), bright sample of DESI; Liske et al. (2015), GAMA (238,000 in 230 square
#: degrees).
R_COUNTS = {17.77: 92, 19.5: 864, 19.8: 1035}
#: log10 of galaxies per square degree and magnitude at i: Weaver et al. (2022), table 2.
I_COUNTS = {19.25: 3.01, 19.75: 3.23, 20.25: 3.44, 20.75: 3.64, 21.25: 3.85, 21.75: 4.03}
I_COUNTS |= {22.25: 4.21, 22.75: 4.38}
EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
#: Least g - r of red galaxies at redshifts of bins 0.1 wide.
RED = {0.25: 0.95, 0.35: 1.15, 0.45: 1.35, 0.55: 1.4, 0.65: 1.4, 0.75: 1.4, 0.85: 1.4}
_SDSS = tuple(f"sdss_{band}" for band in "ugriz")
_MEGACAM = tuple(f"{band}_megacam" for band in "ugriz")
_SUBARU = ("B_subaru", "g_subaru", "V_subaru", "r_subaru", "i_megacam", "z_subaru")


@dataclass
class Galaxies:
    """Redshifts (n,), magnitudes by filter (n,), magnitude of the selection (n,)."""

    redshift: np.ndarray
    magnitude: dict[str, np.ndarray]
    selection: np.ndarray
    area: float = np.nan


def simulate(n: int, limit: float, seed: int, curves: dict[str, np.ndarray]) -> Galaxies:
    """Simulate at least n galaxies brighter than a limit in r, with noise-free magnitudes."""
    simulator = Simulator(population="deep")
    sample, candidates = Sample(magnitude_limit=limit), 4096
    weights = {
        name: torch.tensor(
            SED_GRID.average_weights(*curve[:, np.argsort(curve[0])].clip(0)), dtype=torch.float32
        )
        for name, curve in curves.items()
    }
    parts: list[dict[str, torch.Tensor]] = []
    total = 0
    while total < n:
        galaxies = simulator.batch(seed, len(parts), sample, candidates=candidates)
        seds = simulator.seds(galaxies)
        fluxes = {name: seds @ weight for name, weight in weights.items()}
        fluxes |= dict(zip(_SDSS, galaxies.observation.true_flux.T, strict=True))
        parts.append(fluxes | {"redshift": galaxies.theta[:, 0]})
        total += len(galaxies)
    columns = {k: torch.cat([part[k] for part in parts]).numpy() for k in parts[0]}
    redshift = columns.pop("redshift")
    magnitude = {k: 22.5 - 2.5 * np.log10(v.clip(1e-6)) for k, v in columns.items()}
    area = candidates * len(parts) / simulator.evolution.surface_density(limit)
    return Galaxies(redshift, magnitude, magnitude["i_megacam"], area)


def column(table: Table, name: str) -> np.ndarray:
    """Return a column as floats, with NaN for missing and unlikely values."""
    values = np.ma.filled(np.ma.asarray(table[name], float), np.nan)
    return np.where(np.abs(values) < 50, values, np.nan)


def read_surveys(data: Path) -> dict[str, Galaxies]:
    """Read the surveys with photometry in several bands."""
    zcosmos = Table.read(data / "zcosmos_bright_multiband.fits")
    zcosmos = zcosmos[zcosmos["secure"] == 1]
    names = {band: f"mag_{band}" for band in _SUBARU} | {"i_megacam": "mag_i_cfht"}
    result = {
        "zcosmos": Galaxies(
            column(zcosmos, "z"),
            {band: column(zcosmos, name) for band, name in names.items()},
            column(zcosmos, "mag_sel_I"),
        )
    }
    for name, file, suffix in (
        ("deep", "deep23_3dhst_cfht.fits", "cfht"),
        ("vvds", "vvds_deep_cfhtls.fits", "cfhtls"),
    ):
        table = Table.read(data / file)
        magnitude = {band: column(table, f"mag_{band[0]}_{suffix}") for band in _MEGACAM}
        if "mag_i2_cfht" in table.colnames:
            i = magnitude["i_megacam"]
            magnitude["i_megacam"] = np.where(np.isfinite(i), i, column(table, "mag_i2_cfht"))
        result[name] = Galaxies(column(table, "z"), magnitude, magnitude["i_megacam"])
    return result


def median_and_width(values: np.ndarray) -> tuple[float, float]:
    """Return the median and half of the 16-84% range."""
    low, middle, high = np.nanpercentile(values, [16, 50, 84])
    return float(middle), float(high - low) / 2


def compare(real: Galaxies, simulated: Galaxies, bands: tuple[str, ...]) -> dict:
    """Compare adjacent colours in bins of redshift."""
    result: dict = {}
    for blue, red in zip(bands[:-1], bands[1:], strict=True):
        rows = result[f"{blue} - {red}"] = {}
        for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
            found = []
            for galaxies in (real, simulated):
                inside = (galaxies.redshift > low) & (galaxies.redshift < high)
                colour = galaxies.magnitude[blue] - galaxies.magnitude[red]
                colour = colour[inside & (np.abs(colour) < 5)]
                found.append(colour[np.isfinite(colour)])
            if min(map(len, found)) < 25:
                continue
            (median, width), (other, other_width) = map(median_and_width, found)
            rows[f"{low}-{high}"] = {
                "n": [len(values) for values in found],
                "median": round(median, 3),
                "width": round(width, 3),
                "difference": round(other - median, 3),
                "ratio": round(other_width / width, 2),
            }
    return result


def cut(galaxies: Galaxies, bright: float, faint: float) -> Galaxies:
    """Select galaxies by the magnitude of the selection."""
    use = (galaxies.selection > bright) & (galaxies.selection < faint)
    return choose(galaxies, use)


def choose(galaxies: Galaxies, use: np.ndarray) -> Galaxies:
    """Select galaxies."""
    magnitude = {name: values[use] for name, values in galaxies.magnitude.items()}
    return Galaxies(galaxies.redshift[use], magnitude, galaxies.selection[use], galaxies.area)


def counts(bright: Galaxies, deep: Galaxies) -> dict:
    """Return simulated and published numbers per square degree."""
    r, i = bright.magnitude["sdss_r"], deep.magnitude["i_subaru"]
    return {
        "N(<r)": {k: [round((r < k).sum() / bright.area), v] for k, v in R_COUNTS.items()},
        "log N(i)": {
            k: [round(float(np.log10((abs(i - k) < 0.25).sum() / deep.area / 0.5)), 2), v]
            for k, v in I_COUNTS.items()
        },
    }


def redshifts(real: dict[str, np.ndarray], simulated: np.ndarray) -> dict:
    """Return percentiles of redshifts, and distances between the distributions."""
    names = list(real)
    result = {
        name: [round(float(p), 3) for p in np.percentile(z, [5, 25, 50, 75, 95])]
        for name, z in (real | {"simulated": simulated}).items()
    }
    distances = {name: round(ks_2samp(real[name], simulated).statistic, 3) for name in names}
    between = round(ks_2samp(real[names[0]], real[names[1]]).statistic, 3)
    return result | {"distance": distances | {"between surveys": between}}


def red_galaxies(real: Galaxies, simulated: Galaxies) -> dict:
    """Return the medians and half ranges of u - g of red galaxies, real and simulated."""
    result = {}
    for z, least in RED.items():
        row = []
        for galaxies in (real, simulated):
            u, g, r = (galaxies.magnitude[band] for band in _MEGACAM[:3])
            use = (abs(galaxies.redshift - z) < 0.05) & (g - r > least) & (galaxies.selection < 22)
            row.append([round(v, 2) for v in median_and_width((u - g)[use])])
        result[z] = row
    return result


def boss_selection(magnitude: dict[str, np.ndarray]) -> np.ndarray:
    """Return whether galaxies are in CMASS or LOWZ (Dawson et al. 2013, section 2.2)."""
    g, r, i = (magnitude[band] for band in _SDSS[1:4])
    across = (r - i) - (g - r) / 8
    along = 0.7 * (g - r) + 1.2 * (r - i - 0.18)
    cmass = (i > 17.5) & (i < 19.9) & (r - i < 2) & (across > 0.55)
    cmass &= i < 19.86 + 1.6 * (across - 0.8)
    lowz = (r > 16) & (r < 19.6) & (r < 13.5 + along / 0.3)
    return cmass | (lowz & (abs((r - i) - (g - r) / 4 - 0.18) < 0.2))


def rate(seed: int, batches: int = 4) -> float:
    """Return simulated galaxies of r < 23.5 per second of processor time, with one thread."""
    torch.set_num_threads(1)
    simulator = Simulator(population="deep")
    simulator.batch(seed, 0, simulator.default_sample)
    start, total = time.process_time(), 0
    for k in range(batches):
        total += len(simulator.batch(seed, k, simulator.default_sample))
    return total / (time.process_time() - start)


def report(data: Path, n: int, seed: int) -> dict:
    """Compute the report."""
    with np.load(data / "filters_cfht_subaru_galex.npz") as stored:
        curves = {name: stored[name] for name in (*_MEGACAM, *_SUBARU, "i_subaru")}
    deep = simulate(n, 24.0, seed, curves)
    bright = simulate(n // 3, 20.2, seed + 1, curves)
    massive = simulate(n, 21.8, seed + 2, curves)
    surveys = read_surveys(data)
    wide = Table.read(data / "vvds_wide_cfh12k.fits")
    flux_limited = {
        "zcosmos": (surveys["zcosmos"].redshift, surveys["zcosmos"].selection),
        "vvds wide": (column(wide, "z"), column(wide, "mag_sel_I")),
    }

    def within(z: np.ndarray, i: np.ndarray) -> np.ndarray:
        return z[(i < 22.5) & (z > 0.02) & (z < 1.3)]

    chosen = {name: cut(galaxies, 19.5, 22.5) for name, galaxies in surveys.items()}
    simulated = cut(deep, 19.5, 22.5)
    table = Table.read(data / "boss_dr10_annz.fits")
    magnitudes = {f"sdss_{band}": column(table, f"mag_{band}") for band in "ugriz"}
    boss = Galaxies(column(table, "z"), magnitudes, magnitudes["sdss_i"])
    return {
        "counts": counts(bright, deep),
        "redshifts": redshifts(
            {name: within(*values) for name, values in flux_limited.items()},
            within(deep.redshift, deep.magnitude["i_subaru"]),
        ),
        "colours": {
            name: compare(galaxies, simulated, _SUBARU if name == "zcosmos" else _MEGACAM)
            for name, galaxies in chosen.items()
        },
        "red": red_galaxies(chosen["deep"], simulated),
        "boss": compare(boss, choose(massive, boss_selection(massive.magnitude)), _SDSS),
        "rate": round(rate(seed)),
    }


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with the tables")
    parser.add_argument("--n", type=int, default=20000, help="simulated galaxies")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/deep_population"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = report(arguments.data, arguments.n, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
