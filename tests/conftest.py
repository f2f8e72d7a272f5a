"""Assertions in the shipped conformance kits are rewritten like those of the tests."""

import pytest

pytest.register_assert_rewrite("forage.testing.log_contract", "forage.testing.retriever_contract")
