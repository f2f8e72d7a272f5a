"""The targets of the simulation, each with its figure, its interval, and whether it is met."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Interval, difference_interval, mean_interval
from evaluation.simulation.building import Built
from evaluation.simulation.comparison import (
    BEST_MIX,
    BEST_PLAN,
    CONTEXTUAL,
    EVERYTHING,
    LEARNED,
    ORACLE,
    Comparison,
    clustered,
)
from evaluation.simulation.drift import Recovery
from evaluation.simulation.replay import Trace

Floats = NDArray[np.float64]
PEERS = ("lints", "mabwiser linucb", "mabwiser lints", "vw squarecb", "vw epsilon")
_RECOVERY = 1_500
WITHIN = 3_000
"""Searches within which twenty new items are to have ten impressions each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure against its target."""

    what: str
    value: float
    low: float
    high: float
    target: str
    met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One contender over the last half of the requests."""

    contender: str
    ndcg: float
    reward: float
    net: float
    cost: float
    """As a share of call-everything's."""
    engaged: float
    """Share of call-everything's engagement that is among the candidates."""
    regret: float
    """Cumulative over all requests, against the contextual oracle, mean over seeds."""


def rows(comparison: Comparison) -> Iterator[Row]:
    """Yield every contender's row, best net reward first."""
    half = comparison.settings.requests // 2
    found = []
    for name, traces in comparison.traces.items():
        net = [t.net(comparison.price) for t in traces]
        best = [t.net(comparison.price) for t in comparison.traces[CONTEXTUAL]]
        regret = np.mean([float((b - n).sum()) for b, n in zip(best, net, strict=True)])
        found.append(
            Row(
                contender=name,
                ndcg=_mean(traces, "ndcg", half),
                reward=_mean(traces, "rewards", half),
                net=float(np.mean([n[half:].mean() for n in net])),
                cost=_mean(traces, "costs", half) / comparison.full_cost,
                engaged=_mean(traces, "engaged", half),
                regret=float(regret),
            )
        )
    yield from sorted(found, key=lambda row: -row.net)


def _mean(traces: Sequence[Trace], name: str, start: int) -> float:
    return float(np.mean([getattr(t, name)[start:].mean() for t in traces]))


def comparison_findings(comparison: Comparison) -> Iterator[Finding]:
    """Yield what the comparison says of the targets."""
    rng = np.random.default_rng(1)
    half, quarter = comparison.settings.requests // 2, comparison.settings.requests * 3 // 4
    learned = comparison.traces[LEARNED]
    cost = mean_interval([t.costs[half:].mean() / comparison.full_cost for t in learned], rng)
    yield _finding("cost, share of call-everything's", cost, "≤ .40", cost.mean <= 0.4)
    for part, selected in (("all", None), ("held-out needs", comparison.held_out)):
        against = _difference(comparison, BEST_MIX, half, selected, rng)
        met = against.mean >= 0.03 and against.low > 0
        yield _finding(f"nDCG@10 less best mix's, {part}", against, "≥ +.03, interval > 0", met)
        against = _difference(comparison, EVERYTHING, half, selected, rng)
        yield _finding(
            f"nDCG@10 less call-everything's, {part}", against, "≥ -.01", against.mean >= -0.01
        )
    engaged = clustered(
        [t.engaged[half:] for t in learned], [t.questions[half:] for t in learned], rng
    )
    yield _finding("coverage of the engaged item", engaged, "≥ .97", engaged.mean >= 0.97)
    reached = [
        t.net(comparison.price)[quarter:].mean() / o.net(comparison.price)[quarter:].mean()
        for t, o in zip(learned, comparison.traces[ORACLE], strict=True)
    ]
    level = mean_interval(reached, rng)
    yield _finding("last-quarter net reward / class oracle's", level, "≥ .97", level.mean >= 0.97)
    for rival in (BEST_PLAN, *(peer for peer in PEERS if peer in comparison.traces)):
        saved = _regret_saved(comparison, rival, rng)
        least = 0.0 if rival == BEST_PLAN else 0.2
        target = "> 0" if rival == BEST_PLAN else "≥ .20"
        met = saved.mean > 0 if rival == BEST_PLAN else saved.mean >= least
        yield _finding(f"share of {rival}'s cumulative regret saved", saved, target, met)


