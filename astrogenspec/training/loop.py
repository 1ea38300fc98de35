r"""Training loop: AdamW, learning-rate schedule, averaged weights, early stopping, checkpoints.

With :math:`p` the completed fraction of the training, by steps or by time, and :math:`w` the
fraction used for the warm-up, the learning rate relative to its peak is

.. math:: \eta(p) = \begin{cases} p / w & p < w , \\
          \eta_1 + \frac{1 - \eta_1}{2} \left(1 + \cos \pi \frac{p - w}{1 - w}\right)
          & p \ge w , \end{cases}

a linear warm-up followed by half a cosine down to the final factor :math:`\eta_1`.  Weight decay
applies to matrices only.

Validation, early stopping and the final network use an exponential moving average of the weights,
:math:`\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta` after update :math:`u`, with
:math:`d = \min(d_\mathrm{max}, u / (9 + u))`, so that the average is short at first.

A checkpoint holds the complete state, including random numbers and position in the data: a training
that is interrupted and resumed gives the same result, to the last bit, as one that is not.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from astropy.table import QTable
from torch import Tensor, nn
from tqdm import tqdm

from ..atomic import atomic_write, sole_writer
from .parallel import (
    PRECISIONS,
    Workers,
    autocast,
    compile_parts,
    micro_batch_seed,
    without_synchronisation,
)
from .streams import BatchStream, ZippedStreams, to_device

__all__ = [
    "BatchStream",
    "ExponentialAverage",
    "History",
    "RunningMeans",
    "TrainingConfig",
    "ZippedStreams",
    "evaluate",
    "fit",
    "learning_rate_factor",
    "parameter_groups",
    "save_atomically",
]


class ExponentialAverage:
    """Exponential moving average of the weights of a model.

    Parameters
    ----------
    model : `torch.nn.Module`
        Model whose weights are averaged; its buffers are copied.
    decay : float
        Maximum decay of an update; the first updates use smaller values.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the weights of ``model``."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (9 + self.n_updates))
        averages = list(self.model.parameters())
        torch._foreach_lerp_(averages, list(model.parameters()), 1 - decay)
        for average, current in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(current)


class RunningMeans:
    """Running means of named scalars.

    Parameters
    ----------
    sums, counts : dict, optional
        Initial sums and numbers of values.
    """

    def __init__(
        self, sums: dict[str, float] | None = None, counts: dict[str, int] | None = None
    ) -> None:
        self.sums = sums or {}
        self.counts = counts or {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add one value of each name."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def result(self) -> dict[str, float]:
        """Return the mean of each name."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


def learning_rate_factor(progress: float, warmup: float, final_factor: float) -> float:
    """Evaluate the learning-rate schedule: linear warm-up, then half a cosine.

    Parameters
    ----------
    progress : float
        Fraction of the training that is done, 0 to 1.
    warmup : float
        Fraction of the training during which the factor rises from 0 to 1.
    final_factor : float
        Factor at the end.

    Returns
    -------
    factor : float
        Learning rate relative to its peak.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    phase = min((progress - warmup) / (1 - warmup), 1.0)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * phase))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into matrices, which decay, and vectors (biases, norms), which do not.

    Parameters
    ----------
    model : `torch.nn.Module`
    weight_decay : float
        Weight decay of the matrices.

    Returns
    -------
    groups : list of dict
        Parameter groups of a `torch.optim` optimiser.
    """
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        (decaying if parameter.ndim > 1 else others).append(parameter)
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


_LOG = logging.getLogger(__name__)
LossFunction = Callable[[nn.Module, Any, float], dict[str, Tensor]]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of `fit`.

    Attributes
    ----------
    max_steps : int or None
        Maximum number of steps.
    max_seconds : float or None
        Maximum duration [s], including the time before resuming.  With both limits, training ends
        at the first that is reached, and the learning rate follows the larger of the two fractions.
    learning_rate : float
        Peak learning rate of AdamW.
    weight_decay : float
        Weight decay of AdamW; vectors (biases, norms) do not decay.
    warmup : float
        Fraction of the training during which the learning rate rises linearly.
    final_factor : float
        Learning rate at the end, relative to its peak.
    clip : float
        Maximum norm of the gradient.
    ema_decay : float
        Maximum decay per step of the average of the weights.
    validate_every : int
        Number of steps between validations.
    patience : int or None
        Number of validations without improvement after which training stops; None disables early
        stopping.
    checkpoint : path or None
        Checkpoint file; training resumes from it if it exists.
    checkpoint_minutes : float
        Minutes between checkpoints.
    device : str
        Device of the training.
    quiet : bool
        If True, show no progress bar.
    micro_batches : int
        Number of parts of a batch whose losses are evaluated one after the other, or by several
        processes (`astrogenspec.training.parallel`); at least one for each process.
    precision : {"float32", "bf16"}
        Precision of matrix products in training steps; weights are always of single precision.
    compiled : bool
        Compile parts of the model (`astrogenspec.training.parallel.compile_parts`), which takes
        minutes at first; the losses are the same up to rounding.
    """

    max_steps: int | None = None
    max_seconds: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.02
    final_factor: float = 0.01
    clip: float = 5.0
    ema_decay: float = 0.999
    validate_every: int = 500
    patience: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_minutes: float = 5.0
    device: str = "cpu"
    quiet: bool = False
    micro_batches: int = 1
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError(
                "max_steps and max_seconds are both None; at least one limit is required."
            )
        for name in (
            "max_steps",
            "max_seconds",
            "learning_rate",
            "clip",
            "validate_every",
            "checkpoint_minutes",
            "micro_batches",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be positive.")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"ema_decay and warmup are {self.ema_decay} and {self.warmup}; they must be in "
                "[0, 1)."
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}; choose from {', '.join(PRECISIONS)}."
            )


