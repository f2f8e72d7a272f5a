"""What a search request may ask: every refusal names the field and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forage import wire
from forage.catalog import Role, Schema, filters
from forage.errors import InvalidArgumentError
from forage.retrieval import Filter
from forage.v1 import search_service_pb2
from orchestrator.settings import OrchestratorSettings

_REQUEST_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
_LOCALE = re.compile(r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")
MAX_FILTERS, MAX_VALUES, MAX_LIKE, MAX_RECENT, MAX_USER_BYTES = 32, 1_000, 20, 200, 256


def check(
    request: search_service_pb2.SearchRequest, schema: Schema, settings: OrchestratorSettings
) -> tuple[Filter, ...]:
    """Return the request's filters; raises `InvalidArgumentError` for the first field at fault."""
    if not 0 <= request.page_size <= settings.max_page_size:
        raise InvalidArgumentError(
            "page_size", f"{request.page_size}", allowed=f"0 to {settings.max_page_size}"
        )
    if request.request_id and not _REQUEST_ID.match(request.request_id):
        raise InvalidArgumentError(
            "request_id", "it is not an id", allowed="1 to 64 of A-Z a-z 0-9 _ -"
        )
    if request.locale and not _LOCALE.match(request.locale):
        raise InvalidArgumentError(
            "locale", f"'{request.locale[:40]}' is not a language tag", allowed="such as en-GB"
        )
    _at_most("device", len(request.device.encode()), 64, "bytes")
    _at_most("filters", len(request.filters), MAX_FILTERS, "filters")
    for index, wanted in enumerate(request.filters):
        _at_most(f"filters[{index}].values", len(wanted.any_of.values), MAX_VALUES, "values")
    _at_most("like_item_ids", len(request.like_item_ids), MAX_LIKE, "items")
    _at_most("user.recent_item_ids", len(request.user.recent_item_ids), MAX_RECENT, "items")
    _at_most("user.user_id", len(request.user.user_id.encode()), MAX_USER_BYTES, "bytes")
    _at_most("user.attributes", len(request.user.attributes), 32, "attributes")
    _check_facets(request.facets, schema)
    wanted_filters = wire.filters_from_proto(request.filters)
    filters.validate(wanted_filters, schema)
    return wanted_filters


def _check_facets(facets: Sequence[str], schema: Schema) -> None:
    allowed = ("kind", *schema.with_role(Role.KEYWORD))
    for index, facet in enumerate(facets):
        if facet not in allowed:
            raise InvalidArgumentError(
                f"facets[{index}]", f"'{facet}' cannot be counted", allowed=", ".join(allowed)
            )


def _at_most(field: str, size: int, most: int, unit: str) -> None:
    if size > most:
        raise InvalidArgumentError(field, f"it has {size} {unit}", allowed=f"at most {most}")
