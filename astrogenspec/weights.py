"""Network weights: the registry of models, and reading, writing and downloading their files.

A model consists of two files: the tensors (``safetensors``, with the format number, the
configuration of the networks, the card and a checksum in its metadata) and a readable copy of the
card (JSON), which documents training, accuracy and licence.  The copy is used if it has the SHA-256
of the tensors; if it belongs to other weights, as after an interrupted save, the card in the
metadata is used.  ``data/registry.json`` lists the registered models with the SHA-256 and the size
of their files.  Bundled models need no network.  Any other registered model is downloaded from the
mirror given by the environment variable ``ASTROGENSPEC_WEIGHTS_URL`` or, if that is not set, by the
configuration item ``astrogenspec.conf.weights_url`` (http, https, doi or file), checked, and kept
in the cache folder of astropy.  Downloads have limits on their size and duration.  All files are
written atomically (`astrogenspec.atomic`).

Models of others are loaded by the address of their card, ``https://.../card.json``, beside which
the weights are, or by name from a further registry file, written by `register_weights` with the
address of its mirror and named by ``ASTROGENSPEC_WEIGHTS_REGISTRY`` or
``astrogenspec.conf.weights_registry``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from astropy.config import ConfigItem, ConfigNamespace, get_cache_dir
from astropy.table import QTable

from .atomic import check_target, move_into_place, temporary_folder, write_bytes, write_errors
from .downloads import DownloadError, download

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEFAULT_MODEL",
    "Conf",
    "WeightsError",
    "WeightsFile",
    "check_file",
    "conf",
    "fetch_weights",
    "file_sha256",
    "list_models",
    "load_card",
    "local_weights",
    "read_card",
    "read_weights",
    "register_weights",
    "save_weights",
]


#: Name of the default model.
DEFAULT_MODEL = "astrogenspec-properties"
#: Format of the weights files that `save_weights` writes.
_FORMAT = 1
#: Formats that `read_weights` reads; files without a format number have format 1.
_READABLE_FORMATS = ("1",)
_FORMAT_KEY = "astrogenspec_format"
_CARD_KEY = "astrogenspec_card"
_CHECKSUM_KEY = "astrogenspec_checksum"
#: Keys of the card that describe its weights file; they are not in the metadata.
_FILE_KEYS = ("filename", "sha256")
_ENVIRONMENT = "ASTROGENSPEC_WEIGHTS_URL"
_REGISTRY_ENVIRONMENT = "ASTROGENSPEC_WEIGHTS_REGISTRY"
#: Keys of an entry of a registry.
_REGISTRY_KEYS = {"filename", "sha256", "card_sha256", "bundled", "lane", "description"}
_SCHEMES = ("http", "https", "doi", "file")
_NO_FILE = "the weights file {} does not exist; check the path."
#: Maximum sizes (bytes) of a download whose size is not registered, of the tensors and of the card.
_MAX_BYTES = {".safetensors": 200_000_000, ".json": 10_000_000}
#: Maximum depth of nested lists and objects in a card.
_MAX_DEPTH = 100
#: Maximum length (bytes) of the header of a safetensors file.
_MAX_HEADER = 100_000_000
#: Age (s) of temporary files of killed downloads of older versions that are removed.
_MAX_AGE = 3600.0
_LOG = logging.getLogger(__name__)


class WeightsError(OSError):
    """A weights file or its card is damaged, of an unknown format, or not available."""


@dataclass(frozen=True)
class WeightsFile:
    """Files of a model.

    Attributes
    ----------
    path : `~pathlib.Path`
        The ``safetensors`` file; its SHA-256 has been checked.
    card : dict
        Contents of the card: architecture, training, metrics, licence; empty if a local file has no
        card.
    """

    path: Path
    card: dict[str, Any]


class Conf(ConfigNamespace):
    """Configuration of the package, `astrogenspec.conf`.

    The items are read from ``astrogenspec.cfg`` in the configuration folder of astropy, which
    ``astropy.config.create_config_file("astrogenspec")`` creates.
    """

    weights_url = ConfigItem(
        "",
        "Address of a folder with the files of registered models (http, https, doi or file).",
        module="astrogenspec",
    )
    weights_registry = ConfigItem(
        "",
        "Path of a registry file with further models, written by register_weights.",
        module="astrogenspec",
    )
    download_seconds = ConfigItem(
        300.0,
        "Maximum duration (s) of the download of one file.",
        module="astrogenspec",
    )


conf = Conf()


def list_models() -> QTable:
    """List the registered models.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each model: ``name``, ``lane`` (``properties`` or ``spectra``), ``where``
        (``bundled``, ``cached``, or ``mirror`` if it is not downloaded yet), ``filename``,
        ``description``.
    """
    rows = []
    for name, entry in _registry().items():
        where = "bundled"
        if not entry["bundled"]:
            where = "cached" if (_cache_folder() / entry["filename"]).exists() else "mirror"
        rows.append((name, entry["lane"], where, entry["filename"], entry["description"]))
    names = ("name", "lane", "where", "filename", "description")
    return QTable(rows=rows or None, names=names, dtype=("str",) * len(names))


def fetch_weights(name: str | os.PathLike[str] = DEFAULT_MODEL) -> WeightsFile:
    """Locate the files of a model, download them if necessary, and check them.

    Parameters
    ----------
    name : str or path-like
        A registered model (see `list_models`), or the path of a ``.safetensors`` file. Its card is
        the ``.json`` file beside it, or the copy in its metadata if that file is missing or belongs
        to other weights. Or the address (http, https, doi or file) of a card, ``.../card.json``,
        beside whose file the weights are; the card states their SHA-256, and
        ``.../card.json#sha256=...`` states that of the card.

    Returns
    -------
    WeightsFile

    Raises
    ------
    ValueError
        If the name is not registered.
    FileNotFoundError
        If the path does not exist.
    WeightsError
        If a file is damaged, differs from the registered one, or cannot be downloaded.
    """
    if isinstance(name, str) and urlsplit(name).scheme in _SCHEMES:
        return _fetch_card(name)
    if isinstance(name, os.PathLike) or str(name).endswith(".safetensors"):
        return local_weights(Path(name).expanduser())
    registry = _registry()
    if name not in registry:
        known = ", ".join(registry) or "none"
        raise ValueError(
            f"no model is named {name!r}; choose one of {known}, or give the path of a "
            ".safetensors file, or the address of a card (https://.../card.json)."
        )
    entry = registry[name]
    if not entry["bundled"]:
        return _download(name, entry)
    path = _data_folder() / entry["filename"]
    advice = "Reinstall astrogenspec."
    if not path.exists():
        raise WeightsError(f"the file {path} of model {name!r} is missing. {advice}")
    check_file(path, entry["sha256"], advice)
    card_path = path.with_suffix(".json")
    if card_path.exists():
        check_file(card_path, entry["card_sha256"], advice)
    _LOG.info("model %r is the bundled file %s", name, path)
    return WeightsFile(path, read_card(card_path, entry["sha256"], advice))


def load_card(name: str | os.PathLike[str] = DEFAULT_MODEL) -> dict[str, Any]:
    """Read the card of a model.

    Parameters
    ----------
    name : str or path-like
        A registered model or the path of a ``.safetensors`` file, as in `fetch_weights`.

    Returns
    -------
    dict
        Empty if a local file has no card.

    Raises
    ------
    ValueError, FileNotFoundError, WeightsError
        As in `fetch_weights`.
    """
    return fetch_weights(name).card


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the configuration from a file written by `save_weights`.

    Parameters
    ----------
    path : str or path-like
        A ``safetensors`` file.

    Returns
    -------
    state : dict of str to Tensor
        Tensors on the CPU; half precision is converted to float32.
    config : dict
        Configuration of the networks.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    WeightsError
        If the file is truncated, is not a ``safetensors`` file, has no configuration, or has an
        unknown format.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_NO_FILE.format(path))
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a safetensors file "
            f"({error}). Download or save it again."
        ) from error
    if "config" not in metadata:
        raise WeightsError(
            f"{path} has no configuration in its metadata; only files written by save_weights "
            "can be read."
        )
    _check_format(path, metadata)
    short = (torch.float16, torch.bfloat16)
    state = {key: t.float() if t.dtype in short else t for key, t in state.items()}
    advice = "Download or save it again."
    return state, _parsed_object(metadata["config"], f"the configuration in {path}", advice)


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
    """Write tensors, configuration and card to a ``safetensors`` file.

    A copy of the card is written to a JSON file beside it.

    If the call is interrupted, the old pair of files or the new one can be read: the tensors are
    replaced first, and their metadata hold the new card.

    Parameters
    ----------
    path : str or path-like
        File name that ends in ``.safetensors``; the card gets the suffix ``.json``.
    state : mapping of str to Tensor
        Tensors by name, such as ``module.state_dict()``.
    config : mapping
        Configuration from which the networks can be built; must be JSON-serialisable.
    card : mapping
        The card; file name and SHA-256 are added. Must be JSON-serialisable.
    half : bool
        Store floating-point tensors in half precision.
    keep : sequence of str
        Suffixes of the names of tensors that keep their precision.
    overwrite : bool
        Replace existing files.

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
        If ``path`` has another suffix, or a tensor overflows half precision.
    TypeError
        If ``config`` or ``card`` is not JSON-serialisable.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path is {str(path)!r}; give a file name that ends in .safetensors.")
    card_path = path.with_suffix(".json")
    for target in (path, card_path):
        check_target(target, overwrite)
    described = {key: value for key, value in card.items() if key not in _FILE_KEYS}
    header = {
        "format": "pt",  # of safetensors: the tensors are from PyTorch
        _FORMAT_KEY: str(_FORMAT),
        _CARD_KEY: _to_json(described, "card"),
        "config": _to_json(config, "config"),
    }
    tensors = {
        key: _to_store(key, tensor, half and not key.endswith(tuple(keep)))
        for key, tensor in state.items()
    }
    content = _with_checksum(save(tensors, metadata=header))
    filled = described | {
        "filename": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = _to_json(filled, "card", indent=2) + "\n"
    with write_errors(path), temporary_folder(path.resolve().parent) as folder:
        new, new_card = folder / "weights", folder / "card"
        new.write_bytes(content)
        new_card.write_text(text, encoding="utf-8")
        move_into_place(new, path, overwrite=overwrite)
        move_into_place(new_card, card_path, overwrite=overwrite)
    return WeightsFile(path, filled)


def register_weights(
    path: str | os.PathLike[str],
    name: str,
    *,
    lane: str,
    description: str,
    bundled: bool = True,
    registry: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
) -> None:
    """Add a file written by `save_weights` to a registry, or replace its entry.

    Parameters
    ----------
    path : str or path-like
        The ``.safetensors`` file; a bundled one must be in ``astrogenspec/data``.
    name : str
        Name of the model in `fetch_weights`.
    lane : {"properties", "spectra"}
        Type of the model.
    description : str
        One sentence for `list_models`.
    bundled : bool
        Whether the file is part of the package; if not, it is downloaded from the mirror.
    registry : str or path-like, optional
        Registry file to write, with models that are not part of the package; by default that of
        this checkout.
    mirror : str, optional
        Address (http, https, doi or file) of the folder with the files; required with ``registry``.

    Raises
    ------
    ValueError
        If a bundled file is in another folder, ``lane`` is unknown, or the address of the mirror
        is missing or invalid.
    WeightsError
        If the file does not match its card.
    """
    if registry is not None:
        bundled = False
        if mirror is None or urlsplit(mirror).scheme not in _SCHEMES:
            raise ValueError(
                f"mirror is {mirror!r}; with registry, give the address of the folder with the "
                f"files, beginning with one of {', '.join(_SCHEMES)}."
            )
    elif mirror is not None:
        raise ValueError("mirror is given without registry; give the registry file to write.")
    if lane not in ("properties", "spectra"):
        raise ValueError(f"lane is {lane!r}; give 'properties' or 'spectra'.")
    path = local_weights(Path(path)).path
    card_path, sha256 = path.with_suffix(".json"), file_sha256(path)
    read_card(card_path, sha256, "Save the weights again.")
    if bundled and path.resolve().parent != _data_folder().resolve():
        raise ValueError(f"path is {path}; move the bundled file to {_data_folder()}.")
    entry = {
        "filename": path.name,
        "sha256": sha256,
        "size": path.stat().st_size,
        "card_sha256": file_sha256(card_path),
        "card_size": card_path.stat().st_size,
        "bundled": bundled,
        "lane": lane,
        "description": description,
    }
    target = _data_folder() / "registry.json"
    if registry is not None:
        target, entry = Path(registry), entry | {"mirror": mirror}
    text = json.dumps(_read_registry(target) | {name: entry}, indent=2) + "\n"
    write_bytes(target, text.encode())


def local_weights(path: Path) -> WeightsFile:
    """Check a user's weights file, and find its card.

    Parameters
    ----------
    path : Path
        A ``safetensors`` file.

    Returns
    -------
    WeightsFile
        With the card in the ``.json`` file beside it, or the one in its metadata if that file is
        missing or belongs to other weights; without a card if there is none.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not a ``safetensors`` file.
    WeightsError
        If the card is damaged, or belongs to other weights and there is no card in the metadata.
    """
    if not path.is_file():
        raise FileNotFoundError(_NO_FILE.format(path))
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is not a .safetensors file; give a file saved by astrogenspec.")
    card_path, sha256 = path.with_suffix(".json"), file_sha256(path)
    advice = "Copy both files again."
    if not card_path.exists():
        found = _embedded_card(path, advice)
        return WeightsFile(path, {} if found is None else _filled(found, path, sha256))
    card = _read_object(card_path, advice)
    if card.get("sha256") == sha256:
        return WeightsFile(path, card)
    try:
        found = _embedded_card(path, advice)
    except WeightsError:
        found = None
    if found is None:
        raise WeightsError(_mismatch(card_path, advice))
    _LOG.warning(
        "the card %s belongs to other weights; the card in the metadata of %s is used",
        card_path,
        path,
    )
    return WeightsFile(path, _filled(found, path, sha256))


def check_file(path: Path, sha256: str, advice: str, label: str | None = None) -> None:
    """Raise `WeightsError`, ending with the advice, unless the file has the given SHA-256."""
    found = file_sha256(path)
    if found != sha256:
        raise WeightsError(
            f"{label or path} ({path.stat().st_size} bytes) is truncated, damaged or of another "
            f"version: its SHA-256 is {found[:12]}..., expected {sha256[:12]}.... {advice}"
        )


def read_card(path: Path, sha256: str, advice: str) -> dict[str, Any]:
    """Read a card and check that it belongs to the weights with this SHA-256."""
    card = _read_object(path, advice)
    if card.get("sha256") != sha256:
        raise WeightsError(_mismatch(path, advice))
    return card


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _mismatch(card_path: Path, advice: str) -> str:
    return (
        f"the card {card_path} does not match its weights file; one of them is damaged or of "
        f"another version. {advice}"
    )


def _filled(card: dict[str, Any], path: Path, sha256: str) -> dict[str, Any]:
    return card | {"filename": path.name, "sha256": sha256}


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    """Read a card from its file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise WeightsError(f"the card {path} is missing. {advice}") from None
    except UnicodeError:
        raise WeightsError(f"the card {path} is damaged (it is not UTF-8 text). {advice}") from None
    return _parsed_object(text, f"the card {path}", advice)


def _parsed_object(text: str, label: str, advice: str) -> dict[str, Any]:
    """Parse the JSON text of an object with finite numbers; the label names it in an error."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise WeightsError(f"{label} is damaged ({error}). {advice}") from error
    except RecursionError:
        raise WeightsError(f"{label} is damaged (it is nested too deeply). {advice}") from None
    if not isinstance(found, dict):
        kind = "null" if found is None else type(found).__name__
        raise WeightsError(f"{label} is damaged (it is a JSON {kind}, not an object). {advice}")
    level: list[Any] = [found]
    for _ in range(_MAX_DEPTH):
        inner = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, dict | list)]
        if not level:
            return found
    raise WeightsError(f"{label} is damaged (it is nested too deeply). {advice}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has the number {name}")


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Split the bytes of a safetensors file into its header and the tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _with_checksum(content: bytes) -> bytes:
    """Add to the metadata of a safetensors file the checksum of everything else."""
    header, data = _split(content)
    digest = _header_hash(header)
    digest.update(data)
    header["__metadata__"][_CHECKSUM_KEY] = digest.hexdigest()
    text = json.dumps(header, separators=(",", ":")).encode()
    # The format wants the tensors to begin at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _header_hash(header: Mapping[str, Any]) -> Any:
    """Return a hash object with the header, without its checksum."""
    metadata = {k: v for k, v in header["__metadata__"].items() if k != _CHECKSUM_KEY}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    return hashlib.sha256(text.encode())


