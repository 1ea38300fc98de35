"""The manifest of a survey run: everything that the result depends on.

The manifest is the file ``manifest.json`` of the output folder. A later call with the same output
continues the run only if weights, versions, settings and inputs are the same; any difference is
refused by name. The digest of the manifest is in the column ``run`` of each row of the result, so
that rows of different runs can be told apart.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..atomic import atomic_write
from ..weights import DEFAULT_MODEL, fetch_weights, file_sha256
from .hats import hats_properties, pixel_folder
from .images import image_digest
from .sources import CatalogueFile, Partition, partitions_of, scan_files
from .tables import Inference

__all__ = ["Manifest", "ManifestError", "make_manifest"]

_FORMAT = 1
_NAME = "manifest.json"
#: Settings of images and spectra.
_OF_IMAGES = ("images", "image_bands", "pixel_scale", "image_unit", "images_only")
_OF_SPECTRA = ("spectra", "spectra_weights", "spectrum_grid")


class ManifestError(ValueError):
    """The output folder belongs to another run, or its manifest cannot be read."""


@dataclass(frozen=True)
class Manifest:
    """What the result of a run depends on.

    Attributes
    ----------
    inference : Inference
        What is inferred.
    rows : int
        Largest number of rows of a partition.
    weights : dict of str to str
        Name of the model and SHA-256 of its weights and card.
    versions : dict of str to str
        Versions of the packages on which the numbers depend.
    files : tuple of CatalogueFile
        Files of the catalogue.
    images : dict of str to str
        SHA-256 of the images; empty if there are none.
    """

    inference: Inference
    rows: int
    weights: dict[str, str]
    versions: dict[str, str]
    files: tuple[CatalogueFile, ...]
    images: dict[str, str] = field(default_factory=dict)

    @cached_property
    def partitions(self) -> list[Partition]:
        """Partitions of the catalogue."""
        return partitions_of(self.files, self.rows)

    @cached_property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the manifest."""
        content = json.dumps(self._content(), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    @property
    def n_rows(self) -> int:
        """Number of rows of the catalogue."""
        return sum(file.rows for file in self.files)

    def is_hats(self, root: Path) -> bool:
        """Return whether the catalogue in a folder, and hence the result, is one of HATS."""
        return bool(hats_properties(root)) and all(pixel_folder(file.path) for file in self.files)

    def _content(self) -> dict[str, Any]:
        # Settings of images and spectra are there only if they are used, as in earlier manifests.
        unused = () if self.inference.spectra else _OF_SPECTRA
        inference = {
            name: value
            for name, value in asdict(self.inference).items()
            if name not in unused and (name not in _OF_IMAGES or value)
        }
        images = {"images": self.images} if self.images else {}
        return {
            "format": _FORMAT,
            **images,
            "inference": inference,
            "rows": self.rows,
            "weights": self.weights,
            "versions": self.versions,
            "files": [file.to_dict() for file in self.files],
        }

    def write(self, folder: Path) -> None:
        """Write the manifest, unless there is one.

        Parameters
        ----------
        folder : path
            Output folder.

        Raises
        ------
        FileExistsError
            If there is a manifest.
        OSError
            If it cannot be written.
        """
        content = {"run": self.digest, **self._content()}
        with atomic_write(folder / _NAME, overwrite=False) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read the manifest of an output folder.

        Parameters
        ----------
        folder : path
            Output folder.

        Returns
        -------
        Manifest or None
            None if there is none.

        Raises
        ------
        ManifestError
            If it is damaged, of another format, or was edited.
        """
        path = folder / _NAME
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            if content["format"] != _FORMAT:
                raise ManifestError(
                    f"{path} has the format {content['format']}, which this version of "
                    "astrogenspec does not know; use the version that began the run."
                )
            settings = content["inference"]
            settings["keep"] = tuple(settings["keep"])
            manifest = cls(
                Inference(**settings),
                content["rows"],
                content["weights"],
                content["versions"],
                tuple(CatalogueFile(**{"sha256": "", **file}) for file in content["files"]),
                content.get("images", {}),
            )
            run = content["run"]
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeError) as error:
            raise ManifestError(
                f"{path} is damaged ({type(error).__name__}: {error}); begin a new output folder."
            ) from error
        if manifest.digest != run:
            raise ManifestError(f"{path} was edited; begin a new output folder.")
        return manifest

    def check_same(self, other: Manifest) -> None:
        """Raise unless another manifest describes the same run.

        Parameters
        ----------
        other : Manifest
            Manifest of the present call.

        Raises
        ------
        ManifestError
            The message names the first difference, with both values.
        """
        for name, old, new in _differences(self._content(), other._content()):
            raise ManifestError(
                f"the run began with {name} {old}, but now it is {new}: continue with the same, or "
                "begin a new output folder."
            )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, object, object]]:
    """Yield the name of each difference and both values, files last."""
    for part in ("weights", "versions", "inference", "images"):
        one_part, two_part = old.get(part, {}), new.get(part, {})
        for key in sorted({*one_part, *two_part}):
            one, two = one_part.get(key), two_part.get(key)
            if _plain(one) != _plain(two):
                yield f"{_WORDS.get((part, key), f'{part} {key}')}", _shown(one), _shown(two)
    if old["rows"] != new["rows"]:
        yield "rows per partition", old["rows"], new["rows"]
    before, after = ({file["path"]: file for file in each["files"]} for each in (old, new))
    for path in sorted({*before, *after}):
        one, two = before.get(path), after.get(path)
        if one is None or two is None:
            yield f"the input file {path}", *_presence(one, two)
        elif one.get("rows") != two.get("rows"):
            yield f"{path} of", f"{one.get('rows')} rows", f"of {two.get('rows')} rows"
        elif one.get("sha256") != two.get("sha256"):
            yield (
                f"the contents of {path}",
                f"with SHA-256 {one['sha256'][:12]}",
                f"{two['sha256'][:12]}",
            )
        elif one != two:
            yield f"the description of {path}", "as in the manifest", "another one"
    if list(before) != list(after):
        yield "the order of files", list(before)[:3], list(after)[:3]


_WORDS = {
    ("weights", "name"): "the model",
    ("weights", "sha256"): "the weights with SHA-256",
    ("weights", "card_sha256"): "the card with SHA-256",
    ("inference", "ids"): "the column of identifiers",
    **{
        ("inference", name): f"the option {name}"
        for name in ("seed", "draws", "quantiles", "columns", "keep", "survey", "ebv")
    },
    ("inference", "flux_unit"): "the option flux-unit",
    ("inference", "save_draws"): "the option save-draws",
    ("inference", "batch_size"): "the option batch-size",
    ("inference", "images"): "the option images",
    ("inference", "image_bands"): "the option image-bands",
    ("inference", "pixel_scale"): "the option pixel-scale",
    ("inference", "image_unit"): "the option image-unit",
    ("inference", "images_only"): "the option images-only",
    ("inference", "spectra"): "the option spectra",
    ("inference", "spectrum_grid"): "the option spectrum-grid",
    ("weights", "spectra_name"): "the model of spectra",
    ("weights", "spectra_sha256"): "the weights of spectra with SHA-256",
    ("images", "sha256"): "the images with SHA-256",
    ("versions", "astrogenspec"): "version",
}


def _presence(one: object, two: object) -> tuple[str, str]:
    return ("absent" if one is None else "present", "absent" if two is None else "present")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "none" if value in (None, {}, [], ()) else repr(value)


def make_manifest(
    inference: Inference, rows: int, root: Path, files: Sequence[Path], version: str
) -> Manifest:
    """Describe a run: hash the weights and the files of the catalogue.

    Parameters
    ----------
    inference : Inference
        What is inferred.
    rows : int
        Largest number of rows of a partition.
    root : path
        Folder of the catalogue.
    files : sequence of path
        Files of the catalogue.
    version : str
        Version of the package.

    Returns
    -------
    Manifest

    Raises
    ------
    ValueError, OSError
        If the weights or files cannot be read.
    """
    weights = _weights(inference.weights, DEFAULT_MODEL)
    if inference.spectra:
        from ..generation.estimator import SpectrumEstimator

        found = _weights(inference.spectra_weights, SpectrumEstimator.default_model)
        weights |= {f"spectra_{key}": value for key, value in found.items()}
    return Manifest(
        inference,
        rows,
        weights,
        {
            "astrogenspec": version,
            "torch": torch.__version__.partition("+")[0],
            "numpy": np.__version__,
        },
        tuple(scan_files(root, files, rows, inference.kept)),
        {} if inference.images is None else {"sha256": image_digest(inference.images)},
    )


def _weights(name: str | None, default: str) -> dict[str, str]:
    found = fetch_weights(default if name is None else name)
    card = json.dumps(found.card, sort_keys=True).encode()
    return {
        "name": str(found.card.get("name", os.fspath(found.path))),
        "sha256": file_sha256(found.path),
        "card_sha256": hashlib.sha256(card).hexdigest(),
    }
