"""One collection, measured: generators alone, fixed fusions, the ranker, and the best per query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import Interval, difference_interval, mean_interval
from evaluation.collections import splits
from evaluation.collections.collection import Collection
from evaluation.collections.splits import Split
from evaluation.evaluate import fusing, ranking
from evaluation.evaluate.fusing import EQUAL, LEXICAL_AND_SEMANTIC, Floats, StaticRules
from evaluation.evaluate.planning import Planning
from evaluation.evaluate.ranking import BOOSTING, Judged
from evaluation.evaluate.recording import EVERYTHING, Found, Plan, Recording, record
from evaluation.evaluate.served import Outcome, Planned, Served
from evaluation.mesh import GENERATORS, Mesh
from evaluation.metrics import NAMES, measure_lists
from ranker.model import RankingModel

STATIC = "tuned static fusion"
RANKER = "everything + ranker"
MIX = "best static mix + ranker"
LEARNED = "learned plan + ranker"
TWO = "equal RRF, lexical and semantic"
ORACLE = "best per query"
HEADLINE = "ndcg@10"
Lists = Mapping[str, Sequence[str]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender reaches on topics that nothing was tuned on."""

    contender: str
    metrics: Mapping[str, Interval]
    """By metric; means over queries, of the means over seeds."""
    candidates: float
    """Hits asked for and got, over all lists of a query, on average."""
    milliseconds: float
    """What the called generators took for a query, one after the other, on average."""
    cost: float
    """In cost units of the orchestrator, as a share of calling everything."""


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one contender exceeds another in nDCG@10, paired by query."""

    contender: str
    rival: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was measured on one collection under one split rule."""

    collection: str
    rule: str
    """How training and test topics were kept apart."""
    items: int
    trained: int
    """Topics to learn from, in the first split."""
    overlap: float
    """Share of test topics with a relevant item that is also relevant in training."""
    seeds: tuple[int, ...]
    static: str
    """The fusion that the first split's training topics chose."""
    mix: str
    """The mixture of two static plans that they chose for at most 40 % of the cost."""
    fallbacks: float
    """Share of the splits whose training topics preferred that mixture to the learned plan."""
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]


def evaluate(
    mesh: Mesh,
    collection: Collection,
    *,
    seeds: Sequence[int],
    folds: int,
    progress: Progress,
) -> list[Evaluation]:
    """Measure a collection: on its official split if it has one, else cross-validated by query.

    A collection with an official split is measured twice: as it is, and without the training
    topics that share a relevant item with the test.
    """
    recording = record(
        mesh,
        collection.topics,
        seed=seeds[0],
        progress=lambda done, wanted: progress("ask every generator", done, wanted),
    )
    study = _Study(mesh, collection, recording, progress)
    if "test" not in collection.parts.values():
        by_seed = {seed: splits.by_query(collection, folds, seed) for seed in seeds}
        return [study.measure(f"{folds} folds by query", by_seed)]
    official = splits.official(collection)
    disjoint = official.without_shared_documents()
    return [
        study.measure("official split", {seed: [official] for seed in seeds}),
        study.measure("official, disjoint documents", {seed: [disjoint] for seed in seeds}),
    ]


