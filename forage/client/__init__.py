"""The Python client of Forage: `Client` and `AsyncClient`, with the same names and arguments.

    with Client("127.0.0.1:7100") as client:
        page = client.search("tom hanks comedy", page_size=5)
        client.record_feedback(page.request_id, page.results[0].item.item_id, "click")

Every call ends within a deadline, and every failure is a class of `forage.errors`; a server that
could not be reached at all is an `UnreachableError`. Calls that may safely be repeated are, until
the deadline: searches and feedback carry ids made here, writes replace whole items.
"""

from __future__ import annotations

from forage.client.aio import AsyncClient
from forage.client.attempts import Retry, UnreachableError
from forage.client.calls import Feedback, FeedbackKind, SearchOptions
from forage.client.results import (
    Degradation,
    Facet,
    Outcome,
    Plan,
    PlannedCall,
    Provenance,
    RelatedItem,
    ResultGroup,
    SearchPage,
    SearchResult,
)
from forage.client.state import (
    Decision,
    FeedbackReceipt,
    IngestStatus,
    PolicyState,
    Replay,
    ServiceStatus,
)
from forage.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Decision",
    "Degradation",
    "Facet",
    "Feedback",
    "FeedbackKind",
    "FeedbackReceipt",
    "IngestStatus",
    "Outcome",
    "Plan",
    "PlannedCall",
    "PolicyState",
    "Provenance",
    "RelatedItem",
    "Replay",
    "ResultGroup",
    "Retry",
    "SearchOptions",
    "SearchPage",
    "SearchResult",
    "ServiceStatus",
    "UnreachableError",
]
