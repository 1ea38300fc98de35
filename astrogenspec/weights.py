"""Network weights: which models there are, where their files lie, and how a file is read and written.

A model is two files: the tensors (``safetensors``, with the configuration of the networks in the header) and a card
(JSON) that says how the model was made and how good it is.  ``data/registry.json`` lists the models with the SHA-256
of their tensors.  The default model comes with the package, so the first run needs no network.  Any other registered
model is downloaded from the mirror named by the environment variable ``ASTROGENSPEC_WEIGHTS_URL`` or, without it, by
the configuration item ``astrogenspec.conf.weights_url`` (http, https, doi or file), checked, and kept in the cache
folder of astropy.  A file is complete and checked before it gets its name, so that neither an interruption nor a
second process can leave half of one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch
from astropy.config import ConfigItem, ConfigNamespace, get_cache_dir
from astropy.table import QTable

from ._weights_files import (
    WeightsError,
    WeightsFile,
    check_file,
    file_sha256,
    local_weights,
    read_card,
    read_weights,
    save_weights,
    write_text,
)

__all__ = [
    "DEFAULT_MODEL",
    "Conf",
    "WeightsError",
    "WeightsFile",
    "conf",
    "fetch_weights",
    "list_models",
    "load_card",
    "read_weights",
    "register_weights",
    "save_weights",
]

#: Name of the model that comes with the package.
DEFAULT_MODEL = "astrogenspec-properties"

_ENVIRONMENT = "ASTROGENSPEC_WEIGHTS_URL"
_SCHEMES = ("http", "https", "doi", "file")

_LOG = logging.getLogger(__name__)
logging.getLogger("pooch").setLevel(logging.WARNING)


class Conf(ConfigNamespace):
    """Settings of the package, `astrogenspec.conf`.

    They are read from ``astrogenspec.cfg`` in the configuration folder of astropy, which
    ``astropy.config.create_config_file("astrogenspec")`` writes.
    """

    weights_url = ConfigItem(
        "",
        "Address of a folder with the files of registered models (http, https, doi or file).",
        module="astrogenspec",
    )


conf = Conf()


def list_models() -> QTable:
    """List the registered models.

    Returns
    -------
    `~astropy.table.QTable`
        One row a model: ``name``, ``lane`` (``properties`` or ``spectra``), ``where`` (``bundled``, ``cached``, or
        ``mirror`` if it has to be downloaded first), ``filename``, ``description``.
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
    """Find the files of a model, download them if need be, and check them.

    Parameters
    ----------
    name : str or path-like
        A registered model (see `list_models`), or the path of a ``.safetensors`` file; the card of the latter is the
        ``.json`` file beside it.

    Returns
    -------
    WeightsFile

    Raises
    ------
    ValueError
        For a name that is not registered.
    FileNotFoundError
        If the path does not exist.
    WeightsError
        If a file is damaged or is not the one registered, or if it cannot be downloaded.
    """
    if isinstance(name, os.PathLike) or str(name).endswith(".safetensors"):
        return local_weights(Path(name).expanduser())
    registry = _registry()
    if name not in registry:
        known = ", ".join(registry) or "none"
        raise ValueError(
            f"no model is named {name!r}: the registered models are {known}; "
            "to use a file of your own pass the path of a .safetensors file."
        )
    entry = registry[name]
    if not entry["bundled"]:
        return _download(name, entry)
    path = _data_folder() / entry["filename"]
    advice = "Install astrogenspec again."
    if not path.exists():
        raise WeightsError(f"the file {path} of model {name!r} is missing. {advice}")
    check_file(path, entry["sha256"], advice)
    _LOG.info("model %r is the bundled file %s", name, path)
    return WeightsFile(path, read_card(path.with_suffix(".json"), entry["sha256"], advice))


def load_card(name: str | os.PathLike[str] = DEFAULT_MODEL) -> dict[str, Any]:
    """Read the card of a model.

    Parameters
    ----------
    name : str or path-like
        As for `fetch_weights`, which also names the errors.

    Returns
    -------
    dict
    """
    return fetch_weights(name).card


