"""Log events of searches and of what users did, as tests append them."""

from __future__ import annotations

from collections.abc import Sequence

from forage.log import Event, Stream
from forage.retrieval import Query
from forage.v1 import decision_pb2
from forage.v1 import feedback_service_pb2 as feedback_pb2
from forage.wire import query_to_proto, timestamp


def decision(request_id: str, query: Query, shown: Sequence[str], *, time: float) -> Event:
    """Return the event of a search that showed items at positions 1, 2, ..."""
    record = decision_pb2.Decision(
        request_id=request_id,
        time=timestamp(time),
        query=query_to_proto(query),
        displayed=[
            decision_pb2.DisplayedItem(item_id=item_id, position=position)
            for position, item_id in enumerate(shown, 1)
        ],
    )
    return Event(Stream.DECISIONS, request_id, record.SerializeToString(), time)


def feedback(
    event_id: str, request_id: str, item_id: str, *, time: float, kind: str = "click"
) -> Event:
    """Return the event of a user's act: `click`, `play`, `like`, `skip` or `dislike`."""
    record = feedback_pb2.FeedbackEvent(
        event_id=event_id,
        request_id=request_id,
        item_id=item_id,
        kind=feedback_pb2.FeedbackKind.Value(f"FEEDBACK_KIND_{kind.upper()}"),
        time=timestamp(time),
    )
    return Event(Stream.FEEDBACK, event_id, record.SerializeToString(), time)
