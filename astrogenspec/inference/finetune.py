"""Continue the training of a network on galaxies whose properties are known, with any of the labels missing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from torch import Tensor

from ..augmentation import orient_randomly
from ..base import make_generator
from ..blocks import ObservationBlocks
from ..photometry import PhotometryBatch
from ..preprocessing import ModelInputs
from ..quantities import QUANTITIES, quantities_to_theta
from ..training import BatchStream, History, TrainingConfig, evaluate, fit
from ..warnings import AstroGenSpecWarning
from .model import PropertyNetwork
from .ranges import training_range_of

__all__ = ["FitSettings", "LabelledGalaxies", "fine_tune"]

_FEWEST = 10
#: Probability that the image, or the photometry, of a galaxy that has both is hidden in a step.
_HIDDEN_IMAGE = 0.2
_HIDDEN_PHOTOMETRY = 0.1
#: Galaxies evaluated at once on the held-out part.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fine_tune`; see `PropertyEstimator.fit`."""

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    validation_fraction: float = 0.2
    patience: int | None = 10
    progress: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1."
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive.")


@dataclass(frozen=True)
class LabelledGalaxies:
    """Network inputs and labels.

    Attributes
    ----------
    inputs : ModelInputs
    theta : Tensor, shape (n, 9)
        NaN where unknown.
    """

    inputs: ModelInputs
    theta: Tensor

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: Tensor) -> LabelledGalaxies:
        """Select galaxies."""
        return LabelledGalaxies(self.inputs[rows], self.theta[rows])

    def to(self, device: torch.device | str) -> LabelledGalaxies:
        """Move every tensor to a device."""
        return LabelledGalaxies(self.inputs.to(device), self.theta.to(device))


