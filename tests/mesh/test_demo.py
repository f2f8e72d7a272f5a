"""The demo from an empty folder, as a newcomer sees it. Slow: it embeds the whole catalogue."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mesh.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


def test_the_demo_shows_the_whole_loop_and_ends(tmp_path: Path):
    command = [sys.executable, "-m", "forage.demo", "--data", str(tmp_path), "--once"]

    ended = subprocess.run(
        [*command, "--free-ports"],
        cwd=REPOSITORY,
        # pytest imports readline, which gives children a width of 80, where titles are broken.
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = ended.stdout

    assert ended.returncode == 0, ended.stderr[-2_000:]
    assert "32,539 items written" in shown
    for film in ("The Godfather", "Arnold Schwarzenegger", "You've Got Mail"):
        assert film in shown
    assert "0 of 600 searches failed" in shown
    assert re.search(r"the ranker serves model version 1; of [\d,]+ searches .* 0 failed", shown)
    assert "identical: " in shown
    assert "SearchService/Search" in shown
