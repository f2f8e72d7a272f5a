"""What happened in a search, as it is told: outcomes, degradations, spans and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace

from forage.telemetry import Attribute, Instruments
from forage.v1 import decision_pb2, plan_pb2, search_service_pb2
from orchestrator.fanout import Outcome
from orchestrator.fusion import Candidate, add_provenance
from orchestrator.planner import Planned
from orchestrator.ranking import Ranked
from orchestrator.slots import Placed

BUDGET_NARROWED = plan_pb2.Degradation(
    component="plan",
    reason="BUDGET_NARROWED",
    detail="the plan's budget was narrowed because many searches are in progress",
)
NOT_RECORDED = plan_pb2.Degradation(
    component="decision",
    reason="NOT_RECORDED",
    detail="the event log cannot be written; feedback for this search may be refused",
)
_REASONS = {
    plan_pb2.OUTCOME_STATUS_TIMED_OUT: "TIMED_OUT",
    plan_pb2.OUTCOME_STATUS_FAILED: "FAILED",
}


def degradations(found: Sequence[Outcome]) -> list[plan_pb2.Degradation]:
    """Return what was missing: generators that failed, and those that could not be called."""
    missing = []
    for outcome in found:
        reason = _REASONS.get(outcome.status, "")
        if outcome.status == plan_pb2.OUTCOME_STATUS_MASKED:
            reason = outcome.detail
        if reason:
            missing.append(
                plan_pb2.Degradation(
                    component=outcome.generator, reason=reason, detail=outcome.detail
                )
            )
    return missing


def not_chosen(found: Sequence[Outcome]) -> list[str]:
    """Return the generators that could have been called and were not."""
    return [o.generator for o in found if o.status == plan_pb2.OUTCOME_STATUS_NOT_CHOSEN]


def to_messages(
    found: Sequence[Outcome], unique: Mapping[str, int]
) -> list[plan_pb2.GeneratorOutcome]:
    """Convert outcomes for the answer and the decision record."""
    messages = []
    for outcome in found:
        message = plan_pb2.GeneratorOutcome(
            generator=outcome.generator,
            status=outcome.status,
            fan_out=outcome.fan_out,
            returned=len(outcome.hits),
            unique=unique.get(outcome.generator, 0),
            detail=outcome.detail,
            generator_version=outcome.version,
        )
        if outcome.fan_out:
            latency = Duration()
            latency.FromNanoseconds(round(outcome.latency_s * 1e9))
            message.latency.CopyFrom(latency)
        messages.append(message)
    return messages


def record_list(
    decision: decision_pb2.Decision, shown: Sequence[Placed], ranked: Ranked, page_size: int
) -> None:
    """Add the whole list to the decision in display order: the first page, then the rest."""
    for position, placed in enumerate(shown, start=1):
        item_id = placed.candidate.item_id
        displayed = position <= page_size
        added = (decision.displayed if displayed else decision.later).add(
            item_id=item_id,
            position=position,
            score=placed.score,
            features=ranked.features.get(item_id, ()) if displayed else (),
            exploration_propensity=placed.exploration_propensity,
        )
        add_provenance(added.provenance, placed.candidate.provenance)


def describe_plan(span: trace.Span, planned: Planned) -> None:
    """Put the plan on its span."""
    span.set_attribute(Attribute.POLICY, planned.policy)
    span.set_attribute(Attribute.PLAN_SOURCE, plan_source(planned.source))
    span.set_attribute(Attribute.SNAPSHOT_VERSION, planned.versioned.version)
    span.set_attribute(Attribute.COST, planned.choice.cost)
    span.set_attribute(Attribute.BUDGET, planned.context.budget)


def plan_source(source: plan_pb2.PlanSource.ValueType) -> str:
    """Return a plan source as a word, such as `uniform`."""
    return plan_pb2.PlanSource.Name(source).removeprefix("PLAN_SOURCE_").lower()


def add_reasons(
    response: search_service_pb2.SearchResponse, candidates: Sequence[Candidate]
) -> None:
    """Give the results the generators' reasons, which the record leaves out."""
    found = {c.item_id: c.provenance for c in candidates}
    for result in response.results:
        del result.provenance[:]
        add_provenance(result.provenance, found[result.item.item_id], reasons=True)


def count(
    instruments: Instruments, found: Sequence[Outcome], decision: decision_pb2.Decision
) -> None:
    """Record the metrics of one search."""
    candidates = len(decision.displayed) + len(decision.later)
    unique = {o.generator: o.unique for o in decision.outcomes}
    for outcome in found:
        instruments.fan_out(outcome.fan_out, generator=outcome.generator)
        if outcome.fan_out:
            instruments.arm_share(generator=outcome.generator, fan_out=outcome.fan_out)
        if outcome.answered:
            instruments.unique_finds(unique[outcome.generator], generator=outcome.generator)
    shared = candidates - sum(unique.values())
    instruments.overlap(shared / candidates if candidates else 0.0)
    for missing in decision.degraded:
        instruments.degraded(component=missing.component, reason=missing.reason)
