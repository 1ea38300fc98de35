"""The two files of a model: tensors with their configuration (``safetensors``), and the card (JSON) beside them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "WeightsError",
    "WeightsFile",
    "check_file",
    "file_sha256",
    "local_weights",
    "read_card",
    "read_weights",
    "save_weights",
    "write_text",
]


class WeightsError(OSError):
    """A file of weights or its card is damaged, or cannot be had."""


@dataclass(frozen=True)
class WeightsFile:
    """Where the tensors of a model lie, and its card.

    Attributes
    ----------
    path : `~pathlib.Path`
        A ``safetensors`` file, checked.
    card : dict
        What is known of the model: architecture, training, metrics, licence; empty if a local file has no card.
    """

    path: Path
    card: dict[str, Any]


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the configuration of a file written by `save_weights`.

    Parameters
    ----------
    path : str or path-like
        A ``safetensors`` file.

    Returns
    -------
    state : dict of str to Tensor
        On the CPU; what was stored in half precision is float32 again.
    config : dict
        The configuration of the networks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    WeightsError
        If the file is truncated, is not a ``safetensors`` file, or holds no configuration.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated, or no safetensors file ({error}). "
            "Fetch or write it again."
        ) from error
    if "config" not in metadata:
        raise WeightsError(
            f"{path} has no configuration in its header: it was not written by save_weights."
        )
    short = (torch.float16, torch.bfloat16)
    state = {key: t.float() if t.dtype in short else t for key, t in state.items()}
    return state, json.loads(metadata["config"])


def save_weights(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    half: bool = True,
    keep: Sequence[str] = (),
    overwrite: bool = False,
) -> WeightsFile:
    """Write tensors and configuration to a ``safetensors`` file, and the card beside it.

    Parameters
    ----------
    path : str or path-like
        Name of the file, ending in ``.safetensors``; the card takes the ending ``.json``.
    state : mapping of str to Tensor
        For example ``module.state_dict()``.
    config : mapping
        All that is needed to build the networks again; must fit JSON.
    card : mapping
        The card; the file's name and SHA-256 are added. Must fit JSON.
    half : bool
        Store floating-point tensors in half precision.
    keep : sequence of str
        Tensors whose name ends with one of these keep their precision.
    overwrite : bool
        Replace files that exist.

    Returns
    -------
    WeightsFile

    Raises
    ------
    FileExistsError
        If a file exists and ``overwrite`` is false.
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the file cannot be written.
    ValueError
        If ``path`` has another ending, or a tensor overflows half precision.
    TypeError
        If ``config`` or ``card`` do not fit JSON.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"path is {str(path)!r}: the name of a file of weights ends in .safetensors."
        )
    card_path = path.with_suffix(".json")
    for target in (path, card_path):
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists: pass overwrite=True to replace it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it first.")
    header = {"format": "pt", "config": _to_json(config, "config")}
    tensors = {
        key: _to_store(key, tensor, half and not key.endswith(tuple(keep)))
        for key, tensor in state.items()
    }
    content = save(tensors, metadata=header)
    filled = dict(card) | {
        "filename": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = _to_json(filled, "card", indent=2) + "\n"
    _write(path, content)
    write_text(card_path, text)
    return WeightsFile(path, filled)


def local_weights(path: Path) -> WeightsFile:
    """Check a file of the user's own against its card, if it has one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}.")
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not a .safetensors file, the only kind of weights that is read."
        )
    card_path = path.with_suffix(".json")
    if not card_path.exists():
        return WeightsFile(path, {})
    return WeightsFile(path, read_card(card_path, file_sha256(path), "Copy both files again."))


def check_file(path: Path, sha256: str, advice: str, label: str | None = None) -> None:
    """Raise `WeightsError` with some advice unless the file has the SHA-256 wanted."""
    found = file_sha256(path)
    if found != sha256:
        raise WeightsError(
            f"{label or path} ({path.stat().st_size} bytes) is truncated, damaged or another version: its SHA-256 "
            f"is {found[:12]}... instead of {sha256[:12]}.... {advice}"
        )


def read_card(path: Path, sha256: str, advice: str) -> dict[str, Any]:
    """Read a card and check that it belongs to the weights with this SHA-256."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"the card {path} is missing. {advice}") from None
    except ValueError as error:
        raise WeightsError(f"the card {path} is damaged ({error}). {advice}") from error
    if card.get("sha256") != sha256:
        raise WeightsError(
            f"the card {path} does not fit the weights beside it: one of the two is damaged or of another version. "
            f"{advice}"
        )
    return card


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _to_json(value: Mapping[str, Any], name: str, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} does not fit JSON ({error}): use plain numbers, text and lists."
        ) from error


def _to_store(key: str, tensor: Tensor, half: bool) -> Tensor:
    # A copy: tensors that share memory cannot be stored otherwise.
    stored = tensor.detach().cpu().contiguous().clone()
    if not (half and stored.is_floating_point()):
        return stored
    short = stored.half()
    if not bool((short.isfinite() == stored.isfinite()).all()):
        raise ValueError(
            f"tensor {key!r} reaches {stored.abs().max().item():.3g}, beyond half precision: name it in keep."
        )
    return short


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: it is either the old one or the new one."""
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
