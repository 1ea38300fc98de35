"""Comparison of simulated and real galaxy populations.

`compare_statistics` compares simulated summary statistics with the recorded ones of real samples
and needs no real data; `write_report` compares with a folder of real tables and writes an HTML page
with figures; `record_statistics` makes the recorded table.
"""

from __future__ import annotations

import html
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from astropy.table import QTable, Table

from ..atomic import atomic_write, save_figure, write_bytes
from ..simulate.samples import SOURCES, read_real_samples, simulate_samples
from ..simulate.simulator import Simulator
from ..simulate.statistics import STATISTICS, recorded_masses, with_errors
from ..surveys import BANDS

__all__ = ["compare_statistics", "record_statistics", "recorded_statistics", "write_report"]

_RECORD = "population_statistics.ecsv"
_R = BANDS.index("r")


def recorded_statistics() -> Table:
    """Read the statistics of the real samples.

    Returns
    -------
    Table
        Columns ``sample``, ``statistic``, ``value``, ``error`` and ``source``.
    """
    with as_file(files("astrogenspec") / "data" / _RECORD) as path:
        return Table.read(path, format="ascii.ecsv")


def record_statistics(folder: Path | str, out: Path | str) -> Table:
    """Compute the statistics of real samples and write them as ECSV.

    Parameters
    ----------
    folder : path
        Folder of the real tables; see `astrogenspec.simulate.samples`.
    out : path
        File to write.

    Returns
    -------
    Table
        Columns as from `recorded_statistics`.
    """
    rows = [
        (name, statistic, round(value, 4), round(error, 4), SOURCES[name])
        for name, sample in read_real_samples(folder).items()
        for statistic, (value, error) in with_errors(STATISTICS[name], sample).items()
    ]
    table = Table(rows=rows, names=("sample", "statistic", "value", "error", "source"))
    _write_table(table, Path(out))
    return table


def compare_statistics(
    simulator: Simulator, *, n: int = 12000, n_images: int = 800, seed: int = 0
) -> QTable:
    """Compare simulated statistics with the recorded real ones.

    Parameters
    ----------
    simulator : Simulator
        Source of the galaxies.
    n, n_images, seed : int
        See `astrogenspec.simulate.samples.simulate_samples`.

    Returns
    -------
    QTable
        The recorded table with columns ``simulated`` and ``difference`` (simulated minus real).
    """
    recorded = recorded_statistics()
    masses = recorded_masses(dict(zip(recorded["statistic"], recorded["value"], strict=True)))
    samples = simulate_samples(simulator, n=n, n_images=n_images, seed=seed, masses=masses)
    return _with_simulated(recorded, samples)


def _with_simulated(table: Table, samples: dict) -> QTable:
    """Add the columns ``simulated`` and ``difference``."""
    simulated = {name: STATISTICS[name](sample) for name, sample in samples.items()}
    table = QTable(table)
    table["simulated"] = [
        simulated.get(row["sample"], {}).get(row["statistic"], np.nan) for row in table
    ]
    table["difference"] = np.round(table["simulated"] - table["value"], 4)
    table["simulated"] = np.round(table["simulated"], 4)
    return table


