"""`forage.v1.PolicyService`."""

from __future__ import annotations

from statistics import median
from typing import Any

import grpc

from forage import wire
from forage.errors import FailedPreconditionError, NotFoundError
from forage.services import Runtime
from forage.v1 import decision_pb2
from forage.v1 import policy_service_pb2 as pb
from forage.v1 import policy_service_pb2_grpc as pb_grpc
from orchestrator.bandit.summary import expected_hit_rates, posterior_width
from orchestrator.history import HistoryProjection
from orchestrator.planner import replay
from orchestrator.recorder import Recorder
from orchestrator.settings import OrchestratorSettings
from orchestrator.snapshots import Snapshots
from orchestrator.switches import Switches

Context = grpc.aio.ServicerContext[Any, Any]


class PolicyServicer(pb_grpc.PolicyServiceServicer):
    """Shows, replays and switches."""

    def __init__(
        self,
        runtime: Runtime,
        settings: OrchestratorSettings,
        snapshots: Snapshots,
        history: HistoryProjection,
        recorder: Recorder,
        switches: Switches,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._snapshots = snapshots
        self._history = history
        self._recorder = recorder
        self._switches = switches

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: Context
    ) -> pb.GetPolicyResponse:
        """Summarise the snapshot in use and what has been chosen lately."""
        versioned = self._snapshots.current
        snapshot = versioned.snapshot
        searches, arms = self._history.arms(tuple(self._settings.generators))
        width = posterior_width(snapshot.hazard)
        hit_rate = expected_hit_rates(snapshot.hazard)
        response = pb.GetPolicyResponse(
            traffic=self._settings.plan.split().shares(),
            snapshot_version=versioned.version,
            observations=int(snapshot.hazard.labels.sum()),
            recent_searches=searches,
        )
        if versioned.version:
            response.snapshot_time.CopyFrom(wire.timestamp(snapshot.created))
        if versioned.fallback:
            response.fallback_reason = f"doing worse than {versioned.fallback}, which took over"
        for name, arm in arms.items():
            known = name in snapshot.generators
            response.arms.add(
                generator=name,
                enabled=name not in self._switches.disabled,
                call_share=arm.calls / searches if searches else 0.0,
                mean_fan_out=arm.fan_out / arm.calls if arm.calls else 0.0,
                hit_share=arm.found / arm.engaged if arm.engaged else 0.0,
                hit_probability=hit_rate.get(name, 0.0),
                posterior_width=width.get(name, 0.0),
                latency_ms=median(arm.latencies) * 1000 if arm.latencies else 0.0,
                labels=int(snapshot.hazard.labels[snapshot.generators.index(name)].sum())
                if known
                else 0,
            )
        return response

    async def GetDecision(
        self, request: pb.GetDecisionRequest, context: Context
    ) -> pb.GetDecisionResponse:
        """Return a decision as recorded."""
        return pb.GetDecisionResponse(decision=await self._decision(request.request_id))

    async def ReplayDecision(
        self, request: pb.ReplayDecisionRequest, context: Context
    ) -> pb.ReplayDecisionResponse:
        """Decide again from the record and compare."""
        decision = await self._decision(request.request_id)
        if decision.root_request_id:
            decision = await self._decision(decision.root_request_id)
        plan = decision.plan
        versioned = await self._runtime.in_thread(self._snapshots.version, plan.snapshot_version)
        if plan.policy not in versioned.policies:
            raise FailedPreconditionError(
                f"the policy '{plan.policy}' is no longer configured, and no snapshot holds it"
            )
        again = replay(plan, decision.request_id, versioned)
        return pb.ReplayDecisionResponse(recorded=plan, replayed=again, identical=again == plan)

    async def SetGeneratorEnabled(
        self, request: pb.SetGeneratorEnabledRequest, context: Context
    ) -> pb.SetGeneratorEnabledResponse:
        """Switch a generator."""
        await self._runtime.in_thread(
            self._switches.switch, request.generator, enabled=request.enabled
        )
        return pb.SetGeneratorEnabledResponse(disabled=sorted(self._switches.disabled))

    async def _decision(self, request_id: str) -> decision_pb2.Decision:
        decision = await self._recorder.find(request_id)
        if decision is None:
            raise NotFoundError(
                f"request_id: there is no search '{request_id[:256]}'",
                metadata={"field": "request_id"},
            )
        return decision
