"""Base class of the estimators: their common interface and the prediction loop.

An estimator connects a network to astropy objects. All estimators have the same interface:

* ``__init__(network, *, card=None, device="cpu")`` only stores its arguments; without a card the
  network is untrained;
* ``from_pretrained(name)`` and ``load(path)`` return a trained estimator, ``save(path)`` writes
  one;
* ``predict(...)`` takes observations and returns quantities with units; it does not change the
  estimator;
* ``fit(...)`` returns a **new**, trained estimator and does not change the one it is called on, so
  that predictions do not depend on the history of an object;
* a ``seed`` is an int, a `torch.Generator`, or None for fresh randomness. The same seed gives the
  same numbers, and the global state of torch (random numbers, threads, default types) is not
  changed;
* an invalid argument raises `ValueError`, `TypeError` or an error of `astropy.units` whose message
  names it; an untrained estimator raises `NotFittedError`.

Estimators of galaxies read their input in batches. The loop over the batches is in this module
(progress bar, memory limit, concatenation); a subclass provides a function that makes the result of
one batch, and the memory per draw.
"""

from __future__ import annotations

import operator
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from .cards import check_text
from .inputs.cutouts import Cutouts
from .inputs.ids import ObjectIds, coerce_ids
from .inputs.observations import InputOptions, ObservationBatches, Observations
from .inputs.photometry import Photometry
from .inputs.sed_features import SEDComponents
from .nn.noise import ObjectStreams
from .nn.precision import single_precision
from .surveys import CUTOUT_SIZE
from .weights import DEFAULT_MODEL, WeightsError, fetch_weights, read_weights, save_weights

__all__ = ["Estimator", "NotFittedError", "make_generator", "make_streams", "wants_progress_bar"]


class NotFittedError(ValueError, AttributeError):
    """The estimator is not trained."""