def _difference(
    comparison: Comparison,
    rival: str,
    start: int,
    selected: Sequence[NDArray[np.bool_]] | None,
    rng: np.random.Generator,
) -> Interval:
    gaps, needs = [], []
    for number, (mine, other) in enumerate(
        zip(comparison.traces[LEARNED], comparison.traces[rival], strict=True)
    ):
        kept = np.ones(len(mine.ndcg), bool) if selected is None else selected[number].copy()
        kept[:start] = False
        gaps.append(mine.ndcg[kept] - other.ndcg[kept])
        needs.append(mine.questions[kept])
    return clustered(gaps, needs, rng)


def _regret_saved(comparison: Comparison, rival: str, rng: np.random.Generator) -> Interval:
    shares = []
    for mine, other, best in zip(
        comparison.traces[LEARNED],
        comparison.traces[rival],
        comparison.traces[CONTEXTUAL],
        strict=True,
    ):
        price = comparison.price
        own = float((best.net(price) - mine.net(price)).sum())
        others = float((best.net(price) - other.net(price)).sum())
        # Only a rival that played the best plan of every need leaves nothing to save.
        shares.append(1 - own / others if others > 0 else float(own <= 0) - 1)
    return mean_interval(shares, rng)


def ratio_cost(with_slots: Floats, without: Floats, rng: np.random.Generator) -> Interval:
    """Return the share of the mean that is lost, with an interval from resampling searches."""
    drawn = rng.integers(len(without), size=(2_000, len(without)))
    lost = 1 - with_slots[drawn].mean(axis=1) / without[drawn].mean(axis=1)
    low, high = np.quantile(lost, [0.025, 0.975]).tolist()
    return Interval(float(1 - with_slots.mean() / without.mean()), low, high, len(without))


def _finding(what: str, interval: Interval, target: str, met: bool) -> Finding:
    return Finding(what, interval.mean, interval.low, interval.high, target, met)


def recovery_findings(recoveries: Sequence[Recovery]) -> Iterator[Finding]:
    """Yield how far the learned plan is back after each abrupt change."""
    rng = np.random.default_rng(1)
    for recovery in recoveries:
        level = mean_interval(recovery.recovered(LEARNED, _RECOVERY), rng)
        what = f"level {_RECOVERY} requests after '{recovery.scenario}', of the level before"
        yield _finding(what, level, "≥ .90", level.mean >= 0.9)


def study_findings(built: Built) -> Iterator[Finding]:
    """Yield what the studies of the living mesh say of their targets."""
    rng = np.random.default_rng(1)
    found = built.predicted
    yield Finding(
        "predicted queries alone: wanted item in the first ten",
        found.found,
        found.found,
        found.found,
        "> 0 (an empty index)",
        found.found > 0,
    )
    learned = built.learned
    low, clicks, high = np.quantile(learned.clicks or [np.inf], [0.05, 0.5, 0.95]).tolist()
    yield Finding(
        "clicks until the item shown last is first (median)",
        clicks,
        low,
        high,
        "a handful (≤ 5)",
        clicks <= 5 and learned.first >= 0.9,
    )
    yield Finding(
        "observed item replaced the predicted one",
        learned.displaced,
        learned.displaced,
        learned.displaced,
        "≥ .90",
        learned.displaced >= 0.9,
    )
    explored = built.explored
    ten = np.array(explored.ten)
    met = bool(np.isfinite(ten).all() and ten.max(initial=0) <= WITHIN)
    yield Finding(
        f"searches until {len(ten)} new items had 10 impressions each",
        float(ten.max(initial=0)),
        float(np.median(ten)),
        float(ten.max(initial=0)),
        f"≤ {WITHIN}",
        met,
    )
    cost = ratio_cost(explored.ndcg, explored.without, rng)
    yield _finding("nDCG@10 that exploration slots cost, share", cost, "≤ .02", cost.mean <= 0.02)
    personal = built.personal
    for name, other in (("popularity", personal.popular), ("no history", personal.without_history)):
        for kind, values in personal.with_history.items():
            gap = difference_interval(values, other, rng)
            yield _finding(f"{kind}: nDCG@10 less {name}'s", gap, "> 0", gap.low > 0)


def to_json(findings: Sequence[Finding], table: Sequence[Row], about: Mapping[str, object]) -> str:
    """Return everything as JSON."""
    content = {
        "about": dict(about),
        "findings": [asdict(finding) for finding in findings],
        "contenders": [asdict(row) for row in table],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)
