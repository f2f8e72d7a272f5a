"""One search, from words to answer. Read `Pipeline.search` and you have read the design."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from opentelemetry import trace

from forage import wire
from forage.errors import NotFoundError, StorageError, UnavailableError
from forage.retrieval import Deadline, Query
from forage.services import Runtime
from forage.telemetry import Attribute, Span
from forage.v1 import decision_pb2, query_pb2, search_service_pb2
from orchestrator import context, fusion, outcomes, slots, validation
from orchestrator.answer import Answers
from orchestrator.bandit import derive_rng
from orchestrator.fanout import FanOut, Outcome
from orchestrator.history import HistoryProjection
from orchestrator.index import CatalogProjection
from orchestrator.load import Load
from orchestrator.paging import PageToken, digest_of
from orchestrator.planner import Planned, Planner, to_message
from orchestrator.ranking import Ranked, Ranking
from orchestrator.recorder import Recorder
from orchestrator.settings import OrchestratorSettings
from orchestrator.snapshots import Snapshots
from orchestrator.stages import Stages
from orchestrator.switches import Mask
from orchestrator.understanding import Understanding

Request = search_service_pb2.SearchRequest
Response = search_service_pb2.SearchResponse
_RANK_RESERVE_S = 0.02
_ANSWER_RESERVE_S = 0.005
_RESCUE_S = 0.01
_REPEAT_S = 0.25


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a search needs, assembled once."""

    settings: OrchestratorSettings
    runtime: Runtime
    catalog: CatalogProjection
    history: HistoryProjection
    understanding: Understanding
    snapshots: Snapshots
    planner: Planner
    mask: Mask
    fan_out: FanOut
    ranking: Ranking
    recorder: Recorder
    load: Load


