"""Figures of the networks: reconstructed images, latent space, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..quantities import plain_values
from ..surveys import SDSS
from .images import annotate_image, color_image, display_stretch, gri_images
from .style import ACCENT, MAIN, NEUTRAL, new_axes, package, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["latent_map", "reconstruction", "training_history"]

_ORDINARY_COLUMNS = ("step", "epoch", "seconds", "learning_rate")


def reconstruction(
    image: np.ndarray,
    reconstructed: np.ndarray,
    *,
    ivar: np.ndarray | None = None,
    fig: Figure | None = None,
    pixel_scale: u.Quantity = SDSS.pixel_scale,
    redshift: float | None = None,
    wcs: Any = None,
) -> Figure:
    """Show the image of a galaxy, its reconstruction by the network, and their difference in r.

    Parameters
    ----------
    image, reconstructed : array_like, shape (3, ny, nx) in g, r, i or (5, ny, nx) in u, g, r, i, z
        Flux in nmgy per pixel.  `~astropy.nddata.NDData` is accepted.
    ivar : array_like, same shape, optional
        Inverse variance of the image in nmgy^-2, 0 for bad pixels; with it, the difference is shown
        in units of sigma, otherwise in nmgy.
    fig : `~matplotlib.figure.Figure`, optional
        Empty figure to draw on.
    pixel_scale : Quantity ['angle']
        Angle per pixel, for the scale bar; that of SDSS by default.
    redshift : float, optional
        Redshift of the galaxy; the scale bar is then labelled in kpc too.
    wcs : `~astropy.wcs.WCS`, optional
        World coordinate system of the image, for arrows to the north and east.

    Returns
    -------
    `~matplotlib.figure.Figure`
        Figure with three panels and a colour bar.

    Raises
    ------
    ValueError
        If the shapes differ, or are not those of images in three or five bands.
    """
    observed, model = gri_images(image, "image"), gri_images(reconstructed, "reconstructed")
    if observed.shape[1:] != model.shape[1:]:
        raise ValueError(
            f"image has {observed.shape[1:]} pixels, but reconstructed has {model.shape[1:]}; "
            "the sizes must agree."
        )
    residual, unit = observed[1] - model[1], "nmgy / pixel"
    if ivar is not None:
        weight = gri_images(ivar, "ivar")[1]
        residual = np.where(weight > 0, residual * np.sqrt(np.abs(weight)), np.nan)
        unit = r"$\sigma$"
    if fig is None:
        fig = package("matplotlib.pyplot").figure(figsize=(9.6, 3.2), layout="constrained")
    stretch = display_stretch(observed)
    axes = fig.subplots(1, 3)
    axes[0].imshow(color_image(observed, stretch=stretch), origin="lower")
    axes[1].imshow(color_image(model, stretch=stretch), origin="lower")
    finite = np.abs(residual[np.isfinite(residual)])
    top = 5.0 if ivar is not None else (np.percentile(finite, 99.5) if finite.size else 0.0) or 1.0
    shown = axes[2].imshow(residual, origin="lower", cmap="RdBu_r", vmin=-top, vmax=top)
    axes[2].set_facecolor("#bbbbbb")
    fig.colorbar(shown, ax=axes[2], label=unit, fraction=0.05, pad=0.02)
    annotate_image(axes[0], pixel_scale, wcs=wcs, redshift=redshift)
    for ax, title in zip(axes, ("image", "reconstruction", "difference in $r$"), strict=True):
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[])
    return fig


def latent_map(
    embedding: np.ndarray,
    values: u.Quantity | None = None,
    *,
    label: str = "",
    ax: Axes | None = None,
    cmap: str = "viridis",
    method: str = "UMAP",
) -> Axes:
    """Plot a two-dimensional map of the latent space, coloured by a quantity.

    Parameters
    ----------
    embedding : ndarray, shape (n_galaxies, 2)
        Coordinates, for example from UMAP.
    values : Quantity or array_like, shape (n_galaxies,), optional
        Quantity that colours the points; the colour scale covers its 2nd to 98th percentile.
        Galaxies without a value are grey.
    label : str
        Label of the colour bar; the unit is added unless it is LaTeX.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    cmap : str
        Colour map.
    method : str
        Name of the projection, for the axis labels.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    ValueError
        If the shapes do not match.
    """
    embedding = np.asarray(embedding, dtype=float)
    if embedding.ndim != 2 or embedding.shape[1] != 2:
        raise ValueError(f"embedding has shape {embedding.shape}; expected (n_galaxies, 2).")
    ax = new_axes(ax, (5.4, 4.4))
    size = float(np.clip(20000 / max(len(embedding), 1), 2, 24))
    dots: dict[str, Any] = {"s": size, "lw": 0, "rasterized": len(embedding) > 2000}
    if values is None:
        ax.scatter(*embedding.T, color=MAIN, alpha=0.6, **dots)
    else:
        unit = getattr(values, "unit", None)
        numbers = plain_values(values, unit, name="values")
        if numbers.shape != (len(embedding),):
            raise ValueError(
                f"values has shape {numbers.shape}, but embedding has {len(embedding)} rows; "
                "give one value per galaxy."
            )
        known = np.isfinite(numbers)
        x, y = embedding.T
        ax.scatter(x[~known], y[~known], color="#cccccc", **dots)
        low, high = np.percentile(numbers[known], [2, 98]) if known.any() else (0, 1)
        points = ax.scatter(
            x[known], y[known], c=numbers[known], cmap=cmap, vmin=low, vmax=high, **dots
        )
        ax.figure.colorbar(points, ax=ax, label=with_unit(label, unit), extend="both")
    ax.set(xlabel=f"{method} 1", ylabel=f"{method} 2", xticks=[], yticks=[])
    return ax


def training_history(
    history: Mapping[str, Sequence[float]],
    *,
    terms: Sequence[str] = ("total",),
    ax: Axes | None = None,
) -> Axes:
    """Plot training and validation losses, and mark the best step.

    Parameters
    ----------
    history : table or mapping of str to sequence of float
        Columns ``step`` (or ``epoch``), ``train_<term>`` and ``valid_<term>``, such as the result
        of `astrogenspec.training.loop.History.to_table`.
    terms : sequence of str
        Terms of the loss to plot.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    KeyError
        If the history has no column of a term.
    """
    columns = {name: np.asarray(history[name], dtype=float) for name in list(history.keys())}
    clock = next((name for name in ("step", "epoch") if name in columns), None)
    ax = new_axes(ax, (5.4, 3.6))
    for number, term in enumerate(terms):
        found = [f"{part}_{term}" for part in ("train", "valid") if f"{part}_{term}" in columns]
        if not found:
            there = [name for name in columns if name not in _ORDINARY_COLUMNS]
            raise KeyError(
                f"the history has no loss term {term!r}; it has {', '.join(there) or 'none'}."
            )
        color = (MAIN, ACCENT)[number] if number < 2 else f"C{number}"
        for name in found:
            loss = columns[name]
            x = np.arange(1, len(loss) + 1) if clock is None else columns[clock]
            solid = name.startswith("valid_") or len(found) == 1
            label = f"{'validation' if name.startswith('valid_') else 'training'} {term}"
            style = {"lw": 1.8} if solid else {"lw": 1.2, "ls": ":"}
            ax.plot(x, loss, color=color, label=label, **style)
            if name.startswith("valid_") and np.isfinite(loss).any():
                best = np.nanargmin(loss)
                ax.plot(x[best], loss[best], "o", color=color, ms=6, mec="white", zorder=4)
                ax.axvline(x[best], color=NEUTRAL, lw=0.8, ls="--", zorder=0)
    ax.set(xlabel=clock or "validation", ylabel="loss")
    ax.legend(frameon=False, fontsize=9)
    return ax
