"""Draw the pictures of the documentation; ``conf.py`` calls these functions during the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

__all__ = ["draw_architecture", "draw_other_filters", "draw_overview"]

_BLUE, _RED, _GREY = "#2f5d8a", "#c2452d", "#7a7a7a"


def draw_overview(folder: Path) -> None:
    """Draw the image, posterior and spectra of a simulated galaxy that comes with the package.

    Parameters
    ----------
    folder : Path
        Output folder, for ``overview.png`` and, for small screens, ``overview-narrow.png``.
    """
    import matplotlib.pyplot as plt

    from astrogenspec import PropertyEstimator, SpectrumEstimator
    from astrogenspec.demo import load_cutouts

    cutouts, truth = load_cutouts()
    posterior = PropertyEstimator.from_pretrained().predict(cutouts[0], ebv=0.0, seed=1)
    spectra = SpectrumEstimator.from_pretrained().predict(
        cutouts[0], posterior=posterior, ebv=0.0, seed=1
    )

    figure = plt.figure(figsize=(11, 6.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    axes = top.subplots(1, 4, width_ratios=(1.15, 1, 1, 1))
    _draw_galaxy(axes[0], cutouts[0])
    _draw_posterior(axes[1:], posterior, truth[0])
    axes[2].set_title("joint posterior (red: true values of this simulated galaxy)", fontsize=11)
    _draw_spectra(bottom, spectra)
    _save(figure, folder / "overview.png")

    figure = plt.figure(figsize=(4.6, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = top.subplots(2, 2).ravel()
    _draw_galaxy(axes[0], cutouts[0])
    _draw_posterior(axes[1:], posterior, truth[0])
    axes[1].set_title("joint posterior", fontsize=11)
    _draw_spectra(bottom, spectra)
    _save(figure, folder / "overview-narrow.png")


def draw_other_filters(path: Path) -> None:
    """Draw a simulated galaxy in SDSS and, as predicted, in the filters of LSST.

    Parameters
    ----------
    path : Path
        File to write.
    """
    import matplotlib.pyplot as plt

    from astrogenspec import PropertyEstimator, plotting
    from astrogenspec.demo import load_cutouts

    cutout = load_cutouts()[0][0]
    estimator = PropertyEstimator.from_pretrained("astrogenspec-properties-simulated")
    predicted = estimator.predict_images(cutout, "lsst", ebv=0.0)[0].value
    panels = {
        "SDSS g r i, as observed": np.stack([cutout[band].data for band in "gri"]),
        "LSST g r i, predicted": predicted[1:4],
        "LSST i z y, predicted": predicted[3:6],
    }
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    for ax, (title, image) in zip(axes, panels.items(), strict=True):
        ax.imshow(plotting.color_image(image), origin="lower")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=11)
    _save(figure, path)


def _draw_galaxy(ax: Any, cutout: Any) -> None:
    from astrogenspec import plotting

    ax.imshow(plotting.color_image(np.stack([cutout[band].data for band in "gri"])), origin="lower")
    ax.set(xticks=[], yticks=[])
    ax.set_title("images or magnitudes", fontsize=11)


def _draw_spectra(panel: Any, spectra: Any) -> None:
    spectra.plot(ax=panel.subplots()).set_title("", loc="left")
    panel.suptitle("spectra of its draws", fontsize=11)


def _draw_posterior(axes: Any, posterior: Any, true: Any) -> None:
    labels = {
        "redshift": "redshift",
        "stellar_mass": r"$\log M_\ast\ [\mathrm{M}_\odot]$",
        "sfr": r"$\log\,\mathrm{SFR}\ [\mathrm{M}_\odot\,\mathrm{yr}^{-1}]$",
    }
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        ax.hist(posterior[name].draws[0].value, bins=40, density=True, color=_BLUE, alpha=0.6)
        ax.axvline(true[name].value, color=_RED, lw=1.5)
        ax.set(xlabel=label, yticks=[])
        for side in ("left", "right", "top"):
            ax.spines[side].set_visible(False)


#: Layers of the diagram from top to bottom: a title, and boxes of (name, description).
_ROWS = (
    ("user interface", (
        ("cli/", "the command astrogenspec"),
        ("inference/", "PropertyEstimator"),
        ("generation/", "SpectrumEstimator"),
        ("simulate/", "Simulator"),
    )),
    ("training and evaluation", (
        ("training/", "training loop, shards"),
        ("reports/, plotting/", "scores, pages, figures"),
        ("calibration/, metrics", "coverage, PIT, TARP, recalibration"),
        ("measure/", "lines, indices, stellar populations"),
    )),
    ("results", (
        ("results/", "Posterior, QuantityPosterior, SpectrumDraws, their files"),
    )),
    ("inputs", (
        ("inputs/", "images, cutouts, photometry, catalogues: checked and converted"),
        ("inputs/features", "network inputs"),
    )),
    ("foundations", (
        ("nn/", "network layers"),
        ("base, weights, flags", "estimator contract, files, codes"),
        ("quantities, surveys/", "wavelengths, cosmology, synthetic"),
    )),
)  # fmt: skip


def draw_architecture(path: Path) -> None:
    """Draw the layers of the package; each layer uses those below it.

    Parameters
    ----------
    path : Path
        Output file.
    """
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(11.5, 6.6), layout="constrained")
    ax.set(xlim=(0, 10), ylim=(-0.4, len(_ROWS)), xticks=[], yticks=[])
    ax.axis("off")
    for number, (title, boxes) in enumerate(_ROWS):
        y = len(_ROWS) - 1 - number
        ax.axhspan(y + 0.02, y + 0.88, color="#f1f3f6" if number % 2 else "#e8edf3", lw=0)
        ax.text(
            0.1,
            y + 0.45,
            title.replace(" and ", "\nand ").replace("user ", "user\n"),
            va="center",
            fontsize=9.5,
            color=_GREY,
        )
        width = 8.2 / len(boxes)
        for k, (name, text) in enumerate(boxes):
            _box(ax, 1.7 + k * width, y + 0.12, width - 0.15, name, text)
        if number:
            ax.annotate(
                "",
                (5.8, y + 0.88),
                (5.8, y + 1.02),
                arrowprops={"arrowstyle": "->", "color": _GREY},
            )
    ax.text(
        0.1,
        -0.1,
        "Each layer imports the layers below it; plot() methods of results load plotting/ when "
        "they are called.\n"
        "inference/, generation/ and simulate/ do not import one another; measure/ imports "
        "results/ only.",
        va="top",
        fontsize=8.5,
        color=_GREY,
    )
    _save(figure, path)


def _box(ax: Any, x: float, y: float, width: float, name: str, text: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            0.64,
            boxstyle="round,pad=0,rounding_size=0.06",
            fc="white",
            ec=_BLUE,
            lw=1.1,
        )
    )
    middle = x + width / 2
    ax.text(
        middle, y + 0.42, name, ha="center", va="center", fontsize=9.5, weight="bold", color=_BLUE
    )
    ax.text(middle, y + 0.14, text, ha="center", va="center", fontsize=8.5, color="#333333")


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)
