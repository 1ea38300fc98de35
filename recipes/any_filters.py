"""Give a network for any filters the image encoder of the bundled weights, and join its heads.

    python recipes/any_filters.py encoder runs/any/properties.safetensors --out runs/any-encoder
    python recipes/any_filters.py join runs/any-images runs/any --out runs/any-joined

``encoder`` copies encoder and decoder of the weights trained on simulations, for the training of
heads that read images with ``astrogenspec train properties --heads-only``.  ``join`` takes the
encoder and the heads of a first network, and the heads of a second one for galaxies without images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from commands import BASE
from torch import nn

from astrogenspec import PropertyEstimator
from astrogenspec.inference.network import PropertyNetwork


def with_encoder(source: Path, encoder: str, out: Path) -> None:
    """Write the network of a file with the image encoder of other weights.

    Parameters
    ----------
    source : Path
        Folder of the run of a network for any filters.
    encoder : str
        Name or file of the weights with the encoder.
    out : Path
        Folder to write.
    """
    estimator = PropertyEstimator.from_pretrained(source / "properties.safetensors")
    network, other = estimator.network, PropertyEstimator.from_pretrained(encoder).network
    network.vae.load_state_dict(other.vae.state_dict())
    network.latent_of_properties.load_state_dict(other.latent_of_properties.state_dict())
    _use_standardisation(network, other)
    out.mkdir(parents=True, exist_ok=True)
    card = {
        key: value
        for key, value in (estimator.card or {}).items()
        if key not in ("sha256", "inputs")
    }
    path = out / "properties.safetensors"
    PropertyEstimator(network, card=card | {"encoder": encoder}).save(path, overwrite=True)


@torch.no_grad()
def _use_standardisation(network: PropertyNetwork, other: PropertyNetwork) -> None:
    """Change the first layer of the map to latents, which had the standardisation of another."""
    first = next(m for m in network.latent_of_properties.modules() if isinstance(m, nn.Linear))
    n = first.in_features
    ratio = (network.chain.scale / other.chain.scale)[:n]
    shift = ((network.chain.location - other.chain.location) / other.chain.scale)[:n]
    first.bias += first.weight @ shift
    first.weight *= ratio


def join(images: Path, photometry: Path, out: Path) -> None:
    """Join heads of two runs in one network.

    Parameters
    ----------
    images, photometry : Path
        Folders of the runs with heads for galaxies with and without images.
    out : Path
        Folder to write, as of a training run.
    """
    first, second = (
        PropertyEstimator.from_pretrained(run / "properties.safetensors")
        for run in (images, photometry)
    )
    joined = first.network.with_heads(
        [first.network.extract_head(0)], [second.network.extract_head(0)]
    )
    out.mkdir(parents=True, exist_ok=True)
    card = {key: value for key, value in (second.card or {}).items() if key != "inputs"}
    PropertyEstimator(joined, card=card).save(out / "properties.safetensors", overwrite=True)


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    encoder = steps.add_parser("encoder", help="copy the image encoder")
    encoder.add_argument("source", type=Path)
    encoder.add_argument("--encoder", default=BASE)
    encoder.add_argument("--out", type=Path, required=True)
    joined = steps.add_parser("join", help="join heads")
    joined.add_argument("images", type=Path)
    joined.add_argument("photometry", type=Path)
    joined.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.step == "encoder":
        with_encoder(arguments.source, arguments.encoder, arguments.out)
    else:
        join(arguments.images, arguments.photometry, arguments.out)


if __name__ == "__main__":
    main()
