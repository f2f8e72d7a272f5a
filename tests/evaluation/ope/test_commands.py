"""`forage ope` on the command line: what is printed first, and the exit status."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np
import pytest
import yaml

from evaluation.ope.commands import REFUSED
from forage.cli import main
from forage.log.sqlite import SqliteEventLog
from forage.v1 import plan_pb2
from orchestrator import planner
from tests.unit.orchestrator_decisions import (
    NAMES,
    configured,
    decided,
    feedback,
    phi,
    prior,
    search,
)

PLAN = {
    "static": dict.fromkeys(NAMES, 10),
    "presets": [dict.fromkeys(NAMES, 10), {"lexical": 50}],
    "traffic": {"static": 1.0},
    "uniform_share": 0.4,
    "full_share": 0.2,
}


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stdout + self.stderr


def run(*arguments: str) -> Result:
    """Run the command as `forage` does, which reports errors for every command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(["ope", *arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return Result(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder whose log has a search policy that is half random."""
    path = tmp_path_factory.mktemp("data")
    content = {
        "data_dir": str(path),
        "generators": {name: {"target": "127.0.0.1:1"} for name in NAMES},
        "plan": PLAN,
    }
    (path / "orchestrator.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    settings = configured(data_dir=str(path), plan=PLAN)
    plans, snapshot = planner.Planner(settings), prior(settings, 0)
    rng = np.random.default_rng(8)
    events = []
    for number in range(360):
        request_id = f"r{number}"
        decision = decided(settings, request_id, at=float(number))
        planned = plans.plan(phi(number % 7), {}, snapshot, request_id=request_id)
        decision.plan.CopyFrom(planner.to_message(planned, settings.plan.seed))
        found = plans.propensity(planned, request_id, 128)
        decision.propensity, decision.propensity_draws = found.value, found.draws
        for name, row in zip(NAMES, found.marginals, strict=True):
            decision.marginals.add(generator=name, probabilities=row)
        if planned.policy == "full":
            decision.ClearField("outcomes")
            for name, fan_out in planned.choice.fan_outs.items():
                status = plan_pb2.OUTCOME_STATUS_ANSWERED
                decision.outcomes.add(generator=name, fan_out=fan_out, status=status)
        events.append(search(decision))
        if rng.random() < 0.5:
            events.append(feedback(f"e{number}", request_id, "item:1", at=float(number)))
    log = SqliteEventLog.open(path / "log.db")
    log.append(events)
    log.close()
    return path


def test_diagnostics_come_before_estimates(folder):
    result = run("--config", str(folder / "orchestrator.yaml"), "--policy", "static")

    assert result.exit_code == 0, result.output
    order = ["effective sample size", "largest weight", "support violations", "doubly robust"]
    places = [result.stdout.index(text) for text in order]
    assert places == sorted(places)
    assert "feedback may still come" in result.stdout


def test_json_says_the_same_and_the_same_again(folder):
    arguments = ("--config", str(folder / "orchestrator.yaml"), "--policy", "static", "--json")

    first, again = run(*arguments), run(*arguments)

    assert first.stdout == again.stdout
    found = json.loads(first.stdout)
    values = {e["estimator"]: e for e in found["estimates"]}
    assert values["doubly robust"]["value"] == pytest.approx(0.5, abs=0.12)
    assert values["full-pull replay"]["value"] == pytest.approx(0.5, abs=0.25)
    assert found["target"] == "static"


def test_an_estimate_that_must_not_be_trusted_ends_with_its_own_status(folder):
    result = run(
        "--config", str(folder / "orchestrator.yaml"), "--policy", "thompson", "--draws", "20"
    )

    assert result.exit_code == REFUSED
    assert "refused: doubly robust" in result.stdout


def test_one_enormous_weight_ends_with_a_refusal(tmp_path):
    rows = [f"t,{n % 2},1,{n % 3 == 0:d},0.5" for n in range(999)]
    (tmp_path / "log.csv").write_text(
        "\n".join(("timestamp,item_id,position,click,propensity_score", *rows, "t,0,1,1,1e-7"))
    )

    result = run("--open-bandit", str(tmp_path))

    assert result.exit_code == REFUSED
    assert "one row has 100% of all weight" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--data", "nowhere"), 2, "there is no such file"),
        (("--open-bandit", "nowhere"), 2, "there is no such folder"),
        (("--policy", "best"), 2, "there is no such file"),
        (("--like", "somewhere"), 1, "--open-bandit"),
        (("--config", "nowhere.yaml"), 2, "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_said(arguments, status, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = run(*arguments)

    assert result.exit_code == status
    assert message in result.stderr.replace("\n", " ")


def test_a_log_without_propensities_names_the_field(tmp_path):
    settings = configured(data_dir=str(tmp_path))
    decision = decided(settings, "r1", at=0.0)
    decision.plan.source = plan_pb2.PLAN_SOURCE_POLICY
    log = SqliteEventLog.open(tmp_path / "log.db")
    log.append([search(decision)])
    log.close()
    config = tmp_path / "orchestrator.yaml"
    generators = {name: {"target": "127.0.0.1:1"} for name in NAMES}
    plan = {"static": {"lexical": 10}, "presets": [{"lexical": 10}]}
    config.write_text(
        yaml.safe_dump(
            {"generators": generators, "plan": plan, "learner": {"delay_s": 0}}, sort_keys=False
        )
    )

    result = run("--data", str(tmp_path), "--config", str(config))

    assert result.exit_code == 1
    assert "propensity: none of 1 searches can be used" in result.stderr.replace("\n", " ")