class _Study:
    """The lists and features of one collection, computed once for all splits."""

    def __init__(
        self, mesh: Mesh, collection: Collection, recording: Recording, progress: Progress
    ) -> None:
        self._mesh = mesh
        self._collection = collection
        self._found = recording.found
        self._progress = progress
        found = list(recording.found.values())
        self._rules = StaticRules(found, collection.judgments)
        self._planning = Planning(mesh, recording.found, collection.judgments)
        self._judged: dict[str, Judged] = {}
        for done, one in enumerate(found, 1):
            self._judged[one.topic.query_id] = ranking.judge(mesh, collection, one, EVERYTHING)
            progress("compute features", done, len(found))

    def measure(self, rule: str, by_seed: Mapping[int, Sequence[Split]]) -> Evaluation:
        """Return the figures of all contenders on the topics that are tested."""
        first = next(iter(by_seed.values()))[0]
        tested = sorted({t.query_id for one in by_seed.values() for s in one for t in s.test})
        values: dict[str, list[Mapping[str, Floats]]] = defaultdict(list)
        fixed = self._fixed(tested)
        for name, lists in fixed.items():
            values[name].append(self._measured(lists, tested))
        best = _best(values, tested)
        values[ORACLE].append(best)
        planned = Planned()
        for number, (seed, parts) in enumerate(by_seed.items(), 1):
            static: dict[str, Sequence[str]] = {}
            ranked: dict[str, Sequence[str]] = {}
            for part in parts:
                trained = [t.query_id for t in part.train]
                fusion = self._rules.best(trained)
                static |= {t.query_id: fusion.order(self._found[t.query_id]) for t in part.test}
                judged = [self._judged[q] for q in trained]
                model = ranking.train(self._mesh, judged, BOOSTING, seed=seed)
                ranked |= ranking.orders(model, [self._judged[t.query_id] for t in part.test])
                if number == 1:
                    planned.add(self._planned(part, fusion, seed))
            values[STATIC].append(self._measured(static, tested))
            values[RANKER].append(self._measured(ranked, tested))
            self._progress(f"train rankers, {rule}", number, len(by_seed))
        values[MIX].append(planned.metrics(MIX, tested))
        values[LEARNED].append(planned.metrics(LEARNED, tested))
        means = {
            name: {m: np.mean([v[m] for v in found], axis=0) for m in NAMES}
            for name, found in values.items()
        }
        chosen = self._rules.best([t.query_id for t in first.train])
        return self._report(rule, by_seed, first, means, chosen, planned)

    def _planned(self, part: Split, fusion: fusing.Fusion, seed: int) -> Outcome:
        """Rank what the static mix and the learned plan find, within 40 % of the cost.

        The ranker is taught with both kinds of lists: those of everything, and those of the plans
        that it will be given.
        """
        trained = [t.query_id for t in part.train]
        tested = [t.query_id for t in part.test]
        chosen = self._planning.choose(trained, tested, fusion, seed=seed)
        taught = [self._judged[q] for q in trained]
        for place, query_id in enumerate(trained):
            plan = chosen.mix.plans[place % 2] if chosen.mix.share else chosen.mix.plans[0]
            taught.append(self._judge(query_id, plan))
        model = ranking.train(self._mesh, taught, BOOSTING, seed=seed)
        first, second = (
            self._outcome(dict.fromkeys(tested, plan), model) for plan in chosen.mix.plans
        )
        mixed = first.mixed(second, chosen.mix.share)
        learned = mixed if chosen.fell_back else self._outcome(chosen.plans, model)
        return Outcome({MIX: mixed, LEARNED: learned}, str(chosen.mix), chosen.fell_back)

    def _judge(self, query_id: str, plan: Plan) -> Judged:
        return ranking.judge(self._mesh, self._collection, self._found[query_id], plan)

    def _outcome(self, plans: Mapping[str, Plan], model: RankingModel) -> Served:
        lists = ranking.orders(model, (self._judge(q, plan) for q, plan in plans.items()))
        spent = [
            (
                self._found[q].candidates(plan),
                self._found[q].milliseconds(plan),
                self._planning.cost(plan) / self._planning.everything,
            )
            for q, plan in plans.items()
        ]
        metrics = measure_lists(self._collection.judgments, lists).of(list(plans)).values
        return Served(tuple(plans), metrics, np.array(spent, float))

    def _report(
        self,
        rule: str,
        by_seed: Mapping[int, Sequence[Split]],
        first: Split,
        means: Mapping[str, Mapping[str, Floats]],
        chosen: fusing.Fusion,
        planned: Planned,
    ) -> Evaluation:
        rng = np.random.default_rng(0)
        plans: dict[str, Plan] = {name: {name: EVERYTHING[name]} for name in GENERATORS}
        plans[TWO] = {name: EVERYTHING[name] for name in ("lexical", "semantic")}
        plans[STATIC] = chosen.plan
        rows = []
        for name, measured in means.items():
            spent = planned.spent(name) or self._spent(plans.get(name, EVERYTHING))
            metrics = {metric: mean_interval(v, rng) for metric, v in measured.items()}
            rows.append(Row(name, metrics, *spent))
        alone = max(GENERATORS, key=lambda name: float(means[name][HEADLINE].mean()))
        differences = tuple(
            Difference(
                name,
                rival,
                difference_interval(means[name][HEADLINE], means[rival][HEADLINE], rng),
            )
            for name, rival in (
                (RANKER, STATIC),
                (RANKER, "equal RRF"),
                (RANKER, alone),
                (LEARNED, MIX),
                (LEARNED, RANKER),
            )
        )
        return Evaluation(
            self._collection.name,
            rule,
            len(self._collection.items),
            len(first.train),
            first.overlap,
            tuple(by_seed),
            str(chosen),
            planned.mix,
            planned.fallbacks,
            tuple(rows),
            differences,
        )

    def _fixed(self, tested: Sequence[str]) -> dict[str, Lists]:
        found: dict[str, Found] = {q: self._found[q] for q in tested}
        lists: dict[str, Lists] = {
            name: {q: [h.item_id for h in f.hits[name]] for q, f in found.items()}
            for name in GENERATORS
        }
        lists["equal RRF"] = {q: EQUAL.order(f) for q, f in found.items()}
        lists[TWO] = {q: LEXICAL_AND_SEMANTIC.order(f) for q, f in found.items()}
        return lists

    def _spent(self, plan: Plan) -> tuple[float, float, float]:
        """Return candidates, milliseconds and the share of the cost, on average."""
        found = list(self._found.values())
        return (
            float(np.mean([f.candidates(plan) for f in found])),
            float(np.mean([f.milliseconds(plan) for f in found])),
            self._planning.cost(plan) / self._planning.everything,
        )

    def _measured(self, lists: Lists, tested: Sequence[str]) -> Mapping[str, Floats]:
        return measure_lists(self._collection.judgments, lists).of(tested).values


def _best(
    values: Mapping[str, Sequence[Mapping[str, Floats]]], tested: Sequence[str]
) -> Mapping[str, Floats]:
    """Return, for each query, the metrics of the contender that is best for it: an oracle."""
    contenders = [found[0] for found in values.values()]
    best = np.argmax([c[HEADLINE] for c in contenders], axis=0)
    rows = np.arange(len(tested))
    return {m: np.array([c[m] for c in contenders])[best, rows] for m in NAMES}
