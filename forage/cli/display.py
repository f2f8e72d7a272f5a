"""Searches on the terminal: result table, plan line, what was understood, and what was missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from forage.catalog.schema import Role

if TYPE_CHECKING:
    from forage.catalog.item import Item
    from forage.catalog.schema import Schema
    from forage.client import Outcome, Plan, Provenance, SearchPage, SearchResult

_MARKS = {"answered": "", "timed_out": " timed out", "failed": " failed"}
_ABOUT_ATTRIBUTES = 4
_ABOUT_VALUES = 2


def results_table(results: Iterable[SearchResult], schema: Schema) -> Table:
    """Return the table of results: position, title, kind, score, who found it, what it is."""
    table = Table("", "title", "kind", "score", "found by (rank)", "about", "id")
    for result in results:
        found_by = Text(found_by_text(result.provenance))
        if result.exploration_propensity:
            found_by.append(f" explored p={result.exploration_propensity:.3f}", "magenta")
        table.add_row(
            str(result.position),
            Text(title_of(result.item, schema), "bold"),
            result.item.kind,
            f"{result.score:.3f}",
            found_by,
            about(result.item, schema),
            Text(result.item.item_id, "dim"),
        )
    return table


def found_by_text(provenance: Sequence[Provenance]) -> str:
    """Return the generators and ranks as text, such as `lexical 1, graph 7`."""
    return ", ".join(f"{p.generator} {p.rank}" for p in provenance)


def title_of(item: Item, schema: Schema) -> str:
    """Return the item's title, or its id if it has none."""
    return next(iter(item.texts(schema.title)), item.item_id)


def about(item: Item, schema: Schema) -> str:
    """Return an item's main attributes: its first number, then entities, in schema order."""
    numbers = [(n, item.number(n)) for n in schema.with_role(Role.NUMBER)]
    parts = [f"{name} {number:g}" for name, number in numbers if number is not None][:1]
    for name in schema.with_role(Role.ENTITY):
        if texts := item.texts(name)[:_ABOUT_VALUES]:
            parts.append(", ".join(texts))
    return " · ".join(parts[:_ABOUT_ATTRIBUTES])


def plan_line(outcomes: Sequence[Outcome], plan: Plan | None, model_version: int) -> Text:
    """Return which generators were called, with what fan-out, and how that was decided."""
    line = Text("plan     ", "dim")
    for outcome in outcomes:
        bad = outcome.status in ("timed_out", "failed")
        called = outcome.status in _MARKS
        line.append(outcome.generator, "red" if bad else "bold" if called else "dim")
        if called:
            line.append(
                f" {outcome.fan_out}→{outcome.returned} ({outcome.unique} alone,"
                f" {1000 * outcome.latency_s:.1f} ms){_MARKS[outcome.status]}",
                "red" if bad else "",
            )
        else:
            line.append(" –" if outcome.status == "not_chosen" else " masked", "dim")
        line.append("  ")
    if plan is not None:
        line.append(f"cost {plan.cost}/{plan.budget}, {plan.policy} ({plan.source}), ")
        line.append(f"snapshot {plan.snapshot_version}, ")
    line.append(f"ranker v{model_version}" if model_version else "fused order")
    return line


def understood_line(page: SearchPage) -> Text | None:
    """Return how the words were read, most likely first; None if nothing was recognised."""
    readings = page.proto.understood.interpretations
    if not readings:
        return None
    line = Text("read as  ", "dim")
    for index, reading in enumerate(readings[:3]):
        slots = [f"{s.attribute}={s.value} ({s.confidence:.2f})" for s in reading.slots]
        words = [f"“{reading.residual}”"] if reading.residual else []
        line.append("  or  " if index else "", "dim")
        line.append(" + ".join([*slots, *words]))
        line.append(f" [{reading.confidence:.2f}]", "dim")
    return line


def degraded_lines(page: SearchPage) -> list[Text]:
    """Return what was missing from the answer, and why."""
    return [
        Text(f"missing  {d.component}: {d.reason} {d.detail}".rstrip(), "yellow")
        for d in page.degraded
    ]


def smallest_level(levels: Sequence[int], rank: int) -> int:
    """Return the smallest fan-out by which a generator finds what it has at `rank`."""
    return min((level for level in levels if level >= rank), default=rank)
