"""Decisions and feedback as the orchestrator logs them, for the tests of its projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forage import wire
from forage.log import Event, Stream
from forage.retrieval import Query, UserContext
from forage.v1 import candidate_pb2, decision_pb2, feedback_service_pb2, plan_pb2
from orchestrator import planner
from orchestrator.bandit import Learner
from orchestrator.context import FEATURES
from orchestrator.learning import bandit_settings
from orchestrator.settings import OrchestratorSettings

NAMES = ("lexical", "semantic", "memory")
START = 1_790_000_000.0
ANSWERED = plan_pb2.OUTCOME_STATUS_ANSWERED
TIMED_OUT = plan_pb2.OUTCOME_STATUS_TIMED_OUT


def configured(**changes: Any) -> OrchestratorSettings:
    """Return settings of a mesh of three generators."""
    everyone = dict.fromkeys(NAMES, 10)
    plan = {"static": everyone, "presets": [everyone, {"lexical": 50}]}
    content = {
        "generators": {name: {"target": "127.0.0.1:1", "hit_rate": 0.4} for name in NAMES},
        **changes,
        "plan": {**plan, **changes.get("plan", {})},
    }
    return OrchestratorSettings.model_validate(content)


def prior(settings: OrchestratorSettings, version: int = 1) -> planner.Versioned:
    """Return the snapshot of a learner that has seen nothing."""
    return planner.Versioned.of(version, Learner(bandit_settings(settings)).snapshot())


def phi(seed: int = 0) -> np.ndarray:
    """Return a context for every generator."""
    values = np.random.default_rng(seed).random((len(NAMES), len(FEATURES)))
    values[:, 0] = 1.0
    return values


def shown(item_id: str, position: int, ranks: Mapping[str, int]) -> decision_pb2.DisplayedItem:
    """Return an item of the ranked list, with who found it at which rank."""
    provenance = [candidate_pb2.Provenance(generator=g, rank=r) for g, r in ranks.items()]
    return decision_pb2.DisplayedItem(item_id=item_id, position=position, provenance=provenance)


def decided(
    settings: OrchestratorSettings,
    request_id: str,
    *,
    at: float,
    policy: str = "static",
    text: str = "moon",
    user: str = "",
    statuses: Mapping[str, plan_pb2.OutcomeStatus.ValueType] | None = None,
    displayed: Sequence[decision_pb2.DisplayedItem] | None = None,
    latency_s: float = 0.02,
) -> decision_pb2.Decision:
    """Return the record of a search; everybody called answered unless `statuses` says otherwise."""
    planned = planner.Planner(settings).plan(
        phi(len(request_id)), {}, prior(settings), request_id=request_id, override=policy
    )
    query = Query(text=text, normalized=text, tokens=(text,), time=START + at)
    message = wire.query_to_proto(query)
    if user:
        message.user.user_id = UserContext(user).user_id
    decision = decision_pb2.Decision(
        request_id=request_id,
        time=wire.timestamp(START + at),
        query=message,
        plan=planner.to_message(planned, settings.plan.seed),
        displayed=[shown(f"item:{i}", i, {"lexical": i, "semantic": 11 - i}) for i in range(1, 6)]
        if displayed is None
        else displayed,
    )
    for name, fan_out in planned.choice.fan_outs.items():
        if fan_out:
            outcome = decision.outcomes.add(
                generator=name,
                fan_out=fan_out,
                status=(statuses or {}).get(name, ANSWERED),
                returned=fan_out // 2,
            )
            outcome.latency.FromNanoseconds(round(latency_s * 1e9))
    return decision


def page(root: decision_pb2.Decision, *, at: float, item_id: str) -> decision_pb2.Decision:
    """Return the record of a later page that showed one item at position 11."""
    return decision_pb2.Decision(
        request_id=f"{root.request_id}~10~10",
        time=wire.timestamp(START + at),
        query=root.query,
        root_request_id=root.request_id,
        displayed=[shown(item_id, 11, {"memory": 3})],
    )


def search(decision: decision_pb2.Decision) -> Event:
    """Return the log event of a search."""
    return Event(
        Stream.DECISIONS,
        decision.request_id,
        decision.SerializeToString(),
        wire.seconds(decision.time),
    )


def feedback(
    event_id: str, request_id: str, item_id: str, *, at: float, kind: int = 2, amount: float = 1.0
) -> Event:
    """Return the log event of feedback; a play unless `kind` says otherwise."""
    event = feedback_service_pb2.FeedbackEvent(
        event_id=event_id,
        request_id=request_id,
        item_id=item_id,
        kind=kind,  # type: ignore[arg-type]
        amount=amount,
        time=wire.timestamp(START + at),
    )
    return Event(Stream.FEEDBACK, event_id, event.SerializeToString(), START + at)
