"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def interval(found: Mapping[str, float]) -> str:
    """Return a mean with its interval."""
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def met_word(*, met: bool) -> str:
    """Return how a target that is reached, or is not, is told."""
    return "yes" if met else "**no**"
