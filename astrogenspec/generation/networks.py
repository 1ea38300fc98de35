"""Architectures of the spectrum network by name."""

from __future__ import annotations

from typing import Any

from .galaxy_spectroscopy import GalaxySpectroscopyNetwork
from .network import SpectrumNetwork

__all__ = ["build_network"]

_ARCHITECTURES = {"galaxy-spectroscopy": GalaxySpectroscopyNetwork}


def build_network(config: dict[str, Any]) -> SpectrumNetwork | GalaxySpectroscopyNetwork:
    """Build an untrained network.

    Parameters
    ----------
    config : dict
        The ``config`` of a network, or a part of it.

    Returns
    -------
    SpectrumNetwork or GalaxySpectroscopyNetwork

    Raises
    ------
    ValueError
        If there is no such architecture.
    """
    name = config.get("architecture")
    if name is None:
        return SpectrumNetwork.from_config(config)
    if name not in _ARCHITECTURES:
        raise ValueError(
            f"the architecture of the network is {name!r}, but this version knows "
            f"{', '.join(_ARCHITECTURES)}; upgrade astrogenspec."
        )
    return _ARCHITECTURES[name].from_config(config)
