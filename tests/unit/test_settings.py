from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from forage.errors import StartupError
from forage.settings import GeneratorSettings, ServiceSettings, Settings, leaves, load


class Place(Settings):
    target: str
    cost: float = 1.0


class Example(ServiceSettings):
    depth: int = Field(default=3, ge=1, le=9)
    names: tuple[str, ...] = ("a",)
    places: dict[str, Place] = Field(default_factory=lambda: {"near": Place(target="x:1")})


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "example.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(file=None, flags=None, environment=None):
    return load("example", Example, file=file, flags=flags, environment=environment or {})


def test_without_any_source_every_value_is_its_default():
    loaded = read()

    assert loaded.settings == Example()
    assert loaded.sources == {}


def test_flag_beats_environment_beats_file_beats_default(file):
    path = file("depth: 4\nserver: {port: 1, workers: 8, max_concurrent: 9}\n")
    environment = {
        "FORAGE_EXAMPLE__SERVER__PORT": "2",
        "FORAGE_EXAMPLE__SERVER__WORKERS": "16",
    }

    loaded = read(path, {"server.port": 3}, environment)

    server = loaded.settings.server
    assert (server.port, server.workers, server.max_concurrent) == (3, 16, 9)
    assert loaded.settings.depth == 4
    assert loaded.sources == {
        "depth": f"file {path}",
        "server.port": "flag",
        "server.workers": "environment FORAGE_EXAMPLE__SERVER__WORKERS",
        "server.max_concurrent": f"file {path}",
    }


@given(
    present=st.sets(st.sampled_from(["file", "environment", "flag"])),
    depths=st.permutations([4, 5, 6]),
)
def test_the_strongest_source_that_is_present_wins(tmp_path_factory, present, depths):
    strength = ["file", "environment", "flag"]
    depth = dict(zip(strength, depths, strict=True))
    path = tmp_path_factory.mktemp("settings") / "example.yaml"
    path.write_text(f"depth: {depth['file']}\n" if "file" in present else "")

    loaded = read(
        path,
        {"depth": depth["flag"]} if "flag" in present else None,
        {"FORAGE_EXAMPLE__DEPTH": str(depth["environment"])} if "environment" in present else None,
    )

    strongest = max(present, key=strength.index, default="default")
    assert loaded.settings.depth == depth.get(strongest, 3)
    assert loaded.sources.get("depth", "default").startswith(strongest)


def test_environment_values_are_yaml():
    environment = {
        "FORAGE_EXAMPLE__NAMES": "[b, c]",
        "FORAGE_EXAMPLE__PLACES__FAR__TARGET": "'y:2'",
        "FORAGE_EXAMPLE__TELEMETRY__ENABLED": "false",
    }

    settings = read(environment=environment).settings

    assert settings.names == ("b", "c")
    assert settings.places == {"far": Place(target="y:2")}
    assert not settings.telemetry.enabled


def test_another_services_environment_is_not_read():
    environment = {"FORAGE_OTHER__DEPTH": "4", "FORAGE_EXAMPLES__DEPTH": "5", "FORAGE_DATA": "d"}

    assert read(environment=environment).settings.depth == 3


def test_a_mapping_in_the_file_is_merged_with_flags_entry_by_entry(file):
    path = file("places: {near: {target: 'a:1'}, far: {target: 'b:2', cost: 5}}\n")

    settings = read(path, {"places.far.target": "c:3"}).settings

    assert settings.places == {"near": Place(target="a:1"), "far": Place(target="c:3", cost=5)}


def test_an_empty_file_sets_nothing(file):
    assert read(file("# nothing yet\n")).settings == Example()


def test_a_misspelt_name_is_refused_with_where_it_came_from(file):
    path = file("server: {prot: 7101}\n")

    with pytest.raises(StartupError) as refused:
        read(path)

    assert "example: the configuration is not valid" in refused.value.message
    assert f"server.prot (file {path}): there is no such setting" in refused.value.message


def test_every_value_at_fault_is_named_with_its_source(file):
    path = file("depth: 99\n")

    with pytest.raises(StartupError) as refused:
        read(path, {"server.port": -1}, {"FORAGE_EXAMPLE__NAMES": "5"})

    message = refused.value.message
    assert f"depth (file {path})" in message
    assert "less than or equal to 9, got 99" in message
    assert "server.port (flag)" in message
    assert "names (environment FORAGE_EXAMPLE__NAMES)" in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("depth: [", "example.yaml"),
        ("- depth\n", "expected a mapping"),
        ("just words\n", "expected a mapping"),
        ("server: 5\n", "server"),
        ("server: 5\ndepth: .nan\n", "depth"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(file, text, problem):
    with pytest.raises(StartupError, match=problem):
        read(file(text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StartupError, match=r"absent\.yaml"):
        read(tmp_path / "absent.yaml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_bytes(b"schema_file: \xff\xfe\n")

    with pytest.raises(StartupError, match=r"example\.yaml"):
        read(path)


def test_an_environment_value_that_is_no_yaml_is_refused():
    with pytest.raises(StartupError, match="FORAGE_EXAMPLE__NAMES"):
        read(environment={"FORAGE_EXAMPLE__NAMES": "[b"})


def test_a_value_where_a_group_is_needed_is_refused(file):
    with pytest.raises(StartupError, match=r"server\.port \(flag\): 'server' is a value"):
        read(file("server: 5\n"), {"server.port": 1})


def test_settings_do_not_change():
    settings = read().settings

    with pytest.raises(ValueError, match="frozen"):
        settings.depth = 4


def test_leaves_names_every_setting_once():
    found = dict(leaves(GeneratorSettings()))

    assert found["server.port"] == 0
    assert found["default_limit"] == 25
    assert found["feedback.click"] == 0.4
    assert not any(isinstance(value, Settings) for value in found.values())