def fine_tune(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    blocks: ObservationBlocks,
    labels: Mapping[str, Any] | Table,
    settings: FitSettings,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[PropertyNetwork, dict[str, Any]]:
    """Train a copy of a network.

    Parameters
    ----------
    network : PropertyNetwork
        Where to begin; not changed.
    card : mapping or None
        Its card; None if it was never trained, and then takes its scales from the labels.
    blocks : ObservationBlocks
        The galaxies.
    labels : mapping or table of Quantity, each of shape (n,)
        Any of the quantities; NaN or masked where unknown.
    settings : FitSettings
    generator : `torch.Generator`
        Source of randomness.
    device : `torch.device`

    Returns
    -------
    network : PropertyNetwork
    card : dict
        The old one with an entry in ``fits``.

    Raises
    ------
    ValueError
        If there are too few labelled galaxies, or the labels do not fit them.
    """
    theta = _theta_of(labels)
    galaxies, limits = _read(blocks, theta)
    n = len(galaxies)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    order = torch.randperm(n, generator=make_generator(seed))
    n_held_out = min(max(round(settings.validation_fraction * n), 1), n - 1)
    held_out, training = galaxies[order[:n_held_out]], galaxies[order[n_held_out:]]
    trained = copy.deepcopy(network)
    if card is None:
        trained.chain.set_standardisation(training.theta)
    before = copy.deepcopy(trained)
    history = _train(trained, training, held_out, settings, seed, device)
    old, new = (_validation_loss(model, held_out, device) for model in (before, trained))
    if not new < old:
        warnings.warn(
            f"fit did not improve on the {n_held_out} galaxies held out (loss {old:.4g} before, {new:.4g} after): "
            "the weights stay as they were. Give more galaxies, or a smaller learning_rate.",
            AstroGenSpecWarning,
            stacklevel=3,
        )
        trained = before
    entry = {
        **asdict(settings),
        "seed": seed,
        "n_training": len(training),
        "n_held_out": n_held_out,
        "labels": {
            name: int(k)
            for name, k in zip(QUANTITIES, galaxies.theta.isfinite().sum(0), strict=True)
        },
        "held_out_loss": [old, min(old, new)],
        "epochs_run": len(history),
    }
    return trained.eval(), _new_card(card, entry, limits)


def _train(
    network: PropertyNetwork,
    training: LabelledGalaxies,
    held_out: LabelledGalaxies,
    settings: FitSettings,
    seed: int,
    device: torch.device,
) -> History:
    size = min(settings.batch_size, len(training))
    steps = len(training) // size
    stream = BatchStream(
        lambda rows, generator: _augmented(training[rows], generator),
        len(training),
        size,
        seed=seed,
    )
    config = TrainingConfig(
        max_steps=settings.epochs * steps,
        learning_rate=settings.learning_rate,
        ema_decay=0.99,
        validate_every=steps,
        patience=settings.patience,
        device=str(device),
        quiet=not settings.progress,
    )
    devices = [device] if device.type == "cuda" else []
    # Dropout and the noise of the latent come from the global generator, which must be as it was afterwards.
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return fit(network, stream, _batches(held_out), config, _loss)


def _loss(network: PropertyNetwork, batch: LabelledGalaxies, progress: float) -> dict[str, Tensor]:
    generator = None if network.training else torch.Generator(batch.theta.device).manual_seed(0)
    valid = torch.isfinite(batch.theta)
    terms = network.loss(batch.inputs, batch.theta, valid, generator=generator)
    if not network.training:
        # What is held out judges the quantities, not the images.
        terms["total"] = terms["flow"]
    return terms


def _validation_loss(
    network: PropertyNetwork, held_out: LabelledGalaxies, device: torch.device
) -> float:
    network.to(device)
    return evaluate(network, _batches(held_out), _loss, device=str(device))["total"]


def _batches(galaxies: LabelledGalaxies) -> list[LabelledGalaxies]:
    return [galaxies[rows] for rows in torch.arange(len(galaxies)).split(_VALIDATION_BATCH)]


def _augmented(galaxies: LabelledGalaxies, generator: torch.Generator) -> LabelledGalaxies:
    """Turn and mirror images; hide image or photometry of some galaxies that have both."""
    inputs = galaxies.inputs
    if inputs.image is None:
        return galaxies
    n = len(galaxies)
    image, weight = orient_randomly(
        torch.cat([inputs.image, inputs.image_weight], dim=1), generator
    ).chunk(2, dim=1)
    chance = torch.rand(n, generator=generator)
    both = inputs.has_image & inputs.has_photometry
    hide_image = both & (chance < _HIDDEN_IMAGE)
    hide_flux = both & (chance > 1 - _HIDDEN_PHOTOMETRY)
    keep_image, keep_flux = ((~hidden).float() for hidden in (hide_image, hide_flux))
    return LabelledGalaxies(
        ModelInputs(
            image * keep_image[:, None, None, None],
            weight * keep_image[:, None, None, None],
            inputs.image_bands * keep_image[:, None],
            inputs.image_noise * keep_image[:, None],
            inputs.photometry * keep_flux[:, None],
        ),
        galaxies.theta,
    )


def _theta_of(labels: Mapping[str, Any] | Table) -> np.ndarray:
    """Stack labels; masked ones and values outside of the bounds become NaN."""
    if not isinstance(labels, Mapping | Table):
        raise TypeError(
            f"labels is a {type(labels).__name__}: it must be a table or a mapping of names to Quantities."
        )
    names = list(labels.keys())
    chosen = [name for name in names if name in QUANTITIES or not isinstance(labels, Table)]
    if not chosen:
        raise ValueError(f"labels has none of the quantities {', '.join(QUANTITIES)}.")
    theta = quantities_to_theta({name: _filled(labels[name]) for name in chosen})
    if theta.ndim != 2:
        raise ValueError(
            f"labels has shape {theta.shape[:-1]}: it must be (n,), one value a galaxy."
        )
    lower, upper = (
        np.array([getattr(i, end) for i in QUANTITIES.values()]) for end in ("lower", "upper")
    )
    with np.errstate(invalid="ignore"):
        return np.where((theta > lower) & (theta < upper), theta, np.nan)


def _filled(column: Any) -> Any:
    """Replace what is masked by NaN."""
    mask = getattr(column, "mask", None)
    if mask is None:
        return column
    values = column.unmasked if hasattr(column, "unmasked") else np.ma.getdata(column)
    values = values.astype(float)
    values[np.asarray(mask, dtype=bool)] = np.nan
    return values


def _read(
    blocks: ObservationBlocks, theta: np.ndarray
) -> tuple[LabelledGalaxies, dict[str, list[float]]]:
    """Read all galaxies; keep those that can be used and have a label."""
    parts, fluxes, start = [], [], 0
    for seen in blocks:
        rows = np.arange(start, start + len(seen))
        start += len(seen)
        if start > len(theta):
            break
        keep = seen.usable & np.isfinite(theta[rows]).any(axis=1)
        parts.append((seen.inputs(), keep, theta[rows]))
        fluxes.append(seen.photometry[keep])
    if start != len(theta):
        raise ValueError(f"labels is of {len(theta)} galaxies, but {start} were given.")
    kept = np.concatenate([labels[keep] for _, keep, labels in parts])
    if len(kept) < _FEWEST:
        raise ValueError(
            f"only {len(kept)} of {len(theta)} galaxies can be used and have a label within the bounds of its "
            f"quantity: fit needs at least {_FEWEST}."
        )
    inputs = _joined([inputs[torch.from_numpy(keep)] for inputs, keep, _ in parts])
    theta_kept = torch.as_tensor(kept, dtype=torch.float32)
    return LabelledGalaxies(inputs, theta_kept), training_range_of(_joined_photometry(fluxes), kept)


def _joined(parts: list[ModelInputs]) -> ModelInputs:
    def joined(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)

    return ModelInputs(
        *(
            joined(name)
            for name in ("image", "image_weight", "image_bands", "image_noise", "photometry")
        )
    )


def _joined_photometry(parts: list[PhotometryBatch]) -> PhotometryBatch:
    columns = ("flux", "error", "ebv", "measured", "extinction")
    return PhotometryBatch(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    )


def _new_card(
    card: Mapping[str, Any] | None, entry: dict[str, Any], limits: dict[str, list[float]]
) -> dict[str, Any]:
    new = copy.deepcopy(dict(card or {}))
    new["fits"] = [*new.get("fits", []), entry]
    known = new.get("training_range")
    if card is None:
        new["training_range"] = limits
    elif known:
        for key, (low, high) in limits.items():
            if key in known:
                known[key] = [min(low, known[key][0]), max(high, known[key][1])]
    # Metrics and calibration were measured with other weights.
    for stale in ("sha256", "filename", "metrics", "calibration"):
        new.pop(stale, None)
    new["name"] = (
        f"{new.get('name') or 'untitled'} (fitted)" if len(new["fits"]) == 1 else new["name"]
    )
    return new
