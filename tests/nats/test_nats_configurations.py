"""The configurations that the deployments give to NATS, read by the real server."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chart.rendered import named
from tests.nats.server import BINARY

ROOT = Path(__file__).parents[2]


def of_the_chart() -> str:
    (content,) = named("bundled", "ConfigMap")["forage-nats"]["data"].values()
    return content


def of_compose() -> str:
    return (ROOT / "deploy/compose/nats.conf").read_text()


@pytest.mark.parametrize("configuration", [of_the_chart, of_compose])
def test_the_server_accepts_the_configuration_with_a_token_of_digits(
    tmp_path: Path, configuration: Callable[[], str]
):
    file = tmp_path / "nats.conf"
    text = configuration()
    assert "/data" in text
    file.write_text(text.replace("/data", str(tmp_path)))

    done = subprocess.run(
        [BINARY, "-t", "--config", file],
        env={"NATS_TOKEN": '"0123"'},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 0, done.stderr
