"""Copying a log keeps every record and every sequence, goes on after a stop, and proves it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forage.cli import app
from forage.errors import ConflictError, FailedPreconditionError
from forage.log import Event, EventLog, Stream, Topic
from forage.log.copying import HOLE, content, copy_log, copy_registry
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry


class StoppedError(Exception):
    """Stands for a kill."""


def fill(log: EventLog, seed: int = 1, count: int = 1_500) -> None:
    """Write items again and again, which leaves holes, and searches with their feedback."""
    rng = random.Random(seed)
    for start in range(0, count, 250):
        log.append(
            [
                Event(
                    Stream.CATALOG,
                    f"film:{rng.randrange(count // 3)}",
                    rng.randbytes(rng.randrange(50)),
                    float(start + i),
                )
                for i in range(250)
            ]
        )
        log.append(
            [
                Event(
                    rng.choice([Stream.DECISIONS, Stream.FEEDBACK]),
                    f"{start + i}",
                    rng.randbytes(20),
                    1_700_000_000.125 + i,
                    {"traceparent": f"00-{i}"},
                )
                for i in range(100)
            ]
        )


def records(log: EventLog, topic: Topic) -> list[object]:
    return [r for r in log.read(topic, 0, 100_000) if r.key != HOLE]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "source.db")
    yield log
    log.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "target.db")
    yield log
    log.close()


def stop_at(sequence: int) -> Callable[[str, int, int], None]:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= sequence:
            raise StoppedError

    return stop


def test_a_copy_has_the_same_records_at_the_same_sequences(source: EventLog, target: EventLog):
    fill(source)

    copied = {c.topic: c for c in copy_log(source, target)}

    for topic in Topic:
        assert records(target, topic) == records(source, topic)
        assert target.head(topic) == source.head(topic) == copied[topic].head
    assert copied[Topic.CATALOG].content.counts == {"catalog": len(records(source, Topic.CATALOG))}
    assert source.append([Event(Stream.CATALOG, "next", b"", 0.0)]) == target.append(
        [Event(Stream.CATALOG, "next", b"", 0.0)]
    )


def test_an_empty_log_copies_to_an_empty_log(source: EventLog, target: EventLog):
    assert [c.head for c in copy_log(source, target)] == [0, 0]


def test_a_stopped_copy_goes_on_where_it_stopped(source: EventLog, target: EventLog):
    fill(source)
    for sequence in (300, 600, 1_200):
        with pytest.raises(StoppedError):
            copy_log(source, target, on_progress=stop_at(sequence))

    catalog, interactions = copy_log(source, target)

    assert catalog.resumed_at >= 1_200
    assert interactions.resumed_at == 0
    assert records(target, Topic.CATALOG) == records(source, Topic.CATALOG)


def test_a_finished_copy_follows_a_source_that_has_grown(source: EventLog, target: EventLog):
    fill(source, seed=1)
    copy_log(source, target)
    source.append([Event(Stream.CATALOG, f"film:{n}", b"later", 9.0) for n in range(100)])

    copy_log(source, target)

    assert records(target, Topic.CATALOG) == records(source, Topic.CATALOG)


def test_a_copy_of_a_copy_is_the_same(source: EventLog, target: EventLog, tmp_path: Path):
    fill(source)
    copy_log(source, target)
    third = SqliteEventLog.open(tmp_path / "third.db")

    copy_log(target, third)

    for topic in Topic:
        head = source.head(topic)
        assert content(third, topic, head) == content(source, topic, head)
    third.close()


def test_a_target_that_has_something_else_is_refused_and_left_alone(
    source: EventLog, target: EventLog
):
    fill(source, seed=1)
    fill(target, seed=2, count=500)
    before = records(target, Topic.CATALOG)

    with pytest.raises(FailedPreconditionError, match="not an unfinished copy"):
        copy_log(source, target)

    assert records(target, Topic.CATALOG) == before


def test_a_target_that_is_further_than_the_source_is_refused(source: EventLog, target: EventLog):
    fill(target)

    with pytest.raises(FailedPreconditionError, match="ends at"):
        copy_log(source, target)


@pytest.mark.parametrize("item_id", ["film:1", "film:new"])
def test_a_source_that_is_written_to_meanwhile_is_noticed(
    source: EventLog, target: EventLog, item_id: str
):
    fill(source)

    def write(stage: str, done: int, total: int) -> None:
        if stage == "copy catalog" and done == total:
            source.append([Event(Stream.CATALOG, item_id, b"meanwhile", 0.0)])

    with pytest.raises(ConflictError, match="differs"):
        copy_log(source, target, on_progress=write)


def test_a_target_that_others_write_to_is_noticed(source: EventLog, target: EventLog):
    fill(source)

    def write(stage: str, done: int, total: int) -> None:
        if stage == "copy catalog":
            target.append([Event(Stream.CATALOG, "film:1", b"meanwhile", 0.0)])

    with pytest.raises(ConflictError, match="somebody else"):
        copy_log(source, target, on_progress=write)


def test_progress_reaches_the_end_of_every_stage(source: EventLog, target: EventLog):
    fill(source)
    seen: dict[str, tuple[int, int]] = {}

    copy_log(source, target, on_progress=lambda s, done, total: seen.update({s: (done, total)}))

    assert list(seen) == [f"{s} {t}" for t in Topic for s in ("copy", "verify")]
    assert all(done == total for done, total in seen.values())


def test_no_append_is_larger_than_a_few_megabytes(
    source: EventLog, target: EventLog, monkeypatch: pytest.MonkeyPatch
):
    fill(source)
    monkeypatch.setattr("forage.log.copying._BATCH_BYTES", 100)
    stages: list[str] = []

    copy_log(source, target, on_progress=lambda stage, done, total: stages.append(stage))

    assert stages.count("copy interactions") == 600 * 20 / 100
    assert records(target, Topic.INTERACTIONS) == records(source, Topic.INTERACTIONS)


def test_a_registry_is_copied_with_its_numbers_and_what_is_current(tmp_path: Path):
    source, target = DirectoryRegistry(tmp_path / "source"), DirectoryRegistry(tmp_path / "target")
    for number in range(1, 8):
        source.publish("ranker", str(number).encode(), {"n": number}, make_current=False)
    source.publish("policy", b"policy", {})
    source.publish("index-lexical", b"made again from the log", {})
    source.set_current("ranker", 6, expected=None)
    source.prune("ranker", keep=3)

    copied = [copy_registry(source, target) for _ in range(2)]

    assert copied == [{"policy": 1, "ranker": 3}] * 2
    assert target.kinds() == ["policy", "ranker"]
    assert target.history("ranker") == source.history("ranker")
    assert target.load("ranker") == source.load("ranker")
    source.set_current("ranker", 7, expected=6)
    copy_registry(source, target)
    assert target.publish("ranker", b"next", {}, expected_current=7).version == 8
    other = DirectoryRegistry(tmp_path / "other")
    other.adopt(replace(source.history("ranker")[0], sha256="0"), b"other")
    with pytest.raises(ConflictError, match="another ranker version"):
        copy_registry(source, other)


def test_the_command_copies_tells_the_digests_and_refuses_nonsense(
    source: EventLog, tmp_path: Path
):
    fill(source)
    here, there = f"sqlite:{tmp_path}/source.db", f"sqlite:{tmp_path}/copy.db"
    digest = content(source, Topic.CATALOG, source.head(Topic.CATALOG)).digest

    done = CliRunner().invoke(app, ["log", "copy", here, there])
    as_json = CliRunner().invoke(app, ["log", "copy", here, there, "--json"])
    same = CliRunner().invoke(app, ["log", "copy", here, here])
    missing = CliRunner().invoke(app, ["log", "copy", f"sqlite:{tmp_path}/no.db", there])

    assert done.exit_code == 0
    assert digest[:16] in done.stdout
    assert digest in as_json.stdout
    assert "TARGET" in str(same.exception)
    assert "no.db" in str(missing.exception)
    assert not (tmp_path / "no.db").exists()
