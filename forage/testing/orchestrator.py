"""A small orchestrator in memory, for testing clients: one generator, real answers, no log.

It keeps the promises of the public services that a client relies on: repeated request and event
ids change nothing, pages come from one list, errors are those of the real one.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, TypeAlias

import grpc
import yaml

from forage import wire
from forage.catalog import filters
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.catalog.validation import validate_item
from forage.errors import ForageError, InvalidArgumentError, NotFoundError
from forage.retrieval import Filter
from forage.v1 import (
    candidate_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    decision_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    generator_service_pb2,
    plan_pb2,
    policy_service_pb2,
    policy_service_pb2_grpc,
    ranker_service_pb2,
    search_service_pb2,
    search_service_pb2_grpc,
)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
LEVELS = (0, 10, 25)
GENERATOR = "titles"


class InMemoryOrchestrator(
    search_service_pb2_grpc.SearchServiceServicer,
    feedback_service_pb2_grpc.FeedbackServiceServicer,
    catalog_service_pb2_grpc.CatalogServiceServicer,
    policy_service_pb2_grpc.PolicyServiceServicer,
):
    """Finds the items whose title holds every word of the query."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.items: dict[str, Item] = {}
        self.sequence = 0
        self.lag = 0
        """How far the one projection is behind; status says so."""
        self.decisions: dict[str, decision_pb2.Decision] = {}
        self.responses: dict[str, search_service_pb2.SearchResponse] = {}
        self.events: dict[str, feedback_service_pb2.FeedbackEvent] = {}
        self.disabled: set[str] = set()
        self.calls: list[str] = []
        """The methods called, failures included."""
        self.failures: deque[ForageError] = deque()
        """The next calls fail with these, one each."""
        self.failure_after: ForageError | None = None
        """The next call does its work, and fails with this."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all four services."""
        search_service_pb2_grpc.add_SearchServiceServicer_to_server(self, server)
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(self, server)
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(self, server)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(self, server)

    def put(self, *items: Item) -> None:
        """Add or replace items directly."""
        for item in items:
            self.items[item.item_id] = item
            self.sequence += 1

    def _begin(self, method: str) -> None:
        self.calls.append(method)
        if self.failures:
            raise self.failures.popleft()

    def _end(self) -> None:
        failure, self.failure_after = self.failure_after, None
        if failure is not None:
            raise failure

    async def Search(
        self, request: search_service_pb2.SearchRequest, context: Context
    ) -> search_service_pb2.SearchResponse:
        """Search."""
        self._begin("Search")
        if not 0 <= request.page_size <= 100:
            raise InvalidArgumentError("page_size", str(request.page_size), allowed="0 to 100")
        if request.request_id not in self.responses:
            wanted = wire.filters_from_proto(request.filters)
            filters.validate(wanted, self.schema)
            self._decide(request, self._find(request.text, wanted))
        self._end()
        return self.responses[request.request_id]

    def _find(self, text: str, wanted: tuple[Filter, ...]) -> list[Item]:
        words = text.casefold().split()
        return [
            item
            for item in self.items.values()
            if filters.matches(item, wanted)
            and all(w in " ".join(item.texts(self.schema.title)).casefold() for w in words)
        ]

    def _decide(self, request: search_service_pb2.SearchRequest, found: list[Item]) -> None:
        start = int(request.page_token or 0)
        size = request.page_size or 10
        off = GENERATOR in self.disabled
        shown = [] if off else found[start : start + size]
        plan = _plan(request.policy or "static", off=off)
        outcome = plan_pb2.GeneratorOutcome(
            generator=GENERATOR,
            status=plan_pb2.OUTCOME_STATUS_MASKED if off else plan_pb2.OUTCOME_STATUS_ANSWERED,
            fan_out=25,
            returned=len(found),
            unique=len(found),
        )
        response = search_service_pb2.SearchResponse(
            request_id=request.request_id,
            results=[
                self._result(item, start + index, explain=request.explain)
                for index, item in enumerate(shown, start=1)
            ],
            next_page_token=str(start + size) if start + size < len(found) else "",
            total_candidates=len(found),
            outcomes=[outcome],
            plan=plan if request.explain else None,
        )
        for name in request.facets:
            response.facets.append(_facet(name, found))
        if request.group_by_kind:
            for kind in dict.fromkeys(item.kind for item in shown):
                group = response.groups.add(kind=kind)
                group.positions.extend(r.position for r in response.results if r.item.kind == kind)
        if off:
            response.degraded.add(component=GENERATOR, reason="DISABLED", detail="switched off")
        self.responses[request.request_id] = response
        self.decisions[request.request_id] = decision_pb2.Decision(
            request_id=request.request_id,
            time=wire.timestamp(time.time()),
            plan=plan,
            outcomes=[outcome],
            displayed=[
                decision_pb2.DisplayedItem(
                    item_id=r.item.item_id,
                    position=r.position,
                    score=r.score,
                    provenance=r.provenance,
                )
                for r in response.results
            ],
        )

    def _result(
        self, item: Item, position: int, *, explain: bool
    ) -> search_service_pb2.SearchResult:
        provenance = candidate_pb2.Provenance(
            generator=GENERATOR, score=1.0 / position, rank=position
        )
        contributions = []
        if explain:
            provenance.reasons.add(kind="field", detail="title")
            contributions = [ranker_service_pb2.Contribution(feature="titles.rank", value=0.5)]
        return search_service_pb2.SearchResult(
            item=wire.item_to_proto(item, self.schema),
            position=position,
            score=1.0 / position,
            provenance=[provenance],
            contributions=contributions,
        )

    async def RecordFeedback(
        self, request: feedback_service_pb2.RecordFeedbackRequest, context: Context
    ) -> feedback_service_pb2.RecordFeedbackResponse:
        """Record events once each."""
        self._begin("RecordFeedback")
        for event in request.events:
            decision = self._decision(event.request_id)
            if event.item_id not in [d.item_id for d in decision.displayed]:
                raise InvalidArgumentError(
                    "item_id", f"'{event.item_id}' was not shown", allowed="a result of the search"
                )
        new = [e for e in request.events if e.event_id not in self.events]
        self.events.update((e.event_id, e) for e in new)
        self._end()
        return feedback_service_pb2.RecordFeedbackResponse(
            recorded=len(new), duplicates=len(request.events) - len(new), sequence=len(self.events)
        )

    async def UpsertItems(
        self, request: catalog_service_pb2.UpsertItemsRequest, context: Context
    ) -> catalog_service_pb2.UpsertItemsResponse:
        """Add or replace items, all or none."""
        self._begin("UpsertItems")
        items = [wire.item_from_proto(message) for message in request.items]
        for item in items:
            validate_item(item, self.schema)
        self.put(*items)
        self._end()
        return catalog_service_pb2.UpsertItemsResponse(sequence=self.sequence)

    async def DeleteItems(
        self, request: catalog_service_pb2.DeleteItemsRequest, context: Context
    ) -> catalog_service_pb2.DeleteItemsResponse:
        """Remove items."""
        self._begin("DeleteItems")
        for item_id in request.item_ids:
            self.items.pop(item_id, None)
            self.sequence += 1
        return catalog_service_pb2.DeleteItemsResponse(sequence=self.sequence)

    async def GetItem(
        self, request: catalog_service_pb2.GetItemRequest, context: Context
    ) -> catalog_service_pb2.GetItemResponse:
        """Return one item."""
        self._begin("GetItem")
        item = self.items.get(request.item_id)
        if item is None:
            raise NotFoundError(f"there is no item '{request.item_id}'")
        return catalog_service_pb2.GetItemResponse(item=wire.item_to_proto(item, self.schema))

    async def GetSchema(
        self, request: catalog_service_pb2.GetSchemaRequest, context: Context
    ) -> catalog_service_pb2.GetSchemaResponse:
        """Return the schema."""
        self._begin("GetSchema")
        text = yaml.safe_dump(self.schema.model_dump(mode="json"), sort_keys=False)
        return catalog_service_pb2.GetSchemaResponse(yaml=text)

    async def GetIngestStatus(
        self, request: catalog_service_pb2.GetIngestStatusRequest, context: Context
    ) -> catalog_service_pb2.GetIngestStatusResponse:
        """Report one projection, and a service that cannot be reached while there is a lag."""
        self._begin("GetIngestStatus")
        status = generator_service_pb2.GetStatusResponse(
            service=GENERATOR, ready=not self.lag, resident_bytes=50 * 2**20
        )
        status.projections.add(
            name=GENERATOR,
            topic="catalog",
            applied_sequence=self.sequence - self.lag,
            head_sequence=self.sequence,
            entries=len(self.items),
        )
        response = catalog_service_pb2.GetIngestStatusResponse(catalog_head=self.sequence)
        response.services.add(service=GENERATOR, status=status)
        if self.lag:
            response.services.add(service="absent", error="UNAVAILABLE: connection refused")
        return response

    async def GetPolicy(
        self, request: policy_service_pb2.GetPolicyRequest, context: Context
    ) -> policy_service_pb2.GetPolicyResponse:
        """Report the static policy."""
        self._begin("GetPolicy")
        response = policy_service_pb2.GetPolicyResponse(
            traffic={"static": 1.0}, observations=len(self.events)
        )
        response.arms.add(generator=GENERATOR, enabled=GENERATOR not in self.disabled)
        return response

    async def GetDecision(
        self, request: policy_service_pb2.GetDecisionRequest, context: Context
    ) -> policy_service_pb2.GetDecisionResponse:
        """Return a search's record."""
        self._begin("GetDecision")
        return policy_service_pb2.GetDecisionResponse(decision=self._decision(request.request_id))

    async def ReplayDecision(
        self, request: policy_service_pb2.ReplayDecisionRequest, context: Context
    ) -> policy_service_pb2.ReplayDecisionResponse:
        """Decide again, as things are now."""
        self._begin("ReplayDecision")
        recorded = self._decision(request.request_id).plan
        replayed = _plan(recorded.policy, off=GENERATOR in self.disabled)
        return policy_service_pb2.ReplayDecisionResponse(
            recorded=recorded, replayed=replayed, identical=recorded == replayed
        )

    async def SetGeneratorEnabled(
        self, request: policy_service_pb2.SetGeneratorEnabledRequest, context: Context
    ) -> policy_service_pb2.SetGeneratorEnabledResponse:
        """Switch the one generator."""
        self._begin("SetGeneratorEnabled")
        if request.generator != GENERATOR:
            raise NotFoundError(f"there is no generator '{request.generator}'")
        (self.disabled.discard if request.enabled else self.disabled.add)(request.generator)
        return policy_service_pb2.SetGeneratorEnabledResponse(disabled=sorted(self.disabled))

    def _decision(self, request_id: str) -> decision_pb2.Decision:
        if request_id not in self.decisions:
            raise NotFoundError(f"there is no search '{request_id}'")
        return self.decisions[request_id]


def _plan(policy: str, *, off: bool) -> plan_pb2.Plan:
    call = plan_pb2.PlannedCall(
        generator=GENERATOR,
        fan_out=0 if off else 25,
        infeasible_reason="DISABLED" if off else "",
        fan_out_levels=LEVELS,
        hit_probabilities=(0.0, 0.5, 0.75),
        utilities=(0.0, 0.69, 1.39),
        costs=(0, 3, 4),
    )
    source = plan_pb2.PLAN_SOURCE_POLICY
    return plan_pb2.Plan(policy=policy, source=source, calls=[call], budget=26, cost=4)


def _facet(name: str, found: list[Item]) -> search_service_pb2.Facet:
    counts: dict[str, int] = {}
    for item in found:
        for value in (item.kind,) if name == "kind" else item.texts(name):
            counts[value] = counts.get(value, 0) + 1
    facet = search_service_pb2.Facet(attribute=name)
    for value, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        facet.counts.add(value=value, count=count)
    return facet