class Pipeline:
    """Runs searches, many at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._answers = Answers(parts.catalog.view, parts.runtime.schema)

    async def search(self, request: Request, deadline: Deadline) -> Response:
        """Understand, plan, fan out, fuse, rank, answer; then record."""
        parts = self._parts
        stages = Stages(parts.runtime.telemetry.tracer, parts.runtime.telemetry.instruments)
        origin = trace.get_current_span().get_span_context()
        with stages.stage(Span.UNDERSTAND) as span:
            query = self._understand(request)
            span.set_attribute(Attribute.QUERY_CLASS, query.query_class)
            span.set_attribute(Attribute.QUERY_LENGTH, len(query.text))
        with stages.stage(Span.PLAN) as span:
            planned = self._plan(query, request, deadline)
            outcomes.describe_plan(span, planned)
        message = wire.query_to_proto(query)
        with stages.stage(Span.FAN_OUT):
            found = await self._fan_out(planned, message, query, request, deadline)
        with stages.stage(Span.FUSE) as span:
            candidates = self._answers.admissible(self._fuse(planned, found), query.filters)
            span.set_attribute(Attribute.CANDIDATES, len(candidates))
        with stages.stage(Span.RANK) as span:
            ranked = await parts.ranking.rank(
                candidates,
                message,
                found,
                deadline,
                query.request_id,
                page_size=request.page_size or self._settings.page_size,
                explain=request.explain,
            )
            span.set_attribute(Attribute.MODEL_VERSION, ranked.model_version)
        with stages.stage(Span.ANSWER):
            shown = self._place(ranked, query, request)
            decision = self._decide(message, planned, found, ranked, shown, request, query)
            _trace(decision, origin)
            response = self._respond(request, decision, ranked)
            outcomes.add_reasons(response, candidates)
        decision.latency.CopyFrom(_duration(stages.finish()))
        response.latency.CopyFrom(decision.latency)
        for name, seconds in stages.seconds.items():
            response.stages[name].CopyFrom(_duration(seconds))
        parts.recorder.submit(decision, planned)
        outcomes.count(parts.runtime.telemetry.instruments, found, decision)
        return response

    async def page(self, request: Request) -> Response:
        """Return a later page of a search that has been decided: the same list, further on."""
        stages = Stages(
            self._parts.runtime.telemetry.tracer, self._parts.runtime.telemetry.instruments
        )
        validation.check(request, self._parts.runtime.schema, self._settings)
        token = PageToken.decode(request.page_token, request)
        root = await self._parts.recorder.find_soon(token.request_id)
        if root is None:
            raise NotFoundError(f"page_token: the search '{token.request_id}' is not recorded")
        size = request.page_size or self._settings.page_size
        start = token.offset - len(root.displayed)
        page = decision_pb2.Decision(
            request_id=f"{root.request_id}~{token.offset}~{size}",
            time=wire.timestamp(time.time()),
            query=root.query,
            displayed=self._answers.present(root.later[max(start, 0) : max(start, 0) + size]),
            root_request_id=root.request_id,
            model_version=root.model_version,
            feature_version=root.feature_version,
        )
        _trace(page, trace.get_current_span().get_span_context())
        total = len(root.displayed) + len(root.later)
        response = Response(
            request_id=page.request_id,
            trace_id=page.trace_id,
            results=self._answers.results(page.displayed, {}),
            total_candidates=total,
            facets=self._facets(request, root),
            outcomes=root.outcomes,
            degraded=root.degraded,
            understood=root.query,
            model_version=root.model_version,
        )
        if token.offset + size < total:
            following = PageToken(token.request_id, token.offset + size, token.digest)
            response.next_page_token = following.encode()
        if request.group_by_kind:
            response.groups.extend(self._answers.groups(response.results))
        page.latency.CopyFrom(_duration(stages.finish()))
        response.latency.CopyFrom(page.latency)
        self._parts.recorder.submit(page, None)
        return response

    async def repeat(self, request: Request) -> Response | None:
        """Return the answer already given under the request's id; None if there is none."""
        validation.check(request, self._parts.runtime.schema, self._settings)
        try:
            async with asyncio.timeout(_REPEAT_S):
                decision = await self._parts.recorder.find(request.request_id)
        except (StorageError, TimeoutError):
            # Better answered anew than not at all while the log is away.
            return None
        if decision is None:
            return None
        response = self._respond(request, decision, Ranked([]))
        response.latency.CopyFrom(decision.latency)
        return response

    def _understand(self, request: Request) -> Query:
        filters = validation.check(request, self._parts.runtime.schema, self._settings)
        for item_id in request.like_item_ids:
            if item_id not in self._parts.catalog.view:
                raise NotFoundError(
                    f"like_item_ids: there is no item '{item_id[:256]}'",
                    metadata={"field": "like_item_ids", "item_id": item_id[:256]},
                )
        request_id = request.request_id or secrets.token_urlsafe(12)
        rng = derive_rng(self._settings.plan.seed, request_id, "generators")
        return self._parts.understanding.understand(
            request.text,
            filters=filters,
            user=self._parts.history.with_history(wire.user_from_proto(request.user)),
            like_item_ids=tuple(request.like_item_ids),
            locale=request.locale,
            device=request.device,
            time=time.time(),
            request_id=request_id,
            seed=int(rng.integers(2**63)),
        )

    def _plan(self, query: Query, request: Request, deadline: Deadline) -> Planned:
        parts = self._parts
        phi = context.features(
            query,
            tuple(self._settings.generators),
            parts.history,
            title=parts.runtime.schema.title,
        )
        return parts.planner.plan(
            phi,
            parts.mask.masked(parts.history, query, deadline),
            parts.snapshots.current,
            request_id=query.request_id,
            budget_share=parts.load.budget_share,
            override=request.policy,
        )

    async def _fan_out(
        self,
        planned: Planned,
        message: query_pb2.Query,
        query: Query,
        request: Request,
        deadline: Deadline,
    ) -> list[Outcome]:
        earlier = deadline.earlier(_RANK_RESERVE_S + _ANSWER_RESERVE_S)

        async def call(fan_outs: Mapping[str, int]) -> list[Outcome]:
            return await self._parts.fan_out.call(
                fan_outs,
                planned.context.reasons,
                message,
                earlier,
                request_id=query.request_id,
                seed=query.seed,
                min_catalog_sequence=request.min_catalog_sequence,
                explain=request.explain,
            )

        found = await call(planned.choice.fan_outs)
        others = outcomes.not_chosen(found)
        if not any(o.hits for o in found) and others and earlier.remaining() > _RESCUE_S:
            # Those who were asked are gone or found nothing; the others may save the search.
            rescue = await call(dict.fromkeys(others, self._settings.plan.fan_outs[1]))
            found = [new if new.fan_out else old for old, new in zip(found, rescue, strict=True)]
        if not any(outcome.answered for outcome in found):
            details = "; ".join(f"{o.generator}: {o.detail}" for o in found if o.detail)
            raise UnavailableError(f"no generator answered: {details}")
        return found

    def _fuse(self, planned: Planned, found: list[Outcome]) -> list[fusion.Candidate]:
        hits = {o.generator: o.hits for o in found if o.answered}
        weights = self._parts.planner.weights(planned)
        return fusion.fuse(hits, weights, k=self._settings.fusion_k)

    def _place(self, ranked: Ranked, query: Query, request: Request) -> list[slots.Placed]:
        settings = self._settings.slots
        allowed = len(settings.positions)
        if query.user.user_id:
            used = self._parts.history.explored_today(query.user.user_id, query.time)
            allowed = max(0, settings.user_budget_per_day - used)
        return slots.reserve(
            ranked.items,
            settings,
            page_size=request.page_size or self._settings.page_size,
            allowed=allowed,
            rng=derive_rng(self._settings.plan.seed, query.request_id, slots.SLOTS),
        )

    def _decide(
        self,
        message: query_pb2.Query,
        planned: Planned,
        found: list[Outcome],
        ranked: Ranked,
        shown: list[slots.Placed],
        request: Request,
        query: Query,
    ) -> decision_pb2.Decision:
        degraded = [*outcomes.degradations(found), *ranked.degraded]
        unique = fusion.unique_finds([placed.candidate for placed in shown])
        if planned.budget_share < 1.0:
            degraded.append(outcomes.BUDGET_NARROWED)
        if self._parts.recorder.failing:
            degraded.append(outcomes.NOT_RECORDED)
        decision = decision_pb2.Decision(
            request_id=query.request_id,
            time=message.time,
            query=message,
            plan=to_message(planned, self._settings.plan.seed),
            outcomes=outcomes.to_messages(found, unique),
            feature_names=ranked.feature_names,
            feature_version=ranked.feature_version,
            model_version=ranked.model_version,
            degraded=degraded,
        )
        outcomes.record_list(decision, shown, ranked, request.page_size or self._settings.page_size)
        return decision

    def _respond(
        self,
        request: Request,
        decision: decision_pb2.Decision,
        ranked: Ranked,
    ) -> Response:
        response = Response(
            request_id=decision.request_id,
            trace_id=decision.trace_id,
            results=self._answers.results(decision.displayed, ranked.contributions),
            total_candidates=len(decision.displayed) + len(decision.later),
            facets=self._facets(request, decision),
            outcomes=decision.outcomes,
            degraded=decision.degraded,
            understood=decision.query,
            model_version=decision.model_version,
        )
        if decision.later:
            offset = len(decision.displayed)
            token = PageToken(decision.request_id, offset, digest_of(request))
            response.next_page_token = token.encode()
        if request.group_by_kind:
            response.groups.extend(self._answers.groups(response.results))
        response.related.extend(self._answers.related(response.results))
        if request.explain:
            response.plan.CopyFrom(decision.plan)
        return response

    def _facets(
        self, request: Request, decision: decision_pb2.Decision
    ) -> list[search_service_pb2.Facet]:
        if not request.facets:
            return []
        item_ids = [d.item_id for d in (*decision.displayed, *decision.later)]
        return self._answers.facets(request.facets, item_ids)


def _trace(decision: decision_pb2.Decision, origin: trace.SpanContext) -> None:
    """Note the server's span of the search, to which the trace of its feedback will link."""
    if origin.is_valid and origin.trace_flags.sampled:
        decision.trace_id = f"{origin.trace_id:032x}"
        decision.span_id = f"{origin.span_id:016x}"


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