class _Batch(Protocol):
    """Result for a batch of galaxies."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: slice) -> Self: ...

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self: ...


_Result = TypeVar("_Result", bound=_Batch)


class Estimator(ABC):
    """A network and its card; the base class of all estimators.

    A subclass defines `build_network`, `predict` and `fit`.

    Parameters
    ----------
    network : `torch.nn.Module`
        The network, moved to ``device``, converted to single precision and set to evaluation mode.
        Its attribute ``config``, a dict that can be written as JSON, has the arguments of
        `build_network`.
    card : dict, optional
        Metadata of the weights: training, metrics, training range. Without a card the network is
        untrained.
    device : str or `torch.device`
        Device of the network.

    Attributes
    ----------
    network : `torch.nn.Module`
        The network.
    card : dict or None
        Metadata of the weights; None if untrained.
    device : `torch.device`
        Device of the network.

    Examples
    --------
    A complete estimator, which predicts the redshift from a colour:

    >>> import astropy.units as u
    >>> import numpy as np
    >>> import torch
    >>> from astrogenspec.base import Estimator
    >>> class Line(torch.nn.Module):
    ...     def __init__(self, slope=0.0):
    ...         super().__init__()
    ...         self.config = {"slope": slope}
    ...         self.slope = torch.nn.Parameter(torch.tensor(slope))
    >>> class ColourRedshift(Estimator):
    ...     @classmethod
    ...     def build_network(cls, config):
    ...         return Line(**config)
    ...     def predict(self, colour):
    ...         self.check_fitted()
    ...         return self.network.slope.item() * colour.to_value(u.mag) * u.dimensionless_unscaled
    ...     def fit(self, colour, redshift):
    ...         x = colour.to_value(u.mag)
    ...         slope = float(x @ redshift / (x @ x))
    ...         return ColourRedshift(Line(slope), card={"n_galaxies": len(x)})

    ``fit`` returns a new estimator, which predicts:

    >>> untrained = ColourRedshift(Line())
    >>> estimator = untrained.fit([0.5, 1.0, 1.5] * u.mag, np.array([0.05, 0.1, 0.15]))
    >>> print(estimator.predict([0.8, 1.2] * u.mag))
    [0.08 0.12]

    The original one is still untrained:

    >>> untrained.predict([0.8] * u.mag)
    Traceback (most recent call last):
    ...
    astrogenspec.base.NotFittedError: this ColourRedshift was never trained: use ...

    Weights and card are written to a file and read again:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = estimator.save(folder + "/line.safetensors")
    ...     again = ColourRedshift.load(path)
    >>> print(again.predict([0.8, 1.2] * u.mag), again.card["n_galaxies"])
    [0.08 0.12] 3
    """

    #: Registered model that `from_pretrained` loads by default.
    default_model = DEFAULT_MODEL
    #: Memory (bytes) that the draws of `predict` may take; ``predict_iter`` has no limit.
    memory_limit = 4e9
    #: Default number of galaxies per batch.
    _batch_size: ClassVar[int] = 256
    #: Memory of one draw of one galaxy while results are concatenated.
    _bytes_per_draw: ClassVar[int] = 0

    def __init__(
        self,
        network: nn.Module,
        *,
        card: dict[str, Any] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network is a {type(network).__name__}: it must be a torch.nn.Module; "
                "for trained weights use from_pretrained() or load(path)."
            )
        if card is not None:
            try:
                self._check_card(card)
            except ValueError as error:
                raise ValueError(f"card is invalid: {error}") from error
        self.device = _check_device(device)
        self.network = network.to(self.device, torch.float32).eval()
        self.card = card

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.network.parameters())
        name = "untrained" if self.card is None else self.card.get("name", "no card")
        return f"<{type(self).__name__}: {name}, {n:,} parameters, on {self.device}>"

    @classmethod
    @abstractmethod
    def build_network(cls, config: dict[str, Any]) -> nn.Module:
        """Build an untrained network.

        Parameters
        ----------
        config : dict
            Attribute ``config`` of another network.
        """

    @abstractmethod
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict from observations; see the subclass."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Return a new estimator, trained on labelled galaxies; see the subclass."""

    @classmethod
    def _check_card(cls, card: Any) -> None:
        """Raise an error unless the entries of the card that this class uses are valid."""
        if not isinstance(card, Mapping):
            raise TypeError(
                f"card is a {type(card).__name__}: it must be a dict with the metadata of the "
                "weights, or None for an untrained network."
            )
        if card.get("name") is not None:
            check_text(card["name"], "name")

    @property
    def fitted(self) -> bool:
        """Whether the network is trained."""
        return self.card is not None

    def check_fitted(self) -> None:
        """Raise `NotFittedError` if the network is not trained."""
        if not self.fitted:
            raise NotFittedError(
                f"this {type(self).__name__} was never trained: use from_pretrained(), load(path), "
                "or the estimator returned by fit(...)."
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Return an estimator with pre-trained weights.

        Parameters
        ----------
        name : str or path-like, optional
            Name of a registered model (see `astrogenspec.list_models`) or path of a
            ``.safetensors`` file; by default the model bundled with the package.
        device : str or `torch.device`
            Device of the network.

        Returns
        -------
        Estimator

        Raises
        ------
        ValueError
            If the name is not registered.
        FileNotFoundError
            If the path does not exist.
        astrogenspec.WeightsError
            If a file is damaged, cannot be downloaded, or has the weights of another kind of
            network.
        """
        device = _check_device(device)
        found = fetch_weights(cls.default_model if name is None else name)
        state, config = read_weights(found.path)
        try:
            with single_precision():
                network = cls.build_network(config)
            network.load_state_dict(state)
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{found.path} does not hold the network of a {cls.__name__} of this version "
                f"({cause}): "
                "use the weights that came with this version of astrogenspec, or train them again."
            ) from error
        try:
            cls._check_card(found.card)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"the card of {found.path} cannot be used: {error}") from error
        return cls(network, card=found.card, device=device)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Self:
        """Read an estimator written by `save`.

        Parameters
        ----------
        path : str or path-like
            The ``.safetensors`` file; the card is the ``.json`` file of the same name.
        device : str or `torch.device`
            Device of the network.

        Returns
        -------
        Estimator

        Raises
        ------
        FileNotFoundError, ValueError, astrogenspec.WeightsError
            As for `from_pretrained`.
        """
        return cls.from_pretrained(Path(path), device=device)

    def save(
        self, path: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False
    ) -> str:
        """Write the weights and configuration to one file and the card to another.

        An interrupted call leaves the previous files, or none: files are renamed when they are
        complete.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.safetensors``.
        overwrite : bool
            Replace existing files.
        half : bool
            Store in half precision: half the size, and numbers change in the fourth digit.

        Returns
        -------
        path : str
            Name of the file.

        Raises
        ------
        NotFittedError
            If the network is not trained.
        FileExistsError
            If a file exists and ``overwrite`` is false.
        OSError
            If the folder does not exist or cannot be written to.
        """
        self.check_fitted()
        written = save_weights(
            path,
            self.network.state_dict(),
            self.network.config,
            self.card or {},
            half=half,
            overwrite=overwrite,
        )
        return str(written.path)

    def memory_needed(self, n_galaxies: int, n_draws: int) -> int:
        """Return the memory that the draws of `predict` take.

        Parameters
        ----------
        n_galaxies, n_draws : int
            Number of galaxies, and of draws per galaxy.

        Returns
        -------
        int
            Bytes.
        """
        return n_galaxies * n_draws * self._bytes_per_draw

    def _check_memory(self, n_galaxies: int, n_draws: int) -> None:
        needed = self.memory_needed(n_galaxies, n_draws)
        if needed > self.memory_limit:
            raise MemoryError(
                f"{n_galaxies} galaxies with {n_draws} draws need {needed / 1e9:.1f} GB, more than "
                f"the limit of {self.memory_limit / 1e9:.1f} GB: use predict_iter, take fewer "
                "draws (n_draws), or raise estimator.memory_limit."
            )

    def _read(
        self,
        cutouts: Cutouts | None,
        photometry: Photometry | None,
        options: InputOptions,
        batch_size: int | None = None,
    ) -> ObservationBatches:
        """Check that the network is trained; return the input, to be read in batches."""
        self.check_fitted()
        size = self._batch_size if batch_size is None else batch_size
        if self._components is not None:
            # Errors of any size have their exact weight.
            options = replace(options, screening=False)
        options = replace(options, size=self._cutout_size)
        batches = ObservationBatches(cutouts, photometry, options, batch_size=size)
        batches.require_filters(self._components)
        return batches

    @property
    def _cutout_size(self) -> int:
        """Pixels on a side of the images that the network reads."""
        return CUTOUT_SIZE

    @property
    def _components(self) -> SEDComponents | None:
        """Components of a network that reads photometry in any filters; None for SDSS only."""
        return None

    def _metadata(self, seed: int | torch.Generator | None) -> dict[str, Any]:
        """Return the metadata that all results have."""
        card = self.card or {}
        version = [str(card[key]) for key in ("version", "filename") if card.get(key)]
        return {
            "estimator": type(self).__name__,
            "model": card.get("name", ""),
            "version": ", ".join(version),
            "seed": seed if isinstance(seed, int) else None,
        }

    @staticmethod
    def _predict_batches(
        batches: ObservationBatches,
        predict_batch: Callable[[Observations, slice], _Result],
        progress: bool | None = False,
        *,
        first: int = 0,
        skip: Callable[[Observations], None] = lambda seen: None,
    ) -> Iterator[_Result]:
        """Yield the result for each batch.

        ``predict_batch(seen, rows)`` gets the observations of a batch and its rows in the whole
        input. ``skip(seen)`` is called for each batch before the galaxy ``first``.
        """
        n, size = batches.n_galaxies, batches.batch_size
        hidden = not wants_progress_bar(progress, n, size)
        with tqdm(
            total=n, unit="galaxy", disable=hidden, delay=1 if progress is None else 0
        ) as bar:
            start = 0
            for seen in batches:
                rows = slice(start, start + len(seen))
                if rows.stop <= first:
                    skip(seen)
                else:
                    result = predict_batch(seen, rows)
                    yield result[first - start :] if start < first else result
                start = rows.stop
                bar.update(len(seen))

    def _predict_all(
        self,
        batches: ObservationBatches,
        predict_batch: Callable[[Observations, slice], _Result],
        progress: bool | None = False,
        *,
        n_draws: int,
    ) -> _Result:
        """Return the concatenated results of all batches, if they fit in ``memory_limit``."""
        self._check_memory(batches.n_galaxies or 0, n_draws)
        parts, n = [], 0
        for part in self._predict_batches(batches, predict_batch, progress):
            parts.append(part)
            n += len(part)
            self._check_memory(n, n_draws)
        if not parts:
            raise ValueError("cutouts is empty: give at least one galaxy.")
        return parts[0] if len(parts) == 1 else type(parts[0]).concatenate(parts)


def make_generator(seed: int | torch.Generator | None) -> torch.Generator:
    """Return a random number generator for a seed.

    The global generator of torch is not changed.

    Parameters
    ----------
    seed : int, `torch.Generator` or None
        A generator is returned unchanged; for None the seed is taken from the operating system.

    Returns
    -------
    `torch.Generator`
        New generators are on the CPU, so that the numbers do not depend on the device of the
        network.

    Raises
    ------
    TypeError
        If the seed is of another type.
    ValueError
        If the seed is negative or has more than 64 bits.
    """
    return seed if isinstance(seed, torch.Generator) else _seeded(_checked_seed(seed))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_streams(
    seed: int | None, ids: ObjectIds, batches: ObservationBatches, *, lane: int = 0
) -> ObjectStreams:
    """Return the random numbers of galaxies with identifiers.

    Parameters
    ----------
    seed : int or None
        Seed; for None it is taken from the operating system.
    ids : sequence of int or of str, shape (n,)
        Identifiers of the galaxies.
    batches : ObservationBatches
        The galaxies.
    lane : int
        Number that tells apart the uses of one seed.

    Returns
    -------
    ObjectStreams

    Raises
    ------
    TypeError, ValueError
        If the seed or an identifier is invalid (`astrogenspec.inputs.ids.coerce_ids`), or there is
        not one for each galaxy.
    """
    if isinstance(seed, torch.Generator):
        raise TypeError(
            "seed is a torch.Generator, whose numbers depend on the order of the galaxies: with "
            "ids, give an int."
        )
    streams = ObjectStreams(_checked_seed(seed), coerce_ids(ids), lane=lane)
    batches.require(len(streams), "ids")
    return streams


def _checked_seed(seed: int | None) -> int:
    if seed is None:
        return int.from_bytes(os.urandom(8))
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(
            f"seed is {seed!r}: it must be an int, a torch.Generator, or None for fresh randomness."
        )
    seed = number
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: it must lie between 0 and 2**64 - 1.")
    return seed


def _check_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device is {device!r}, which torch does not know: use "cpu" or "cuda".'
        ) from None
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device is {str(checked)!r}, but torch finds no CUDA device: use "cpu".')
    return checked


def wants_progress_bar(progress: bool | None, n: int | None, batch_size: int) -> bool:
    """Return whether to show a progress bar.

    Parameters
    ----------
    progress : bool or None
        Choice of the user; by default a bar is shown on a terminal if there is more than one batch.
    n : int or None
        Number of galaxies; None if unknown.
    batch_size : int
        Number of galaxies per batch.

    Returns
    -------
    bool
    """
    if progress is not None:
        return progress
    return (n is None or n > batch_size) and sys.stderr.isatty()
