"""What the client returns besides searches: receipts, decisions, the policy, and ingest status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forage import wire
from forage.client.results import Degradation, Outcome, Plan
from forage.v1 import (
    catalog_service_pb2,
    decision_pb2,
    feedback_service_pb2,
    generator_service_pb2,
    policy_service_pb2,
)


@dataclass(frozen=True, slots=True)
class FeedbackReceipt:
    """What became of the events."""

    event_ids: tuple[str, ...]
    """Of the events sent; send them again with these ids and nothing is counted twice."""
    recorded: int
    duplicates: int
    sequence: int
    """In the log's `interactions` topic."""
    proto: feedback_service_pb2.RecordFeedbackResponse = field(repr=False, compare=False)

    @classmethod
    def from_proto(
        cls, proto: feedback_service_pb2.RecordFeedbackResponse, event_ids: tuple[str, ...]
    ) -> FeedbackReceipt:
        """Read a message; the ids are those of the request."""
        return cls(event_ids, proto.recorded, proto.duplicates, proto.sequence, proto)


@dataclass(frozen=True, slots=True)
class Decision:
    """The record of one search: what was decided, executed and shown."""

    request_id: str
    time: float
    """Seconds since the epoch."""
    plan: Plan
    outcomes: tuple[Outcome, ...]
    propensity: float
    """Estimated probability of the plan, in (0, 1); 0: not computed."""
    displayed: tuple[str, ...]
    """Item ids in display order; `proto.displayed` has scores, provenance and features."""
    root_request_id: str
    """For a later page: the first page's request id, whose record has the plan. Else empty."""
    model_version: int
    trace_id: str
    degraded: tuple[Degradation, ...]
    proto: decision_pb2.Decision = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: decision_pb2.Decision) -> Decision:
        """Read a message."""
        return cls(
            proto.request_id,
            wire.seconds(proto.time),
            Plan.from_proto(proto.plan),
            tuple(Outcome.from_proto(o) for o in proto.outcomes),
            proto.propensity,
            tuple(d.item_id for d in proto.displayed),
            proto.root_request_id,
            proto.model_version,
            proto.trace_id,
            tuple(Degradation.from_proto(d) for d in proto.degraded),
            proto,
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded decision, decided again from its record."""

    recorded: Plan
    replayed: Plan
    identical: bool
    """Whether the two are equal, sampled utilities included."""
    proto: policy_service_pb2.ReplayDecisionResponse = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: policy_service_pb2.ReplayDecisionResponse) -> Replay:
        """Read a message."""
        recorded, replayed = Plan.from_proto(proto.recorded), Plan.from_proto(proto.replayed)
        return cls(recorded, replayed, proto.identical, proto)


@dataclass(frozen=True, slots=True)
class PolicyState:
    """The policy in use; `proto.arms` has what each generator has done lately."""

    traffic: Mapping[str, float] = field(hash=False)
    """Share of each policy; sums to 1."""
    snapshot_version: int
    """0: the prior."""
    snapshot_time: float
    """Seconds since the epoch; 0 for the prior."""
    observations: int
    fallback_reason: str
    """Why the learned policy is set aside; empty: it is not."""
    recent_searches: int
    """How many searches `arms` summarises."""
    arms: tuple[policy_service_pb2.ArmStatistics, ...] = field(hash=False)
    proto: policy_service_pb2.GetPolicyResponse = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: policy_service_pb2.GetPolicyResponse) -> PolicyState:
        """Read a message."""
        return cls(
            dict(sorted(proto.traffic.items())),
            proto.snapshot_version,
            wire.seconds(proto.snapshot_time),
            proto.observations,
            proto.fallback_reason,
            proto.recent_searches,
            tuple(proto.arms),
            proto,
        )


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service's report, or why there is none."""

    service: str
    ready: bool
    resident_bytes: int
    projections: tuple[generator_service_pb2.ProjectionStatus, ...] = field(hash=False)
    error: str
    """Why it could not be reached; empty if it could."""
    proto: catalog_service_pb2.ServiceStatus = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: catalog_service_pb2.ServiceStatus) -> ServiceStatus:
        """Read a message."""
        status = proto.status
        projections = tuple(status.projections)
        return cls(
            proto.service, status.ready, status.resident_bytes, projections, proto.error, proto
        )

    @property
    def lag(self) -> int:
        """Records that the slowest projection has yet to apply."""
        return max((p.head_sequence - p.applied_sequence for p in self.projections), default=0)


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """How far every service has followed the log."""

    catalog_head: int
    interactions_head: int
    services: tuple[ServiceStatus, ...]
    proto: catalog_service_pb2.GetIngestStatusResponse = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, proto: catalog_service_pb2.GetIngestStatusResponse) -> IngestStatus:
        """Read a message."""
        services = tuple(ServiceStatus.from_proto(s) for s in proto.services)
        return cls(proto.catalog_head, proto.interactions_head, services, proto)

    def behind(self, sequence: int) -> dict[str, int]:
        """Return the applied sequence of all that has not reached a catalog sequence.

        By projection name, or by service name (and -1) for a service that cannot be reached.
        """
        found: dict[str, int] = {}
        for service in self.services:
            if service.error:
                found[service.service] = -1
            for projection in service.projections:
                if projection.topic == "catalog" and projection.applied_sequence < sequence:
                    found[projection.name] = projection.applied_sequence
        return found
