"""Every call of the client as a value: what to send, where, and how to read the answer.

`Client` and `AsyncClient` only differ in how they run a `Call`, so that they cannot drift apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypedDict, TypeVar

import grpc
import yaml
from google.protobuf.message import Message

from forage import wire
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.client.results import SearchPage
from forage.client.state import Decision, FeedbackReceipt, IngestStatus, PolicyState, Replay
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter, UserContext
from forage.v1 import (
    catalog_service_pb2,
    feedback_service_pb2,
    policy_service_pb2,
    query_pb2,
    search_service_pb2,
)

ResultT = TypeVar("ResultT")
_UNAVAILABLE = frozenset({grpc.StatusCode.UNAVAILABLE})
_UNAVAILABLE_OR_BUSY = _UNAVAILABLE | {grpc.StatusCode.RESOURCE_EXHAUSTED}


class FeedbackKind(StrEnum):
    """What a user did with a result."""

    CLICK = "click"
    PLAY = "play"
    LIKE = "like"
    SKIP = "skip"
    DISLIKE = "dislike"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One feedback event."""

    request_id: str
    """The search whose result was acted on."""
    item_id: str
    kind: FeedbackKind | str
    amount: float | None = None
    """How much of it, such as the share of a film played, in [0, 1]; None means 1."""
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unique; an event with a known id changes nothing."""
    time: float | None = None
    """Seconds since the epoch; None: when the server receives it."""


class SearchOptions(TypedDict, total=False):
    """What a search can be asked for besides its text; all of it optional."""

    filters: Sequence[Filter]
    """Hard constraints."""
    page_size: int
    """0: the server's default."""
    page_token: str
    """From `SearchPage.next_page_token`; `pages` does this for you."""
    user: UserContext | str
    """Who searches; a text is the user's id."""
    like: Sequence[str]
    """Ids of items that the results should resemble."""
    facets: Sequence[str]
    """Attributes to count values of."""
    locale: str
    device: str
    explain: bool
    """Return the plan, contributions and reasons."""
    group_by_kind: bool
    min_catalog_sequence: int
    """Wait until every generator reflects this sequence."""
    policy: str
    """Use this policy in place of the traffic split's choice."""
    request_id: str
    """By default one is made, so that a retry is answered from the first attempt's decision."""
    timeout_s: float
    """In place of the client's."""


@dataclass(frozen=True, slots=True)
class Call(Generic[ResultT]):
    """One call: a request, its method, and how its response is read."""

    method: str
    request: Message
    response: type[Message]
    parse: Callable[[Any], ResultT]
    retried: frozenset[grpc.StatusCode] = _UNAVAILABLE
    timeout_s: float | None = None


def search(text: str, options: SearchOptions) -> Call[SearchPage]:
    """Search. Overload is not retried: trying again would add to it."""
    user = options.get("user", UserContext())
    if isinstance(user, str):
        user = UserContext(user)
    request = search_service_pb2.SearchRequest(
        text=text,
        filters=[wire.filter_to_proto(f) for f in options.get("filters", ())],
        page_size=options.get("page_size", 0),
        page_token=options.get("page_token", ""),
        like_item_ids=options.get("like", ()),
        facets=options.get("facets", ()),
        locale=options.get("locale", ""),
        device=options.get("device", ""),
        explain=options.get("explain", False),
        group_by_kind=options.get("group_by_kind", False),
        min_catalog_sequence=options.get("min_catalog_sequence", 0),
        policy=options.get("policy", ""),
        request_id=options.get("request_id") or uuid.uuid4().hex,
    )
    if user != UserContext():
        request.user.CopyFrom(
            query_pb2.UserContext(
                user_id=user.user_id,
                recent_item_ids=user.recent_item_ids,
                attributes=user.attributes,
            )
        )
    return Call(
        "/forage.v1.SearchService/Search",
        request,
        search_service_pb2.SearchResponse,
        SearchPage.from_proto,
        timeout_s=options.get("timeout_s"),
    )


def next_page(page: SearchPage, options: SearchOptions) -> SearchOptions | None:
    """Return the options that ask for the page after `page`, or None after the last."""
    if not page.next_page_token:
        return None
    return {**options, "page_token": page.next_page_token, "request_id": ""}


def feedback(
    request_id: str,
    item_id: str,
    kind: FeedbackKind | str,
    amount: float | None,
    event_id: str | None,
    time: float | None,
) -> Feedback:
    """Return one event, with an id of its own unless one is given."""
    return Feedback(request_id, item_id, kind, amount, event_id or uuid.uuid4().hex, time)


