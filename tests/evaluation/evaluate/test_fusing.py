import numpy as np
import pytest

from evaluation.collections import Topic
from evaluation.evaluate.fusing import EQUAL, Fusion, StaticRules, Union
from evaluation.evaluate.recording import Found
from evaluation.mesh import GENERATORS
from evaluation.metrics import measure_lists
from forage.retrieval import Hit, Query


def found(query_id="q", **lists):
    hits = {
        name: tuple(Hit(item, score) for item, score in lists.get(name, {}).items())
        for name in GENERATORS
    }
    return Found(Topic(query_id, "words"), Query(), hits, dict.fromkeys(GENERATORS, 0.001))


def test_equal_fusion_is_the_sum_of_reciprocal_ranks_with_ties_by_id() -> None:
    one = found(lexical={"a": 9.0, "b": 5.0}, semantic={"b": 0.9, "c": 0.8})

    assert EQUAL.order(one) == ["b", "a", "c"]


def test_a_weight_of_zero_leaves_out_what_only_that_generator_found() -> None:
    one = found(lexical={"a": 9.0}, semantic={"b": 0.9})

    assert Fusion("share", {"lexical": 1.0}).order(one) == ["a"]
    assert Fusion("share", {"lexical": 1.0}).plan == {"lexical": 100}


def test_shares_scale_scores_within_their_list() -> None:
    union = Union.of(found(lexical={"a": 9.0, "b": 7.0, "c": 5.0}))

    shares = union.signals[-1][:, GENERATORS.index("lexical")]

    assert shares == pytest.approx([1.0, 0.505, 0.01])


def test_all_rules_are_measured_as_their_own_lists_would_be() -> None:
    rng = np.random.default_rng(3)
    items = [f"i{n:02}" for n in range(30)]
    topics = []
    for number in range(4):
        lists = {
            name: {
                i: float(s)
                for i, s in zip(rng.permutation(items)[:15], range(15, 0, -1), strict=False)
            }
            for name in GENERATORS
        }
        topics.append(found(f"q{number}", **lists))
    judged = {t.topic.query_id: {str(i): int(rng.integers(0, 3)) for i in items} for t in topics}

    rules = StaticRules(topics, judged)
    best = rules.best([t.topic.query_id for t in topics])

    lists = {t.topic.query_id: best.order(t) for t in topics}
    mean = measure_lists(judged, lists).mean("ndcg@10")
    assert mean == pytest.approx(rules._ndcg.mean(axis=0).max(), abs=1e-9)


def test_a_plan_gets_prefixes_and_pays_for_the_generators_it_calls() -> None:
    one = found(lexical={"a": 9.0, "b": 5.0}, semantic={"c": 0.9})

    plan = {"lexical": 1, "semantic": 0}

    assert [h.item_id for h in one.lists(plan)["lexical"]] == ["a"]
    assert "semantic" not in one.lists(plan)
    assert one.candidates(plan) == 1
    assert one.milliseconds(plan) == pytest.approx(1.0)
