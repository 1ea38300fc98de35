"""The contract of every estimator of this package, stated once.

An estimator binds a network to the objects of astronomy.  Whatever it infers,

* ``__init__(network, *, card=None, device="cpu")`` only stores; a card of None says that the network was never trained;
* ``from_pretrained(name)`` and ``load(path)`` build a trained estimator, ``save(path)`` writes one;
* ``predict(...)`` takes what an observer has and returns quantities with units; it never changes the estimator;
* ``fit(...)`` returns a **new**, trained estimator and leaves the one it was called on as it is, so that what an
  estimator predicts does not depend on its history;
* what takes a ``seed`` takes an int, a `torch.Generator` or None (fresh randomness).  The same seed gives the same
  numbers, and the global state of torch (random numbers, threads, default types) is never touched;
* a bad argument raises `ValueError`, `TypeError` or an error of `astropy.units` with a sentence that names it; an
  estimator that was never trained raises `NotFittedError`.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from .weights import DEFAULT_MODEL, WeightsError, fetch_weights, read_weights, save_weights

__all__ = ["Estimator", "NotFittedError", "bar_wanted", "make_generator"]


class NotFittedError(ValueError, AttributeError):
    """The estimator has no trained weights yet."""


class Estimator(ABC):
    """A network with what is known of it; the parent of every estimator.

    A subclass says how its network is built, predicts, and fits.  All else is inherited.

    Parameters
    ----------
    network : `torch.nn.Module`
        The network, moved to ``device`` and set to evaluation.  Its attribute ``config``, a dict that fits JSON, is all
        that `build_network` needs to build it again.
    card : dict, optional
        What is known of the weights: training, metrics, range.  An empty card is that of trained weights of which
        nothing is known; without a card the network counts as never trained.
    device : str or `torch.device`
        Where the network runs.

    Attributes
    ----------
    network : `torch.nn.Module`
    card : dict or None
    device : `torch.device`

    Examples
    --------
    A complete estimator, which predicts the redshift from one colour:

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
    ...         return ColourRedshift(Line(float(x @ redshift / (x @ x))), card={"n_galaxies": len(x)})

    It is fitted, and the new estimator predicts:

    >>> untrained = ColourRedshift(Line())
    >>> estimator = untrained.fit([0.5, 1.0, 1.5] * u.mag, np.array([0.05, 0.1, 0.15]))
    >>> print(estimator.predict([0.8, 1.2] * u.mag))
    [0.08 0.12]

    The one it came from does not:

    >>> untrained.predict([0.8] * u.mag)
    Traceback (most recent call last):
    ...
    astrogenspec.base.NotFittedError: this ColourRedshift was never trained: use from_pretrained(), ...

    Weights and card go to a file and come back:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = estimator.save(folder + "/line.safetensors")
    ...     again = ColourRedshift.load(path)
    >>> print(again.predict([0.8, 1.2] * u.mag), again.card["n_galaxies"])
    [0.08 0.12] 3
    """

    #: Name of the registered weights that `from_pretrained` takes by default.
    default_model = DEFAULT_MODEL

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
        self.device = _check_device(device)
        self.network = network.to(self.device).eval()
        self.card = card

    def __repr__(self) -> str:
        n = sum(p.numel() for p in self.network.parameters())
        name = "untrained" if self.card is None else self.card.get("name", "no card")
        return f"<{type(self).__name__}: {name}, {n:,} parameters, on {self.device}>"

    @classmethod
    @abstractmethod
    def build_network(cls, config: dict[str, Any]) -> nn.Module:
        """Build the untrained network from the ``config`` of another.

        Parameters
        ----------
        config : dict
        """

    @abstractmethod
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Infer from what was observed; see the subclass."""

    @abstractmethod
    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Return a new estimator trained on labelled examples; see the subclass."""

    @property
    def fitted(self) -> bool:
        """Whether the network was ever trained."""
        return self.card is not None

    def check_fitted(self) -> None:
        """Raise `NotFittedError` if the network was never trained."""
        if not self.fitted:
            raise NotFittedError(
                f"this {type(self).__name__} was never trained: use from_pretrained(), load(path), "
                "or the estimator that fit(...) returns."
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Build an estimator with registered weights.

        Parameters
        ----------
        name : str or path-like, optional
            A registered model (see `astrogenspec.list_models`) or the path of a ``.safetensors`` file; by default
            the model that comes with the package.
        device : str or `torch.device`
            Where the network runs.

        Returns
        -------
        Estimator

        Raises
        ------
        ValueError
            For a name that is not registered.
        FileNotFoundError
            If the path does not exist.
        astrogenspec.WeightsError
            If a file is damaged, cannot be downloaded, or holds the weights of something else.
        """
        device = _check_device(device)
        found = fetch_weights(cls.default_model if name is None else name)
        state, config = read_weights(found.path)
        try:
            network = cls.build_network(config)
            network.load_state_dict(state)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(
                f"{found.path} does not hold the network of a {cls.__name__} of this version ({reason}): "
                "take the weights that came with this version of astrogenspec, or train them again."
            ) from error
        return cls(network, card=found.card, device=device)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Self:
        """Read an estimator written by `save`.

        Parameters
        ----------
        path : str or path-like
            The ``.safetensors`` file; the card is the ``.json`` file beside it.
        device : str or `torch.device`
            Where the network runs.

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
        """Write weights and configuration, and the card beside them.

        The files are complete before they get their names: an interruption leaves the old ones, or none.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.safetensors``.
        overwrite : bool
            Replace files that exist.
        half : bool
            Store in half precision, which halves the file and changes the numbers in the fourth digit.

        Returns
        -------
        path : str
            The name of the file.

        Raises
        ------
        NotFittedError
            If the network was never trained.
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
            self.card,
            half=half,
            overwrite=overwrite,
        )
        return str(written.path)


def make_generator(seed: int | torch.Generator | None) -> torch.Generator:
    """Turn a seed into a source of random numbers, without touching the global one.

    Parameters
    ----------
    seed : int, `torch.Generator` or None
        A generator is returned as it is, and advances; None takes fresh entropy of the operating system.

    Returns
    -------
    `torch.Generator`
        On the CPU if it is new, so that the numbers do not depend on where the network runs.

    Raises
    ------
    TypeError
        If the seed is none of these.
    ValueError
        For a negative seed, or one of more than 64 bits.
    """
    if isinstance(seed, torch.Generator):
        return seed
    if seed is None:
        return torch.Generator().manual_seed(int.from_bytes(os.urandom(8)))
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(
            f"seed is {seed!r}: it must be an int, a torch.Generator, or None for fresh randomness."
        )
    seed = seed.__index__()
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: it must lie between 0 and 2**64 - 1.")
    return torch.Generator().manual_seed(seed)


def _check_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device is {device!r}, which torch does not know; use "cpu" or "cuda".'
        ) from None
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f'device is {str(checked)!r}, but torch finds no CUDA device here; use "cpu".'
        )
    return checked


def bar_wanted(progress: bool | None, n: int | None, batch_size: int) -> bool:
    """Say whether to show a progress bar: by default on a terminal, if there is more than one block.

    Parameters
    ----------
    progress : bool or None
        What the user wants; None for the default.
    n : int or None
        Number of galaxies; None if unknown.
    batch_size : int
        Galaxies of a block.

    Returns
    -------
    bool
    """
    if progress is not None:
        return progress
    return (n is None or n > batch_size) and sys.stderr.isatty()