def _embedded_card(path: Path, advice: str) -> dict[str, Any] | None:
    """Return the card in a weights file; None if it has none or its header cannot be read."""
    with path.open("rb") as opened:
        try:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, _MAX_HEADER)))
            metadata = header["__metadata__"]
            text, checksum = metadata[_CARD_KEY], metadata[_CHECKSUM_KEY]
            digest = _header_hash(header)
        except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        while block := opened.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != checksum:
        raise WeightsError(f"{path} is truncated or damaged: its checksum is wrong. {advice}")
    return _parsed_object(text, f"the card in {path}", advice)


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata.get(_FORMAT_KEY, "1")
    if found not in _READABLE_FORMATS:
        raise WeightsError(
            f"{path} has weights format {found}, but this version of astrogenspec reads format "
            f"{', '.join(_READABLE_FORMATS)}; upgrade astrogenspec."
        )


def _to_json(value: Mapping[str, Any], name: str, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is not JSON-serialisable ({error}); use finite numbers, strings, lists and "
            "dicts."
        ) from error


def _to_store(key: str, tensor: Tensor, half: bool) -> Tensor:
    # safetensors refuses tensors that share memory, hence the copy.
    stored = tensor.detach().cpu().contiguous().clone()
    if not (half and stored.is_floating_point()):
        return stored
    short = stored.half()
    if not bool((short.isfinite() == stored.isfinite()).all()):
        raise ValueError(
            f"tensor {key!r} reaches {stored.abs().max().item():.3g}, which overflows half "
            "precision; name it in keep."
        )
    return short


