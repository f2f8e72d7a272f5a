"""Checkpoint files: what was saved comes back, and what cannot be trusted does not."""

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.errors import StorageError
from forage.log.checkpoint import CheckpointFile


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "memory" / "checkpoint", name="memory", version=3)


@given(sequence=st.integers(0, 2**63), payload=st.binary(max_size=2000))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_saved_last_is_loaded(file: CheckpointFile, sequence: int, payload: bytes) -> None:
    file.save(sequence, payload)

    assert file.load() == (sequence, payload)


def test_there_is_nothing_before_the_first_save(
    file: CheckpointFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert file.load() is None
    assert caplog.records == [], "a first start is no reason to warn"


def test_every_damaged_byte_and_every_truncation_is_noticed(
    file: CheckpointFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "memory" / "checkpoint"
    file.save(7, b"state")
    good = path.read_bytes()
    flipped = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(len(good))]
    truncated = [good[:i] for i in range(len(good))]

    for bad in [*flipped, *truncated, good + b"x"]:
        caplog.clear()
        path.write_bytes(bad)

        assert file.load() is None
        assert [r.levelno for r in caplog.records] == [logging.WARNING]
        assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("name", "version"), [("memory", 2), ("graph", 3), ("ranker", 3), ("memory2", 3)]
)
def test_another_format_is_not_loaded(
    file: CheckpointFile, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, version: int
) -> None:
    CheckpointFile(tmp_path / "memory" / "checkpoint", name=name, version=version).save(7, b"state")

    assert file.load() is None
    assert "memory" in caplog.text


def test_a_save_that_fails_keeps_the_previous_checkpoint(
    file: CheckpointFile, tmp_path: Path
) -> None:
    file.save(7, b"state")
    (tmp_path / "memory" / "checkpoint.tmp").mkdir()

    with pytest.raises(StorageError, match="checkpoint"):
        file.save(8, b"newer")

    assert file.load() == (7, b"state")


def test_no_draft_is_left_behind(file: CheckpointFile, tmp_path: Path) -> None:
    file.save(7, b"state")

    assert [p.name for p in (tmp_path / "memory").iterdir()] == ["checkpoint"]


def test_a_file_that_cannot_be_read_is_a_storage_error(
    file: CheckpointFile, tmp_path: Path
) -> None:
    (tmp_path / "memory" / "checkpoint").mkdir(parents=True)

    with pytest.raises(StorageError, match="cannot read"):
        file.load()