def write_report(
    folder: Path | str,
    out: Path | str,
    *,
    n: int = 12000,
    n_images: int = 800,
    seed: int = 0,
) -> Path:
    """Compare the simulator with real tables, and write an HTML page with figures.

    Parameters
    ----------
    folder : path
        Folder of the real tables; see `astrogenspec.simulate.samples`.
    out : path
        Folder of the report.
    n, n_images, seed : int
        See `astrogenspec.simulate.samples.simulate_samples`.

    Returns
    -------
    Path
        ``index.html`` in that folder.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    real = read_real_samples(folder)
    simulated = simulate_samples(
        Simulator(), n=n, n_images=n_images, seed=seed, masses=real["lines"]["log_mass"]
    )
    table = _with_simulated(record_statistics(folder, out / _RECORD), simulated)
    _write_table(table, out / "comparison.ecsv")
    figures = _draw(real, simulated, out)
    page = out / "index.html"
    images = "".join(
        f'<h2>{html.escape(title)}</h2><img src="{name}" alt="">' for title, name in figures
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[c]))}</td>" for c in table.colnames) + "</tr>"
        for row in table
    )
    head = "".join(f"<th>{name}</th>" for name in table.colnames)
    text = (
        "<!doctype html><meta charset=utf-8><title>Simulated and real galaxies</title>"
        "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto}img{max-width:100%}"
        "td,th{padding:2px 8px;text-align:left;font-size:13px}</style>"
        "<h1>Simulated and real "
        f"galaxies</h1>{images}<h2>Statistics</h2><table><tr>{head}</tr>{rows}</table>"
    )
    write_bytes(page, text.encode())
    return page


def _write_table(table: Table, path: Path) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        table.write(temporary, format="ascii.ecsv")


def _draw(real: dict, simulated: dict, out: Path) -> list[tuple[str, str]]:
    """Draw the figures; return titles and file names."""
    import matplotlib.pyplot as plt

    figures = []
    for title, name, draw in (
        ("Colours against redshift", "colours.png", _draw_colours),
        ("Magnitudes, redshifts and colour-colour planes", "planes.png", _draw_planes),
        ("Emission lines and star formation", "lines.png", _draw_lines),
        ("Sizes and black holes", "sizes.png", _draw_sizes),
    ):
        figure = draw(plt, real, simulated)
        save_figure(figure, out / name, dpi=90)
        plt.close(figure)
        figures.append((title, name))
    return figures


def _colour(sample: dict, k: int) -> np.ndarray:
    """Colour of band k and the next one."""
    return sample["magnitude"][:, k] - sample["magnitude"][:, k + 1]


def _draw_colours(plt, real: dict, simulated: dict):
    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    centres = np.arange(0.03, 0.27, 0.02)
    for k, axis in enumerate(axes):
        for sample, colour, label in ((real, "k", "real"), (simulated, "C3", "simulated")):
            photometry = sample["photometry"]
            z, values = photometry["redshift"], _colour(photometry, k)
            bands = [np.percentile(values[np.abs(z - c) < 0.01], [16, 50, 84]) for c in centres]
            low, middle, high = np.transpose(bands)
            axis.fill_between(centres, low, high, color=colour, alpha=0.15, lw=0)
            axis.plot(centres, middle, color=colour, label=label)
        axis.set(xlabel="redshift", ylabel=f"{BANDS[k]} - {BANDS[k + 1]} (mag)")
    axes[0].legend()
    return figure


def _draw_planes(plt, real: dict, simulated: dict):
    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    r, s = real["photometry"], simulated["photometry"]
    for axis, values, label in (
        (axes[0], (r["magnitude"][:, _R], s["magnitude"][:, _R]), "r (mag)"),
        (axes[1], (r["redshift"], s["redshift"]), "redshift"),
    ):
        low, high = np.percentile(values[0], [0.2, 99.8])
        bins = np.linspace(low, high, 40)
        for column, colour, name in zip(values, ("k", "C3"), ("real", "simulated"), strict=True):
            axis.hist(column, bins, density=True, histtype="step", color=colour, label=name)
        axis.set(xlabel=label, ylabel="density")
        axis.legend()
    for axis, j in ((axes[2], 0), (axes[3], 1)):
        for sample, colour in ((r, "k"), (s, "C3")):
            axis.plot(
                _colour(sample, j + 1)[:3000],
                _colour(sample, j)[:3000],
                ".",
                ms=2,
                alpha=0.3,
                color=colour,
            )
        axis.set(
            xlabel=f"{BANDS[j + 1]} - {BANDS[j + 2]} "
                   "(mag)", ylabel=f"{BANDS[j]} - {BANDS[j + 1]} (mag)",
            xlim=np.percentile(_colour(r, j + 1), [0.5, 99.5]) + [-0.15, 0.15],
            ylim=np.percentile(_colour(r, j), [0.5, 99.5]) + [-0.3, 0.3],
        )  # fmt: skip
    return figure


def _draw_lines(plt, real: dict, simulated: dict):
    figure, axes = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    for sample, colour, label in ((real, "k", "real"), (simulated, "C3", "simulated")):
        lines, nearby = sample["lines"], sample["nearby lines"]
        style = {"marker": ".", "ls": "", "ms": 2, "alpha": 0.3, "color": colour}
        axes[0].plot(lines["log_mass"][:3000], lines["log_sfr"][:3000], label=label, **style)
        width = np.log10(np.maximum(lines["ew_halpha"], 0.1))
        axes[1].plot(lines["log_mass"][:3000], width[:3000], **style)
        axes[2].plot(nearby["log_nii_halpha"][:2000], nearby["log_oiii_hbeta"][:2000], **style)
        axes[3].plot(nearby["log_mass"][:2000], nearby["oh_o3n2"][:2000], **style)
    axes[0].set(xlabel="log stellar mass", ylabel="log SFR", xlim=(8.5, 12), ylim=(-3, 2))
    axes[0].legend(markerscale=5)
    axes[1].set(xlabel="log stellar mass", ylabel="log EW(Halpha) / A", xlim=(8.5, 12))
    axes[2].set(
        xlabel="log [NII]/Halpha", ylabel="log [OIII]/Hbeta", xlim=(-2, 0.2), ylim=(-1.2, 1)
    )
    axes[3].set(xlabel="log stellar mass (z = 0.02)", ylabel="12 + log(O/H)", xlim=(8, 11.5))
    return figure


def _draw_sizes(plt, real: dict, simulated: dict):
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for sample, colour, label in ((real, "k", "real"), (simulated, "C3", "simulated")):
        style = {"marker": ".", "ls": "", "ms": 4, "alpha": 0.4, "color": colour}
        holes = sample["black holes"]
        axes[2].plot(holes["log_sigma"][:1500], holes["log_black_hole_mass"][:1500], **style)
        if "sizes" in sample:
            sizes = sample["sizes"]
            axes[0].plot(sizes["log_mass"], np.log10(sizes["r50_kpc"]), label=label, **style)
            axes[1].plot(sizes["log_mass"], sizes["concentration"], **style)
    axes[0].set(xlabel="log stellar mass", ylabel="log r50 / kpc", ylim=(-0.5, 1.3))
    axes[0].legend()
    axes[1].set(xlabel="log stellar mass", ylabel="r90 / r50", ylim=(1.8, 3.8))
    axes[2].set(xlabel="log velocity dispersion (km/s)", ylabel="log M_BH", xlim=(1.6, 2.6))
    return figure
