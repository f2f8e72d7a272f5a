"""`forage policy`: what the bandit has learned, replays of its decisions, and switches."""

from __future__ import annotations

import time
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
    from forage.client import Plan, PolicyState

app = typer.Typer(help="Show what the bandit has learned, replay decisions, switch generators.")
_Generator = Annotated[str, typer.Argument(help="The generator's name.")]


@app.callback(invoke_without_command=True)
def policy(context: typer.Context, address: Address = ADDRESS, as_json: AsJson = False) -> None:
    """Show what the bandit has learned; subcommands replay decisions and switch generators."""
    if context.invoked_subcommand is None:
        show(address, as_json)


@app.command()
def show(address: Address = ADDRESS, as_json: AsJson = False) -> None:
    """Show traffic split, snapshot, and what each generator has done lately."""
    with connect(address) as client:
        state = client.policy()
    if as_json:
        print_json(message_to_json(state.proto))
    else:
        _print(state)


@app.command()
def replay(
    request_id: Annotated[str, typer.Argument(help="The search to decide again.")],
    address: Address = ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Decide a recorded search again from its record; exit status 1 if the plan differs."""
    with connect(address) as client:
        result = client.replay(request_id)
    if as_json:
        print_json(message_to_json(result.proto))
    elif result.identical:
        typer.echo(f"identical: {_fan_outs(result.recorded)}")
    else:
        typer.echo(f"recorded: {_fan_outs(result.recorded)}")
        typer.echo(f"replayed: {_fan_outs(result.replayed)}")
        typer.echo("error: the replayed plan is not the recorded one", err=True)
    if not result.identical:
        raise typer.Exit(1)


@app.command()
def disable(generator: _Generator, address: Address = ADDRESS) -> None:
    """Call a generator no more, until it is enabled again; survives restarts."""
    _switch(generator, address, enabled=False)


@app.command()
def enable(generator: _Generator, address: Address = ADDRESS) -> None:
    """Allow a generator to be called again."""
    _switch(generator, address, enabled=True)


def _switch(generator: str, address: str, *, enabled: bool) -> None:
    with connect(address) as client:
        disabled = client.set_generator_enabled(generator, enabled)
    typer.echo(f"switched off: {', '.join(disabled) or 'none'}")


def _fan_outs(plan: Plan) -> str:
    calls = " ".join(f"{c.generator}={c.fan_out}" for c in plan.calls)
    return f"{plan.policy} ({plan.source}), snapshot {plan.snapshot_version}: {calls}"


def _print(state: PolicyState) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    split = ", ".join(f"{name} {share:.1%}" for name, share in state.traffic.items())
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.snapshot_time))
    snapshot = (
        f"{state.snapshot_version} of {written}" if state.snapshot_version else "0, the prior"
    )
    out.print(f"traffic   {split}")
    out.print(f"snapshot  {snapshot}; learned from {state.observations:,} engagement labels")
    if state.fallback_reason:
        out.print(f"fallback  {state.fallback_reason}", style="yellow")
    table = Table(
        "generator",
        "called",
        "mean fan-out",
        "found",
        "P(hit)",
        "± logit",
        "ms",
        title=f"the last {state.recent_searches:,} searches",
        title_justify="left",
    )
    for arm in state.arms:
        name = Text(arm.generator) if arm.enabled else Text(f"{arm.generator} (off)", "red")
        table.add_row(
            name,
            f"{arm.call_share:.0%}",
            f"{arm.mean_fan_out:.0f}",
            f"{arm.hit_share:.0%}",
            f"{arm.hit_probability:.2f}",
            f"{arm.posterior_width:.2f}",
            f"{arm.latency_ms:.1f}",
        )
    out.print(table)
    out.print("found: share of the engaged items that the generator had in its list", style="dim")
