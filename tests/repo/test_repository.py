"""The repository says only what is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forage import errors, services
from forage.settings import load

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("protos/*.md")])


def test_the_committed_stubs_are_what_the_protos_generate(tmp_path: Path):
    protos = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("protos/forage/v1/*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-Iprotos",
            f"--python_out={tmp_path}",
            f"--grpc_python_out={tmp_path}",
            f"--mypy_out=quiet:{tmp_path}",
            f"--mypy_grpc_out=quiet:{tmp_path}",
            *protos,
        ],
        cwd=ROOT,
        check=True,
        env={"PATH": str(Path(sys.executable).parent)},
    )
    fresh = {p.name: p.read_text() for p in (tmp_path / "forage" / "v1").iterdir()}
    committed = {p.name: p.read_text() for p in (ROOT / "forage" / "v1").iterdir() if p.is_file()}

    assert fresh
    assert committed == fresh


def test_every_public_error_is_documented():
    documented = (ROOT / "docs" / "errors.md").read_text()
    classes = [
        c
        for c in vars(errors).values()
        if isinstance(c, type) and issubclass(c, errors.ForageError) and c is not errors.ForageError
    ]

    for error in classes:
        assert f"`{error.__name__}`" in documented
        assert f"`{error.reason}`" in documented


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_in_documents_exist(document: Path):
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    paths = re.findall(
        r"`((?:forage|generators|orchestrator|ranker|protos|config|docs|tests)/[\w./-]+)`", text
    )

    for link in links:
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link
    for path in paths:
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_in_documents_stand_apart(document: Path):
    tables = re.findall(r"(?:^\|.*\n)+", document.read_text(), re.MULTILINE)

    for table in tables:
        rules = [bool(re.fullmatch(r"\|(?:-+\|)+", row)) for row in table.splitlines()]
        assert rules.index(True) == 1, table
        assert rules.count(True) == 1, table


def test_documents_that_code_and_settings_point_to_exist():
    folders = "bench config deploy evaluation forage generators helm orchestrator protos ranker"
    sources = [f for folder in folders.split() for f in (ROOT / folder).rglob("*.*")]

    named = {
        path
        for file in sources
        if file.suffix in {".py", ".yaml", ".sh", ".proto"}
        for path in re.findall(r"docs/[\w./-]+\.md", file.read_text())
    }

    assert "docs/quality.md" in named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_exists(document: str):
    text, makefile = (ROOT / document).read_text(), (ROOT / "Makefile").read_text()

    targets = set(re.findall(r"`?make ([a-z-]+)", text))

    assert "test" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_config_file_loads_and_names_its_service():
    installed = services.names()
    for file in sorted((ROOT / "config").glob("*.yaml")):
        if not file.name.endswith(".schema.yaml"):
            assert file.stem in installed
            load(file.stem, services.find(file.stem).settings, file=file, environment={})


def test_every_message_field_rpc_and_value_has_a_comment():
    buf = Path(sys.executable).parent / "buf"

    ended = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (0, "")
