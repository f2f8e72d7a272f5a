"""The ranker learns what users want, from clicks that are biased towards the top."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from forage import wire
from forage.errors import FailedPreconditionError
from forage.log import Event, EventLog, Stream, Topic
from forage.log.engines import open_log
from forage.registry import DirectoryRegistry
from forage.settings import FeedbackSettings
from forage.v1 import decision_pb2, feedback_service_pb2, query_pb2
from ranker import examination
from ranker.evaluation import Comparison
from ranker.model import KIND, RankingModel
from ranker.publishing import judge, rollback
from ranker.settings import RankerSettings
from ranker.training import split, train
from ranker.training_set import JudgedDecision, Unusable, read_training_set

NAMES = ("fusion.score", "habit", "text", "taste", "noise", "position")
DECAY = 1.0
SHOWN = 10
START = 1.7e9


class World:
    """Users who click by the position-based model; their wishes are `text` and `taste`.

    The production order follows `habit`, which nobody wants, plus noise.
    """

    def __init__(self, seed: int, candidates: int = 24) -> None:
        self.rng = np.random.default_rng(seed)
        self.candidates = candidates

    def features(self) -> np.ndarray:
        rows = self.rng.normal(size=(self.candidates, len(NAMES))).astype(np.float32)
        rows[:, 0] = rows[:, 1] + 0.5 * rows[:, 2] + self.rng.normal(size=len(rows))
        rows[:, 5] = 1.0
        return rows[np.argsort(-rows[:, 0])]

    @staticmethod
    def relevance(rows: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(2.5 - 1.5 * rows[:, 2] - 1.5 * rows[:, 3]))

    def decide(self, request_id: str, time: float, *, exploration: bool = False) -> list[Event]:
        rows = self.features()
        if exploration:
            rows = self.rng.permutation(rows)
        decision = decision_pb2.Decision(
            request_id=request_id,
            time=wire.timestamp(time),
            query=query_pb2.Query(query_class=query_pb2.QUERY_CLASS_TOPICAL),
            feature_names=NAMES,
            feature_version="v1",
        )
        for place, row in enumerate(rows):
            page = decision.displayed if place < SHOWN else decision.later
            page.add(
                item_id=f"item:{place}",
                position=place + 1,
                features=row.tolist(),
                exploration_propensity=0.5 if exploration else 0.0,
            )
        events = [Event(Stream.DECISIONS, request_id, decision.SerializeToString(), time)]
        examined = self.rng.random(SHOWN) < np.arange(1, SHOWN + 1) ** -DECAY
        clicked = examined & (self.rng.random(SHOWN) < self.relevance(rows[:SHOWN]))
        events += [
            feedback(request_id, f"item:{place}", time + 1) for place in np.flatnonzero(clicked)
        ]
        return events

    def ndcg(self, score: Callable[[np.ndarray], np.ndarray], searches: int = 200) -> float:
        """Return the mean nDCG@10 by true relevance on fresh searches."""
        values = []
        discount = 1 / np.log2(2 + np.arange(10))
        for _ in range(searches):
            rows = self.features()
            gains = self.relevance(rows)
            ranked = gains[np.argsort(-score(rows), kind="stable")][:10]
            values.append(ranked @ discount / (np.sort(gains)[::-1][:10] @ discount))
        return float(np.mean(values))


def feedback(request_id: str, item_id: str, time: float, kind: str = "CLICK") -> Event:
    event_id = f"{request_id}/{item_id}/{kind}"
    event = feedback_service_pb2.FeedbackEvent(
        event_id=event_id,
        request_id=request_id,
        item_id=item_id,
        kind=feedback_service_pb2.FeedbackKind.Value(f"FEEDBACK_KIND_{kind}"),
        time=wire.timestamp(time),
    )
    return Event(Stream.FEEDBACK, event_id, event.SerializeToString(), time)


def fill(log: EventLog, searches: int, *, seed: int = 0, exploration: bool = False) -> None:
    world = World(seed)
    events = []
    for index in range(searches):
        request_id = f"{seed}-{index:06d}"
        events += world.decide(request_id, START + 60 * index, exploration=exploration)
    log.append(events)


def settings(**training: object) -> RankerSettings:
    return RankerSettings.model_validate(
        {
            "feedback": {"examination_decay": DECAY},
            "training": {
                "min_decisions": 100,
                "bootstrap_samples": 200,
                "boosting": {"trees": 60, "depth": 4, "threads": 1},
                **training,
            },
        }
    )


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


def examples(tmp_path: Path, *events: Event, decision: Event) -> list[JudgedDecision]:
    log = open_log("sqlite:log.db", tmp_path)
    log.append([decision, *events])
    options = settings()
    data = read_training_set(log, options.feedback, options.training, lambda stage, share: None)
    log.close()
    return list(data.decisions)


def test_features_are_those_of_the_decision_record_whatever_happened_since(
    tmp_path: Path,
) -> None:
    decision = World(5).decide("r", START)[0]
    logged = decision_pb2.Decision.FromString(decision.payload)

    (example,) = examples(tmp_path, feedback("r", "item:2", START + 5), decision=decision)

    assert example.features.tolist() == [list(d.features) for d in logged.displayed]
    assert example.positions.tolist() == [d.position for d in logged.displayed]


def test_labels_are_the_best_reward_or_else_the_worst(tmp_path: Path) -> None:
    decision = World(5).decide("r", START)[0]
    events = [
        feedback("r", "item:0", START + 1, "DISLIKE"),
        feedback("r", "item:0", START + 2, "SKIP"),
        feedback("r", "item:3", START + 3, "SKIP"),
        feedback("r", "item:3", START + 4, "PLAY"),
        feedback("r", "item:3", START + 5, "CLICK"),
    ]

    (example,) = examples(tmp_path, *events, decision=decision)

    assert example.rewards.tolist() == [-1.0, 0, 0, 1.0, 0, 0, 0, 0, 0, 0]


def test_feedback_after_the_attribution_window_is_no_label(tmp_path: Path) -> None:
    decision = World(5).decide("r", START)[0]

    found = examples(tmp_path, feedback("r", "item:2", START + 90_000), decision=decision)

    assert found == []


def test_later_pages_are_not_learned_from(tmp_path: Path) -> None:
    event = World(5).decide("r", START)[0]
    page = decision_pb2.Decision.FromString(event.payload)
    page.root_request_id = "first-page"
    later = Event(Stream.DECISIONS, "r", page.SerializeToString(), START)

    found = examples(tmp_path, feedback("r", "item:2", START + 5), decision=later)

    assert found == []


@pytest.mark.parametrize(
    "other",
    [{"feature_version": "v0"}, {"feature_names": [*NAMES[:-1], "renamed"]}],
    ids=["version", "names"],
)
def test_decisions_with_other_features_than_the_latest_are_left_out(
    tmp_path: Path, other: dict[str, object]
) -> None:
    world, log = World(5), open_log("sqlite:log.db", tmp_path)
    latest = world.decide("latest", START + 60)[0]
    changed = decision_pb2.Decision.FromString(world.decide("changed", START)[0].payload)
    for name, value in other.items():
        changed.ClearField(name)
        changed.MergeFrom(decision_pb2.Decision(**{name: value}))
    log.append([Event(Stream.DECISIONS, "changed", changed.SerializeToString(), START), latest])
    log.append([feedback(name, "item:2", START + 65) for name in ("changed", "latest")])
    options = settings()
    data = read_training_set(log, options.feedback, options.training, lambda stage, share: None)
    log.close()

    assert [d.sequence for d in data.decisions] == [2]
    assert data.unusable == {Unusable.OTHER_FEATURES: 1}


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
