"""What the ranker is trained on: searches as they were recorded, and what users did about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from forage.log import Event, Stream
from forage.log.engines import open_log
from forage.v1 import decision_pb2
from ranker.training_set import JudgedDecision, Unusable, read_training_set
from tests.learning.click_world import NAMES, START, World, feedback, settings


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
