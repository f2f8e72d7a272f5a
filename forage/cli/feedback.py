"""`forage feedback`: say what a user did with a result."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from forage.cli.terminal import ADDRESS, Address, AsJson, connect, message_to_json, print_json


def feedback(
    request_id: Annotated[str, typer.Argument(help="The search, as `forage search` printed it.")],
    item_id: Annotated[str, typer.Argument(help="The result.")],
    kind: Annotated[
        Literal["click", "play", "like", "skip", "dislike"],
        typer.Option("--kind", "-k", help="What the user did."),
    ] = "click",
    amount: Annotated[
        float | None, typer.Option(help="How much of it, such as the share played, 0 to 1.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option(help="Id of the event; the same id again changes nothing.")
    ] = None,
    address: Address = ADDRESS,
    as_json: AsJson = False,
) -> None:
    """Record what a user did with a result; everything that learns, learns from it."""
    with connect(address) as client:
        receipt = client.record_feedback(
            request_id, item_id, kind, amount=amount, event_id=event_id
        )
    if as_json:
        print_json({"event_id": receipt.event_ids[0], **message_to_json(receipt.proto)})
    elif receipt.duplicates:
        typer.echo(f"{kind} was recorded before (event {receipt.event_ids[0]}); nothing changed")
    else:
        typer.echo(f"{kind} recorded (event {receipt.event_ids[0]})")
        typer.echo("next: forage policy show, or the same search again")
