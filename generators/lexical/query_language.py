"""The query language: Whoosh's parser reads the text, and this tree is what it means.

    love story               words; items with more and rarer of them come first
    "love story"             the words next to each other
    cast:hanks year:>2000    fields: text, whole values, ranges (`year:[1990 TO 1999]`,
                             `year:1990..1999`, `released:2001-05`), and `kind:film`
    comedy AND (tin OR city) -remix +moon NOT rain
    lov*  adele~1  moon^2    prefix, typo tolerance, boost

Side by side, plain words are optional and everything else is required: a person who types a
field, a phrase or a plus wants it. A name before a colon that is no attribute is part of the text
(`Alien: Covenant`). Nothing fails to parse; what makes no sense as syntax is read as words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from whoosh import fields
from whoosh.qparser import plugins, syntax
from whoosh.qparser.default import QueryParser
from whoosh.query.compound import And, Or
from whoosh.query.positional import Phrase as ParsedPhrase
from whoosh.query.qcore import Query as ParsedQuery
from whoosh.query.ranges import TermRange
from whoosh.query.terms import FuzzyTerm, Term
from whoosh.query.terms import Prefix as ParsedPrefix
from whoosh.query.wrappers import Not

from forage.errors import InvalidArgumentError
from generators.lexical.layout import Layout
from generators.lexical.literals import amount, period
from generators.lexical.tree import Exactly, Fuzzy, Group, Node, Phrase, Prefix, Range, Words

_TEXT = "*"
"""The parser's name for no field in particular; no attribute can be called that."""
_MAX_SYNTAX_LETTERS = 500
_MAX_DEPTH = 20
_MAX_EDITS = 2
_SYNTAX = re.compile(r'["()\[\]{}:*~^<>]|(?:^|[\s(])[-+]\S|(?:^|\s)(?:AND|OR|NOT)\s')
_DOTS = re.compile(r"(.*?)\.\.(.*)", re.DOTALL)


class _Side(Or):
    """Clauses side by side, without an operator between them."""


class _Sides(syntax.GroupNode):
    """The parser's group for clauses without an operator."""

    qclass = _Side
    merging = False


class _Plus(syntax.GroupNode):
    """What a plus makes required."""

    qclass = And
    merging = False


class QueryLanguage:
    """Parses query text for one catalogue. Safe to use from several threads."""

    def __init__(self, layout: Layout) -> None:
        """Know the fields of a layout."""
        self._layout = layout
        self._parser = _parser((*layout.searchable, *sorted(layout.others)))

    def parse(self, text: str) -> Node | None:
        """Return the meaning of a text; None if it is blank.

        Raises `InvalidArgumentError` for a field that is an attribute but cannot be searched.
        """
        if not text.strip():
            return None
        unfinished = not text[-1].isspace()
        if not _SYNTAX.search(text) or len(text) > _MAX_SYNTAX_LETTERS or _depth(text) > _MAX_DEPTH:
            return Words(text, unfinished=unfinished)
        found = self._read(self._parser.parse(text, normalize=False), 1.0)
        return found if found is not None else Words(text)

    def _read(self, parsed: ParsedQuery, boost: float) -> Node | None:
        if isinstance(parsed, Not):
            child = self._read(parsed.query, boost)
            return None if child is None else Group(excluded=(child,))
        if isinstance(parsed, (And, Or)):
            return self._group(parsed, boost * parsed.boost)
        if isinstance(parsed, (Term, FuzzyTerm, ParsedPrefix, ParsedPhrase)):
            return self._leaf(parsed, boost * parsed.boost)
        if isinstance(parsed, TermRange):
            return self._range(parsed)
        return None

    def _group(self, parsed: And | Or, boost: float) -> Node | None:
        read = [self._read(child, boost) for child in parsed.subqueries]
        nodes = [node for node in read if node is not None]
        excluded = tuple(n for node in nodes for n in _banned(node))
        others = [node for node in nodes if not _banned(node)]
        required: list[Node] = []
        if isinstance(parsed, And):
            required, others = others, []
        elif isinstance(parsed, _Side):
            required = [node for node in others if _is_demand(node)]
            others = _joined([node for node in others if not _is_demand(node)])
        if len(others) == 1 and not required and not excluded:
            return others[0]
        if not (required or others or excluded):
            return None
        return Group(tuple(required), tuple(others), excluded)

    def _leaf(
        self, parsed: Term | FuzzyTerm | ParsedPrefix | ParsedPhrase, boost: float
    ) -> Node | None:
        name = "" if parsed.fieldname == _TEXT else str(parsed.fieldname)
        text = " ".join(parsed.words) if isinstance(parsed, ParsedPhrase) else str(parsed.text)
        if name in self._layout.others:
            raise InvalidArgumentError(
                "query.text",
                f"the field '{name}' cannot be searched",
                allowed="one of " + ", ".join(self._layout.searchable),
            )
        if name in self._layout.numbers:
            return self._number(name, text)
        if name and name not in self._layout.texts:
            return Exactly(name, text)
        if isinstance(parsed, ParsedPhrase):
            return Phrase(text, name, boost)
        if isinstance(parsed, ParsedPrefix):
            return Prefix(text, name, boost)
        if isinstance(parsed, FuzzyTerm):
            return Fuzzy(text, min(int(parsed.maxdist), _MAX_EDITS), name, boost)
        return Words(text, name, boost)

    def _number(self, name: str, text: str) -> Node:
        dots = _DOTS.fullmatch(text)
        start, end = dots.groups() if dots else (text, text)
        found = self._bounds(name, start, end, (False, False))
        return found or Words(f"{name} {text}")

    def _range(self, parsed: TermRange) -> Node | None:
        name, start, end = parsed.fieldname, parsed.start or "", parsed.end or ""
        if name in self._layout.numbers:
            found = self._bounds(name, start, end, (parsed.startexcl, parsed.endexcl))
            if found is not None:
                return found
        said = "" if name == _TEXT else name
        return Words(" ".join(filter(None, (said, start, end))))

    def _bounds(self, name: str, start: str, end: str, open_ends: tuple[bool, bool]) -> Node | None:
        read = period if name in self._layout.times else amount
        low, high = read(start), read(end)
        if (start and low is None) or (end and high is None) or not (start or end):
            return None
        skip_low, skip_high = open_ends
        # A year is a stretch of time: after 2001 is after its end, before 2001 before its start.
        return Range(
            name,
            None if low is None else low[1] if skip_low else low[0],
            None if high is None else high[0] if skip_high else high[1],
            not skip_low,
            not skip_high,
        )


