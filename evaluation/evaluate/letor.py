"""The ranker's trainer on public learning-to-rank data, beside LightGBM on the same rows.

Two sets are read: the example of LightGBM's own repository, with its train and test part, and
the part of MQ2008 (LETOR 4.0; Qin & Liu, 2013) that is at hand, cross-validated by query. Gains
are 2^label - 1, as is usual there; queries without a relevant document are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Interval, mean_interval
from evaluation.collections.files import bad_line, first_of, lines_of
from evaluation.evaluate.ranking import BOOSTING
from evaluation.metrics import measure_scores
from forage.errors import InvalidArgumentError
from ranker.boosting import Preferences, boost

Floats = NDArray[np.float64]
Scorer = Callable[[NDArray[np.float32]], Floats]
FOLDS = 5


@dataclass(frozen=True, slots=True)
class LetorQuery:
    """The documents of one query: features and labels."""

    query_id: str
    rows: NDArray[np.float32]
    labels: Floats


@dataclass(frozen=True, slots=True)
class LetorFigure:
    """nDCG@10 of one trainer on one data set."""

    data: str
    trainer: str
    ndcg: Interval
    """Over queries, of the means over seeds."""
    seeds: tuple[int, ...]


def measure_letor(data: Path, *, seeds: Sequence[int]) -> list[LetorFigure]:
    """Train and test on both sets; `data` is the folder of the judged collections.

    LightGBM takes part if it is installed.
    """
    folder = data / "letor"
    train, test = read_example(folder)
    mq2008 = read_letor(first_of(folder, "mq2008_fold1_test.txt"))
    found = []
    trainers = [("forage", _forage)]
    if find_spec("lightgbm"):
        trainers.append(("LightGBM", _lightgbm))
    for trainer, fit in trainers:
        values = [ndcg(test, fit(train, seed)) for seed in seeds]
        found.append(_figure("LightGBM example", trainer, values, seeds))
        values = [_cross_validated(mq2008, fit, seed) for seed in seeds]
        found.append(_figure("MQ2008, five folds", trainer, values, seeds))
    return found


def read_example(folder: Path) -> tuple[list[LetorQuery], list[LetorQuery]]:
    """Return training and test queries of LightGBM's example: libsvm rows, sizes in a file."""
    parts = []
    width = 0
    for part in ("train", "test"):
        path = first_of(folder, f"lightgbm_rank.{part}")
        rows = [_parsed(path, n, line.split()) for n, line in lines_of(path)]
        sizes = [int(line) for _, line in lines_of(folder / f"lightgbm_rank.{part}.query")]
        if sum(sizes) != len(rows):
            raise InvalidArgumentError(
                path.name, f"{len(rows)} rows", allowed=f"{sum(sizes)}, as the query file says"
            )
        width = max(width, *(max(values, default=0) for _, values in rows))
        parts.append((part, rows, sizes))
    found: list[list[LetorQuery]] = []
    for part, rows, sizes in parts:
        starts = np.cumsum([0, *sizes])
        found.append(
            [
                _query(f"{part}:{place}", rows[begin:end], width)
                for place, (begin, end) in enumerate(pairwise(starts.tolist()))
            ]
        )
    return found[0], found[1]


def read_letor(path: Path) -> list[LetorQuery]:
    """Return the queries of a file whose lines are `label qid:ID number:value ... # comment`."""
    by_query: dict[str, list[tuple[float, dict[int, float]]]] = {}
    for number, line in lines_of(path):
        label, query_id, *features = line.partition("#")[0].split()
        if not query_id.startswith("qid:"):
            bad_line(path, number, repr(query_id), allowed="label qid:ID number:value ...")
        by_query.setdefault(query_id[4:], []).append(_parsed(path, number, [label, *features]))
    width = max(max(v, default=0) for rows in by_query.values() for _, v in rows)
    return [_query(query_id, rows, width) for query_id, rows in by_query.items()]


def groups(queries: Sequence[LetorQuery], *, gains: bool) -> Preferences:
    """Return training groups, labelled with gains of 2^label - 1 or with the labels."""
    labels = np.concatenate([q.labels for q in queries])
    return Preferences(
        np.concatenate([q.rows for q in queries]),
        2.0**labels - 1 if gains else labels,
        np.array([len(q.labels) for q in queries]),
        np.ones(len(queries)),
    )


def ndcg(queries: Sequence[LetorQuery], scorer: Scorer) -> dict[str, float]:
    """Return nDCG@10 by query id, for queries with a relevant document."""
    judged = {
        q.query_id: {str(row): int(2**label - 1) for row, label in enumerate(q.labels.tolist())}
        for q in queries
        if q.labels.any()
    }
    run = {
        q.query_id: {str(row): score for row, score in enumerate(scorer(q.rows).tolist())}
        for q in queries
        if q.labels.any()
    }
    found = measure_scores(judged, run)
    return dict(zip(found.query_ids, found.values["ndcg@10"].tolist(), strict=True))


def _forage(queries: Sequence[LetorQuery], seed: int) -> Scorer:
    names = [f"feature{column}" for column in range(queries[0].rows.shape[1])]
    return boost(groups(queries, gains=True), names, "letor", BOOSTING, seed=seed).scores


def _lightgbm(queries: Sequence[LetorQuery], seed: int) -> Scorer:
    from evaluation.peers.lightgbm import LightGbmRanker

    return LightGbmRanker(groups(queries, gains=False), seed=seed).scores


def _cross_validated(
    queries: Sequence[LetorQuery], fit: Callable[[Sequence[LetorQuery], int], Scorer], seed: int
) -> dict[str, float]:
    order = np.random.default_rng(seed).permutation(len(queries))
    found: dict[str, float] = {}
    for fold in range(FOLDS):
        held_out = set(order[fold::FOLDS].tolist())
        trained = [q for place, q in enumerate(queries) if place not in held_out]
        tested = [q for place, q in enumerate(queries) if place in held_out]
        found |= ndcg(tested, fit(trained, seed))
    return found


def _figure(
    data: str, trainer: str, values: Sequence[dict[str, float]], seeds: Sequence[int]
) -> LetorFigure:
    means = np.mean([[one[q] for q in sorted(one)] for one in values], axis=0)
    return LetorFigure(data, trainer, mean_interval(means, np.random.default_rng(0)), tuple(seeds))


def _parsed(path: Path, number: int, words: Sequence[str]) -> tuple[float, dict[int, float]]:
    try:
        values = {int(n): float(v) for n, _, v in (word.partition(":") for word in words[1:])}
        return float(words[0]), values
    except ValueError:
        bad_line(path, number, "not a row", allowed="label number:value ...")


def _query(query_id: str, rows: Sequence[tuple[float, dict[int, float]]], width: int) -> LetorQuery:
    matrix = np.zeros((len(rows), width + 1), np.float32)
    for row, (_, values) in enumerate(rows):
        matrix[row, list(values)] = list(values.values())
    return LetorQuery(query_id, matrix, np.array([label for label, _ in rows]))
