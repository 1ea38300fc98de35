"""Architectures of the spectrum network by name."""

from __future__ import annotations

from typing import Any

from ..nn.architectures import network_from_config
from .galaxy_spectroscopy import GalaxySpectroscopyNetwork
from .network import SpectrumNetwork

__all__ = ["build_network"]

_Network = SpectrumNetwork | GalaxySpectroscopyNetwork

_DEFAULT: type[_Network] = SpectrumNetwork
_ARCHITECTURES: dict[str, type[_Network]] = {"galaxy-spectroscopy": GalaxySpectroscopyNetwork}


def build_network(config: dict[str, Any]) -> _Network:
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
    return network_from_config(config, _DEFAULT, _ARCHITECTURES)
