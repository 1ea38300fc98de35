"""Join heads trained separately on the same encoder into one network, for further training.

    python recipes/join_heads.py FILE_OR_NAME FILE_OR_NAME --out runs/joined.safetensors

The first head of each network is used.  Heads for galaxies without images are dropped: all heads of
the new network read all galaxies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from astrogenspec import PropertyEstimator


def main() -> None:
    """Write the joined network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "models", nargs="+", help="names of weights, or files; the heads are joined in this order"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    networks = [PropertyEstimator.from_pretrained(name).network for name in arguments.models]
    encoders = [network.vae.state_dict() for network in networks]
    for name, encoder in zip(arguments.models[1:], encoders[1:], strict=True):
        if not all(torch.equal(value, encoder[key]) for key, value in encoders[0].items()):
            parser.error(
                f"{name} and {arguments.models[0]} have different encoders: give networks "
                "trained with --heads-alone."
            )
    joined = networks[0].with_heads([network.extract_head(0) for network in networks])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    PropertyEstimator(joined, card={"joined": arguments.models}).save(arguments.out, overwrite=True)


if __name__ == "__main__":
    main()
