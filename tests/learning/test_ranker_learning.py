"""The ranker learns what users want, from clicks that are biased towards the top."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forage.errors import FailedPreconditionError
from forage.log import EventLog, Topic
from forage.log.engines import open_log
from forage.registry import DirectoryRegistry
from forage.settings import FeedbackSettings
from ranker import examination
from ranker.evaluation import Comparison
from ranker.model import KIND, RankingModel
from ranker.publishing import judge, rollback
from ranker.training import split, train
from ranker.training_set import read_training_set
from tests.learning.click_world import DECAY, World, fill, settings


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """Two thousand searches of the production order."""
    log = open_log("sqlite:log.db", tmp_path_factory.mktemp("log"))
    fill(log, 2_000)
    yield log
    log.close()


@pytest.fixture(scope="module")
def believing(log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The true nDCG@10 of a model that takes clicks for relevance."""
    registry = DirectoryRegistry(tmp_path_factory.mktemp("believing"))
    model = learned(log, registry, inverse_propensity=False, position_feature=False)
    return World(99).ndcg(model.scores)


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "registry")


def learned(log: EventLog, registry: DirectoryRegistry, **training: object) -> RankingModel:
    report = train(log, registry, settings(**training), seed=1, force=True)
    assert report.published
    return RankingModel.load(registry.load(KIND)[1])


def test_a_model_trained_on_clicks_orders_by_what_users_want(
    log: EventLog, registry: DirectoryRegistry
) -> None:
    model = learned(log, registry)

    fused = World(99).ndcg(lambda rows: rows[:, 0])
    assert fused < 0.6
    assert World(99).ndcg(model.scores) > 0.9


@pytest.mark.parametrize(
    ("inverse_propensity", "position_feature"), [(True, False), (False, True), (True, True)]
)
def test_taking_the_position_bias_out_beats_believing_the_clicks(
    log: EventLog,
    registry: DirectoryRegistry,
    believing: float,
    inverse_propensity: bool,
    position_feature: bool,
) -> None:
    debiased = learned(
        log, registry, inverse_propensity=inverse_propensity, position_feature=position_feature
    )

    assert World(99).ndcg(debiased.scores) > believing + 0.02


def test_the_same_log_and_seed_give_the_same_model_and_another_seed_another(
    log: EventLog, tmp_path: Path
) -> None:
    hashes = []
    for index, seed in enumerate((1, 1, 2)):
        registry = DirectoryRegistry(tmp_path / str(index))
        train(log, registry, settings(), seed=seed)
        hashes.append(registry.load(KIND)[0].sha256)

    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_a_better_model_is_published_with_metrics_and_lineage(
    log: EventLog, registry: DirectoryRegistry
) -> None:
    report = train(log, registry, settings(), seed=1)

    info = registry.current(KIND)
    assert info is not None
    assert report.published
    assert report.version == info.version == 1
    assert info.metadata["lineage"] == dict(report.lineage)
    assert report.lineage["feature_version"] == "v1"
    assert report.lineage["parent_version"] == "0"
    assert int(report.lineage["decisions_from"]) < int(report.lineage["decisions_to"])
    assert report.metrics["ndcg@10"] > report.metrics["fused_ndcg@10"]


def test_a_worse_model_is_refused_and_the_incumbent_stays(
    log: EventLog, registry: DirectoryRegistry
) -> None:
    train(log, registry, settings(), seed=1)

    report = train(log, registry, settings(boosting={"trees": 1, "depth": 1, "threads": 1}), seed=1)

    assert not report.published
    assert "incumbent" in report.reason
    assert report.version == 1
    assert [info.version for info in registry.history(KIND)] == [1]


def test_force_publishes_a_worse_model_and_rollback_takes_it_back(
    log: EventLog, registry: DirectoryRegistry
) -> None:
    train(log, registry, settings(), seed=1)
    worse = settings(boosting={"trees": 1, "depth": 1, "threads": 1})

    forced = train(log, registry, worse, seed=1, force=True)
    back = rollback(registry)

    assert forced.published
    assert forced.version == 2
    assert forced.lineage["forced"] == "true"
    assert back.version == 1
    with pytest.raises(FailedPreconditionError, match="first one"):
        rollback(registry)


def test_nothing_can_be_rolled_back_before_the_first_model(registry: DirectoryRegistry) -> None:
    with pytest.raises(FailedPreconditionError, match="no ranker model"):
        rollback(registry)


def test_too_little_data_is_refused_with_the_numbers(
    tmp_path: Path, registry: DirectoryRegistry
) -> None:
    log = open_log("sqlite:log.db", tmp_path)
    fill(log, 60)

    report = train(log, registry, settings(), seed=1, force=True)

    log.close()
    assert not report.published
    assert "searches with feedback can be used, 100 are needed" in report.reason
    assert registry.current(KIND) is None


def test_an_incumbent_of_other_features_is_replaced_if_the_fused_order_is_beaten(
    log: EventLog, registry: DirectoryRegistry
) -> None:
    registry.publish(KIND, b"not a model", {})

    report = train(log, registry, settings(), seed=1)

    assert report.published
    assert "cannot be compared" in report.reason
    assert report.lineage["parent_version"] == "1"


def test_the_decay_of_examination_is_estimated_from_exploration_slots(tmp_path: Path) -> None:
    log = open_log("sqlite:log.db", tmp_path)
    fill(log, 1_500, seed=3, exploration=True)

    found = examination.estimate(log, FeedbackSettings(examination_decay=0.2), min_clicks=200)

    log.close()
    assert found.decay == pytest.approx(DECAY, abs=0.12)
    assert found.source.startswith("estimated")


def test_the_estimate_does_not_depend_on_how_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log("sqlite:log.db", tmp_path)
    fill(log, 300, seed=3, exploration=True)
    whole = examination.estimate(log, FeedbackSettings(), min_clicks=20)

    monkeypatch.setattr(examination, "_BATCH", 7)
    in_parts = examination.estimate(log, FeedbackSettings(), min_clicks=20)

    log.close()
    assert whole.source.startswith("estimated")
    assert in_parts == whole


def test_too_few_exploration_clicks_leave_the_configured_decay(log: EventLog) -> None:
    found = examination.estimate(log, FeedbackSettings(examination_decay=0.2), min_clicks=200)

    assert found.decay == 0.2
    assert "0 engagements" in found.source


def test_everything_held_out_is_newer_than_everything_trained_on(log: EventLog) -> None:
    options = settings()
    data = read_training_set(log, options.feedback, options.training, lambda stage, share: None)

    parts = split(data.decisions, holdout_share=0.2)

    assert max(d.time for d in parts.train) <= min(d.time for d in parts.holdout)
    assert len(parts.holdout) == round(0.2 * len(data.decisions))
    assert log.head(Topic.INTERACTIONS) >= data.decisions[-1].sequence


@pytest.mark.parametrize(
    ("gain", "low", "publishes"),
    [(0.01, 0.001, True), (0.01, -0.01, True), (0.01, -0.03, False), (0.0, -0.01, False)],
)
def test_the_rule_wants_a_gain_that_cannot_be_much_of_a_loss(
    gain: float, low: float, publishes: bool
) -> None:
    verdict = judge({"incumbent": Comparison(gain, low, 0.05)}, max_regression=0.02)

    assert verdict.publish is publishes
    assert "incumbent" in verdict.reason
