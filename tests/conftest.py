"""Assertions in the shipped conformance kits are rewritten; examples have no limit of their own.

A starved machine makes one example slow; a test that hangs ends by the limit that every test has.
"""

import hypothesis
import pytest

pytest.register_assert_rewrite("forage.testing.log_contract", "forage.testing.retriever_contract")
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
