"""Reading the files of judged data: where the folder is, and lines that are named when bad."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import orjson

from forage.catalog import Schema
from forage.errors import InvalidArgumentError, StartupError

VARIABLE = "FORAGE_JUDGED_DATA"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data"
_SCHEMAS = Path(__file__).resolve().parent / "schemas"


def judged_data() -> Path:
    """Return the folder of the judged collections.

    It is the environment variable `FORAGE_JUDGED_DATA`, or the folder `shared/data` beside the
    repository. Raises `StartupError` if there is no such folder.
    """
    folder = Path(os.environ.get(VARIABLE, _DEFAULT))
    if not folder.is_dir():
        raise StartupError(f"judged data: {folder} is no folder; set {VARIABLE} to where they are")
    return folder


def schema(name: str) -> Schema:
    """Return one of the shipped schemas."""
    return Schema.load(_SCHEMAS / f"{name}.schema.yaml")


def text_of(path: Path, *, encoding: str = "utf-8") -> str:
    """Return a whole text file; `.gz` is unpacked. Raises `StartupError` if it cannot be read."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return raw.decode(encoding)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StartupError(f"judged data: {path} cannot be read: {error}") from error


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def rows_of(
    path: Path, *, delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[dict[str, str]]:
    """Yield the rows of a file with a header line."""
    file = io.StringIO(text_of(path, encoding=encoding), newline="")
    if delimiter == "\t":
        yield from csv.DictReader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        yield from csv.DictReader(file, delimiter=delimiter)


def printable(text: str) -> str:
    """Return the text on one line, without control characters."""
    return " ".join(_CONTROL.sub(" ", text).split())


def objects_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSONL file with their line numbers."""
    for number, line in lines_of(path):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            bad_line(path, number, f"no JSON: {error}", allowed="one JSON object per line")
        if not isinstance(found, dict):
            bad_line(path, number, "no object", allowed="one JSON object per line")
        yield number, found


def first_of(folder: Path, *names: str) -> Path:
    """Return the first of these files that exists, as it is or packed with gzip."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise StartupError(f"judged data: {folder} has none of {', '.join(names)} (or .gz)")


def bad_line(path: Path, number: int, problem: str, *, allowed: str) -> NoReturn:
    """Raise `InvalidArgumentError` naming file and line."""
    raise InvalidArgumentError(f"{path.name}:{number}", problem, allowed=allowed)
