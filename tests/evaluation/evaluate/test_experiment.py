"""`evaluate` on a small collection, from the lists to the rows."""

import pytest

from evaluation.collections.splits import by_query
from evaluation.evaluate.experiment import LEARNED, MIX, RANKER, evaluate
from evaluation.evaluate.fusing import EQUAL
from evaluation.evaluate.planning import SHARE, Planning
from evaluation.evaluate.recording import record
from evaluation.mesh import Mesh
from tests.evaluation.evaluate.small import collection


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with Mesh(collection(), tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


def test_every_contender_has_a_row_with_what_it_cost(mesh) -> None:
    (found,) = evaluate(mesh, collection(), seeds=[0], folds=2, progress=lambda *_: None)

    rows = {row.contender: row for row in found.rows}
    assert {"lexical", "equal RRF", RANKER, MIX, LEARNED} <= set(rows)
    assert rows[RANKER].cost == 1.0
    assert 0 < rows[MIX].cost <= SHARE + 1e-9
    assert all(0 <= r.metrics["ndcg@10"].mean <= 1 for r in found.rows)


def test_plans_keep_to_the_budget_on_training_topics_and_are_repeatable(mesh) -> None:
    made = collection()
    recording = record(mesh, made.topics, seed=0)
    planning = Planning(mesh, recording.found, made.judgments)
    split = by_query(made, 2, 0)[0]
    trained, tested = ([t.query_id for t in part] for part in (split.train, split.test))

    first = planning.choose(trained, tested, EQUAL, seed=0)

    assert first == planning.choose(trained, tested, EQUAL, seed=0)
    costs = [planning.cost(plan) for plan in first.mix.plans]
    spent = (1 - first.mix.share) * costs[0] + first.mix.share * costs[1]
    assert spent <= SHARE * planning.everything + 1e-9
