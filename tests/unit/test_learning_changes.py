"""What the learner does when a generator says that it has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from forage.log import Event
from forage.log.sqlite import SqliteEventLog
from tests.unit.learned import CONFIG, DELAY, Learned, later
from tests.unit.orchestrator_decisions import decided, feedback, search

CALLED = "lexical"
OTHER = "semantic"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "log.db")
    yield log
    log.close()


def versioned(name: str, at: float, versions: Mapping[str, str]) -> list[Event]:
    """Return a search that was liked, whose generators said these versions."""
    decision = decided(CONFIG, name, at=at, policy="full")
    for outcome in decision.outcomes:
        outcome.generator_version = versions.get(outcome.generator, "")
    return [search(decision), feedback(f"e-{name}", name, "item:1", at=at + 1)]


def story(versions: list[str]) -> list[Event]:
    """Return searches in which one generator has these versions in turn, and time to learn."""
    events = [
        event
        for n, version in enumerate(versions)
        for event in versioned(f"r{n}", 2 * DELAY * n, {CALLED: version, OTHER: "same"})
    ]
    return [*events, later("end", 2 * DELAY * len(versions))]


def certainty(learned: Learned, generator: str) -> float:
    """Return the precision of a generator's first bias."""
    hazard = learned.projection._learner.hazard
    return float(hazard.precision[hazard.generators.index(generator), 0, 0, 0])


def taught(log: SqliteEventLog, folder: Path, versions: list[str], **changes) -> Learned:
    log.append(story(versions))
    return Learned(log, folder, **changes).follow()


def both(tmp_path: Path, one: list[str], two: list[str], **changes) -> tuple[Learned, Learned]:
    """Return what two logs teach."""
    found = []
    for name, versions in (("one", one), ("two", two)):
        folder = tmp_path / name
        folder.mkdir()
        log = SqliteEventLog.open(folder / "log.db")
        try:
            found.append(taught(log, folder, versions, **changes))
        finally:
            log.close()
    return found[0], found[1]


def test_a_new_version_widens_the_beliefs_about_that_generator_alone(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        same, changed = both(tmp_path, ["a"] * 8, ["a"] * 7 + ["b"])

    assert certainty(changed, CALLED) < 0.6 * certainty(same, CALLED)
    assert certainty(changed, OTHER) == certainty(same, OTHER)
    assert f"{CALLED} changed" in caplog.text


def test_beliefs_are_widened_once_while_old_and_new_replicas_answer_in_turn(tmp_path):
    once, in_turn = both(tmp_path, ["a"] * 4 + ["b"] * 4, ["a"] * 4 + ["b", "a", "b", "a"])

    assert in_turn.beliefs() == once.beliefs()


def test_the_first_version_and_answers_without_one_are_no_news(tmp_path):
    silent, told = both(tmp_path, [""] * 6, ["", "", "a", "", "a", ""])

    assert told.beliefs() == silent.beliefs()


@pytest.mark.parametrize(("others", "news"), [(15, 15), (16, 17)])
def test_a_version_is_no_news_while_fewer_than_sixteen_came_after_it(
    log, tmp_path, caplog, others, news
):
    with caplog.at_level(logging.INFO):
        taught(log, tmp_path, ["first", *map(str, range(others)), "first"])

    assert caplog.text.count(f"{CALLED} changed") == news


def test_the_share_that_is_kept_is_a_setting(tmp_path):
    same, changed = both(
        tmp_path,
        ["a"] * 6,
        ["a"] * 5 + ["b"],
        learner={"delay_s": DELAY, "keep_of_changed": 1.0},
    )

    assert np.isclose(certainty(changed, CALLED), certainty(same, CALLED))


def test_versions_survive_a_restart(log, tmp_path):
    log.append(story(["a", "a", "a", "b", "a", "b"]))
    whole = Learned(log, tmp_path / "whole").follow()
    part = Learned(log, tmp_path / "part").follow(batch=1, most=9)

    again = part.restart(tmp_path / "part").follow()

    assert again.beliefs() == whole.beliefs()


def test_a_change_is_published_even_if_nothing_else_was_learned(log, tmp_path):
    learned = Learned(log, tmp_path)
    log.append(versioned("r1", 0, {CALLED: "a"}))
    log.append([later("r2", 2 * DELAY)])
    before = learned.follow().publish()
    log.append([versioned("r3", 2 * DELAY + 1, {CALLED: "b"})[0]])
    after = learned.follow().publish()

    assert before is not None
    assert after is not None
    assert after.version > before.version


def test_a_checkpoint_from_before_there_were_versions_goes_on(log, tmp_path):
    log.append(story(["", "", ""]))
    learned = Learned(log, tmp_path).follow()
    learned.projection.checkpoint(learned.after)
    file = learned.projection._file
    sequence, payload = file.load()
    size = int.from_bytes(payload[:8], "big")
    state = json.loads(payload[8 + size :])
    del state["versions"]
    file.save(sequence, payload[: 8 + size] + json.dumps(state).encode())

    again = Learned(log, tmp_path)

    assert again.projection.restore() == learned.after
    assert again.beliefs() == learned.beliefs()
