import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forage.catalog.demo import write_jsonl
from forage.catalog.item import Item, Value
from forage.catalog.schema import Schema
from forage.cli import main
from forage.errors import FailedPreconditionError, InvalidArgumentError, UnavailableError
from forage.log import Stream
from forage.testing.catalog import SCHEMA, items
from tests.service.served import Served, served, stuck

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("import"), items=()) as found:
        yield found


@pytest.fixture
def mesh(shared: Served) -> Served:
    shared.begin()
    return shared


@pytest.fixture
def cli(
    mesh: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Runs `forage import` against the server."""
    monkeypatch.setenv("FORAGE_ADDRESS", mesh.address)
    monkeypatch.setenv("FORAGE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FORAGE_DEBUG", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["import", *arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def films(path: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """Writes so many rows, of which those numbered (from 1) in `bad` are no items."""
    rows = [
        {"item_id": f"film:{n}", "kind": "nothing" if n in bad else "film", "title": f"Film {n}"}
        for n in range(1, count + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_imported_whole(cli, mesh, tmp_path):
    path = tmp_path / "films.jsonl"
    write_jsonl(items(), path)

    status, out, _ = cli(str(path))

    assert status == 0
    assert out.splitlines()[0] == f"{len(items())} items written"
    assert mesh.items() == {item.item_id: item for item in items()}


def test_several_files_and_formats_are_imported_in_order(cli, mesh, tmp_path):
    (tmp_path / "a.csv").write_text("item_id,kind,title,year\nfilm:1,film,First,1990\n")
    (tmp_path / "b.rows").write_text('{"item_id": "film:1", "kind": "film", "title": "Second"}\n')

    first, _, _ = cli(str(tmp_path / "a.csv"))
    second, _, _ = cli(str(tmp_path / "b.rows"), "--format", "jsonl")

    assert (first, second) == (0, 0)
    assert mesh.items()["film:1"].texts("title") == ("Second",)


def test_an_import_stops_at_a_bad_row_with_everything_before_it_written(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 9, bad=(4, 6))

    status, _, err = cli(str(path))

    assert status == 1
    assert sorted(mesh.items()) == ["film:1", "film:2", "film:3"]
    assert f"{path}:4: kind: unknown kind 'nothing'; allowed: one of film, person" in err
    assert "stopped at line 4" in err
    assert ":6:" not in err


def test_bad_rows_are_named_and_left_out_on_request(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 9, bad=(4, 6))

    status, out, err = cli(str(path), "--skip-bad")

    assert status == 0
    assert out.startswith("7 items written, 2 bad rows left out")
    assert f"{path}:4:" in err
    assert f"{path}:6:" in err
    assert len(mesh.items()) == 7


def test_an_import_goes_on_where_it_stopped(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 1_700)
    mesh.line.refuse("UpsertItems", FailedPreconditionError("the disk is full"), after=2)

    stopped = cli(str(path))
    written = len(mesh.items())
    mesh.line.mend()
    status, out, _ = cli(str(path))
    again = cli(str(path))

    assert stopped[0] == 1
    assert "the disk is full" in stopped[2]
    assert written == 1_000
    assert status == 0
    assert out.startswith("700 items written, 1,000 rows were done before")
    assert len(mesh.items()) == 1_700
    assert again[1].startswith("1,700 items written")


def test_restart_forgets_what_was_done(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 9, bad=(9,))
    cli(str(path))

    _, out, _ = cli(str(path), "--restart", "--skip-bad")

    assert out.startswith("8 items written, 1 bad rows left out")


def test_a_changed_file_is_imported_from_its_beginning(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 9, bad=(9,))
    cli(str(path))
    films(path, 9)

    _, out, _ = cli(str(path))

    assert out.startswith("9 items written")


def test_an_outage_is_waited_out(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 3)
    mesh.line.failures.extend([UnavailableError("restarting")] * 3)

    assert cli(str(path))[0] == 0


def test_the_later_of_two_rows_with_one_id_wins(cli, mesh, tmp_path):
    path = tmp_path / "films.jsonl"
    path.write_text(
        "".join(
            json.dumps({"item_id": "film:1", "kind": "film", "title": title}) + "\n"
            for title in ("First", "Second")
        )
    )

    assert cli(str(path))[0] == 0
    assert mesh.items()["film:1"].texts("title") == ("Second",)


@pytest.mark.parametrize("arguments", [(), ("x.jsonl", "--demo"), ("x.jsonl", "--format", "xml")])
def test_wrong_usage_has_status_2(cli, arguments):
    assert cli(*arguments)[0] == 2


@pytest.mark.parametrize("name", ["absent.jsonl", "films.unknown"])
def test_a_file_that_cannot_be_read_is_refused(cli, tmp_path, name):
    (tmp_path / "films.unknown").write_text("x")

    status, _, err = cli(str(tmp_path / name))

    assert status == 1
    assert name in err
    assert "allowed" in err


def test_missing_values_are_predicted_if_the_schema_wants_it(cli, tmp_path):
    schema = SCHEMA.model_dump(mode="json")
    schema["attributes"]["genre"]["predict"] = True
    path = tmp_path / "films.jsonl"
    words = {"western": "saddle ranch sheriff", "horror": "ghost crypt scream"}
    rows = []
    for n in range(700):
        genre = ("western", "horror")[n % 2]
        values = {
            "title": (Value(f"Film {n}"),),
            "synopsis": (Value(words[genre]),),
            "genre": (Value(genre, item_id=f"genre:{genre}"),),
        }
        if n >= 690:
            del values["genre"]
        rows.append(Item(f"film:{n}", "film", values))
    write_jsonl(rows, path)

    (tmp_path / "mesh").mkdir()
    with served(tmp_path / "mesh", items=(), schema=Schema.model_validate(schema)) as mesh:
        status, out, err = cli(str(path), "--address", mesh.address)
        predicted = mesh.items()
        cli(str(path), "--no-predict", "--address", mesh.address)
        as_they_were = mesh.items()

    assert status == 0, err
    assert "genre of film: predicted for 10 of 10 items without one" in out
    guessed = predicted["film:691"].values("genre")[0]
    assert guessed.value == "horror"
    assert guessed.predicted
    assert guessed.item_id == "genre:horror"
    assert not predicted["film:1"].values("genre")[0].predicted
    assert not as_they_were["film:691"].values("genre")


def test_ctrl_c_stops_an_import_that_can_go_on(mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 60_000)
    data = tmp_path / "data"
    command = [sys.executable, "-m", "forage.cli", "import", str(path), "--data", str(data)]
    # In the background of a shell Ctrl-C is ignored, and whoever is started there inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, "--address", mesh.address, "--no-wait"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FORAGE_DEBUG": ""},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    pause = threading.Event()
    while len(mesh.logged(Stream.CATALOG)) < 1_000:
        assert process.poll() is None
        pause.wait(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    written = len(mesh.items())

    assert process.returncode == 130, f"{written} items are written; {err}"
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert written < 60_000

    state = json.loads(next((data / "imports").glob("films-*.json")).read_text())
    assert 0 <= written - state["rows_done"] <= 500


def test_the_wait_for_services_that_do_not_move_ends(tmp_path):
    from forage.client import Client
    from forage.errors import DeadlineExceededError
    from forage.importer import wait_applied

    seen = []
    with (
        stuck(tmp_path) as (behind, sequence),
        Client(behind.address) as client,
        pytest.raises(DeadlineExceededError, match=r"orchestrator\.catalog"),
    ):
        wait_applied(client, sequence, on_status=seen.append, stall_s=0.3)

    assert len(seen) > 1
    assert {status.catalog_head for status in seen} == {sequence}


def test_an_import_of_nothing_writes_nothing(cli, mesh, tmp_path):
    (tmp_path / "none.jsonl").write_text("\n")

    status, out, _ = cli(str(tmp_path / "none.jsonl"))

    assert (status, out.splitlines()[0]) == (0, "0 items written")
    assert mesh.items() == {}


def test_a_row_that_only_the_server_refuses_stops_the_import(cli, mesh, tmp_path):
    path = films(tmp_path / "films.jsonl", 3)
    mesh.line.refuse(
        "UpsertItems", InvalidArgumentError("items[0].kind", "'film'", allowed="other")
    )

    status, _, err = cli(str(path))

    assert status == 1
    assert "items[0].kind" in err
    assert mesh.items() == {}
