"""Pieces of Milvus boolean expressions: hashes instead of texts, ranges, and joins.

No text of a query or a filter ever enters an expression: what is compared are 62-bit hashes, so
there is nothing to escape. Milvus Lite evaluates no NOT, so there hashes are also the keys of JSON
objects: `not in` holds for an absent key.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence

_LARGEST = sys.float_info.max


def term(*parts: str) -> int:
    """Return the hash, in [0, 2^62), of texts that hold no NUL."""
    content = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()) >> 2


def flags(terms: Iterable[int]) -> dict[str, int]:
    """Return hashes as the keys of a JSON object."""
    return {f"{t:x}": 1 for t in terms}


def contains_any(field: str, terms: Sequence[int]) -> str:
    """Return that an array of hashes has any of the terms."""
    return f"array_contains_any({field}, {list(terms)})"


def contains_all(field: str, terms: Sequence[int]) -> str:
    """Return that an array of hashes has all of the terms."""
    return f"array_contains_all({field}, {list(terms)})"


def lacks_flag(field: str, wanted: int) -> str:
    """Return that a JSON object of hashes has not the term."""
    return f'{field}["{wanted:x}"] not in [1]'


def any_number_in(
    field: str,
    most: int,
    low: float | None,
    high: float | None,
    *,
    low_included: bool = True,
    high_included: bool = True,
) -> str:
    """Return that one of an array's numbers is between two bounds; empty if no array has any.

    `most` is the largest number of values that any array has.
    """
    above, below = ">=" if low_included else ">", "<=" if high_included else "<"
    return join(
        "or",
        [
            f"(({field}[{i}] {above} {_low(low)}) and ({field}[{i}] {below} {_high(high)}))"
            for i in range(most)
        ],
    )


def no_number_in(
    field: str,
    count: str,
    most: int,
    low: float | None,
    high: float | None,
    *,
    low_included: bool = True,
    high_included: bool = True,
) -> str:
    """Return the contrary of `any_number_in`; `count` is the field of the arrays' lengths."""
    under, over = "<" if low_included else "<=", ">" if high_included else ">="
    # A comparison beyond the end of an array is false, hence the counts.
    return join(
        "and",
        [
            f"(({count} <= {i}) or"
            f" (({field}[{i}] {under} {_low(low)}) or ({field}[{i}] {over} {_high(high)})))"
            for i in range(most)
        ],
    )


def join(operator: str, parts: Sequence[str]) -> str:
    """Join by a balanced tree: Milvus Lite refuses expressions that nest some hundred deep."""
    if len(parts) <= 2:
        return f" {operator} ".join(f"({p})" for p in parts) if len(parts) == 2 else "".join(parts)
    half = len(parts) // 2
    return f"({join(operator, parts[:half])}) {operator} ({join(operator, parts[half:])})"


def _low(bound: float | None) -> str:
    return repr(-_LARGEST if bound is None else float(bound))


def _high(bound: float | None) -> str:
    return repr(_LARGEST if bound is None else float(bound))
