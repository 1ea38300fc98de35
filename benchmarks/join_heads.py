"""Join heads that were trained apart, behind the same encoder, into one network, to train it further.

    python benchmarks/join_heads.py FILE_OR_NAME FILE_OR_NAME --out runs/joined.safetensors

The first head of each network is taken.  Heads for galaxies without images are left out: all heads of the new network read all
galaxies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from real_images import opened

from astrogenspec import PropertyEstimator


def main() -> None:
    """Join, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="names of weights, or files")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    networks = [opened(name).network for name in arguments.models]
    encoders = [network.vae.state_dict() for network in networks]
    for name, encoder in zip(arguments.models[1:], encoders[1:], strict=True):
        if not all(torch.equal(value, encoder[key]) for key, value in encoders[0].items()):
            parser.error(
                f"{name} has another encoder than {arguments.models[0]}: heads of both cannot be joined."
            )
    joined = networks[0].with_heads([network.extract_head(0) for network in networks])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    PropertyEstimator(joined, card={"joined": arguments.models}).save(arguments.out, overwrite=True)


if __name__ == "__main__":
    main()