def _parser(names: Sequence[str]) -> QueryParser:
    known = fields.Schema()
    for name in names:
        known.add(name, fields.ID())
    untyped: Any = plugins
    operator = untyped.OperatorsPlugin.OpTagger
    start = r"(?:^|(?<=[\s(]))"
    signs = [
        (operator(rf"{start}-(?=[^\s-])", syntax.NotGroup, syntax.PrefixOperator), 0),
        (operator(rf"{start}\+(?=[^\s+])", _Plus, syntax.PrefixOperator), 0),
    ]
    return QueryParser(
        _TEXT,
        known,
        plugins=[
            untyped.FieldsPlugin(expr=r"(?P<text>\w+):(?=\S)"),
            untyped.PhrasePlugin(),
            untyped.RangePlugin(),
            untyped.GtLtPlugin(r"(?<=\w:)(?P<rel>(<=|>=|<|>|=<|=>))"),
            untyped.GroupPlugin(),
            untyped.OperatorsPlugin(signs, AndNot=None, AndMaybe=None, Require=None),
            untyped.BoostPlugin(),
            untyped.PrefixPlugin(),
            untyped.FuzzyTermPlugin(),
        ],
        group=_Sides,
    )


def _banned(node: Node) -> tuple[Node, ...]:
    """Return what a clause excludes, if it does nothing else."""
    if isinstance(node, Group) and not node.required and not node.optional:
        return node.excluded
    return ()


def _is_demand(node: Node) -> bool:
    """Whether a clause is required when it stands beside others."""
    if isinstance(node, Group):
        return bool(node.required) or all(_is_demand(child) for child in node.optional)
    return isinstance(node, (Phrase, Exactly, Range)) or bool(node.field)


def _joined(nodes: Sequence[Node]) -> list[Node]:
    """Join neighbouring plain words into one text, as they were before the parser cut them."""
    joined: list[Node] = []
    for node in nodes:
        last = joined[-1] if joined else None
        if (
            isinstance(node, Words)
            and isinstance(last, Words)
            and (node.field, node.boost) == (last.field, last.boost)
        ):
            joined[-1] = Words(f"{last.text} {node.text}", node.field, node.boost)
        else:
            joined.append(node)
    return joined


def _depth(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        deepest = max(deepest, depth)
    return deepest
