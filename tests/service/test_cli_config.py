import json
from pathlib import Path

import pytest

from forage.cli import main
from forage.testing.probe import install

SCHEMA = Path("config/films.schema.yaml").absolute()


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Runs `forage check-config` where a probe is installed as the service `alpha`."""
    install(tmp_path / "path", "alpha")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "alpha.yaml").write_text(f"schema_file: {SCHEMA}\nserver: {{port: 7109}}\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["check-config", *arguments, "--config-dir", str(tmp_path)])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_every_value_is_shown_with_where_it_came_from(check, tmp_path, monkeypatch):
    monkeypatch.setenv("FORAGE_ALPHA__SERVER__WORKERS", "8")

    status, out, _ = check("alpha", "--set", "server.grace_ms=1", "--json")

    found = json.loads(out)["alpha"]
    assert status == 0
    assert found["server.port"] == {"value": 7109, "source": f"file {tmp_path / 'alpha.yaml'}"}
    assert found["server.workers"]["source"] == "environment FORAGE_ALPHA__SERVER__WORKERS"
    assert found["server.grace_ms"] == {"value": 1, "source": "flag"}
    assert found["gate"] == {"value": None, "source": "default"}


def test_values_are_shown_as_a_table(check):
    status, out, _ = check("alpha")

    assert status == 0
    assert "server.port" in out
    assert "7109" in out
    assert "default" in out


def test_another_file_can_be_checked(check, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"schema_file: {SCHEMA}\nserver: {{port: 1}}\n")

    _, out, _ = check("alpha", "--config", str(other), "--json")

    assert json.loads(out)["alpha"]["server.port"]["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alpha", "--set", "server.prot=1"], "server.prot (flag): there is no such setting"),
        (["alpha", "--set", "server.port=high"], "server.port (flag)"),
        (["alpha", "--set", "nothing"], "--set"),
        (["alpha", "--set", "refuse=["], "--set"),
        (["alpha", "--set", "schema_file=absent.yaml"], "absent.yaml"),
        (["alpha", "--config", "absent.yaml"], "absent.yaml"),
        (["--config", "absent.yaml"], "--config"),
        (["gamma"], "there is no service 'gamma'"),
    ],
)
def test_an_error_is_a_message_and_status_2(check, arguments, message):
    status, out, err = check(*arguments)

    assert (status, out) == (2, "")
    assert message in err


def test_entries_of_a_mapping_are_traced_to_their_sources(check, tmp_path):
    path = tmp_path / "orchestrator.yaml"
    path.write_text(f"schema_file: {SCHEMA}\ngenerators: {{lexical: {{target: 'a:1'}}}}\n")
    plan = "plan={static: {lexical: 50}, presets: [{lexical: 50}]}"

    status, out, err = check("orchestrator", "--set", plan, "--json")

    found = json.loads(out)["orchestrator"]
    assert status == 0, err
    assert found["generators"]["source"] == f"file {path}"
    assert found["generators"]["value"]["lexical"]["target"] == "a:1"
    assert found["plan.static"]["source"] == "flag"
