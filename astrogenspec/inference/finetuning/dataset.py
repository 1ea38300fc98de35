"""Galaxies whose properties are known, some or all of them, as examples to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from torch import Tensor

from ...inputs.features import ModelInputs, photometry_features
from ...inputs.observations import ObservationBatches, Observations
from ...inputs.photometry import PhotometryBatch
from ...nn.records import TensorRecord
from ...quantities import QUANTITIES, converted_labels, quantities_to_theta
from ...training.augmentation import AugmentationConfig, draw_band_subsets, orient_randomly
from ..outliers.detector import training_range_of

__all__ = [
    "MIN_GALAXIES",
    "LabelledGalaxies",
    "augmented",
    "frequent_band_sets",
    "read_labelled_galaxies",
    "stack_labels",
]

#: Fewest galaxies from which anything is learnt.
MIN_GALAXIES = 10
#: Probability that the image, or the photometry, of a galaxy that has both is hidden in a step.
_HIDDEN_IMAGE = 0.2
_HIDDEN_PHOTOMETRY = 0.1
#: Probability that sizes and shapes are hidden in a step, so that the skill without them is not lost.
_HIDDEN_STRUCTURE = 0.3
#: Bands that photometry keeps in a step, so that the skill with few of them is not lost.
_BANDS = AugmentationConfig(full_bands=0.7, gri_bands=0.1)
_GRI = (False, True, True, True, False)
#: Bands that at least this fraction of the galaxies come with are shown often.
_OFTEN = 0.05
#: Noise added to fluxes in a step, in units of their errors.
_JITTER = 0.25
#: Catalogues state errors with and without systematic ones: in a step those of so many galaxies grow by up to this much of the
#: flux, so that little hangs on such a convention.
_OTHER_ERRORS, _LARGEST_FLOOR = 0.5, 0.06


@dataclass(frozen=True)
class LabelledGalaxies(TensorRecord):
    """What is observed and what is known of n galaxies.

    Attributes
    ----------
    inputs : ModelInputs
        Network inputs as they are.
    flux, error : Tensor, shape (n, 5)
        Dereddened photometry [nmgy], NaN where missing.
    measured : Tensor of bool, shape (n,)
        Photometry was measured on the image.
    theta : Tensor, shape (n, 9)
        NaN where unknown.
    learnt : Tensor of bool, shape (n, 9)
        Which of the known quantities are to be learnt; the others are conditions.
    """

    inputs: ModelInputs
    flux: Tensor
    error: Tensor
    measured: Tensor
    theta: Tensor
    learnt: Tensor

    @property
    def modes(self) -> np.ndarray:
        """What each galaxy is inferred from, str, shape (n,): image, photometry or both (`Observations.modes`)."""
        image = self.inputs.has_image.cpu().numpy()
        catalogue = (self.inputs.has_photometry & ~self.measured).cpu().numpy()
        return np.select([image & catalogue, image], ["both", "image"], "photometry")

    def with_images(self) -> LabelledGalaxies:
        """Leave out galaxies without image."""
        return self[self.inputs.has_image.nonzero()[:, 0]]

    def catalogue_only(self) -> LabelledGalaxies:
        """Hide the images, and leave out galaxies without photometry of a catalogue."""
        kept = self[(self.inputs.has_photometry & ~self.measured).nonzero()[:, 0]]
        return replace(kept, inputs=kept.inputs.without_images())


def read_labelled_galaxies(
    blocks: ObservationBatches, theta: np.ndarray, known: np.ndarray | None
) -> tuple[LabelledGalaxies, dict[str, list[float]]]:
    """Read all galaxies; keep those that can be used and have a label.

    Parameters
    ----------
    blocks : ObservationBatches
    theta : ndarray, shape (n, 9)
        Labels, NaN where unknown.
    known : ndarray, shape (n, 9), or None
        Quantities that are conditions, NaN where unknown.

    Returns
    -------
    galaxies : LabelledGalaxies
    limits : dict
        The range they span, see `training_range_of`.

    Raises
    ------
    ValueError
        If there are too few of them, or more or fewer labels than galaxies.
    """
    learnt = np.isfinite(theta)
    if known is not None:
        if len(known) != len(theta):
            raise ValueError(f"known is of {len(known)} galaxies, but labels of {len(theta)}.")
        learnt &= ~np.isfinite(known)
        theta = np.where(np.isfinite(known), known, theta)
    parts, fluxes, rows, start = [], [], [], 0
    for seen in blocks:
        block = np.arange(start, start + len(seen))
        start += len(seen)
        if start > len(theta):
            break
        keep = seen.usable & learnt[block].any(axis=1)
        parts.append(_tensors(seen, keep))
        fluxes.append(seen.photometry[keep])
        rows.append(block[keep])
    if start != len(theta):
        raise ValueError(f"labels is of {len(theta)} galaxies, but {start} were given.")
    kept = np.concatenate(rows)
    if len(kept) < MIN_GALAXIES:
        raise ValueError(
            f"only {len(kept)} of {len(theta)} galaxies can be used and have a label within the bounds of its "
            f"quantity: fit needs at least {MIN_GALAXIES}."
        )
    inputs, flux, error, measured = zip(*parts, strict=True)
    galaxies = LabelledGalaxies(
        ModelInputs.concatenate(inputs),
        torch.cat(flux),
        torch.cat(error),
        torch.cat(measured),
        torch.as_tensor(theta[kept], dtype=torch.float32),
        torch.as_tensor(learnt[kept]),
    )
    return galaxies, training_range_of(_joined_photometry(fluxes), theta[kept])


def stack_labels(labels: Mapping[str, Any] | Table, argument: str = "labels") -> np.ndarray:
    """Stack labels; masked ones and values outside of the bounds become NaN.

    Parameters
    ----------
    labels : mapping or table of Quantity, each of shape (n,)
        Of other conventions too, if the metadata of a column says which (see `astrogenspec.quantities`).
    argument : str
        What the user knows them as.

    Returns
    -------
    ndarray, shape (n, 9)

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If they cannot be used.
    """
    if not isinstance(labels, Mapping | Table):
        raise TypeError(
            f"{argument} is a {type(labels).__name__}: it must be a table or a mapping of names to Quantities."
        )
    labels = converted_labels(labels)
    names = list(labels.keys())
    chosen = [name for name in names if name in QUANTITIES or not isinstance(labels, Table)]
    if not chosen:
        raise ValueError(f"{argument} has none of the quantities {', '.join(QUANTITIES)}.")
    theta = quantities_to_theta({name: _filled(labels[name]) for name in chosen})
    if theta.ndim != 2:
        raise ValueError(
            f"{argument} has shape {theta.shape[:-1]}: it must be (n,), one value a galaxy."
        )
    lower, upper = (
        np.array([getattr(i, end) for i in QUANTITIES.values()]) for end in ("lower", "upper")
    )
    with np.errstate(invalid="ignore"):
        return np.where((theta > lower) & (theta < upper), theta, np.nan)


def frequent_band_sets(galaxies: LabelledGalaxies) -> Tensor:
    """List the bands of the photometry in which `augmented` often shows galaxies whose redshift is to be learnt.

    Parameters
    ----------
    galaxies : LabelledGalaxies

    Returns
    -------
    Tensor of bool, shape (k, 5)
        k subsets of the bands; none if there is no redshift to learn.
    """
    present = torch.isfinite(galaxies.flux[galaxies.learnt[:, 0]])
    subsets, counts = present.unique(dim=0, return_counts=True)
    often = subsets[counts >= _OFTEN * len(present)]
    shown = torch.cat([often, often & torch.tensor(_GRI)]).unique(dim=0)
    return shown[shown.any(dim=1)]


def augmented(galaxies: LabelledGalaxies, generator: torch.Generator) -> LabelledGalaxies:
    """Vary what is observed: bands, noise of the fluxes and their errors, orientation; hide images or photometry of some."""
    n = len(galaxies)
    bands = draw_band_subsets(n, _BANDS, generator)
    # Subsets without any band that this galaxy has would leave nothing.
    bands |= ~(bands & torch.isfinite(galaxies.flux)).any(1, keepdim=True)
    noise = _JITTER * galaxies.error * torch.randn(n, 5, generator=generator)
    flux = torch.where(bands, galaxies.flux + noise, torch.nan)
    other = torch.rand(n, 1, generator=generator) < _OTHER_ERRORS
    floor = _LARGEST_FLOOR * torch.rand(n, 1, generator=generator) * other
    error = torch.hypot(galaxies.error, floor * galaxies.flux)
    inputs = replace(
        galaxies.inputs, photometry=photometry_features(flux, error, galaxies.measured)
    )
    if inputs.morphology is not None:
        keep = torch.rand(n, 1, generator=generator) > _HIDDEN_STRUCTURE
        inputs = replace(inputs, morphology=inputs.morphology * keep)
    if inputs.image is not None:
        inputs = _varied_images(inputs, generator)
    return replace(galaxies, inputs=inputs)


def _varied_images(inputs: ModelInputs, generator: torch.Generator) -> ModelInputs:
    """Turn and mirror images; hide image or photometry of some galaxies that have both."""
    image, weight = orient_randomly(
        torch.cat([inputs.image, inputs.image_weight], dim=1), generator
    ).chunk(2, dim=1)
    chance = torch.rand(len(inputs), generator=generator)
    both = inputs.has_image & inputs.has_photometry
    hide_image = both & (chance < _HIDDEN_IMAGE)
    hide_flux = both & (chance > 1 - _HIDDEN_PHOTOMETRY)
    keep_image, keep_flux = ((~hidden).float() for hidden in (hide_image, hide_flux))
    return replace(
        inputs,
        image=image * keep_image[:, None, None, None],
        image_weight=weight * keep_image[:, None, None, None],
        image_bands=inputs.image_bands * keep_image[:, None],
        image_noise=inputs.image_noise * keep_image[:, None],
        photometry=inputs.photometry * keep_flux[:, None],
    )


def _tensors(seen: Observations, keep: np.ndarray) -> tuple[ModelInputs, Tensor, Tensor, Tensor]:
    flux, error = (torch.as_tensor(v[keep]) for v in seen.photometry.dereddened())
    measured = torch.as_tensor(np.asarray(seen.photometry.measured, dtype=bool)[keep])
    return seen.inputs()[torch.from_numpy(keep)], flux, error, measured


def _filled(column: Any) -> Any:
    """Replace what is masked by NaN."""
    mask = getattr(column, "mask", None)
    if mask is None:
        return column
    values = column.unmasked if hasattr(column, "unmasked") else np.ma.getdata(column)
    values = values.astype(float)
    values[np.asarray(mask, dtype=bool)] = np.nan
    return values


def _joined_photometry(parts: list[PhotometryBatch]) -> PhotometryBatch:
    flux, error, ebv, measured, extinction = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("flux", "error", "ebv", "measured", "extinction")
    )
    return PhotometryBatch(flux, error, ebv, measured, extinction=extinction)
