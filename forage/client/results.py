"""What a search returns: thin immutable views of `forage.v1` messages, which stay at hand.

Each class is made by `from_proto`, and keeps the message that it was read from as `proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from forage import wire
from forage.catalog.item import Item
from forage.retrieval import Reason
from forage.v1 import candidate_pb2, plan_pb2, search_service_pb2


@dataclass(frozen=True, slots=True)
class Provenance:
    """One generator's proposal of an item."""

    generator: str
    rank: int
    """Position in the generator's list, from 1."""
    score: float
    """On the generator's own scale."""
    reasons: tuple[Reason, ...]
    """Only on `explain`."""
    proto: candidate_pb2.Provenance = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: candidate_pb2.Provenance) -> Provenance:
        """Read a message."""
        reasons = tuple(Reason(r.kind, r.detail, r.weight) for r in proto.reasons)
        return cls(proto.generator, proto.rank, proto.score, reasons, proto)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One result."""

    item: Item
    position: int
    """In the whole list, from 1."""
    score: float
    provenance: tuple[Provenance, ...]
    exploration_propensity: float
    """Probability with which an exploration slot showed it; 0 if the ranker placed it."""
    contributions: Mapping[str, float] = field(hash=False)
    """What each feature added to the score, largest size first. Only on `explain`."""
    proto: search_service_pb2.SearchResult = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: search_service_pb2.SearchResult) -> SearchResult:
        """Read a message."""
        return cls(
            wire.item_from_proto(proto.item),
            proto.position,
            proto.score,
            tuple(Provenance.from_proto(p) for p in proto.provenance),
            proto.exploration_propensity,
            {c.feature: c.value for c in proto.contributions},
            proto,
        )


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """The plan for one generator."""

    generator: str
    fan_out: int
    """How many candidates to ask for; 0: do not call."""
    infeasible_reason: str
    """Why it could not be chosen; empty if it could."""
    levels: tuple[int, ...]
    """The fan-outs to choose from; the next three are in their order."""
    hit_probabilities: tuple[float, ...]
    utilities: tuple[float, ...]
    costs: tuple[int, ...]
    proto: plan_pb2.PlannedCall = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: plan_pb2.PlannedCall) -> PlannedCall:
        """Read a message."""
        return cls(
            proto.generator,
            proto.fan_out,
            proto.infeasible_reason,
            tuple(proto.fan_out_levels),
            tuple(proto.hit_probabilities),
            tuple(proto.utilities),
            tuple(proto.costs),
            proto,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Which generators to call, with what fan-out, and how that was decided."""

    policy: str
    source: str
    """`policy`, `uniform`, `full`, `override` or `fallback`."""
    calls: tuple[PlannedCall, ...]
    snapshot_version: int
    budget: int
    cost: int
    proto: plan_pb2.Plan = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: plan_pb2.Plan) -> Plan:
        """Read a message."""
        return cls(
            proto.policy,
            _word(plan_pb2.PlanSource.Name(proto.source), "PLAN_SOURCE_"),
            tuple(PlannedCall.from_proto(c) for c in proto.calls),
            proto.snapshot_version,
            proto.budget,
            proto.cost,
            proto,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one generator in one search."""

    generator: str
    status: str
    """`answered`, `not_chosen`, `masked`, `timed_out` or `failed`."""
    fan_out: int
    returned: int
    unique: int
    """How many of those no other generator found."""
    latency_s: float
    detail: str
    proto: plan_pb2.GeneratorOutcome = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: plan_pb2.GeneratorOutcome) -> Outcome:
        """Read a message."""
        return cls(
            proto.generator,
            _word(plan_pb2.OutcomeStatus.Name(proto.status), "OUTCOME_STATUS_"),
            proto.fan_out,
            proto.returned,
            proto.unique,
            _seconds(proto.latency),
            proto.detail,
            proto,
        )


@dataclass(frozen=True, slots=True)
class Degradation:
    """Something that was missing from an answer."""

    component: str
    reason: str
    detail: str
    proto: plan_pb2.Degradation = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: plan_pb2.Degradation) -> Degradation:
        """Read a message."""
        return cls(proto.component, proto.reason, proto.detail, proto)


@dataclass(frozen=True, slots=True)
class Facet:
    """Counts of one attribute's values over the merged candidates."""

    attribute: str
    counts: Mapping[str, int] = field(hash=False)
    """Most frequent first."""
    proto: search_service_pb2.Facet = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: search_service_pb2.Facet) -> Facet:
        """Read a message."""
        return cls(proto.attribute, {c.value: c.count for c in proto.counts}, proto)


@dataclass(frozen=True, slots=True)
class ResultGroup:
    """The results of one kind."""

    kind: str
    positions: tuple[int, ...]
    """As in `SearchResult.position`, best first."""
    proto: search_service_pb2.ResultGroup = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: search_service_pb2.ResultGroup) -> ResultGroup:
        """Read a message."""
        return cls(proto.kind, tuple(proto.positions), proto)


@dataclass(frozen=True, slots=True)
class RelatedItem:
    """An item connected to several results."""

    item: Item
    attribute: str
    """What connects it, such as `director`."""
    count: int
    """To how many results of the page."""
    proto: search_service_pb2.RelatedItem = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: search_service_pb2.RelatedItem) -> RelatedItem:
        """Read a message."""
        return cls(wire.item_from_proto(proto.item), proto.attribute, proto.count, proto)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of the answer to a search. Iterating it yields the results."""

    request_id: str
    """Names this page in feedback, traces and `decision`."""
    trace_id: str
    """Hex; empty if the search was not traced."""
    results: tuple[SearchResult, ...]
    groups: tuple[ResultGroup, ...]
    next_page_token: str
    """Empty on the last page."""
    total_candidates: int
    facets: tuple[Facet, ...]
    outcomes: tuple[Outcome, ...]
    degraded: tuple[Degradation, ...]
    """Empty for a complete answer."""
    plan: Plan | None
    """Only on `explain`."""
    model_version: int
    """0: fused order."""
    related: tuple[RelatedItem, ...]
    latency_s: float
    stages: Mapping[str, float] = field(hash=False)
    """Seconds by stage."""
    proto: search_service_pb2.SearchResponse = field(repr=False, compare=False)
    """`proto.understood` tells how the query was read."""

    @classmethod
    def from_proto(cls, proto: search_service_pb2.SearchResponse) -> SearchPage:
        """Read a message."""
        return cls(
            request_id=proto.request_id,
            trace_id=proto.trace_id,
            results=tuple(SearchResult.from_proto(r) for r in proto.results),
            groups=tuple(ResultGroup.from_proto(g) for g in proto.groups),
            next_page_token=proto.next_page_token,
            total_candidates=proto.total_candidates,
            facets=tuple(Facet.from_proto(f) for f in proto.facets),
            outcomes=tuple(Outcome.from_proto(o) for o in proto.outcomes),
            degraded=tuple(Degradation.from_proto(d) for d in proto.degraded),
            plan=Plan.from_proto(proto.plan) if proto.HasField("plan") else None,
            model_version=proto.model_version,
            related=tuple(RelatedItem.from_proto(r) for r in proto.related),
            latency_s=_seconds(proto.latency),
            stages={name: _seconds(d) for name, d in sorted(proto.stages.items())},
            proto=proto,
        )

    def __iter__(self) -> Iterator[SearchResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
