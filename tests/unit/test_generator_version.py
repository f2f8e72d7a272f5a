"""A generator's version changes with what its answers depend on, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

from forage.services import find
from forage.testing import catalog
from generators.version import generator_version


def test_another_engine_or_model_is_another_version() -> None:
    lexical, semantic = find("lexical").settings, find("semantic").settings
    versions = {
        generator_version(lexical.model_validate(changes), catalog.SCHEMA, 1)
        for changes in ({}, {"engine": "whoosh"}, {"popularity_weight": 0.5})
    }

    assert len(versions) == 3
    assert generator_version(semantic(), catalog.SCHEMA, 1) not in versions


def test_the_version_is_the_same_in_every_process() -> None:
    code = (
        "from forage.services import find; from forage.testing import catalog;"
        "from generators.version import generator_version;"
        "print(generator_version(find('lexical').settings(), catalog.SCHEMA, 1))"
    )
    versions = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env=environment,
            timeout=30,
        )
        versions.add(done.stdout)

    assert len(versions) == 1
