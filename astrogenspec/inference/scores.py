"""How good are medians and intervals on galaxies that were held out, before and after a training?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..metrics import robust_scatter
from ..quantities import QUANTITIES
from .labelled import LabelledGalaxies
from .model import PropertyNetwork

__all__ = ["held_out_scores"]

_DRAWS = 200
_LEAST = 5


@torch.no_grad()
def held_out_scores(
    before: PropertyNetwork, after: PropertyNetwork, galaxies: LabelledGalaxies
) -> dict[str, dict[str, Any]]:
    """Score two networks on the same galaxies.

    Parameters
    ----------
    before, after : PropertyNetwork
    galaxies : LabelledGalaxies
        Held out of the training.

    Returns
    -------
    dict
        For each quantity with at least five labels: ``n``, and pairs (before, after) of ``bias`` (mean error of the
        median), ``scatter`` (robust) and ``coverage_68`` (of central intervals). Redshift errors are divided by 1 + z.
    """
    pairs = [_scores(network.eval(), galaxies) for network in (before, after)]
    return {
        name: {"n": pairs[0][name].pop("n")}
        | {key: [pairs[0][name][key], pairs[1][name][key]] for key in pairs[0][name]}
        for name in pairs[0]
    }


def _scores(network: PropertyNetwork, galaxies: LabelledGalaxies) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    posterior = network.posterior(galaxies.inputs)
    theta = galaxies.theta
    draws = posterior.sample(_DRAWS, generator, _known_prefix(galaxies)).cpu().numpy()
    result = {}
    for k, name in enumerate(QUANTITIES):
        rows = galaxies.learnt[:, k].cpu().numpy()
        if rows.sum() < _LEAST:
            continue
        true = theta[:, k].cpu().numpy()[rows]
        low, middle, high = np.percentile(draws[rows, :, k], [16, 50, 84], axis=1)
        error = (middle - true) / (1 + true if name == "redshift" else 1)
        result[name] = {
            "n": int(rows.sum()),
            "bias": float(error.mean()),
            "scatter": float(robust_scatter(error)),
            "coverage_68": float(((true >= low) & (true <= high)).mean()),
        }
    return result


def _known_prefix(galaxies: LabelledGalaxies) -> torch.Tensor | None:
    """Redshifts that are conditions, shape (n, 1), NaN elsewhere; None if there are none."""
    known = torch.isfinite(galaxies.theta[:, :1]) & ~galaxies.learnt[:, :1]
    if not bool(known.any()):
        return None
    return torch.where(known, galaxies.theta[:, :1], torch.nan)
