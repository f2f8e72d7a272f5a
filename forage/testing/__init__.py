"""Conformance kits: what every implementation of a Forage interface must pass.

Inherit `forage.testing.retriever_contract.RetrieverContract` in a test class of your own to hold
a candidate generator to its contract. Needs pytest, which the product itself does not.
"""

import pytest

pytest.register_assert_rewrite(
    "forage.testing.bench",
    "forage.testing.log_contract",
    "forage.testing.projection_contract",
    "forage.testing.retriever_contract",
)
