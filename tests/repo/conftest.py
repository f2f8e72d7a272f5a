"""Each compose file in turn, for the tests that hold the compose files to the code."""

import pytest

from tests.repo.compose_files import FILES, extended, read


@pytest.fixture(scope="module", params=FILES)
def file(request):
    return read(request.param)


@pytest.fixture(scope="module")
def containers(file):
    return {name: extended(container) for name, container in file["services"].items()}
