"""Architectures of the property network by name."""

from __future__ import annotations

from typing import Any

from ..nn.architectures import network_from_config
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
    return network_from_config(config, PropertyNetwork, _ARCHITECTURES)