def _data_folder() -> Path:
    return Path(str(files("astrogenspec") / "data"))


def _cache_folder() -> Path:
    return Path(get_cache_dir("astrogenspec")) / "weights"


def _registry() -> dict[str, dict[str, Any]]:
    """Return the registered models; those of the package take precedence."""
    own = _read_registry(_data_folder() / "registry.json")
    further = os.environ.get(_REGISTRY_ENVIRONMENT) or conf.weights_registry
    if not further:
        return own
    path = Path(further).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"the registry file {path} does not exist; correct {_REGISTRY_ENVIRONMENT} or "
            "astrogenspec.conf.weights_registry."
        )
    return _read_registry(path) | own


def _read_registry(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    found = _read_object(path, "Write it again with register_weights.")
    for name, entry in found.items():
        if not isinstance(entry, dict) or not entry.keys() >= _REGISTRY_KEYS:
            raise WeightsError(
                f"{path} is no registry of models (entry {name!r}); write it with register_weights."
            )
    return found


def _download(name: str, entry: Mapping[str, Any]) -> WeightsFile:
    tensors, card = entry["filename"], str(Path(entry["filename"]).with_suffix(".json"))
    wanted = {
        tensors: (entry["sha256"], entry.get("size")),
        card: (entry["card_sha256"], entry.get("card_size")),
    }
    folder = _cache_folder()
    for filename, (sha256, size) in wanted.items():
        path = folder / filename
        if path.exists() and file_sha256(path) == sha256:
            continue
        damaged = path.exists()
        try:
            _fetch_file(_mirror(name, entry.get("mirror")) + filename, path, sha256, size)
        except WeightsError as error:
            # Another process may have downloaded an intact file in the meantime.
            if damaged and path.exists() and file_sha256(path) != sha256:
                path.unlink()
                raise WeightsError(f"{path} was damaged and has been removed; {error}") from error
            raise
        _LOG.info("%s of model %r was downloaded into %s", filename, name, folder)
    _LOG.info("model %r is the file %s", name, folder / tensors)
    return WeightsFile(folder / tensors, read_card(folder / card, entry["sha256"], "Delete it."))


def _fetch_card(address: str) -> WeightsFile:
    """Download a card and the weights beside it, unless they are in the cache, and check them."""
    url, _, fragment = address.partition("#")
    stem, slash, filename = url.rpartition("/")
    wanted = fragment.removeprefix("sha256=")
    if not slash or not filename.endswith(".json") or (fragment and wanted == fragment):
        raise ValueError(
            f"{address!r} is not the address of a card; give https://.../card.json, optionally "
            "followed by #sha256= and the SHA-256 of the card."
        )
    # Every address has a folder of its own: two models may have files of the same name.
    folder = _cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    card_path = folder / filename
    if not (wanted and card_path.exists() and file_sha256(card_path) == wanted):
        with write_errors(card_path):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            _fetch_file(url, card_path, wanted or None, None)
        except WeightsError:
            if wanted or not card_path.exists():
                raise
            _LOG.warning("%s cannot be downloaded; its copy of an earlier download is used", url)
    card = _read_object(card_path, "Delete it.")
    tensors, sha256 = card.get("filename"), card.get("sha256")
    if not (isinstance(tensors, str) and isinstance(sha256, str)) or (
        Path(tensors).name != tensors or not tensors.endswith(".safetensors")
    ):
        raise WeightsError(
            f"the card {url} does not name its weights file and SHA-256; publish the two files "
            "that save writes."
        )
    path = folder / tensors
    if not (path.exists() and file_sha256(path) == sha256):
        _fetch_file(f"{stem}/{tensors}", path, sha256, None)
    _LOG.info("the weights of %s are the file %s", url, path)
    return WeightsFile(path, card)


def _mirror(name: str, own: str | None) -> str:
    url = own or os.environ.get(_ENVIRONMENT) or conf.weights_url
    how = (
        f"set {_ENVIRONMENT} or astrogenspec.conf.weights_url to the address of a folder with its "
        "files"
    )
    if not url:
        raise WeightsError(f"model {name!r} is not bundled and no mirror is set; {how}.")
    if urlsplit(url).scheme not in _SCHEMES:
        raise WeightsError(
            f"the address of the mirror, {url!r}, must begin with one of {', '.join(_SCHEMES)}; "
            f"{how}."
        )
    return url.rstrip("/") + "/"


def _fetch_file(url: str, path: Path, sha256: str | None, size: int | None) -> None:
    """Download one file into the cache and check it; raise `WeightsError` if it fails.

    Without a SHA-256, only the transfer is checked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_old_downloads(path.parent)
        with temporary_folder(path.parent) as folder:
            new = folder / path.name
            _get(url, new, size)
            advice = (
                f"The download from {url} was discarded; the mirror is damaged or has another "
                "version."
            )
            if sha256 is not None:
                check_file(new, sha256, advice, path.name)
            move_into_place(new, path, overwrite=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(
            f"cannot write {str(path)!r}: {error.strerror or error}; check that the folder is "
            "writable and the disk has space left."
        ) from error


def _get(url: str, path: Path, size: int | None) -> None:
    """Download one file; raise `WeightsError` if it fails."""
    limit = _MAX_BYTES[path.suffix] if size is None else size
    try:
        download(url, path, max_bytes=limit, max_seconds=conf.download_seconds)
    except DownloadError as error:
        raise WeightsError(
            f"{path.name} could not be downloaded from {url} ({error}); check the network and the "
            f"address of the mirror ({_ENVIRONMENT} or astrogenspec.conf.weights_url)."
        ) from error


def _remove_old_downloads(folder: Path) -> None:
    """Remove the temporary files that older versions left when they were killed."""
    for path in folder.glob("tmp*"):
        if path.is_file() and time.time() - path.stat().st_mtime > _MAX_AGE:
            path.unlink(missing_ok=True)
