"""Learning to rank on files, and from clicks: small invented data in the public formats."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from evaluation.evaluate.debiasing import measure_debiasing
from evaluation.evaluate.letor import LetorQuery, measure_letor, ndcg, read_example, read_letor
from forage.errors import InvalidArgumentError, StartupError

QUERIES, DOCUMENTS, WIDTH = 30, 12, 30
BM25, TELLING = 25, 3


def rows(queries, seed):
    """Yield (query, label, features): one feature tells the label, BM25 tells it roughly."""
    rng = np.random.default_rng(seed)
    for query in range(queries):
        for label in rng.choice(3, DOCUMENTS, p=[0.6, 0.25, 0.15]).tolist():
            features = rng.random(WIDTH)
            features[TELLING - 1] = label + 0.3 * rng.random()
            features[BM25 - 1] = label + 2.5 * rng.random()
            yield query, label, features


def pairs(features):
    return " ".join(f"{n}:{v:.4f}" for n, v in enumerate(features, 1))


@pytest.fixture
def data(tmp_path):
    """Write both sets as they are published."""
    folder = tmp_path / "letor"
    folder.mkdir()
    lines = [f"{label} qid:{q} {pairs(f)} # document" for q, label, f in rows(QUERIES, 1)]
    (folder / "mq2008_fold1_test.txt").write_text("\n".join(lines) + "\n")
    for part, seed in (("train", 2), ("test", 3)):
        lines = [f"{label} {pairs(f)}" for _, label, f in rows(QUERIES, seed)]
        (folder / f"lightgbm_rank.{part}").write_text("\n".join(lines) + "\n")
        (folder / f"lightgbm_rank.{part}.query").write_text(f"{DOCUMENTS}\n" * QUERIES)
    return tmp_path


def test_the_trainer_finds_the_feature_that_tells(data):
    found = {(f.data, f.trainer): f for f in measure_letor(data, seeds=(0,))}

    trainers = {"forage", "LightGBM"} if find_spec("lightgbm") else {"forage"}
    assert {trainer for _, trainer in found} == trainers
    for name in ("LightGBM example", "MQ2008, five folds"):
        figure = found[name, "forage"]
        assert 0.93 < figure.ndcg.low <= figure.ndcg.mean <= 1
        assert figure.ndcg.queries == QUERIES
        assert figure.seeds == (0,)


def test_clicks_teach_nearly_what_grades_teach_and_more_than_was_shown(data):
    found = measure_debiasing(data, seeds=(0,), searches_per_query=20)

    assert found.clicks > 0
    assert 0 < found.searches <= 20 * QUERIES
    assert found.shown.mean < found.debiased.mean <= 1
    assert found.debiased.mean > 0.9 * found.full.mean
    assert measure_debiasing(data, seeds=(0,), searches_per_query=20) == found


def test_ndcg_is_by_gains_of_two_to_the_label():
    features = np.array([[0.0], [1.0], [2.0]], np.float32)
    query = LetorQuery("q", features, np.array([2.0, 0.0, 1.0]))
    nothing = LetorQuery("none", features, np.zeros(3))

    def order(matrix):
        return matrix[:, 0].astype(float)

    ideal = 3 + 1 / np.log2(3)
    assert ndcg([query, nothing], order) == {"q": pytest.approx((1 + 3 / 2) / ideal)}


def test_queries_keep_their_documents_and_absent_features_are_zero(tmp_path):
    path = tmp_path / "letor.txt"
    path.write_text("1 qid:7 2:0.5 # a\n0 qid:8 1:1\n2 qid:7 1:0.25 3:4\n")

    first, second = read_letor(path)

    assert (first.query_id, second.query_id) == ("7", "8")
    assert first.labels.tolist() == [1, 2]
    assert first.rows.tolist() == [[0, 0, 0.5, 0], [0, 0.25, 0, 4]]


@pytest.mark.parametrize("line", ["1 7 1:2", "x qid:7 1:2", "1 qid:7 1:two", "1 qid:7 one:2"])
def test_a_row_that_is_none_is_named(tmp_path, line):
    path = tmp_path / "letor.txt"
    path.write_text(f"1 qid:7 1:2\n{line}\n")

    with pytest.raises(InvalidArgumentError, match=r"letor\.txt:2"):
        read_letor(path)


def test_sizes_that_do_not_add_up_are_refused(data):
    (data / "letor" / "lightgbm_rank.test.query").write_text("5\n")

    with pytest.raises(InvalidArgumentError, match=r"lightgbm_rank\.test"):
        read_example(data / "letor")


def test_data_that_is_not_there_is_named(tmp_path):
    (tmp_path / "letor").mkdir()
    with pytest.raises(StartupError, match="lightgbm_rank"):
        measure_letor(tmp_path, seeds=(0,))
    with pytest.raises(StartupError, match="mq2008"):
        measure_debiasing(tmp_path, seeds=(0,))
