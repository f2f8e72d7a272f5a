"""The name of every span, attribute and metric of Forage.

`docs/telemetry.md` lists the same names and a test compares the two. Query text, user ids and
item ids are never recorded: traces outlive requests and leave the machine.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Self


class Span(StrEnum):
    """Every span that Forage itself opens; calls are named after their method."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        """Make a member that is its name and knows what it stands for."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    UNDERSTAND = "understand", "Orchestrator: the query is read into weighted interpretations."
    PLAN = "plan", "Orchestrator: the policy chooses generators and fan-outs."
    FAN_OUT = "fan_out", "Orchestrator: the chosen generators are called in parallel."
    FUSE = "fuse", "Orchestrator: the lists are merged and keep their provenance."
    RANK = "rank", "Orchestrator: the merged set is ordered by the ranker, or by fusion."
    ANSWER = "answer", "Orchestrator: page, facets and related entities are put together."
    RECORD = "record", "Orchestrator: the decision is handed to the event log."
    RETRIEVE = "retrieve", "Generator: the retriever looks in its index."
    FEATURES = "features", "Ranker: the feature matrix is filled."
    PREDICT = "predict", "Ranker: the model scores the matrix."
    LEARN = "learn", "Learner: feedback is credited and the posterior updated."
    RECORD_FEEDBACK = "record_feedback", "Feedback is checked and appended; links to its search."


class Attribute(StrEnum):
    """Every attribute that Forage puts on spans and metrics, besides the standard `rpc.*`."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        """Make a member that is its key and knows what it stands for."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    REQUEST_ID = "forage.request_id", "The search's id; `forage trace` finds a trace by it."
    QUERY_CLASS = "forage.query_class", "navigational, topical, browse or empty."
    QUERY_LENGTH = "forage.query_length", "Characters in the query; never its text."
    POLICY = "forage.policy", "The policy that chose the plan, such as `thompson`."
    PLAN_SOURCE = "forage.plan_source", "Plan source: policy, uniform, full, override or fallback."
    SNAPSHOT_VERSION = "forage.snapshot_version", "The policy snapshot that was sampled."
    GENERATOR = "forage.generator", "A generator's registered name."
    FAN_OUT = "forage.fan_out", "Candidates asked of one generator; a level of the plan."
    RETURNED = "forage.returned", "Candidates that came back."
    UNIQUE = "forage.unique", "Candidates that no other generator returned."
    OUTCOME = "forage.outcome", "How a call or an event ended, such as answered or timed_out."
    DEGRADED = "forage.degraded", "Whether something was missing from the answer."
    CANDIDATES = "forage.candidates", "Candidates after fusion, or rows that were scored."
    MODEL_VERSION = "forage.model_version", "The ranker's model; 0 is the fused order."
    PAGE_SIZE = "forage.page_size", "Items the page may show."
    COST = "forage.cost", "What the plan spends, in units of the budget."
    BUDGET = "forage.budget", "What the plan was allowed to spend."
    CATALOG_SEQUENCE = "forage.catalog_sequence", "The catalog position an index had reached."
    SCANNED = "forage.scanned", "Items or edges a retriever looked at."
    PROPENSITY = "forage.propensity", "Probability of the plan under its policy, in (0, 1]."
    STAGE = "forage.stage", "A stage of a search: the name of its span, or `total`."
    COMPONENT = "forage.component", "What was missing or slow: a generator's name or `ranker`."
    REASON = "forage.reason", "Why, from a closed set."
    PROJECTION = "forage.projection", "A projection's name."
    FEEDBACK_KIND = "forage.feedback_kind", "The kind of a feedback event, such as click."
    ERROR_TYPE = "error.type", "The class of the exception that ended a span."


