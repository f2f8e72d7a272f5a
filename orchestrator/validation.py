"""What a search request may ask: every refusal names the field and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forage import wire
from forage.catalog import Role, Schema, filters
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter
from forage.v1 import query_pb2, search_service_pb2
from orchestrator.settings import OrchestratorSettings

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
MAX_FILTERS, MAX_VALUES, MAX_VALUE_BYTES, MAX_LIKE, MAX_RECENT = 32, 1_000, 1_024, 20, 200
MAX_FACETS, MAX_USER_ATTRIBUTES, MAX_ID_BYTES, MAX_NAME_BYTES = 32, 32, 256, 64


def check(
    request: search_service_pb2.SearchRequest, schema: Schema, settings: OrchestratorSettings
) -> tuple[Filter, ...]:
    """Return the request's filters; raises `InvalidArgumentError` for the first field at fault."""
    if not 0 <= request.page_size <= settings.max_page_size:
        raise InvalidArgumentError(
            "page_size", f"{request.page_size}", allowed=f"0 to {settings.max_page_size}"
        )
    if request.request_id and not REQUEST_ID.fullmatch(request.request_id):
        raise InvalidArgumentError(
            "request_id", "it is not an id", allowed="1 to 64 of A-Z a-z 0-9 _ -"
        )
    if request.locale and not _LOCALE.fullmatch(request.locale):
        raise InvalidArgumentError(
            "locale", f"'{request.locale[:40]}' is not a language tag", allowed="such as en-GB"
        )
    _short("device", request.device, MAX_NAME_BYTES)
    _short("policy", request.policy, MAX_NAME_BYTES)
    _at_most("like_item_ids", len(request.like_item_ids), MAX_LIKE, "items")
    _check_user(request.user)
    _check_facets(request.facets, schema)
    return _filters(request.filters, schema)


def _filters(messages: Sequence[query_pb2.Filter], schema: Schema) -> tuple[Filter, ...]:
    _at_most("filters", len(messages), MAX_FILTERS, "filters")
    for index, message in enumerate(messages):
        field = f"filters[{index}]"
        _short(f"{field}.attribute", message.attribute, MAX_NAME_BYTES)
        _at_most(f"{field}.any_of.values", len(message.any_of.values), MAX_VALUES, "values")
        for value in message.any_of.values:
            _short(f"{field}.any_of.values", value, MAX_VALUE_BYTES)
    wanted = wire.filters_from_proto(messages)
    filters.validate(wanted, schema)
    return wanted


def _check_user(user: query_pb2.UserContext) -> None:
    _short("user.user_id", user.user_id, MAX_ID_BYTES)
    _at_most("user.recent_item_ids", len(user.recent_item_ids), MAX_RECENT, "items")
    for item_id in user.recent_item_ids:
        _short("user.recent_item_ids", item_id, MAX_ID_BYTES)
    _at_most("user.attributes", len(user.attributes), MAX_USER_ATTRIBUTES, "attributes")
    for name, value in user.attributes.items():
        _short("user.attributes", name, MAX_ID_BYTES)
        _short("user.attributes", value, MAX_ID_BYTES)


def _check_facets(facets: Sequence[str], schema: Schema) -> None:
    allowed = ("kind", *schema.with_role(Role.KEYWORD))
    _at_most("facets", len(facets), MAX_FACETS, "facets")
    for index, facet in enumerate(facets):
        _short(f"facets[{index}]", facet, MAX_NAME_BYTES)
        if facet not in allowed:
            raise InvalidArgumentError(
                f"facets[{index}]", f"'{facet}' cannot be counted", allowed=", ".join(allowed)
            )


def _at_most(field: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise InvalidArgumentError(field, f"it has {size} {unit}", allowed=f"at most {most}")


def _short(field: str, text: str, most: int) -> None:
    _at_most(field, len(text.encode()), most, "bytes")
