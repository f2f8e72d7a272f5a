"""Writes the golden bytes of a release: `python tests/golden/write.py tests/golden/v0.1`.

Run once per release, never again for an old one: what a release wrote must be read for ever.
"""

import sys
from pathlib import Path

from forage.log import Event, Stream
from forage.log.checkpoint import CheckpointFile
from forage.log.sqlite import SqliteEventLog
from forage.testing.catalog import items, upsert
from forage.v1 import decision_pb2, feedback_service_pb2, plan_pb2
from orchestrator.bandit import Learner
from orchestrator.learning import bandit_settings
from orchestrator.settings import OrchestratorSettings


def decision() -> decision_pb2.Decision:
    """Return a decision record with every part filled in."""
    message = decision_pb2.Decision(
        request_id="golden", propensity=0.25, propensity_draws=128, model_version=3, trace_id="ab"
    )
    message.time.FromSeconds(1_800_000_000)
    message.query.text = "lantern"
    message.query.query_class = 2
    message.plan.policy = "thompson"
    message.plan.source = plan_pb2.PLAN_SOURCE_POLICY
    message.plan.calls.add(generator="lexical", fan_out=50, utilities=[0.0, 1.5], costs=[0, 3])
    shown = message.displayed.add(item_id="film:a", position=1, score=0.5, features=[1.0, 2.0])
    shown.provenance.add(generator="lexical", rank=1, score=7.0)
    return message


def main(directory: Path) -> None:
    """Write a log, a checkpoint and a policy snapshot."""
    log = SqliteEventLog.open(directory / "log.db")
    log.append([upsert(item, time=1_800_000_000.0) for item in items()[:3]])
    recorded = decision()
    log.append([Event(Stream.DECISIONS, "golden", recorded.SerializeToString(), 1_800_000_000.0)])
    event = feedback_service_pb2.FeedbackEvent(
        event_id="event", request_id="golden", item_id="film:a", kind=2, amount=0.5
    )
    log.append([Event(Stream.FEEDBACK, "event", event.SerializeToString(), 1_800_000_001.0)])
    log.close()
    CheckpointFile(directory / "state", name="golden", version=1).save(7, b"payload")
    learner = Learner(bandit_settings(OrchestratorSettings()))
    (directory / "policy.bin").write_bytes(learner.snapshot().to_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
