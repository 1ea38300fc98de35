"""Labelled galaxies: reading, selection and augmentation for fine-tuning.

A label is a known value of one of the nine quantities; a galaxy may have any subset of them.  Known
values are either learnt or serve as conditions only.  Augmentation varies what is observed at each
step: orientation and mirror image, fluxes within their errors, the errors themselves, and which of
image, photometry, bands and morphology are available, so that the network keeps its accuracy with
incomplete inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.table import Table
from numpy.typing import ArrayLike
from torch import Tensor

from ...calibration.truth import match_names, matched_rows
from ...inputs.features import ModelInputs, PhotometryReader
from ...inputs.filter_sets import sdss_fluxes
from ...inputs.observations import ObservationBatches
from ...inputs.photometry import PhotometryBatch
from ...inputs.sed_features import SEDComponents
from ...inputs.virtual_photometry import in_sdss_bands
from ...nn.records import TensorRecord
from ...quantities import (
    QUANTITIES,
    QuantityInfo,
    converted_labels,
    known_numbers,
    plain_values,
    quantities_to_theta,
    quantity_index,
)
from ...surveys import BANDS
from ...training.augmentation import AugmentationConfig, draw_band_subsets, orient_randomly
from ...warnings import AstroGenSpecWarning
from ..outliers.detector import training_range_of

__all__ = [
    "MIN_GALAXIES",
    "LabelledGalaxies",
    "augment_galaxies",
    "frequent_band_sets",
    "read_labelled_galaxies",
    "sample_weights",
    "stack_labels",
]

#: Minimum number of labelled galaxies.
MIN_GALAXIES = 10
_REDSHIFT = quantity_index("redshift")
#: Probability per step that the image, or the photometry, of a galaxy that has both is hidden.
_HIDDEN_IMAGE = 0.2
_HIDDEN_PHOTOMETRY = 0.1
#: Probability per step that the morphology is hidden.
_HIDDEN_MORPHOLOGY = 0.5
#: Random sets of bands that are kept in a step.
_BAND_SETS = AugmentationConfig(full_bands=0.7, gri_bands=0.1)
#: Probability that a band of photometry in other filters is kept, where not all are.
_KEPT_BAND = 0.7
_GRI = tuple(band in "gri" for band in BANDS)
#: Minimum fraction of the galaxies with a set of bands for it to count as frequent.
_FREQUENT = 0.05
#: Standard deviation of the noise added to fluxes, in units of their errors.
_JITTER = 0.25
#: Fraction of the galaxies whose errors are increased in a step, and maximum systematic error as a
#: fraction of the flux: some catalogues include systematic errors and others do not.
_INCREASED_ERRORS, _MAX_SYSTEMATIC = 0.25, 0.06


@dataclass(frozen=True)
class LabelledGalaxies(TensorRecord):
    """Observations and labels of n galaxies.

    Attributes
    ----------
    inputs : ModelInputs
        Network inputs without augmentation.
    flux, error : Tensor, shape (n, m)
        Dereddened photometry [nmgy], NaN where missing.
    sdss_flux : Tensor, shape (n, 5)
        The same fluxes if they are those of SDSS, else NaN.
    measured : Tensor of bool, shape (n,)
        Whether the photometry was measured on the image.
    theta : Tensor, shape (n, 9)
        Known quantities in internal units, NaN where unknown.
    learnt : Tensor of bool, shape (n, 9)
        Whether a known quantity is to be learnt; otherwise it is a condition.
    weight : Tensor, shape (n,)
        Weight of each galaxy in the loss; the mean is one.
    """

    inputs: ModelInputs
    flux: Tensor
    error: Tensor
    sdss_flux: Tensor
    measured: Tensor
    theta: Tensor
    learnt: Tensor
    weight: Tensor

    @property
    def modes(self) -> np.ndarray:
        """Input mode of each galaxy, str, shape (n,): image, photometry or both."""
        image = self.inputs.has_image.cpu().numpy()
        catalogue = (self.inputs.has_photometry & ~self.measured).cpu().numpy()
        return np.select([image & catalogue, image], ["both", "image"], "photometry")

    def with_images(self) -> LabelledGalaxies:
        """Select the galaxies with an image."""
        return self[self.inputs.has_image.nonzero()[:, 0]]

    def catalogue_only(self) -> LabelledGalaxies:
        """Select the galaxies with catalogue photometry, and hide their images."""
        kept = self[(self.inputs.has_photometry & ~self.measured).nonzero()[:, 0]]
        return replace(kept, inputs=kept.inputs.without_images())


def read_labelled_galaxies(
    batches: ObservationBatches,
    theta: np.ndarray,
    known: np.ndarray | None,
    *,
    names: Sequence[str] | None = None,
    known_names: Sequence[str] | None = None,
    sample_weight: np.ndarray | None = None,
    components: SEDComponents | None = None,
) -> tuple[LabelledGalaxies, PhotometryReader, dict[str, list[float]]]:
    """Read all galaxies, and select those with usable inputs and a label.

    Parameters
    ----------
    batches : ObservationBatches
        Observations of n galaxies.
    theta : ndarray, shape (n, 9)
        Labels in internal units, NaN where unknown.
    known : ndarray, shape (n, 9), or None
        Conditions in internal units, NaN where unknown.
    names, known_names : sequence of str, optional
        Names of the rows of ``theta`` and ``known``, which are then matched to the galaxies by
        name.
    sample_weight : ndarray, shape (n,), optional
        Weights of the rows of ``theta``; equal by default.
    components : SEDComponents, optional
        Components of a network for photometry in any filters.

    Returns
    -------
    galaxies : LabelledGalaxies
        The selected galaxies.
    reader : PhotometryReader
        Reader of their photometry.
    limits : dict
        Their range, see `training_range_of`.

    Raises
    ------
    ValueError
        If there are fewer than 10 of them, the numbers of labels and galaxies differ, or names are
        repeated or missing.
    """
    weights = np.ones(len(theta)) if sample_weight is None else sample_weight
    label_rows = _Rows("labels", np.column_stack([theta, weights]), names)
    known_rows = None if known is None else _Rows("known", known, known_names)
    parts, seen_photometry, labels, masks, start = [], [], [], [], 0
    kept_weights = []
    for seen in batches:
        named = bool(seen.named.any())
        row = label_rows.of(seen.names, named)
        true, weight = row[:, :-1], row[:, -1]
        learnt = np.isfinite(true)
        if known_rows is not None:
            fixed = known_rows.of(seen.names, named)
            learnt &= ~np.isfinite(fixed)
            true = np.where(np.isfinite(fixed), fixed, true)
        start += len(seen)
        keep = seen.usable & learnt.any(axis=1) & (weight > 0)
        parts.append(seen.inputs(components)[torch.from_numpy(keep)])
        seen_photometry.append(seen.photometry[keep])
        labels.append(true[keep])
        masks.append(learnt[keep])
        kept_weights.append(weight[keep])
    for rows in (label_rows, known_rows):
        if rows is not None:
            rows.check_end()
    theta, known_mask = np.concatenate(labels), np.concatenate(masks)
    weights = np.concatenate(kept_weights)
    if len(theta) < MIN_GALAXIES:
        raise ValueError(
            f"only {len(theta)} of {start} galaxies have usable inputs and a label within the "
            f"bounds of its quantity; fit needs at least {MIN_GALAXIES}."
        )
    photometry = PhotometryBatch.concatenate(seen_photometry)
    flux, error = photometry.dereddened()
    galaxies = LabelledGalaxies(
        type(parts[0]).concatenate(parts),
        torch.as_tensor(flux),
        torch.as_tensor(error),
        torch.as_tensor(sdss_fluxes(flux, photometry.filters)),
        torch.as_tensor(np.asarray(photometry.measured, dtype=bool)),
        torch.as_tensor(theta, dtype=torch.float32),
        torch.as_tensor(known_mask),
        torch.as_tensor(weights / weights.mean(), dtype=torch.float32),
    )
    limits = training_range_of(in_sdss_bands(photometry, components), theta)
    return galaxies, PhotometryReader(photometry, components), limits


class _Rows:
    """Rows of labels in the order of the galaxies, which come in batches.

    Parameters
    ----------
    argument : str
        Name of the argument, for error messages.
    values : ndarray, shape (n, 9)
    names : sequence of str, optional
        Names of the rows.
    """

    def __init__(self, argument: str, values: np.ndarray, names: Sequence[str] | None) -> None:
        self._argument, self._values, self._names = argument, values, names
        self._seen: list[str] = []
        self._by_name = False

    def of(self, names: Sequence[str], named: bool) -> np.ndarray:
        """Return the rows of the next batch of galaxies; ``named`` is false if they have none."""
        start = len(self._seen)
        self._seen += names
        if self._names is not None:
            rows = matched_rows(names, self._names, self._argument, named=named)
            if rows is not None:
                self._by_name = True
                return self._values[rows]
        rows = np.arange(start, len(self._seen))
        # Rows beyond the end are reported by check_end, with the number of all galaxies.
        padded = np.full((len(names), self._values.shape[1]), np.nan)
        inside = rows < len(self._values)
        padded[inside] = self._values[rows[inside]]
        return padded

    def check_end(self) -> None:
        """Check, after the last batch, that names are unique, or the number of rows."""
        if self._by_name:
            match_names(self._seen, self._names or (), self._argument)
        elif len(self._seen) != len(self._values):
            raise ValueError(
                f"{self._argument} has {len(self._values)} rows for {len(self._seen)} galaxies; "
                "one row per galaxy is expected."
            )


def stack_labels(
    labels: Mapping[str, Any] | Table,
    argument: str = "labels",
    *,
    strict: bool = False,
    infos: Mapping[str, QuantityInfo] = QUANTITIES,
) -> np.ndarray:
    """Stack labels in internal units.

    Values that are masked, not finite, fill values (`~astrogenspec.quantities.known_numbers`) or
    outside the bounds of their quantity become NaN.

    Parameters
    ----------
    labels : mapping or table of Quantity, each of shape (n,)
        Labels; other conventions are converted if the metadata of a column state them (see
        `astrogenspec.quantities`).
    argument : str
        Name of the argument, for error messages.
    strict : bool
        Raise an error if there are fill values, or values outside the bounds of their quantity.
    infos : mapping of str to QuantityInfo
        All quantities, with the bounds of the network.

    Returns
    -------
    ndarray, shape (n, 9)

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If the labels cannot be used.

    Warns
    -----
    AstroGenSpecWarning
        If there are fill values, or values outside the bounds of their quantity.
    """
    if not isinstance(labels, Mapping | Table):
        raise TypeError(
            f"{argument} is a {type(labels).__name__}; a table or a mapping of names to "
            "Quantities is expected."
        )
    original, labels = labels, converted_labels(labels)
    names = list(labels.keys())
    chosen = [
        name
        for name in names
        if name in QUANTITIES or (not isinstance(labels, Table) and name != "name")
    ]
    if not chosen:
        raise ValueError(
            f"{argument} has no column named as a quantity; the quantities are "
            f"{', '.join(QUANTITIES)}."
        )
    values, fill = {}, {}
    for name in chosen:
        if name not in QUANTITIES:
            raise ValueError(
                f"{argument} has the unknown quantity {name!r}; choose from "
                f"{', '.join(QUANTITIES)}."
            )
        unit = QUANTITIES[name].unit
        label = f"{argument}[{name!r}]"
        _, fill[name] = known_numbers(original[name], unit, quantity=name, name=label)
        numbers, _ = known_numbers(labels[name], unit, quantity=name, name=label)
        values[name] = u.Quantity(numbers, unit, subok=True)
    theta = quantities_to_theta(values)
    if theta.ndim != 2:
        raise ValueError(
            f"{argument} has shape {theta.shape[:-1]}; (n,), one value per galaxy, is expected."
        )
    lower, upper = (
        np.array([getattr(i, end) for i in infos.values()]) for end in ("lower", "upper")
    )
    with np.errstate(invalid="ignore"):
        inside = (theta > lower) & (theta < upper)
    dropped = np.isfinite(theta) & ~inside
    outside = {name: dropped[:, quantity_index(name)] | fill[name] for name in chosen}
    if strict:
        _refuse_values(original, outside, argument, infos)
    counts = {name: np.count_nonzero(rows) for name, rows in outside.items()}
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    if listed:
        warnings.warn(
            f"{argument} has values that are fill values or outside the bounds of their quantity "
            f"({listed}); they count as missing.",
            AstroGenSpecWarning,
            stacklevel=5,
        )
    return np.where(inside, theta, np.nan)


def sample_weights(weights: ArrayLike, labels: Mapping[str, Any] | Table) -> np.ndarray:
    """Check the weights of labelled galaxies.

    Parameters
    ----------
    weights : array_like, shape (n,)
        Relative weights.
    labels : mapping or table of Quantity, each of shape (n,)
        Labels of the same galaxies.

    Returns
    -------
    ndarray of float, shape (n,)

    Raises
    ------
    ValueError
        If there is not one weight for each label, or a weight is negative or not finite, or all are
        zero.
    """
    values = np.ma.filled(np.ma.asarray(weights, dtype=float), np.nan)
    n = len(next(iter(labels.values()))) if len(labels.keys()) else 0
    if values.shape != (n,):
        raise ValueError(
            f"sample_weight has shape {values.shape} for {n} labels; give one weight per label."
        )
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"row {row} of sample_weight is {values[row]:g}; weights must be finite and not "
            "negative."
        )
    if not values.any():
        raise ValueError("sample_weight is zero for all galaxies; give at least one a weight.")
    return values


def _refuse_values(
    labels: Any,
    outside: Mapping[str, np.ndarray],
    argument: str,
    infos: Mapping[str, QuantityInfo],
) -> None:
    """Raise an error that names the first value outside the bounds of its quantity, if any."""
    for name, rows in outside.items():
        info = infos[name]
        values = plain_values(labels[name], info.unit, name=f"{argument}[{name!r}]")
        # The logarithm of a flux that is not positive does not exist.
        rows = rows | (values <= 0) if info.logarithmic else rows
        if rows.any():
            row = int(np.argmax(rows))
            value = "log10 of the flux" if info.logarithmic else "it"
            raise ValueError(
                f"row {row} of {argument}: {name} is {values[row]:g}, but {value} must be between "
                f"{info.lower:g} and {info.upper:g} for these weights; NaN or a masked value "
                "stands for unknown."
            )


def frequent_band_sets(galaxies: LabelledGalaxies) -> Tensor:
    """Return the sets of bands that `augment_galaxies` often shows when a redshift is learnt.

    Parameters
    ----------
    galaxies : LabelledGalaxies

    Returns
    -------
    Tensor of bool, shape (k, 5)
        k sets of bands; none if no redshift is learnt.
    """
    present = torch.isfinite(galaxies.sdss_flux[galaxies.learnt[:, _REDSHIFT]])
    subsets, counts = present.unique(dim=0, return_counts=True)
    frequent = subsets[counts >= _FREQUENT * len(present)]
    shown = torch.cat([frequent, frequent & torch.tensor(_GRI)]).unique(dim=0)
    return shown[shown.any(dim=1)]


def augment_galaxies(
    galaxies: LabelledGalaxies, generator: torch.Generator, reader: PhotometryReader
) -> LabelledGalaxies:
    """Vary bands, fluxes, errors and orientation, and hide some of the inputs.

    Parameters
    ----------
    galaxies : LabelledGalaxies
    generator : `torch.Generator`
        Source of randomness.
    reader : PhotometryReader
        Reader of their photometry.

    Returns
    -------
    LabelledGalaxies
        With other ``inputs``.
    """
    n = len(galaxies)
    if reader.is_sdss:
        bands = draw_band_subsets(n, _BAND_SETS, generator)
    else:
        bands = _any_bands(galaxies.flux.shape, generator)
    # A galaxy that has none of the drawn bands keeps all of its own.
    bands |= ~(bands & torch.isfinite(galaxies.flux)).any(1, keepdim=True)
    noise = (
        _JITTER
        * galaxies.error
        * torch.randn(galaxies.flux.shape, generator=generator, dtype=torch.float32)
    )
    flux = torch.where(bands, galaxies.flux + noise, torch.nan)
    increased = torch.rand(n, 1, generator=generator, dtype=torch.float32) < _INCREASED_ERRORS
    systematic = (
        _MAX_SYSTEMATIC * torch.rand(n, 1, generator=generator, dtype=torch.float32) * increased
    )
    error = torch.hypot(galaxies.error, systematic * galaxies.flux)
    inputs = replace(galaxies.inputs, photometry=reader(flux, error, galaxies.measured))
    if inputs.morphology is not None:
        keep = torch.rand(n, 1, generator=generator, dtype=torch.float32) > _HIDDEN_MORPHOLOGY
        inputs = replace(inputs, morphology=inputs.morphology * keep)
    if inputs.image is not None:
        inputs = _augment_images(inputs, generator)
    return replace(galaxies, inputs=inputs)


def _any_bands(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw the bands of galaxies in any filters that are kept, shape (n, m)."""
    n, m = shape
    every = torch.rand(n, 1, generator=generator, dtype=torch.float32) < _BAND_SETS.full_bands
    kept = torch.rand(n, m, generator=generator, dtype=torch.float32) < _KEPT_BAND
    return kept | every


def _augment_images(inputs: ModelInputs, generator: torch.Generator) -> ModelInputs:
    """Rotate and mirror images; hide image or photometry of some galaxies that have both."""
    image, weight = orient_randomly(
        torch.cat([inputs.image, inputs.image_weight], dim=1), generator
    ).chunk(2, dim=1)
    chance = torch.rand(len(inputs), generator=generator, dtype=torch.float32)
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