@dataclass
class History:
    """History of a training, with one row for each validation.

    Attributes
    ----------
    rows : list of dict
        Step, seconds, learning rate, and the means of all loss terms (``train_*`` since the
        previous row, ``valid_*``).
    best_step : int
        Step of the smallest validation loss.
    stopped : str
        Reason for the end: ``"steps"``, ``"time"``, ``"patience"``, ``"batches"``, or ``""`` if
        training has not ended.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    stopped: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def to_table(self) -> QTable:
        """Return the rows as a table, with NaN for missing terms."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        return QTable({name: [row.get(name, math.nan) for row in self.rows] for name in names})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table as ECSV; an existing file is replaced."""
        with atomic_write(Path(path), overwrite=True) as temporary:
            self.to_table().write(temporary, format="ascii.ecsv")


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """Save to a temporary file and rename it, so that the target is never incomplete.

    Raises
    ------
    OSError
        If it cannot be written; an older file is kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, overwrite=True) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # So torch says that it cannot write.
            raise OSError(
                f"{path} could not be written; the disk is probably full. Free some space and run "
                "the command again: it continues from the last checkpoint."
            ) from error


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Any], loss_fn: LossFunction, *, device: str = "cpu"
) -> dict[str, float]:
    """Average every loss term over batches, with the model in evaluation mode.

    Parameters
    ----------
    model : `torch.nn.Module`
    batches : iterable
        Finite number of batches.
    loss_fn : callable
        Loss function as for `fit`, called with progress 1.
    device : str, optional
        Device of the model.

    Returns
    -------
    terms : dict of float
        Mean of each term.
    """
    training = model.training
    model.eval()
    means = RunningMeans()
    for batch in batches:
        means.add(loss_fn(model, to_device(batch, device), 1.0))
    model.train(training)
    return means.result()


def fit(
    model: nn.Module,
    batches: Iterable[Any],
    validation: Iterable[Any] | None,
    config: TrainingConfig,
    loss_fn: LossFunction,
) -> History:
    """Train a model.

    Parameters
    ----------
    model : `torch.nn.Module`
        Trained in place.  At the end it has the averaged weights of the best validation, or the
        last averaged weights without `validation`.
    batches : iterable
        Training batches: tensors, objects with a method ``to``, or tuples, lists and dictionaries
        of these.  If it has ``state_dict`` and ``load_state_dict``, a resumed training continues
        with the next batch.
    validation : iterable or None
        Validation batches, the same at each iteration (for example a list).
    config : TrainingConfig
    loss_fn : callable
        ``loss_fn(model, batch, progress)`` returns a dictionary of scalar tensors, of which
        ``"total"`` is minimised. In validation it should depend on the weights and the batch only.

    Returns
    -------
    history : History

    Raises
    ------
    FloatingPointError
        If the loss or its gradient is not finite in ten consecutive steps; single such steps are
        skipped.
    BlockingIOError
        If another process trains with the same checkpoint.
    """
    trainer = _Trainer(model, batches, config)
    with trainer.sole_writer():
        if config.checkpoint is not None and Path(config.checkpoint).exists():
            trainer.load(config.checkpoint)
        try:
            trainer.run(validation, loss_fn)
        except KeyboardInterrupt:
            trainer.save()
            raise
        trainer.save()
    model.load_state_dict(trainer.best or trainer.average.model.state_dict())
    return trainer.history


class _Trainer:
    """State and steps of a training."""

    _MAX_BAD_STEPS = 10

    def __init__(self, model: nn.Module, batches: Iterable[Any], config: TrainingConfig) -> None:
        self.config = config
        self.batches: Any = batches
        self.workers = Workers.current()
        self.n_parts = self.workers.number_of_micro_batches(config.micro_batches)
        self.model = model.to(config.device)
        self.average = ExponentialAverage(self.model, config.ema_decay)
        if config.compiled:
            compile_parts(self.model)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.learning_rate
        )
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.best_total = math.inf
        self.means = RunningMeans()
        self.step = 0
        self.bad_steps = 0
        self.seconds_before = 0.0
        self.started = self.last_saved = time.monotonic()
        self._mark()

    @property
    def seconds(self) -> float:
        """Duration of the training, the same in all processes, which must all ask for it."""
        return self.workers.shared(self._own_seconds())

    def _own_seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        by_steps = self.step / self.config.max_steps if self.config.max_steps else 0.0
        by_clock = self.seconds / self.config.max_seconds if self.config.max_seconds else 0.0
        return min(max(by_steps, by_clock), 1.0)

    def run(self, validation: Iterable[Any] | None, loss_fn: LossFunction) -> None:
        self.model.train()
        source = iter(self.batches)
        engine = self.workers.engine(self.model, loss_fn)
        quiet = self.config.quiet or not self.workers.is_first
        with tqdm(
            total=self.config.max_steps, initial=self.step, disable=quiet, unit="step"
        ) as bar:
            while not self.history.stopped:
                parts = self._own_parts(source)
                if not parts:
                    self.history.stopped = "batches"
                else:
                    self.train_step(parts, engine)
                    self._mark()
                    bar.update()
                    self._check_end()
                if self.history.stopped or self.step % self.config.validate_every == 0:
                    self.validate(validation, loss_fn)
                    bar.set_postfix_str(self._summary())
                if time.monotonic() - self.last_saved > 60 * self.config.checkpoint_minutes:
                    self.save()

    def _own_parts(self, source: Iterator[Any]) -> dict[int, Any]:
        """Return the micro-batches of this process in the next step, by index."""
        parts = {}
        for k in range(self.n_parts):
            if k % self.workers.size != self.workers.rank and hasattr(self.batches, "skip"):
                self.batches.skip()
                continue
            batch = next(source, None)
            if batch is None:
                return {}
            if k % self.workers.size == self.workers.rank:
                parts[k] = batch
        return parts

    def train_step(self, parts: dict[int, Any], engine: nn.Module) -> None:
        config = self.config
        progress = self.progress
        factor = learning_rate_factor(progress, config.warmup, config.final_factor)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        means = RunningMeans()
        for k, batch in parts.items():
            if self.n_parts > 1:
                torch.manual_seed(micro_batch_seed(self.step, k))
            with without_synchronisation(engine, last=k == max(parts)):
                with autocast(config.precision, config.device):
                    terms = engine(to_device(batch, config.device), progress)
                total = terms["total"]
                (total if len(parts) == 1 else total / len(parts)).backward()
            if self.n_parts > 1:
                means.add(terms)
        self.step += 1
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if not bool(torch.isfinite(norm)):
            self.bad_steps += 1
            if self.bad_steps >= self._MAX_BAD_STEPS:
                raise FloatingPointError(
                    f"the loss or its gradient was not finite in {self.bad_steps} consecutive "
                    f"steps up to step {self.step}; reduce the learning rate, or check the "
                    "training data for NaN."
                )
            return
        self.bad_steps = 0
        self.optimiser.step()
        self.average.update(self.model)
        if self.n_parts > 1:
            own = {name: torch.tensor(value) for name, value in means.result().items()}
            terms = self.workers.mean_terms(own)
        self.means.add({**terms, "gradient_norm": norm})

    def validate(self, validation: Iterable[Any] | None, loss_fn: LossFunction) -> None:
        row = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            **{f"train_{name}": value for name, value in self.means.result().items()},
        }
        self.means = RunningMeans()
        if validation is not None:
            terms = self.workers.shared(
                evaluate(self.average.model, validation, loss_fn, device=self.config.device)
            )
            row |= {f"valid_{name}": value for name, value in terms.items()}
            if terms["total"] < self.best_total:
                self.best_total = terms["total"]
                self.best = copy.deepcopy(self.average.model.state_dict())
                self.history.best_step = self.step
        self.history.rows.append(row)
        _LOG.info("step %d, %.0f s: %s", self.step, self.seconds, self._summary())
        self._check_patience(validation is not None)

    def _mark(self) -> None:
        """Save the states of batches and random numbers, to repeat an interrupted step."""
        self.random = torch.get_rng_state()
        self.batches_state = (
            self.batches.state_dict() if hasattr(self.batches, "state_dict") else None
        )

    def _check_end(self) -> None:
        config = self.config
        if config.max_steps is not None and self.step >= config.max_steps:
            self.history.stopped = "steps"
        elif config.max_seconds is not None and self.seconds >= config.max_seconds:
            self.history.stopped = "time"

    def _check_patience(self, validated: bool) -> None:
        patience = self.config.patience
        if not validated or patience is None or self.history.stopped:
            return
        since = sum(row["step"] > self.history.best_step for row in self.history.rows)
        if since >= patience:
            self.history.stopped = "patience"

    def _summary(self) -> str:
        row = self.history.rows[-1]
        return ", ".join(f"{k} {row[k]:.4g}" for k in ("train_total", "valid_total") if k in row)

    def sole_writer(self) -> AbstractContextManager[None]:
        """Lock the folder of the checkpoint against other trainings."""
        if self.config.checkpoint is None or not self.workers.is_first:
            return nullcontext()
        return sole_writer(Path(self.config.checkpoint).parent)

    def save(self) -> None:
        self.last_saved = time.monotonic()
        if self.config.checkpoint is None or not self.workers.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_updates": self.average.n_updates,
            "optimiser": self.optimiser.state_dict(),
            "history": vars(self.history),
            "best": self.best,
            "best_total": self.best_total,
            "means": vars(self.means),
            "step": self.step,
            "seconds": self._own_seconds(),
            "random": self.random,
            "batches": self.batches_state,
        }
        save_atomically(state, self.config.checkpoint)

    def load(self, path: str | os.PathLike[str]) -> None:
        state = torch.load(path, map_location=self.config.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.n_updates = state["average_updates"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = History(**state["history"])
        if self.history.stopped in ("steps", "time"):
            self.history.stopped = ""
        self.best, self.best_total = state["best"], state["best_total"]
        self.means = RunningMeans(**state["means"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        torch.set_rng_state(state["random"].cpu())
        if state["batches"] is not None:
            self.batches.load_state_dict(state["batches"])
        self._mark()
        self._check_end()
        _LOG.info("resuming training at step %d from %s", self.step, path)
