"""Join the parts of several posteriors into those of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import QTable, vstack

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["joined_parts"]


def joined_parts(posteriors: Sequence[Posterior], kind: type) -> dict[str, Any]:
    """Concatenate draws, names, flags, probabilities and photometry along the galaxies.

    Parameters
    ----------
    posteriors : sequence of Posterior
    kind : type
        The class all of them must have.

    Returns
    -------
    dict
        With the keys draws, names, flags, measurable, photometry, meta.

    Raises
    ------
    ValueError
        If there is nothing to join, or the parts differ in their quantities or number of draws.
    TypeError
        If something else than a posterior is among them.
    """
    _check(posteriors, kind)
    first = posteriors[0]
    return {
        "draws": {
            name: np.concatenate([part.draws[name].to(values.unit) for part in posteriors])
            for name, values in first.draws.items()
        },
        "names": _strings([part.names for part in posteriors]),
        "flags": _strings([part.flags for part in posteriors]),
        "measurable": _measurable(posteriors),
        "photometry": _photometry(posteriors),
        "meta": {
            key: value
            for key, value in first.meta.items()
            if all(key in part.meta and repr(part.meta[key]) == repr(value) for part in posteriors)
        },
    }


def _strings(parts: Sequence[Sequence[str]]) -> np.ndarray:
    return np.concatenate([np.array(part, dtype=object) for part in parts])


def _measurable(posteriors: Sequence[Posterior]) -> np.ndarray | None:
    if all(part.measurable is None for part in posteriors):
        return None
    return np.concatenate(
        [
            np.full(len(part), np.nan) if part.measurable is None else part.measurable
            for part in posteriors
        ]
    )


def _photometry(posteriors: Sequence[Posterior]) -> QTable | None:
    tables = [part.photometry for part in posteriors]
    if any(table is None for table in tables):
        return None
    return vstack(tables, metadata_conflicts="silent")


def _check(posteriors: Sequence[Any], kind: type[Any]) -> None:
    if not posteriors:
        raise ValueError("posteriors is empty; give at least one Posterior to concatenate.")
    for number, part in enumerate(posteriors):
        if not isinstance(part, kind):
            raise TypeError(f"posteriors[{number}] is a {type(part).__name__}; give Posteriors.")
        first = posteriors[0]
        if set(part.quantities) != set(first.quantities):
            differ = sorted(set(part.quantities) ^ set(first.quantities))
            raise ValueError(
                f"posteriors[{number}] and posteriors[0] differ in {', '.join(differ)}; concatenate "
                f"posteriors of the same quantities."
            )
        if part.n_draws != first.n_draws:
            raise ValueError(
                f"posteriors[{number}] has {part.n_draws} draws, posteriors[0] has {first.n_draws}; "
                f"concatenate posteriors with the same number of draws."
            )
