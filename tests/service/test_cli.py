import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from forage.catalog import Item, Value
from forage.cli import feedback as feedback_command
from forage.cli import main
from forage.client import FeedbackKind
from forage.errors import InternalError, OverloadedError
from forage.log import Event, Stream
from forage.testing.catalog import items
from forage.v1 import decision_pb2
from tests.service.orchestrator_mesh import applied
from tests.service.served import NIGHT, RISING, SHOWN, WRITTEN, Served, served, stuck

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cli")) as found:
        yield found


@pytest.fixture
def mesh(shared: Served) -> Served:
    shared.begin()
    return shared


@pytest.fixture
def cli(
    mesh: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Runs a command against the server, and returns its status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    monkeypatch.setenv("FORAGE_ADDRESS", mesh.address)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FORAGE_DEBUG", raising=False)
    return run


def searched(cli: Cli, *options: str) -> str:
    """Searches, and returns the request id."""
    status, out, err = cli("search", "copper moon", "--json", *options)
    assert status == 0, err
    return str(json.loads(out)["request_id"])


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


def test_a_search_shows_results_plan_and_what_to_do_next(cli):
    narrow = ("--filter", "director=Dario Velt", "--filter", "year=..1995")
    status, out, _ = cli("search", "copper moon", "--facet", "genre", "--page-size", "1", *narrow)

    assert status == 0
    assert "Night of the Copper Moon" in out
    assert f"titles {len(SHOWN)}" in out
    assert "year 1987 · Tobin Achterberg, Sefa Morrow · Dario Velt · horror" in out
    assert f"titles 100→{len(SHOWN) + 1} (2 alone" in out
    assert "others –" in out
    assert "cost 4/26, static (policy)" in out
    assert "genre: horror 2, action 1" in out
    assert re.search(rf"forage feedback [\w-]+ '{NIGHT}' --kind click", out)
    assert "--page-token " in out


def test_filters_are_typed_as_the_schema_types_them(cli):
    def found(*options: str) -> list[str]:
        status, out, err = cli("search", "", "--json", "--page-size", "100", *options)
        assert status == 0, err
        results = json.loads(out).get("results", [])
        return [r["item"]["item_id"] for r in results]

    assert found("--filter", "year=2014") == ["film:a-quiet-orbit"]
    assert found("-f", "released=1979-01-01..1979-12-31") == ["film:seven-miles-of-rain"]
    assert found("-f", "year=..1980", "-f", "kind=film") == ["film:seven-miles-of-rain"]
    kinds = {i.item_id: i.kind for i in items()}
    named = [i for i in SHOWN if kinds[i] in ("person", "genre")]
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
    status, out, _ = cli("search", "mara", "--group", "--page-size", "100")

    assert status == 0
    headings = [line for line in out.splitlines() if line in ("film", "person", "genre")]
    assert headings == ["film", "person", "genre"]


def test_a_disabled_generator_is_shown_as_missing(cli):
    assert cli("policy", "disable", "titles") == (0, "switched off: titles\n", "")

    _, out, _ = cli("search", "moon")

    assert cli("policy", "enable", "titles")[1] == "switched off: none\n"
    assert "missing  titles: DISABLED" in out
    assert "titles masked" in out


def test_a_search_that_finds_nothing_says_so(cli):
    status, out, _ = cli("search", "moon", "--filter", "language=Klingon")

    assert (status, out.splitlines()[0]) == (0, "nothing found")


def test_text_from_the_catalogue_is_not_taken_for_markup(cli, mesh):
    brackets = Item(WRITTEN, "film", {"title": (Value("[bold]Brackets[/] [REC]"),)})
    mesh.run(applied(mesh.mesh, mesh.run(mesh.mesh.upsert([brackets]))))

    _, out, _ = cli("search", "[rec]")

    mesh.run(applied(mesh.mesh, mesh.run(mesh.mesh.delete(WRITTEN))))
    assert "[bold]Brackets[/] [REC]" in out


def test_explaining_a_text_shows_utilities_reasons_contributions_and_fan_out(cli):
    status, out, _ = cli("explain", "copper moon")

    assert status == 0
    assert re.search(r"100: \d\.\d\d \(4\)", out)
    place = len(SHOWN)
    assert f"titles rank {place}, score {1 / place:.3f}; found from fan-out 50" in out
    assert f"place: {place} in the list" in out
    assert "place +0.500" in out


def test_explaining_a_request_id_reads_its_record(cli, mesh):
    request_id = searched(cli)

    status, out, _ = cli("explain", request_id)

    assert status == 0
    assert f"search {request_id}" in out
    assert "Night of the Copper Moon" in out
    assert "found from fan-out 50" in out
    assert mesh.line.calls.count("Search") == 1


def test_feedback_is_recorded_once_per_event_id(cli, mesh):
    event = ("feedback", searched(cli), RISING, "--kind", "play")

    first = cli(*event, "--amount", "0.5", "--event-id", "e1")
    again = cli(*event, "--amount", "0.5", "--event-id", "e1")

    assert first[:2] == (
        0,
        "play recorded (event e1)\nnext: forage policy show, or the same search again\n",
    )
    assert again[:2] == (0, "play was recorded before (event e1); nothing changed\n")
    assert {key: event.amount for key, event in mesh.events().items()} == {"e1": 0.5}


def test_feedback_for_an_unknown_search_is_refused(cli):
    status, _, err = cli("feedback", "nosuch", "film:x")

    assert status == 1
    assert err == "error: events[0].request_id: there is no search 'nosuch'\n"


def test_feedback_offers_every_kind_that_there_is():
    annotation = feedback_command.feedback.__annotations__["kind"]
    literal = eval(annotation, vars(feedback_command))

    assert set(get_args(get_args(literal)[0])) == set(FeedbackKind)


def test_an_unknown_kind_of_feedback_is_wrong_usage(cli):
    assert cli("feedback", "r", "i", "--kind", "stare")[0] == 2


def test_a_decision_is_replayed(cli):
    replayed = cli("policy", "replay", searched(cli))

    plan = "static (policy), snapshot 0: titles=100 others=0"
    assert replayed == (0, f"identical: {plan}\n", "")


def test_replay_fails_if_the_plan_differs(cli, mesh):
    request_id = searched(cli, "--policy", "thompson")
    recorded = decision_pb2.Decision()
    recorded.CopyFrom(mesh.run(mesh.mesh.recorded(request_id)))
    recorded.request_id = "somebody-elses"
    record = Event(
        Stream.DECISIONS, recorded.request_id, recorded.SerializeToString(), recorded.time.seconds
    )
    mesh.log.append([record])

    status, out, err = cli("policy", "replay", "somebody-elses")

    assert status == 1
    assert "recorded: thompson (override)" in out
    assert "replayed: thompson (override)" in out
    assert "the replayed plan is not the recorded one" in err


def test_policy_shows_traffic_and_generators(cli):
    status, out, _ = cli("policy")

    assert status == 0
    assert "static 100.0%" in out
    assert "0, the prior" in out
    assert json.loads(cli("policy", "show", "--json")[1])["traffic"] == {"static": 1.0}


def test_status_shows_lag_and_who_cannot_be_reached(cli, tmp_path):
    with stuck(tmp_path) as (behind, _):
        status, out, err = cli("status", "--address", behind.address)
        as_json = json.loads(cli("status", "--json", "--address", behind.address)[1])

    assert status == 1
    assert "not serving: titles, others" in err
    assert "catching up" in out
    assert "unreachable" in out
    assert "serving" in out
    assert " 7 " in out
    assert [s["service"] for s in as_json["services"] if "error" in s] == ["others"]


def test_no_server_is_a_status_of_its_own(cli):
    for command in (["search", "x"], ["status"], ["policy"], ["feedback", "r", "i"]):
        status, out, err = cli(*command, "--address", "127.0.0.1:1")

        assert (status, out) == (3, "")
        assert "no Forage server answers at 127.0.0.1:1" in err
        assert "forage up" in err


@pytest.mark.parametrize(
    "failure", [OverloadedError("too many searches"), InternalError("internal error; trace 12")]
)
def test_a_failure_of_the_server_is_a_message_and_no_traceback(cli, mesh, failure):
    mesh.line.refuse("Search", failure)

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
    monkeypatch.setattr("forage.cli.installed.GROUP", "forage.commands.absent")

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
    monkeypatch.setattr("forage.cli.installed.GROUP", "pretend.commands")

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
