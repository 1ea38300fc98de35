"""``astrogenspec weights``: list, show and fetch network weights."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_weights"]


def add_weights(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec weights``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser("weights", help="list, show or fetch network weights")
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    actions.add_parser("list", parents=[common], help="list the registered models").set_defaults(
        run=_list_weights
    )
    for name, run, what in (
        ("show", _show_weights, "print the card of a model"),
        ("fetch", _fetch_weights, "download a model if necessary, verify it and print its path"),
    ):
        action = actions.add_parser(
            name, parents=[common], help=what, description=what.capitalize() + "."
        )
        action.add_argument(
            "name",
            nargs="?",
            help="registered model or .safetensors file (default: the bundled model)",
        )
        action.set_defaults(run=run)


def _list_weights(options: argparse.Namespace) -> int:
    from ..weights import list_models

    print("\n".join(list_models()["name", "lane", "where", "description"].pformat(-1, -1)))
    return 0


def _show_weights(options: argparse.Namespace) -> int:
    import json

    from ..weights import DEFAULT_MODEL, load_card

    print(json.dumps(load_card(options.name or DEFAULT_MODEL), indent=2))
    return 0


def _fetch_weights(options: argparse.Namespace) -> int:
    from ..weights import DEFAULT_MODEL, fetch_weights

    print(fetch_weights(options.name or DEFAULT_MODEL).path)
    return 0
