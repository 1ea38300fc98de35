"""Reading back what a recalibration wrote into the card of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["reading"]


@contextmanager
def reading(values: Mapping[str, Any], newest: int, name: str) -> Iterator[None]:
    """Check the layout, and say in one sentence what is missing or of another type inside of the block.

    Parameters
    ----------
    values : mapping
        What ``to_dict`` of the class gave, with its ``layout``.
    newest : int
        The newest layout that is known.
    name : str
        Of the class.

    Raises
    ------
    ValueError
        If the layout is newer, or something is missing or garbled.
    """
    try:
        if values["layout"] > newest:
            raise ValueError(
                f"the recalibration has layout {values['layout']} and this version knows {newest}; "
                "update astrogenspec."
            )
        yield
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the recalibration lacks or garbles {error}; use what {name}.to_dict gave."
        ) from error
