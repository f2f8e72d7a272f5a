"""What earlier releases wrote must still be read."""

import shutil
from pathlib import Path

import pytest

from forage import wire
from forage.log import Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.log.sqlite import SqliteEventLog
from forage.v1 import decision_pb2, feedback_service_pb2
from orchestrator.bandit import Snapshot
from orchestrator.planner import Versioned

HERE = Path(__file__).parent
RELEASES = sorted(p.name for p in HERE.iterdir() if p.is_dir() and p.name.startswith("v"))


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(HERE / request.param, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_there_is_at_least_one_release():
    assert RELEASES


def test_a_log_is_read(release: Path):
    log = SqliteEventLog.open(release / "log.db")

    items = [wire.catalog_change(r) for r in log.read(Topic.CATALOG, 0, 10)]
    decision = log.get(Stream.DECISIONS, "golden")
    feedback = log.get(Stream.FEEDBACK, "event")

    assert [item_id for item_id, item in items if item is not None]
    assert decision is not None
    assert feedback is not None
    read = decision_pb2.Decision.FromString(decision.payload)
    assert (read.propensity, read.plan.policy, read.query.text) == (0.25, "thompson", "lantern")
    assert list(read.displayed[0].features) == [1.0, 2.0]
    event = feedback_service_pb2.FeedbackEvent.FromString(feedback.payload)
    assert (event.kind, event.amount) == (feedback_service_pb2.FEEDBACK_KIND_PLAY, 0.5)
    log.close()


def test_a_checkpoint_is_read(release: Path):
    assert CheckpointFile(release / "state", name="golden", version=1).load() == (7, b"payload")


def test_a_policy_snapshot_is_read_and_can_plan(release: Path):
    snapshot = Snapshot.from_bytes((release / "policy.bin").read_bytes())

    assert "thompson" in Versioned.of(1, snapshot).policies
