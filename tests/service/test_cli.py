import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from forage.cli import feedback as feedback_command
from forage.cli import main
from forage.client import FeedbackKind
from forage.errors import InternalError, OverloadedError
from forage.testing.catalog import SCHEMA, items
from forage.testing.orchestrator import InMemoryOrchestrator
from forage.testing.running import running

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def orchestrator() -> Iterator[InMemoryOrchestrator]:
    orchestrator = InMemoryOrchestrator(SCHEMA)
    orchestrator.put(*items())
    return orchestrator


@pytest.fixture
def cli(
    orchestrator: InMemoryOrchestrator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """Runs a command against the server, and returns its status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    with running(orchestrator) as address:
        monkeypatch.setenv("FORAGE_ADDRESS", address)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("FORAGE_DEBUG", raising=False)
        yield run


def test_help_is_quick():
    seconds = []
    for _ in range(2):
        before = _children_seconds()
        ended = subprocess.run(
            [sys.executable, "-m", "forage.cli", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(_children_seconds() - before)

    for command in ("up", "import", "search", "feedback", "train", "policy", "status", "trace"):
        assert f" {command} " in ended.stdout
    # Processor time: the wall clock depends on what else the machine does.
    assert min(seconds) < 0.6


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom forage.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'grpc', 'numpy', 'pydantic', 'opentelemetry', 'google.protobuf', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stderr.strip() == "[]"


def test_a_search_shows_results_plan_and_what_to_do_next(cli, orchestrator):
    status, out, _ = cli("search", "copper moon", "--facet", "genre", "--page-size", "1")

    request_id = next(iter(orchestrator.decisions))
    assert status == 0
    assert "Night of the Copper Moon" in out
    assert "titles 1" in out
    assert "year 1987 · Tobin Achterberg, Sefa Morrow · Dario Velt · horror" in out
    assert "titles 25→2 (2 alone" in out
    assert "cost 4/26, static (policy)" in out
    assert "genre: horror 2, action 1" in out
    assert f"forage feedback {request_id} 'film:night-of-the-copper-moon' --kind click" in out
    assert "--page-token 1" in out


def test_filters_are_typed_as_the_schema_types_them(cli):
    def found(*options: str) -> list[str]:
        status, out, err = cli("search", "", "--json", "--page-size", "100", *options)
        assert status == 0, err
        results = json.loads(out).get("results", [])
        return [r["item"]["item_id"] for r in results]

    assert found("--filter", "year=2014") == ["film:a-quiet-orbit"]
    assert found("-f", "released=1979-01-01..1979-12-31") == ["film:seven-miles-of-rain"]
    assert found("-f", "year=..1980", "-f", "kind=film") == ["film:seven-miles-of-rain"]
    named = [i.item_id for i in items() if i.kind in ("person", "genre")]
    assert found("--kind", "person", "--kind", "genre") == named
    assert len(found("--filter", "genre=romance|crime", "--exclude", "language=French")) == len(
        [
            i
            for i in items()
            if {"romance", "crime"} & set(i.texts("genre")) and "French" not in i.texts("language")
        ]
    )


@pytest.mark.parametrize(
    "text", ["year", "=1990", "year=", "year=old", "year=..", "year=nan", "released=1990-13-01.."]
)
def test_a_malformed_filter_is_wrong_usage(cli, text):
    status, _, err = cli("search", "moon", "--filter", text)

    assert status == 2
    assert "--filter" in err


def test_an_unknown_filter_is_refused_by_the_server(cli):
    status, out, err = cli("search", "moon", "--filter", "colour=red")

    assert status == 1
    assert out == ""
    assert err.startswith("error: filters[0].attribute: 'colour' cannot be filtered; allowed:")


def test_grouped_results_are_shown_by_kind(cli):
    status, out, _ = cli("search", "mara", "--group")

    assert status == 0
    assert out.splitlines()[0] == "person"


def test_a_disabled_generator_is_shown_as_missing(cli):
    assert cli("policy", "disable", "titles") == (0, "switched off: titles\n", "")

    _, out, _ = cli("search", "moon")

    assert "missing  titles: DISABLED switched off" in out
    assert "nothing found" in out
    assert cli("policy", "enable", "titles")[1] == "switched off: none\n"


def test_text_from_the_catalogue_is_not_taken_for_markup(cli, orchestrator):
    film = next(iter(items()))
    title = type(film.values("title")[0])("[bold]Brackets[/] [REC]")
    orchestrator.put(type(film)("film:x", "film", {"title": (title,)}))

    _, out, _ = cli("search", "[rec]")

    assert "[bold]Brackets[/] [REC]" in out


def test_explaining_a_text_shows_utilities_reasons_contributions_and_fan_out(cli):
    status, out, _ = cli("explain", "copper moon")

    assert status == 0
    assert "25: 1.39 (4)" in out
    assert "titles rank 1, score 1.000; found from fan-out 10" in out
    assert "field: title" in out
    assert "titles.rank +0.500" in out


def test_explaining_a_request_id_reads_its_record(cli, orchestrator):
    cli("search", "copper moon")
    request_id = next(iter(orchestrator.decisions))

    status, out, _ = cli("explain", request_id)

    assert status == 0
    assert f"search {request_id}" in out
    assert "Night of the Copper Moon" in out
    assert "found from fan-out 10" in out
    assert list(orchestrator.decisions) == [request_id]


def test_feedback_is_recorded_once_per_event_id(cli, orchestrator):
    cli("search", "copper moon")
    request_id = next(iter(orchestrator.decisions))
    event = ("feedback", request_id, "film:copper-moon-rising", "--kind", "play")

    first = cli(*event, "--amount", "0.5", "--event-id", "e1")
    again = cli(*event, "--amount", "0.5", "--event-id", "e1")

    assert first[:2] == (
        0,
        "play recorded (event e1)\nnext: forage policy show, or the same search again\n",
    )
    assert again[:2] == (0, "play was recorded before (event e1); nothing changed\n")
    assert orchestrator.events["e1"].amount == 0.5


def test_feedback_for_an_unknown_search_is_refused(cli):
    status, _, err = cli("feedback", "nosuch", "film:x")

    assert (status, err) == (1, "error: there is no search 'nosuch'\n")


def test_feedback_offers_every_kind_that_there_is():
    annotation = feedback_command.feedback.__annotations__["kind"]
    literal = eval(annotation, vars(feedback_command))

    assert set(get_args(get_args(literal)[0])) == set(FeedbackKind)


def test_an_unknown_kind_of_feedback_is_wrong_usage(cli):
    assert cli("feedback", "r", "i", "--kind", "stare")[0] == 2


def test_replay_fails_if_the_plan_differs(cli, orchestrator):
    cli("search", "copper moon")
    request_id = next(iter(orchestrator.decisions))

    same = cli("policy", "replay", request_id)
    cli("policy", "disable", "titles")
    differs = cli("policy", "replay", request_id)

    assert same[0] == 0
    assert same[1] == "identical: static (policy), snapshot 0: titles=25\n"
    assert differs[0] == 1
    assert "titles=0" in differs[1]


def test_policy_shows_traffic_and_generators(cli):
    status, out, _ = cli("policy")

    assert status == 0
    assert "static 100.0%" in out
    assert "0, the prior" in out
    assert json.loads(cli("policy", "show", "--json")[1])["traffic"] == {"static": 1.0}


def test_status_shows_lag_and_who_cannot_be_reached(cli, orchestrator):
    orchestrator.lag = 7

    status, out, _ = cli("status")

    assert status == 0
    assert "catching up" in out
    assert "unreachable" in out
    assert " 7 " in out
    assert json.loads(cli("status", "--json")[1])["services"][1]["service"] == "absent"


def test_no_server_is_a_status_of_its_own(cli):
    for command in (["search", "x"], ["status"], ["policy"], ["feedback", "r", "i"]):
        status, out, err = cli(*command, "--address", "127.0.0.1:1")

        assert (status, out) == (3, "")
        assert "no Forage server answers at 127.0.0.1:1" in err
        assert "forage up" in err


@pytest.mark.parametrize(
    "failure", [OverloadedError("too many searches"), InternalError("internal error; trace 12")]
)
def test_a_failure_of_the_server_is_a_message_and_no_traceback(cli, orchestrator, failure):
    orchestrator.failures.extend([failure] * 50)

    status, _, err = cli("search", "moon")

    assert (status, err) == (1, f"error: {failure.message}\n")


def test_wrong_usage_has_status_2(cli):
    for wrong in (
        ["nosuch"],
        ["search", "--nosuch"],
        ["feedback"],
        ["serve"],
        ["trace", "--limit", "0"],
    ):
        assert cli(*wrong)[0] == 2


def test_training_without_a_ranker_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr("forage.cli.train.GROUP", "forage.commands.absent")

    status, _, err = cli("train")

    assert status == 2
    assert "forage-mesh[ranker]" in err


def test_training_is_the_installed_commands_business(cli, tmp_path, monkeypatch):
    (tmp_path / "pretend_ranker.py").write_text(
        "import typer\n"
        "def train(seed: int = 1, fail: bool = False) -> None:\n"
        '    """Train."""\n'
        "    typer.echo(f'trained with {seed}')\n"
        "    raise typer.Exit(3 if fail else 0)\n"
    )
    info = tmp_path / "pretend_ranker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pretend-ranker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pretend.commands]\ntrain = pretend_ranker:train\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("forage.cli.train.GROUP", "pretend.commands")

    assert cli("train", "--seed", "7")[:2] == (0, "trained with 7\n")
    assert cli("train", "--fail")[0] == 3
    assert "--seed" in cli("train", "--help")[1]
    assert cli("train", "--nosuch")[0] == 2


def test_a_trace_that_is_not_there_is_refused(cli, tmp_path):
    assert cli("trace", "--data", str(tmp_path))[0] == 0
    status, _, err = cli("trace", "abcd", "--data", str(tmp_path))

    assert status == 1
    assert "no trace or request 'abcd'" in err


def test_traces_are_listed_and_drawn(cli, tmp_path):
    from forage.settings import TelemetrySettings
    from forage.telemetry import Telemetry

    telemetry = Telemetry.start("tiny", TelemetrySettings(), tmp_path / "telemetry")
    with telemetry.tracer.start_as_current_span("search", attributes={"forage.request_id": "r1"}):
        pass
    with telemetry.tracer.start_as_current_span("forage.v1.CatalogService/GetIngestStatus"):
        pass
    telemetry.shutdown()
    data = ("--data", str(tmp_path))

    listed = cli("trace", *data)
    drawn = cli("trace", "r1", *data)
    as_json = json.loads(cli("trace", "r1", *data, "--json")[1])

    everything = cli("trace", "--all", *data)[1]

    assert listed[0] == drawn[0] == 0
    assert "GetIngestStatus" in everything
    assert "GetIngestStatus" not in listed[1]
    assert "r1" in listed[1]
    assert "search" in drawn[1]
    assert [span["name"] for span in as_json["spans"]] == ["search"]