def record_feedback(events: Sequence[Feedback]) -> Call[FeedbackReceipt]:
    """Record events; their ids make retries safe."""
    ids = tuple(event.event_id for event in events)
    return Call(
        "/forage.v1.FeedbackService/RecordFeedback",
        feedback_service_pb2.RecordFeedbackRequest(events=[_event(e) for e in events]),
        feedback_service_pb2.RecordFeedbackResponse,
        lambda response: FeedbackReceipt.from_proto(response, ids),
        _UNAVAILABLE_OR_BUSY,
    )


def _event(event: Feedback) -> feedback_service_pb2.FeedbackEvent:
    if event.kind not in list(FeedbackKind):
        raise InvalidArgumentError(
            "kind", f"'{event.kind}' is no kind of feedback", allowed=", ".join(FeedbackKind)
        )
    message = feedback_service_pb2.FeedbackEvent(
        event_id=event.event_id,
        request_id=event.request_id,
        item_id=event.item_id,
        kind=feedback_service_pb2.FeedbackKind.Value(f"FEEDBACK_KIND_{event.kind.upper()}"),
    )
    if event.time is not None:
        message.time.CopyFrom(wire.timestamp(event.time))
    if event.amount is not None:
        message.amount = event.amount
    return message


def upsert(items: Iterable[Item], schema: Schema) -> Call[int]:
    """Add or replace items, all or none."""
    return Call(
        "/forage.v1.CatalogService/UpsertItems",
        catalog_service_pb2.UpsertItemsRequest(
            items=[wire.item_to_proto(item, schema) for item in items]
        ),
        catalog_service_pb2.UpsertItemsResponse,
        lambda response: int(response.sequence),
        _UNAVAILABLE_OR_BUSY,
    )


def delete(item_ids: Iterable[str]) -> Call[int]:
    """Remove items."""
    return Call(
        "/forage.v1.CatalogService/DeleteItems",
        catalog_service_pb2.DeleteItemsRequest(item_ids=item_ids),
        catalog_service_pb2.DeleteItemsResponse,
        lambda response: int(response.sequence),
        _UNAVAILABLE_OR_BUSY,
    )


def get_item(item_id: str) -> Call[Item]:
    """Return one item."""
    return Call(
        "/forage.v1.CatalogService/GetItem",
        catalog_service_pb2.GetItemRequest(item_id=item_id),
        catalog_service_pb2.GetItemResponse,
        lambda response: wire.item_from_proto(response.item),
    )


def schema() -> Call[Schema]:
    """Return the catalogue's schema."""
    return Call(
        "/forage.v1.CatalogService/GetSchema",
        catalog_service_pb2.GetSchemaRequest(),
        catalog_service_pb2.GetSchemaResponse,
        lambda response: Schema.model_validate(yaml.safe_load(response.yaml)),
    )


def ingest_status() -> Call[IngestStatus]:
    """Return how far every service has followed the log."""
    return Call(
        "/forage.v1.CatalogService/GetIngestStatus",
        catalog_service_pb2.GetIngestStatusRequest(),
        catalog_service_pb2.GetIngestStatusResponse,
        IngestStatus.from_proto,
    )


def policy() -> Call[PolicyState]:
    """Return the policy in use."""
    return Call(
        "/forage.v1.PolicyService/GetPolicy",
        policy_service_pb2.GetPolicyRequest(),
        policy_service_pb2.GetPolicyResponse,
        PolicyState.from_proto,
    )


def decision(request_id: str) -> Call[Decision]:
    """Return the record of one search."""
    return Call(
        "/forage.v1.PolicyService/GetDecision",
        policy_service_pb2.GetDecisionRequest(request_id=request_id),
        policy_service_pb2.GetDecisionResponse,
        lambda response: Decision.from_proto(response.decision),
    )


def replay(request_id: str) -> Call[Replay]:
    """Decide a recorded search again."""
    return Call(
        "/forage.v1.PolicyService/ReplayDecision",
        policy_service_pb2.ReplayDecisionRequest(request_id=request_id),
        policy_service_pb2.ReplayDecisionResponse,
        Replay.from_proto,
    )


def set_generator_enabled(generator: str, enabled: bool) -> Call[tuple[str, ...]]:
    """Switch a generator off or on."""
    return Call(
        "/forage.v1.PolicyService/SetGeneratorEnabled",
        policy_service_pb2.SetGeneratorEnabledRequest(generator=generator, enabled=enabled),
        policy_service_pb2.SetGeneratorEnabledResponse,
        lambda response: tuple(response.disabled),
    )
