"""`forage search`: ask, and see what answered."""

from __future__ import annotations

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
    from forage.catalog.schema import Schema
    from forage.client import Client, Plan, SearchOptions, SearchPage


def search(
    text: Annotated[str, typer.Argument(help="What to search for; empty browses.")] = "",
    wanted: Annotated[
        list[str] | None,
        typer.Option("--filter", "-f", metavar="A=B", help="Keep items, as in year=1990..1999."),
    ] = None,
    excluded: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="A=B", help="Leave items out.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", help="Keep items of this kind.")
    ] = None,
    facets: Annotated[
        list[str] | None, typer.Option("--facet", help="Count an attribute's values.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--like", metavar="ID", help="Resemble this item.")
    ] = None,
    user: Annotated[str, typer.Option(help="Id of the user who searches.")] = "",
    page_size: Annotated[int, typer.Option("--page-size", "-n", help="Results per page.")] = 0,
    page_token: Annotated[str, typer.Option(help="The page to show, as printed.")] = "",
    policy: Annotated[str, typer.Option(help="Use this policy for the plan.")] = "",
    group: Annotated[bool, typer.Option("--group", help="Group the results by kind.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show why, in full.")] = False,
    address: Address = ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Search, and show the results, who found them, and the plan that was chosen."""
    from forage.cli import filters

    with connect(address) as client:
        schema = client.schema()
        kinds = ["kind=" + "|".join(kind)] if kind else []
        options: SearchOptions = {
            "filters": filters.parse([*(wanted or []), *kinds], excluded or [], schema),
            "facets": facets or [],
            "like": like or [],
            "user": user,
            "page_size": page_size,
            "page_token": page_token,
            "policy": policy,
            "group_by_kind": group,
            "explain": explain,
        }
        page = client.search(text, **options)
        if as_json:
            print_json(message_to_json(page.proto))
        elif explain:
            from forage.cli.explain import print_page

            print_page(page, schema)
        else:
            print_page_briefly(page, schema, _plan_of(client, page))


def _plan_of(client: Client, page: SearchPage) -> Plan | None:
    """Return the plan from the decision's record: only `explain` puts it into the answer."""
    from forage.errors import NotFoundError

    try:
        return client.decision(page.request_id).plan
    except NotFoundError:
        # The record is lost if the log cannot be written; the answer then says so itself.
        return None


def print_page_briefly(page: SearchPage, schema: Schema, plan: Plan | None) -> None:
    """Print a page of results, and below it how they came about."""
    from forage.cli import display

    out = console()
    by_position = {result.position: result for result in page}
    if not page.results:
        out.print("nothing found")
    elif page.groups:
        for group in page.groups:
            out.print(group.kind, style="bold underline")
            out.print(display.results_table([by_position[p] for p in group.positions], schema))
    else:
        out.print(display.results_table(page, schema))
    for facet in page.facets:
        counts = ", ".join(f"{value} {count}" for value, count in facet.counts.items())
        out.print(f"{facet.attribute}: {counts}")
    if page.related:
        related = ", ".join(
            f"{display.title_of(r.item, schema)} ({r.attribute} of {r.count})" for r in page.related
        )
        out.print(f"related  {related}")
    if understood := display.understood_line(page):
        out.print(understood)
    if page.outcomes:
        out.print(display.plan_line(page.outcomes, plan, page.model_version))
    for line in display.degraded_lines(page):
        out.print(line)
    stages = ", ".join(f"{name} {1000 * s:.1f}" for name, s in page.stages.items())
    out.print(
        f"{page.total_candidates} candidates in {1000 * page.latency_s:.1f} ms ({stages})",
        style="dim",
    )
    _print_next(page)


def _print_next(page: SearchPage) -> None:
    if page.results:
        first = page.results[0].item.item_id
        typer.echo(f"next: forage feedback {page.request_id} '{first}' --kind click")
    typer.echo(f"      forage explain {page.request_id}")
    if page.trace_id:
        typer.echo(f"      forage trace {page.request_id}")
    if page.next_page_token:
        typer.echo(f"      the same search with --page-token {page.next_page_token}")
