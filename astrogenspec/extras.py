"""Packages of the optional extras, which are imported only where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["optional_package"]


def optional_package(name: str, extra: str, needed_for: str) -> ModuleType:
    """Import a package of an extra.

    Parameters
    ----------
    name : str
        Dotted name of the module.
    extra : str
        Extra of this package that installs it.
    needed_for : str
        What needs it, for the message.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed; the message gives the command that installs it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"the package {name.split('.')[0]}, which is needed for {needed_for}, is not "
            f"installed; install it with 'pip install \"astrogenspec[{extra}]\"'."
        ) from error