class Kind(Enum):
    """How a metric aggregates."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.04, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COUNTS = (0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0)
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metric(StrEnum):
    """Every metric of Forage: name, kind, unit (UCUM), labels, meaning and bucket bounds."""

    kind: Kind
    unit: str
    labels: tuple[str, ...]
    description: str
    bounds: tuple[float, ...]

    def __new__(
        cls,
        value: str,
        kind: Kind,
        unit: str,
        labels: tuple[str, ...],
        description: str,
        bounds: tuple[float, ...] = (),
    ) -> Self:
        """Make a member that is its name and knows how it is recorded."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.kind = kind
        member.unit = unit
        member.labels = labels
        member.description = description
        member.bounds = bounds
        return member

    CALL_DURATION = (
        "rpc.server.call.duration",
        Kind.HISTOGRAM,
        "s",
        ("rpc.method", "rpc.grpc.status_code"),
        "Time to answer a call: rate, errors and duration of every service.",
        _SECONDS,
    )
    ARM_SHARE = (
        "forage.arm.share",
        Kind.COUNTER,
        "{call}",
        (Attribute.GENERATOR, Attribute.FAN_OUT),
        "Calls the policy chose, by generator and fan-out.",
    )
    FAN_OUT = (
        "forage.fan_out",
        Kind.HISTOGRAM,
        "{candidate}",
        (Attribute.GENERATOR,),
        "Candidates asked of a generator per search, 0 if it was not called.",
        _COUNTS,
    )
    REWARD = (
        "forage.reward",
        Kind.HISTOGRAM,
        "1",
        (Attribute.POLICY,),
        "Reward credited to a decision, in [0, 1].",
        _SHARES,
    )
    UNIQUE_FINDS = (
        "forage.unique_finds",
        Kind.HISTOGRAM,
        "{candidate}",
        (Attribute.GENERATOR,),
        "Candidates of a search that only this generator returned.",
        _COUNTS,
    )
    OVERLAP = (
        "forage.overlap",
        Kind.HISTOGRAM,
        "1",
        (),
        "Share of a search's candidates that more than one generator returned.",
        _SHARES,
    )
    POSTERIOR_WIDTH = (
        "forage.posterior.width",
        Kind.GAUGE,
        "1",
        (Attribute.GENERATOR,),
        "Mean standard deviation of the generator's weights.",
    )
    PROPENSITY_ESS = (
        "forage.propensity.ess",
        Kind.GAUGE,
        "{decision}",
        (),
        "Effective sample size of the importance weights of recent decisions.",
    )
    REGRET_PROXY = (
        "forage.regret_proxy",
        Kind.HISTOGRAM,
        "1",
        (Attribute.POLICY,),
        "Utility, under the posterior mean, of the best feasible plan minus the chosen one's.",
        _SHARES,
    )
    PROJECTION_LAG = (
        "forage.projection.lag",
        Kind.GAUGE,
        "{record}",
        (Attribute.PROJECTION,),
        "Log records that a projection has not applied yet.",
    )
    SEARCH_LATENCY = (
        "forage.search.latency",
        Kind.HISTOGRAM,
        "s",
        (Attribute.STAGE,),
        "Time per stage of a search.",
        _SECONDS,
    )
    DEGRADED = (
        "forage.degraded",
        Kind.COUNTER,
        "{search}",
        (Attribute.COMPONENT, Attribute.REASON),
        "Searches answered without a component.",
    )
    BREAKER_STATE = (
        "forage.breaker.state",
        Kind.GAUGE,
        "1",
        (Attribute.GENERATOR,),
        "0 closed, 1 half open, 2 open.",
    )
    HEDGED = (
        "forage.hedged",
        Kind.COUNTER,
        "{call}",
        (Attribute.COMPONENT, Attribute.OUTCOME),
        "Slow calls made again to another replica: won, lost, or failed if neither answered.",
    )
    DECISIONS_RECORDED = (
        "forage.decisions.recorded",
        Kind.COUNTER,
        "{decision}",
        (),
        "Decisions appended to the event log.",
    )
    FEEDBACK_EVENTS = (
        "forage.feedback.events",
        Kind.COUNTER,
        "{event}",
        (Attribute.FEEDBACK_KIND, Attribute.OUTCOME),
        "Feedback events, by kind and by what became of them.",
    )
    SPANS_DROPPED = (
        "forage.spans.dropped",
        Kind.COUNTER,
        "{span}",
        (Attribute.REASON,),
        "Spans lost because the queue was full (queue_full) or the export failed (export_failed).",
    )
