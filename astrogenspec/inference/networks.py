"""Architectures of the property network by name."""

from __future__ import annotations

from typing import Any

from .images_to_physics import ImagesToPhysicsNetwork
from .network import PosteriorNetwork, PropertyNetwork

__all__ = ["build_network"]

_ARCHITECTURES: dict[str, type[PosteriorNetwork]] = {
    "images-to-physics": ImagesToPhysicsNetwork,
}


def build_network(config: dict[str, Any]) -> PosteriorNetwork:
    """Build an untrained network.

    Parameters
    ----------
    config : dict
        The ``config`` of a network, or a part of it.

    Returns
    -------
    PosteriorNetwork

    Raises
    ------
    ValueError
        If there is no such architecture.
    """
    name = config.get("architecture")
    if name is None:
        return PropertyNetwork.from_config(config)
    if name not in _ARCHITECTURES:
        raise ValueError(
            f"the architecture of the network is {name!r}, but this version knows "
            f"{', '.join(_ARCHITECTURES)}; upgrade astrogenspec."
        )
    return _ARCHITECTURES[name].from_config(config)
