"""Choice of the class of a network by the name in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

__all__ = ["network_from_config"]

_Network = TypeVar("_Network", bound=nn.Module)


def network_from_config(
    config: dict[str, Any], default: type[_Network], others: Mapping[str, type[_Network]]
) -> _Network:
    """Build an untrained network of the class that ``config["architecture"]`` names.

    Parameters
    ----------
    config : dict
        The ``config`` of a network, or a part of it.
    default : type
        Class without a name.
    others : mapping of str to type
        Classes by name.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If there is no such architecture.
    """
    name = config.get("architecture")
    if name is None:
        return default.from_config(config)
    if name not in others:
        raise ValueError(
            f"the architecture of the network is {name!r}, but this version knows "
            f"{', '.join(others)}; upgrade astrogenspec."
        )
    return others[name].from_config(config)
