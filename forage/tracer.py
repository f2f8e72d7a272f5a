"""Opens spans cheaply, and keeps the text of exceptions out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Token
from types import TracebackType

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from forage.signals import Attribute

_Attributes = Mapping[str, AttributeValue]


class Tracer:
    """Opens spans with the calls of `opentelemetry.trace.Tracer`.

    It differs in one promise: an exception marks its span with ERROR and the exception's class,
    and never with its message or stack, which may quote the query. The log has both.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        *,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: _Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """Open a span that the caller ends; it does not become the current one."""
        return self._tracer.start_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        )

    def start_as_current_span(
        self,
        name: str,
        *,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: _Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> CurrentSpan:
        """Open a span that is the current one inside `with`, and ends with it."""
        span = self.start_span(name, context=context, kind=kind, attributes=attributes, links=links)
        return CurrentSpan(span)


class CurrentSpan:
    """Makes an open span the current one; for one `with`."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        """Make the span current and return it."""
        self._token = context_api.attach(set_span_in_context(self._span))
        return self._span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the span, marked with the exception's class if there is one."""
        if self._token is not None:
            context_api.detach(self._token)
        if kind is not None:
            self._span.set_attribute(Attribute.ERROR_TYPE, kind.__qualname__)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
