"""How good are medians and intervals on galaxies that were held out, before and after a training?"""

from __future__ import annotations

from collections.abc import Sequence
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
    parts: Sequence[tuple[PropertyNetwork, PropertyNetwork, LabelledGalaxies]],
) -> dict[str, dict[str, Any]]:
    """Score networks before and after a training, each on the galaxies that it did not see.

    Parameters
    ----------
    parts : sequence of tuple
        Of networks before and after, with the galaxies held out of their training.

    Returns
    -------
    dict
        For each quantity with at least five labels: ``n``, and pairs (before, after) of ``bias`` (mean error of the
        median), ``scatter`` (robust) and ``coverage_68`` (of central intervals). Redshift errors are divided by 1 + z.
    """
    before = np.concatenate([_draws(old.eval(), galaxies) for old, _, galaxies in parts])
    after = np.concatenate([_draws(new.eval(), galaxies) for _, new, galaxies in parts])
    theta = np.concatenate([galaxies.theta.cpu().numpy() for *_, galaxies in parts])
    learnt = np.concatenate([galaxies.learnt.cpu().numpy() for *_, galaxies in parts])
    result = {}
    for k, name in enumerate(QUANTITIES):
        rows = learnt[:, k]
        if rows.sum() < _LEAST:
            continue
        pairs = [_scores(d[rows, :, k], theta[rows, k], name) for d in (before, after)]
        result[name] = {"n": int(rows.sum())} | {
            key: [pair[key] for pair in pairs] for key in pairs[0]
        }
    return result


def _draws(network: PropertyNetwork, galaxies: LabelledGalaxies) -> np.ndarray:
    posterior = network.posterior(galaxies.inputs)
    generator = torch.Generator().manual_seed(0)
    return posterior.sample(_DRAWS, generator, _known_prefix(galaxies)).cpu().numpy()


def _scores(draws: np.ndarray, true: np.ndarray, name: str) -> dict[str, float]:
    low, middle, high = np.percentile(draws, [16, 50, 84], axis=1)
    error = (middle - true) / (1 + true if name == "redshift" else 1)
    return {
        "bias": float(error.mean()),
        "scatter": float(robust_scatter(error)),
        "coverage_68": float(((true >= low) & (true <= high)).mean()),
    }


def _known_prefix(galaxies: LabelledGalaxies) -> torch.Tensor | None:
    """Redshifts that are conditions, shape (n, 1), NaN elsewhere; None if there are none."""
    known = torch.isfinite(galaxies.theta[:, :1]) & ~galaxies.learnt[:, :1]
    if not bool(known.any()):
        return None
    return torch.where(known, galaxies.theta[:, :1], torch.nan)
