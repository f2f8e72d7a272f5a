"""Page tokens: they lead back to one place in one list, and to nowhere else."""

from __future__ import annotations

import base64
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forage.errors import InvalidArgumentError
from forage.v1 import query_pb2
from forage.v1.search_service_pb2 import SearchRequest
from orchestrator.paging import PageToken, digest_of

REQUEST_IDS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
REQUESTS = st.builds(
    SearchRequest,
    text=st.text(max_size=20),
    facets=st.lists(st.sampled_from(["kind", "genre"]), max_size=2),
    policy=st.sampled_from(["", "static"]),
    user=st.builds(
        query_pb2.UserContext,
        attributes=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xy"), max_size=6),
    ),
)


@given(REQUEST_IDS, st.integers(1, 1_000_000), REQUESTS)
@settings(max_examples=100)
def test_a_token_is_read_back_with_the_request_it_belongs_to(request_id, offset, request):
    token = PageToken(request_id, offset, digest_of(request))

    encoded = token.encode()

    assert PageToken.decode(encoded, request) == token
    assert set(encoded) <= set(string.ascii_letters + string.digits + "-_")


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: base64.b64encode(b).decode()))
@settings(max_examples=100)
def test_whatever_is_no_token_is_refused(text):
    with pytest.raises(InvalidArgumentError) as refused:
        PageToken.decode(text, SearchRequest())

    assert refused.value.field == "page_token"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(JSON)
@settings(max_examples=60)
def test_whatever_is_json_but_no_token_is_refused(content):
    text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()

    with pytest.raises(InvalidArgumentError):
        PageToken.decode(text, SearchRequest())


@given(REQUESTS, st.integers(0, 200), st.sampled_from(string.ascii_letters))
@settings(max_examples=200)
def test_a_changed_token_is_refused_or_leads_to_another_place_at_most(request, at, letter):
    token = PageToken("abc", 10, digest_of(request))
    encoded = token.encode()
    at %= len(encoded)
    changed = encoded[:at] + letter + encoded[at + 1 :]

    try:
        found = PageToken.decode(changed, request)
    except InvalidArgumentError:
        return

    assert found.digest == token.digest
    assert found.offset > 0


@pytest.mark.parametrize(
    "change",
    [
        {"text": "other"},
        {"facets": ["kind"]},
        {"locale": "en"},
        {"policy": "static"},
        {"filters": [query_pb2.Filter(attribute="genre")]},
        {"user": query_pb2.UserContext(user_id="u")},
        {"like_item_ids": ["a"]},
    ],
)
def test_a_token_does_not_fit_a_request_for_something_else(change):
    token = PageToken("abc", 10, digest_of(SearchRequest())).encode()

    with pytest.raises(InvalidArgumentError, match="belongs to another request"):
        PageToken.decode(token, SearchRequest(**change))


@pytest.mark.parametrize(
    "change",
    [{"page_size": 5}, {"explain": True}, {"group_by_kind": True}, {"request_id": "x"}],
)
def test_how_the_answer_is_presented_may_change_between_pages(change):
    token = PageToken("abc", 10, digest_of(SearchRequest(text="a"))).encode()

    assert PageToken.decode(token, SearchRequest(text="a", **change)).offset == 10
