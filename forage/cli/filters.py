"""Filters as typed on the command line: `genre=Drama`, `year=1990..1999`, `kind=film|person`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from forage.catalog.schema import Schema
    from forage.retrieval import Filter

SYNTAX = "NAME=VALUE, NAME=ONE|OTHER, or NAME=LOW..HIGH with an end left out for an open range"


def parse(wanted: Sequence[str], excluded: Sequence[str], schema: Schema) -> list[Filter]:
    """Return the filters; raises `typer.BadParameter` for text that is none.

    Whether the schema allows them is for the server to say.
    """
    return [
        *(_parse(text, schema, exclude=False) for text in wanted),
        *(_parse(text, schema, exclude=True) for text in excluded),
    ]


def _parse(text: str, schema: Schema, *, exclude: bool) -> Filter:
    from forage.retrieval import Filter

    name, equals, value = (part.strip() for part in text.partition("="))
    if not name or not equals or not value:
        raise _refused(text, "it has no name or no value", exclude=exclude)
    attribute = schema.attributes.get(name)
    if attribute is None or not attribute.numeric:
        return Filter(name, tuple(v for v in value.split("|") if v), exclude=exclude)
    low, dots, high = value.partition("..")
    try:
        least = _number(low)
        most = _number(high) if dots else least
    except ValueError as error:
        raise _refused(text, str(error), exclude=exclude) from error
    if least is None and most is None:
        raise _refused(text, "the range has no end at all", exclude=exclude)
    return Filter(name, minimum=least, maximum=most, exclude=exclude)


def _number(text: str) -> float | None:
    """Return a number, a day as seconds since the epoch, or None for an open end."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        try:
            day = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"'{text}' is neither a number nor a date") from None
        return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _refused(text: str, why: str, *, exclude: bool) -> typer.BadParameter:
    return typer.BadParameter(
        f"'{text}': {why}; allowed: {SYNTAX}", param_hint="--exclude" if exclude else "--filter"
    )
