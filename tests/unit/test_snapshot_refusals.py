"""Snapshots that are not used: damaged, of another format, or of another log."""

from collections.abc import Callable

import pytest

from forage.log import Event, Stream
from forage.log.archive import compress, pack
from forage.log.sqlite import SqliteEventLog
from tests.unit.snapshot_world import KIND, Tally, World, refusals
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda content: content[:-600], "SHA-256"),
        (lambda content: content[:100] + b"?" + content[101:], "SHA-256"),
        (lambda content: b"", "SHA-256"),
        (None, "damaged"),
    ],
)
def test_a_damaged_snapshot_is_refused_by_name_and_the_log_is_read(
    world: World,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes] | None,
    named: str,
):
    world.fill(0, 10)
    world.published()
    path = world.folder / "registry" / KIND / "00000001.bin"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))

    tally = world.follow("new")

    assert tally.given == list(range(1, 11))
    assert "snapshot 1 of projection tally is refused: " in refusals(caplog)
    assert named in refusals(caplog)
    assert "it is built from the log" in refusals(caplog)
    assert not list((world.folder / "new").glob(".snapshot*"))


def test_from_a_damaged_snapshot_the_one_before_is_taken(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    world.fill(10, 20)
    world.now += 1.0
    world.published()
    (world.folder / "registry" / KIND / "00000002.bin").write_bytes(b"?")

    tally = world.follow("new")

    assert tally.given == list(range(11, 21))
    assert "snapshot 2 of projection tally is refused" in refusals(caplog)


def test_an_archive_that_is_whole_but_not_what_it_should_be_is_refused(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    metadata = world.registry.current(KIND).metadata
    world.registry.publish(KIND, b"no archive" * 999, metadata, expected_current=1)

    assert world.follow("new").given == []
    assert "snapshot 2 of projection tally is refused: the archive cannot be read" in refusals(
        caplog
    )


def test_what_restore_does_not_accept_is_built_from_the_log(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.follow("first")
    eventually(lambda: world.versions())
    world.stop()
    file = world.folder / "first" / "tally"
    file.write_bytes(file.read_bytes()[:-1])
    snapshots = world.snapshots(world.folder / "first")
    note = snapshots.take(Tally(world.folder / "first"), world.folder / "a.tar")
    assert note is None, "nothing is known of the file until it is read"
    metadata = world.registry.current(KIND).metadata
    pack(world.folder / "a.tar", {"tally": file})
    payload = compress(world.folder / "a.tar").read_bytes()
    world.registry.publish(KIND, payload, metadata, expected_current=1)

    assert world.follow("new").given == list(range(1, 11))
    assert "cannot use the snapshot" in refusals(caplog)


def test_a_snapshot_of_another_format_is_refused_and_an_older_one_of_this_is_taken(
    world: World, caplog: pytest.LogCaptureFixture
):
    world.fill(0, 10)
    world.published()
    world.follow("newer release", version=2)
    eventually(lambda: world.versions() == [2, 1])
    world.stop()
    world.fill(10, 12)

    assert world.follow("this release").given == [11, 12]
    assert "'tally, version 2', and this is 'tally, version 1'" in refusals(caplog)
    assert world.follow("the newer again", version=2).given == [11, 12]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "has format 2"),
        ({"sequence": 99}, "the log ends at 10"),
        ({"projection": "other"}, "of projection 'other'"),
        ({"topic": "interactions"}, "topic 'interactions'"),
        ({"record": [10, "catalog", "9", 1]}, "another log"),
        ({"record": [9, "catalog", "no such item", 1]}, "another log"),
        ({"record": [10, "catalog", "0", 1]}, "another log"),
        ({"record": "nonsense"}, "damaged"),
        ({"sequence": None}, "damaged"),
        ({"size": "much"}, "damaged"),
        ({"size": 100}, "larger than the archive"),
        ({"unknown": 1}, "damaged"),
    ],
)
def test_a_snapshot_that_does_not_belong_here_is_refused_by_name(
    world: World, caplog: pytest.LogCaptureFixture, change: dict[str, object], named: str
):
    world.fill(0, 10)
    world.published()
    info, payload = world.registry.load(KIND)
    world.registry.publish(KIND, payload, {**info.metadata, **change}, expected_current=1)
    (world.folder / "registry" / KIND / "00000001.json").unlink()

    assert world.follow("new").given == list(range(1, 11))
    assert named in refusals(caplog)


@pytest.mark.parametrize("shared", [0, 5, 9])
def test_a_snapshot_of_another_log_is_refused(
    world: World, caplog: pytest.LogCaptureFixture, shared: int
):
    world.fill(0, 10)
    world.published()
    other = SqliteEventLog.open(world.folder / "other.db")
    payloads = [b"x%d" % n if n < shared else b"other" for n in range(20)]
    other.append([Event(Stream.CATALOG, str(n), p, 1.0) for n, p in enumerate(payloads)])

    assert world.follow("new", other).given == list(range(1, 21))
    assert "it was made from another log" in refusals(caplog)
    world.stop()
    other.close()


def test_a_replaced_item_does_not_make_it_another_log(world: World):
    world.fill(0, 10)
    world.published()
    world.fill(0, 10)

    assert world.follow("new").given == list(range(11, 21))
