import inspect
import itertools

import grpc
import pytest

from forage.client import AsyncClient, Client, Feedback, FeedbackKind, Retry, SearchPage, calls
from forage.client.attempts import Attempts
from forage.errors import InvalidArgumentError, OverloadedError, UnavailableError
from forage.retrieval import Filter, UserContext
from forage.v1 import plan_pb2, search_service_pb2

UNAVAILABLE = frozenset({grpc.StatusCode.UNAVAILABLE})


def _public(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_both_clients_have_the_same_names_and_arguments():
    sync, aio = _public(Client), _public(AsyncClient)

    assert sync.keys() == aio.keys()
    for name in sync:
        assert sync[name].parameters == aio[name].parameters, name


def test_both_clients_return_the_same_types():
    for name, signature in _public(Client).items():
        expected = str(signature.return_annotation).replace("Iterator", "AsyncIterator")
        assert str(_public(AsyncClient)[name].return_annotation) == expected


def test_every_asynchronous_method_is_awaited_or_iterated():
    for name in _public(AsyncClient).keys() - {"__init__"}:
        method = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


def test_a_search_request_carries_every_option():
    request = calls.search(
        "moon",
        {
            "filters": [Filter("year", minimum=1990.0), Filter("kind", ("film",), exclude=True)],
            "page_size": 3,
            "page_token": "t",
            "user": UserContext("u", ("film:1",), {"segment": "a"}),
            "like": ["film:2"],
            "facets": ["genre"],
            "locale": "en-GB",
            "device": "phone",
            "explain": True,
            "group_by_kind": True,
            "min_catalog_sequence": 7,
            "policy": "static",
            "request_id": "r",
        },
    ).request

    assert isinstance(request, search_service_pb2.SearchRequest)
    unset = [f.name for f in request.DESCRIPTOR.fields if f not in dict(request.ListFields())]
    assert unset == []
    assert request.filters[0].range.min == 1990.0
    assert request.filters[1].exclude
    assert request.user.recent_item_ids == ["film:1"]


def test_a_search_has_an_id_of_its_own_so_that_a_retry_is_the_same_search():
    first, second = (calls.search("moon", {}).request for _ in range(2))

    assert first.request_id
    assert first.request_id != second.request_id


def test_a_user_given_as_text_is_the_users_id():
    assert calls.search("", {"user": "ann"}).request.user.user_id == "ann"
    assert not calls.search("", {}).request.HasField("user")


def test_an_amount_of_zero_is_not_an_unset_amount():
    events = [Feedback("r", "i", "play", amount) for amount in (0.0, None)]

    zero, unset = calls.record_feedback(events).request.events

    assert zero.HasField("amount")
    assert not unset.HasField("amount")
    assert not unset.HasField("time")


@pytest.mark.parametrize("kind", list(FeedbackKind))
def test_every_kind_of_feedback_has_its_place_on_the_wire(kind):
    event = calls.record_feedback([Feedback("r", "i", kind)]).request.events[0]

    assert event.kind > 0


def test_an_unknown_kind_of_feedback_is_refused_with_those_allowed():
    with pytest.raises(InvalidArgumentError, match="allowed: click, play") as refused:
        calls.record_feedback([Feedback("r", "i", "stare")])

    assert refused.value.field == "kind"


def test_a_page_without_a_token_is_the_last():
    last = SearchPage.from_proto(search_service_pb2.SearchResponse())
    more = SearchPage.from_proto(search_service_pb2.SearchResponse(next_page_token="t"))

    assert calls.next_page(last, {"page_size": 2}) is None
    assert calls.next_page(more, {"page_size": 2, "request_id": "r"}) == {
        "page_size": 2,
        "page_token": "t",
        "request_id": "",
    }


def test_closed_sets_are_read_as_plain_words():
    page = SearchPage.from_proto(
        search_service_pb2.SearchResponse(
            outcomes=[plan_pb2.GeneratorOutcome(status=plan_pb2.OUTCOME_STATUS_TIMED_OUT)],
            plan=plan_pb2.Plan(source=plan_pb2.PLAN_SOURCE_OVERRIDE),
        )
    )

    assert page.outcomes[0].status == "timed_out"
    assert page.plan is not None
    assert page.plan.source == "override"


def test_pauses_double_up_to_the_longest():
    pauses = Retry(first_s=0.1, longest_s=0.5).pauses()

    assert list(itertools.islice(pauses, 5)) == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_an_error_that_is_not_retried_is_raised_at_once():
    error = OverloadedError("busy")

    with pytest.raises(OverloadedError):
        Attempts(Retry(), 10.0, UNAVAILABLE).pause_after(error)


def test_no_attempt_begins_after_the_deadline_or_the_end_of_patience():
    error = UnavailableError("gone")

    with pytest.raises(UnavailableError):
        Attempts(Retry(first_s=0.2), 0.1, UNAVAILABLE).pause_after(error)
    with pytest.raises(UnavailableError):
        Attempts(Retry(first_s=0.2, for_s=0.1), 10.0, UNAVAILABLE).pause_after(error)
    assert Attempts(Retry(first_s=0.2), 10.0, UNAVAILABLE).pause_after(error) == 0.2
