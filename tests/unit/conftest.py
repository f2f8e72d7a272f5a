"""What several files of unit tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ranker_parts import Ranker
from tests.unit.snapshot_world import World


@pytest.fixture
def ranker(tmp_path: Path) -> Iterator[Ranker]:
    ranker = Ranker(tmp_path)
    yield ranker
    ranker.log.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.stop()
    world.log.close()
