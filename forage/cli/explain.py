"""`forage explain`: why these generators, why these results."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from forage.cli.terminal import (
    ADDRESS,
    Address,
    AsJson,
    connect,
    console,
    message_to_json,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import Console

    from forage.catalog.schema import Schema
    from forage.client import Client, Decision, Plan, Provenance, SearchPage

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTRIBUTIONS = 4


def explain(
    wanted: Annotated[
        str, typer.Argument(metavar="REQUEST_ID_OR_TEXT", help="A search made, or one to make.")
    ],
    user: Annotated[str, typer.Option(help="For a text: the user who searches.")] = "",
    address: Address = ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Show the plan with its sampled utilities, and why each result was found and ranked so.

    Of a search that was made before, the record tells all but reasons and contributions.
    """
    with connect(address) as client:
        decision = _recorded(client, wanted)
        if decision is None:
            page = client.search(wanted, user=user, explain=True)
            if as_json:
                print_json(message_to_json(page.proto))
            else:
                print_page(page, client.schema())
        elif as_json:
            print_json(message_to_json(decision.proto))
        else:
            _print_decision(decision, client)


def _recorded(client: Client, wanted: str) -> Decision | None:
    from forage.errors import NotFoundError

    if not _REQUEST_ID.fullmatch(wanted):
        return None
    try:
        return client.decision(wanted)
    except NotFoundError:
        # Not the id of a search, so it is the text of one.
        return None


def print_page(page: SearchPage, schema: Schema) -> None:
    """Print the plan of a search made with `explain`, and the evidence for each result."""
    from forage.cli import display

    out = console()
    if understood := display.understood_line(page):
        out.print(understood)
    if page.plan is not None:
        _print_plan(out, page.plan)
    for line in display.degraded_lines(page):
        out.print(line)
    levels = _levels(page.plan)
    for result in page:
        title = display.title_of(result.item, schema)
        out.print(f"{result.position:>3} {title} ({result.item.kind})", style="bold")
        _print_evidence(out, result.provenance, levels)
        largest = list(result.contributions.items())[:_CONTRIBUTIONS]
        if largest:
            shown = ", ".join(f"{name} {value:+.3f}" for name, value in largest)
            out.print(f"      score {result.score:.3f}: {shown}")
    out.print(f"next: forage trace {page.request_id}, forage policy replay {page.request_id}")


def _print_decision(decision: Decision, client: Client) -> None:
    from forage.cli import display
    from forage.client import Provenance
    from forage.errors import NotFoundError

    out = console()
    proto = decision.proto
    out.print(f"search {decision.request_id}: “{proto.query.text}”", style="bold")
    plan: Plan | None = decision.plan
    if decision.root_request_id:
        out.print(f"a later page of {decision.root_request_id}, which has the plan")
        plan = client.decision(decision.root_request_id).plan
    if plan is not None:
        _print_plan(out, plan)
    if decision.propensity:
        draws = proto.propensity_draws
        out.print(f"propensity {decision.propensity:.4f} ({draws or 'no'} draws)")
    out.print(display.plan_line(decision.outcomes, decision.plan, decision.model_version))
    levels = _levels(plan)
    for shown in proto.displayed:
        try:
            title = display.title_of(client.get_item(shown.item_id), client.schema())
        except NotFoundError:
            title = f"{shown.item_id} (deleted since)"
        out.print(f"{shown.position:>3} {title}  score {shown.score:.3f}", style="bold")
        _print_evidence(out, [Provenance.from_proto(p) for p in shown.provenance], levels)


def _print_plan(out: Console, plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    out.print(
        f"{plan.policy} ({plan.source}), snapshot {plan.snapshot_version},"
        f" cost {plan.cost} of {plan.budget}"
    )
    table = Table("generator", "fan-out", "sampled utility of each fan-out (cost)")
    for call in plan.calls:
        cell = Text()
        for index, level in enumerate(call.levels):
            chosen = level == call.fan_out
            value = f"{call.utilities[index]:.2f}" if index < len(call.utilities) else "–"
            cost = f" ({call.costs[index]})" if index < len(call.costs) else ""
            cell.append(f"{level}: {value}{cost}  ", "bold green" if chosen else "dim")
        if call.infeasible_reason:
            cell.append(call.infeasible_reason, "yellow")
        table.add_row(call.generator, str(call.fan_out or "–"), cell)
    out.print(table)


def _levels(plan: Plan | None) -> dict[str, Sequence[int]]:
    return {c.generator: c.levels for c in plan.calls} if plan else {}


def _print_evidence(
    out: Console, provenance: Sequence[Provenance], levels: Mapping[str, Sequence[int]]
) -> None:
    from forage.cli.display import smallest_level

    for p in provenance:
        least = smallest_level(levels.get(p.generator, ()), p.rank)
        out.print(
            f"      {p.generator} rank {p.rank}, score {p.score:.3f}; found from fan-out {least}"
        )
        for reason in p.reasons:
            out.print(f"        {reason.kind}: {reason.detail}", style="dim")