def register_weights(
    path: str | os.PathLike[str],
    name: str,
    *,
    lane: str,
    description: str,
    bundled: bool = True,
) -> None:
    """Enter a file written by `save_weights` in the registry of this checkout, or replace its entry.

    Parameters
    ----------
    path : str or path-like
        The ``.safetensors`` file; a bundled one must lie in ``astrogenspec/data``.
    name : str
        Name for `fetch_weights`.
    lane : {"properties", "spectra"}
        What the model infers.
    description : str
        One sentence for `list_models`.
    bundled : bool
        Whether the file comes with the package; if not, it is looked for on the mirror.

    Raises
    ------
    ValueError
        If a bundled file lies elsewhere, or ``lane`` is unknown.
    WeightsError
        If the file does not fit its card.
    """
    if lane not in ("properties", "spectra"):
        raise ValueError(f"lane is {lane!r}: it must be 'properties' or 'spectra'.")
    path = local_weights(Path(path)).path
    if bundled and path.resolve().parent != _data_folder().resolve():
        raise ValueError(f"path is {path}: a bundled file must lie in {_data_folder()}.")
    entry = {
        "filename": path.name,
        "sha256": file_sha256(path),
        "card_sha256": file_sha256(path.with_suffix(".json")),
        "bundled": bundled,
        "lane": lane,
        "description": description,
    }
    text = json.dumps(_registry() | {name: entry}, indent=2) + "\n"
    write_text(_data_folder() / "registry.json", text)


def _data_folder() -> Path:
    return Path(str(files("astrogenspec") / "data"))


def _cache_folder() -> Path:
    return Path(get_cache_dir("astrogenspec")) / "weights"


def _registry() -> dict[str, dict[str, Any]]:
    path = _data_folder() / "registry.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _download(name: str, entry: Mapping[str, Any]) -> WeightsFile:
    tensors, card = entry["filename"], str(Path(entry["filename"]).with_suffix(".json"))
    hashes = {tensors: entry["sha256"], card: entry["card_sha256"]}
    folder = _cache_folder()
    for filename, sha256 in hashes.items():
        path = folder / filename
        if path.exists() and file_sha256(path) == sha256:
            continue
        damaged = path.exists()
        try:
            fetcher = pooch.create(folder, _mirror(name), registry={filename: f"sha256:{sha256}"})
            fetcher.fetch(filename, downloader=_get)
        except WeightsError as error:
            # Another process may have put a good file there meanwhile.
            if damaged and path.exists() and file_sha256(path) != sha256:
                path.unlink()
                raise WeightsError(f"{path} was damaged and has been removed; {error}") from error
            raise
        _LOG.info("%s of model %r was downloaded into %s", filename, name, folder)
    _LOG.info("model %r is the file %s", name, folder / tensors)
    return WeightsFile(folder / tensors, read_card(folder / card, entry["sha256"], "Remove it."))


def _mirror(name: str) -> str:
    url = os.environ.get(_ENVIRONMENT) or conf.weights_url
    how = f"set {_ENVIRONMENT} or astrogenspec.conf.weights_url to the address of a folder that has it"
    if not url:
        raise WeightsError(
            f"model {name!r} does not come with the package and no mirror is named: {how}."
        )
    if urlsplit(url).scheme not in _SCHEMES:
        raise WeightsError(f"the mirror {url!r} begins with none of {', '.join(_SCHEMES)}: {how}.")
    return url.rstrip("/") + "/"


def _get(url: str, output_file: str, registry: pooch.Pooch) -> None:
    """Download one file for pooch and say in one sentence what went wrong."""
    from requests.exceptions import RequestException

    filename = url.rsplit("/", 1)[-1]
    address = urlsplit(url)
    try:
        if address.scheme == "file":
            shutil.copyfile(url2pathname(address.path), output_file)
        else:
            get = pooch.downloaders.choose_downloader(url, progressbar=sys.stderr.isatty())
            get(url, output_file, registry)
    except (RequestException, OSError, ValueError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        system = getattr(error, "strerror", None) or type(error).__name__
        reason = f"status {status}" if status else system
        raise WeightsError(
            f"{filename} could not be downloaded from {url} ({reason}): check the network and the address "
            f"of the mirror ({_ENVIRONMENT} or astrogenspec.conf.weights_url)."
        ) from error
    check_file(
        Path(output_file),
        registry.registry[filename].removeprefix("sha256:"),
        f"It came from {url} and was not kept: the mirror is damaged or holds another version.",
        filename,
    )
