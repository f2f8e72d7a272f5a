import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage import services
from forage.child import Child
from forage.errors import DeadlineExceededError, InvalidArgumentError, StartupError
from forage.placement import place
from forage.settings import load
from forage.supervisor import Backoff, Mesh, State
from forage.testing.probe import install
from tests.waiting import eventually

SCHEMA = str(Path("config/films.schema.yaml").absolute())
QUICK = Backoff(first_s=0.05, longest_s=0.2)


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """A configuration folder, with probes installed as the services `alpha` and `beta`."""
    install(tmp_path / "path", "alpha", "beta")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"), prepend=os.pathsep)
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("alpha", "beta"):
        (folder / f"{name}.yaml").write_text(f"schema_file: {SCHEMA}\n")
    return folder


def mesh_of(config: Path, *names: str, **options) -> Mesh:
    data = config.parent / "data"
    return Mesh(config, data, names=names or ("alpha", "beta"), backoff=QUICK, **options)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def state(mesh: Mesh, name: str):
    return next(s for s in mesh.states() if s.name == name)


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@given(st.integers(1, 1_000), st.floats(0.01, 1), st.floats(1, 60))
def test_pauses_grow_to_the_longest_and_no_further(crashes, first_s, longest_s):
    backoff = Backoff(first_s=first_s, longest_s=longest_s)

    assert backoff.pause(1) == first_s
    assert backoff.pause(crashes) <= backoff.pause(crashes + 1) <= longest_s


def test_a_port_comes_from_the_arguments_else_from_the_file(config, unused_ports):
    one, two = unused_ports
    (config / "alpha.yaml").write_text(f"schema_file: {SCHEMA}\nserver: {{port: {one}}}\n")

    alpha, beta = place(["alpha", "beta"], config, config, ports={"beta": two})

    assert (alpha.port, beta.port) == (one, two)
    assert alpha.target == f"127.0.0.1:{one}"


@pytest.fixture
def unused_ports():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    return ports


def test_free_ports_differ(config):
    alpha, beta = place(["alpha", "beta"], config, config, free_ports=True)

    assert 0 not in (alpha.port, beta.port)
    assert alpha.port != beta.port


def test_a_taken_port_is_refused_before_anything_is_started(config, taken_port):
    with pytest.raises(StartupError, match=rf"beta: server\.port: cannot listen on .*{taken_port}"):
        mesh_of(config, ports={"beta": taken_port})

    assert not (config.parent / "data").exists()


def test_two_services_cannot_have_one_port(config, unused_ports):
    port = unused_ports[0]

    with pytest.raises(StartupError, match=r"service '(alpha|beta)' has it too"):
        place(["alpha", "beta"], config, config, ports={"alpha": port, "beta": port})


@pytest.mark.parametrize(
    ("text", "problem"), [("server: {prot: 1}", "there is no such setting"), ("[", "alpha.yaml")]
)
def test_bad_settings_are_refused_before_anything_is_started(config, text, problem):
    (config / "alpha.yaml").write_text(text)

    with pytest.raises(StartupError, match=problem):
        mesh_of(config)


def test_what_is_not_there_is_refused(config, tmp_path):
    with pytest.raises(StartupError, match="there is no service 'gamma'"):
        place(["gamma"], config, config)
    with pytest.raises(StartupError, match="there is no such folder"):
        place(["alpha"], tmp_path / "absent", config)
    with pytest.raises(StartupError, match="'beta' is not one of this mesh's services"):
        place(["alpha"], config, config, ports={"beta": 1})


def test_the_orchestrator_is_told_where_the_services_of_the_mesh_are(tmp_path):
    orchestrator, lexical, ranker = place(
        ["orchestrator", "lexical", "ranker"], Path("config"), tmp_path, free_ports=True
    )

    generators = orchestrator.flags["generators"]
    assert generators["lexical"]["target"] == lexical.target
    assert generators["lexical"]["hit_rate"] == 0.6
    assert generators["semantic"]["target"] == "127.0.0.1:7102"
    assert orchestrator.flags["ranker.target"] == ranker.target
    assert any(a.startswith("generators={") for a in orchestrator.arguments())


def test_the_shipped_configuration_is_at_one_about_every_port():
    settings = {
        name: load(
            name, services.find(name).settings, file=Path(f"config/{name}.yaml"), environment={}
        ).settings
        for name in services.names()
        if Path(f"config/{name}.yaml").is_file()
    }
    targets = {n: t.target for n, t in settings["orchestrator"].generators.items()}
    targets["ranker"] = settings["orchestrator"].ranker.target

    assert targets == {
        name: f"127.0.0.1:{settings[name].server.port}" for name in targets.keys() & settings.keys()
    }


