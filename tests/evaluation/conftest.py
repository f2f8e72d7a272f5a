"""What the tests of evaluation share."""

from pathlib import Path

import pytest

from evaluation.collections.files import VARIABLE, judged_data
from forage.errors import StartupError


@pytest.fixture
def judged() -> Path:
    """The folder of the judged collections; a test that wants it skips where it is not."""
    try:
        return judged_data()
    except StartupError:
        pytest.skip(f"the judged collections are not here; {VARIABLE} says where they are")
