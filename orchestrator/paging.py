"""Page tokens: where in which search's list the next page begins."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from forage.errors import InvalidArgumentError
from forage.v1 import search_service_pb2
from orchestrator.validation import REQUEST_ID

_MOST_CHARACTERS = 512
_MOST_RESULTS = 1_000_000


@dataclass(frozen=True, slots=True)
class PageToken:
    """A page of a search that has been decided."""

    request_id: str
    """Of the first page."""
    offset: int
    """How many results come before the page."""
    digest: str
    """Of the request, so that a token is not used with another one."""

    def encode(self) -> str:
        """Return the token as clients see it: opaque, URL-safe text."""
        content = json.dumps([self.request_id, self.offset, self.digest])
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, token: str, request: search_service_pb2.SearchRequest) -> PageToken:
        """Read a token; raises `InvalidArgumentError` if it is not one, or not of this request."""
        try:
            padded = token[:_MOST_CHARACTERS] + "=" * (-len(token) % 4)
            content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            request_id, offset, digest = content
            valid = isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id) is not None
            valid = valid and type(offset) is int and 0 < offset <= _MOST_RESULTS
        except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError):
            valid = False
        if not valid:
            raise InvalidArgumentError(
                "page_token", "it is not a token of this service", allowed="next_page_token"
            )
        if digest != digest_of(request):
            raise InvalidArgumentError(
                "page_token",
                "it belongs to another request",
                allowed="next_page_token with the request otherwise unchanged",
            )
        return cls(request_id, offset, digest)


def digest_of(request: search_service_pb2.SearchRequest) -> str:
    """Return a digest of what a search asks for, leaving out page, token and presentation."""
    asked = search_service_pb2.SearchRequest()
    asked.CopyFrom(request)
    for field in ("page_token", "page_size", "request_id", "explain", "group_by_kind"):
        asked.ClearField(field)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:16]