def test_a_mesh_starts_restarts_what_crashes_and_leaves_nothing_behind(config):
    with mesh_of(config, free_ports=True) as mesh:
        mesh.wait_ready(50)
        before = {s.name: s.pid for s in mesh.states()}
        assert all(alive(pid) for pid in before.values())
        assert state(mesh, "alpha").resident_bytes > 2**20

        mesh.kill("alpha")
        eventually(lambda: state(mesh, "alpha").restarts == 1)
        mesh.wait_ready(50)
        crashed = state(mesh, "alpha")
        assert crashed.problem == "killed by SIGKILL"
        assert crashed.pid not in (0, before["alpha"])
        assert (state(mesh, "beta").pid, state(mesh, "beta").restarts) == (before["beta"], 0)

        mesh.restart("beta")
        eventually(lambda: state(mesh, "beta").restarts == 1)
        mesh.wait_ready(50)
        after = {s.name: s.pid for s in mesh.states()}
        with pytest.raises(InvalidArgumentError, match="allowed: alpha, beta"):
            mesh.kill("gamma")

    assert not any(alive(pid) for pid in (*before.values(), *after.values()))
    assert {s.state for s in mesh.states()} == {State.STOPPED}
    assert "listening on" in (config.parent / "data/logs/alpha.log").read_text()


def test_a_service_that_cannot_start_fails_the_mesh_with_its_own_words(config):
    mesh = mesh_of(config, free_ports=True, flags={"beta": {"refuse": "the model is missing"}})

    with mesh, pytest.raises(StartupError, match="beta cannot start: the model is missing"):
        mesh.wait_ready(50)

    assert all(s.pid == 0 for s in mesh.states())


def test_a_service_that_crashes_again_and_again_is_named(config):
    mesh = mesh_of(config, "alpha", free_ports=True, flags={"alpha": {"crash": True}})

    with mesh:
        eventually(lambda: state(mesh, "alpha").restarts >= 1)
        with pytest.raises(DeadlineExceededError, match=r"alpha \((starting|restarting); .*alpha"):
            mesh.wait_ready(0.1)

        assert state(mesh, "alpha").problem == "ended with status 1"


def test_a_service_that_does_not_stop_is_killed(config):
    placement = place(["alpha"], config, config.parent / "data", free_ports=True)[0]
    child = Child(placement, config.parent / "logs", QUICK)
    child.start()
    pid = child.pid
    child.signal(signal.SIGSTOP)
    child.signal(signal.SIGTERM)

    child.wait(time.monotonic() + 0.1)

    assert not alive(pid)
    assert child.state is State.STOPPED


def start_up(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "forage.cli", "up", "--config-dir", str(config)]
    return subprocess.Popen(
        [*command, "--data", str(config.parent / "data"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_up_shows_states_and_stops_in_good_order(config):
    process = start_up(config, "--only", "alpha", "--only", "beta", "--except", "beta")
    assert process.stdout is not None
    lines = []
    while "all services are serving" not in "".join(lines):
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == ["stopping", "stopped"]
    assert any("alpha" in line and "serving" in line for line in lines)
    assert not any("beta" in line for line in lines)


def test_services_end_with_a_supervisor_that_was_killed(config):
    process = start_up(config, "--only", "alpha")
    assert process.stdout is not None
    line = ""
    while " serving " not in line:
        line = process.stdout.readline()
        assert line, process.communicate()
    pid = int(line.partition(" pid ")[2].split()[0])

    process.kill()
    process.communicate()

    eventually(lambda: not alive(pid))


def test_up_with_a_taken_port_ends_with_status_2(config, taken_port):
    (config / "alpha.yaml").write_text(f"server: {{port: {taken_port}}}\n")

    process = start_up(config, "--only", "alpha")
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: alpha: server.port: cannot listen on")


def test_up_with_a_service_that_cannot_start_ends_with_status_2(config):
    (config / "alpha.yaml").write_text(f"schema_file: {SCHEMA}\nrefuse: no model\n")

    process = start_up(config, "--only", "alpha")
    _, err = process.communicate(timeout=30)

    assert process.returncode == 2
    assert "error: alpha cannot start: no model" in err
    assert "Traceback" not in err
