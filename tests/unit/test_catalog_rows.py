"""Reading catalogue files: what is read, what is refused, and in which words."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forage.catalog import Item, Schema, Value
from forage.catalog.demo import write_jsonl
from forage.catalog.import_state import ImportState
from forage.catalog.rows import BadRow, read_items, validate_item
from forage.errors import InvalidArgumentError

SCHEMA = Schema.load(Path(__file__).parents[2] / "config" / "films.schema.yaml")


def _read_lines(tmp_path: Path, *lines: str | bytes) -> list[Item | BadRow]:
    path = tmp_path / "rows.jsonl"
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(b"\n".join(encoded))
    return list(read_items(path, SCHEMA))


def _film(**attributes: object) -> str:
    return json.dumps({"item_id": "film:1", "kind": "film", **attributes})


def test_a_line_is_read_flat_or_nested(tmp_path: Path) -> None:
    flat = _film(title="Big", genre=["Comedy", {"value": "Drama", "weight": 0.4}], year=1988)
    nested = _film(attributes={"title": "Big", "released": "1988-06-03", "studio": None})

    first, second = _read_lines(tmp_path, flat, nested)

    assert first == Item(
        "film:1",
        "film",
        {
            "title": (Value("Big"),),
            "genre": (Value("Comedy"), Value("Drama", 0.4)),
            "year": (Value(1988.0),),
        },
    )
    released = datetime(1988, 6, 3, tzinfo=UTC).timestamp()
    assert isinstance(second, Item)
    assert second.attributes == {"title": (Value("Big"),), "released": (Value(released),)}


def test_references_and_predictions_are_read(tmp_path: Path) -> None:
    person = {"value": "Tom Hanks", "item_id": "person:tom-hanks"}
    genre = {"value": "Comedy", "weight": 0.7, "predicted": True}

    (item,) = _read_lines(tmp_path, _film(cast=person, genre=genre))

    assert isinstance(item, Item)
    assert item.values("cast") == (Value("Tom Hanks", item_id="person:tom-hanks"),)
    assert item.values("genre") == (Value("Comedy", 0.7, predicted=True),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"kind": "film"}', "item_id: missing"),
        ('{"item_id": 7, "kind": "film"}', "item_id: 7 is not text"),
        ('{"item_id": "a"}', "kind: missing"),
        ('{"item_id": "a", "kind": "song"}', "kind: unknown kind 'song'; allowed: one of film"),
        (_film(colour="red"), "attributes.colour: unknown attribute; allowed: one of title"),
        (_film(year="1988"), "attributes.year[0]: '1988'; allowed: a finite number"),
        (_film(year=float("nan")), "malformed JSON (NaN is no JSON number)"),
        ('{"item_id": "a", "kind": "film", "year": 1e999}', "attributes.year[0]: inf is no number"),
        ('{"item_id": "a", "kind": "film", "year": 1' + "0" * 400 + "}", "attributes.year[0]"),
        (_film(year=True), "attributes.year[0]: True"),
        (_film(title=1984), "attributes.title[0]: 1984 is no text"),
        (_film(title=""), "attributes.title[0]: empty"),
        (_film(title="a\x00b"), "attributes.title[0]: has a control character"),
        (_film(title="\ud800"), "attributes.title[0]: too long or not UTF-8"),
        (_film(**{"\ud800": 1}), "unknown attribute"),
        (_film(title="x" * 70_000), "attributes.title[0]: too long"),
        (_film(genre={"value": "Drama", "weight": 0}), "attributes.genre[0].weight: 0; allowed"),
        (_film(genre={"value": "Drama", "weight": 1.5}), "attributes.genre[0].weight: 1.5"),
        (_film(genre={"value": "Drama", "weight": "x"}), "attributes.genre[0].weight: 'x'"),
        (_film(genre={"weight": 1}), "attributes.genre[0]: no value"),
        (_film(genre={"value": "Drama", "wight": 1}), "unknown field wight"),
        (_film(title={"value": "a", "item_id": "b"}), "attributes.title[0].item_id: the attribute"),
        (_film(popularity=1.2), "attributes.popularity[0]: 1.2; allowed: a number from 0 to 1"),
        (_film(popularity=[0.1, 0.2]), "attributes.popularity: 2 values; allowed: at most 1"),
        (_film(released="soon"), "attributes.released[0]: 'soon'"),
        (_film(released=1e15), "attributes.released[0]: 1e+15; allowed: seconds"),
        (_film(attributes={}, title="a"), "attributes: not an object, or other fields beside"),
        (json.dumps({"item_id": "x" * 257, "kind": "film"}), "item_id: too long"),
        (json.dumps({"item_id": "a\nb", "kind": "film"}), "item_id: has a control character"),
        ("{", "malformed JSON"),
        ("[" * 100_000, "malformed JSON"),
        ("[1]", "line: not an object"),
        (b'{"item_id": "\xff\xfe"}', "line: byte 14 is not UTF-8"),
        (_film(title="x" * 1_100_000), "line: longer than allowed; allowed: 1048576 bytes"),
    ],
)
def test_a_bad_row_is_named_by_line_field_and_what_is_allowed(
    tmp_path: Path, line: str | bytes, reason: str
) -> None:
    first, bad, last = _read_lines(tmp_path, _film(), line, _film())

    assert isinstance(first, Item)
    assert isinstance(last, Item)
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert reason in bad.reason
    assert len(bad.reason.encode()) < 1000


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.jsonl").write_bytes(raw)
    (folder / "a.csv").write_bytes(b"item_id,kind,title,year\n" + raw)

    for name in ("a.jsonl", "a.csv"):
        for row in read_items(folder / name, SCHEMA):
            assert isinstance(row, Item | BadRow)


def _read_csv(tmp_path: Path, text: str | bytes) -> list[Item | BadRow]:
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_items(path, SCHEMA))


def test_csv_cells_hold_several_weighted_values(tmp_path: Path) -> None:
    (item,) = _read_csv(
        tmp_path,
        "\ufeffitem_id,kind,title,genre,year,released\r\n"
        'film:1,film,"Me, Myself \\| I\\@2",Comedy|Drama@0.4|bob@site,1988,'
        "1988-06-03T00:00:00Z\r\n",
    )

    assert isinstance(item, Item)
    assert item.values("title") == (Value("Me, Myself | I@2"),)
    assert item.values("genre") == (Value("Comedy"), Value("Drama", 0.4), Value("bob@site"))
    assert item.number("year") == 1988.0
    assert item.number("released") == 581299200.0


def test_bad_csv_rows_do_not_spoil_their_neighbours(tmp_path: Path) -> None:
    rows = _read_csv(
        tmp_path,
        b"item_id,kind,title,year\n"
        b"a,film,A,1\n"
        b"b,film,B\n"
        b"c,film,\xff,1\n"
        b"d,film,D,x\n"
        b"e,film,E,inf\n"
        b"f,film,F@7,1\n"
        b'g,film,"G"x,1\n'
        b"\n"
        b'h,film,"H\nH",1\n'
        b"i,film,,\n",
    )

    reasons = [(r.line, r.reason) for r in rows if isinstance(r, BadRow)]
    assert [r.item_id for r in rows if isinstance(r, Item)] == ["a", "h", "i"]
    assert [line for line, _ in reasons] == [3, 4, 5, 6, 7, 8]
    for (_, reason), expected in zip(
        reasons,
        ["3 columns", "title: not UTF-8", "year: could not", "inf is no", "weight: 7", "malformed"],
        strict=True,
    ):
        assert expected in reason


@pytest.mark.parametrize(
    ("header", "problem"),
    [("kind,title", "no column item_id"), ("item_id,kind,colour", "unknown column colour")],
)
def test_a_wrong_header_refuses_the_file(tmp_path: Path, header: str, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        _read_csv(tmp_path, header + "\n")


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    day = datetime(1988, 6, 3)
    rows = [
        {
            "item_id": "film:1",
            "kind": "film",
            "title": "Big",
            "cast": [{"value": "Tom Hanks", "weight": 0.5, "item_id": "person:tom-hanks"}],
            "language": ["English", "French"],
            "year": 1988,
            "released": day,
        },
        {"item_id": "film:2", "kind": "song", "year": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)

    good, bad = read_items(path, SCHEMA)

    assert isinstance(good, Item)
    assert good.values("cast") == (Value("Tom Hanks", 0.5, "person:tom-hanks"),)
    assert good.texts("language") == ("English", "French")
    assert good.number("year") == 1988.0
    assert good.number("released") == day.replace(tzinfo=UTC).timestamp()
    assert bad == BadRow(2, bad.reason)
    assert "unknown kind 'song'" in bad.reason


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.csv", "x.txt"])
def test_a_missing_or_foreign_file_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"x\."):
        list(read_items(tmp_path / name, SCHEMA))


def test_a_truncated_parquet_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"item_id": ["a"] * 100, "kind": ["film"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(InvalidArgumentError, match="Parquet"):
        list(read_items(path, SCHEMA))


@given(st.integers(0, 12), st.integers(0, 12))
def test_skipping_goes_on_where_the_last_import_stopped(
    tmp_path_factory: pytest.TempPathFactory, rows: int, skip: int
) -> None:
    path = tmp_path_factory.mktemp("skip") / "x.jsonl"
    path.write_text("\n\n".join('{"bad"' if n % 3 == 0 else _film(year=n) for n in range(rows)))

    whole = list(read_items(path, SCHEMA))

    assert list(read_items(path, SCHEMA, skip=skip)) == whole[skip:]


def test_import_state_survives_a_restart_and_forgets_another_content(tmp_path: Path) -> None:
    source, state = tmp_path / "x.jsonl", tmp_path / "state" / "x.json"
    source.write_text("one")

    ImportState(state, source).advance(512)
    resumed = ImportState(state, source).rows_done
    source.write_text("two")

    assert resumed == 512
    assert ImportState(state, source).rows_done == 0


@pytest.mark.parametrize("content", ["", "[]", "{", '{"rows_done": 5}', "null"])
def test_a_damaged_import_state_starts_over(tmp_path: Path, content: str) -> None:
    source, state = tmp_path / "x.jsonl", tmp_path / "x.json"
    source.write_text("one")
    state.write_text(content)

    opened = ImportState(state, source)
    opened.advance(3)

    assert ImportState(state, source).rows_done == 3
    opened.clear()
    assert not state.exists()


_texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9)
_values = st.builds(
    Value,
    _texts.filter(str.strip),
    st.floats(0.01, 1).map(lambda w: round(w, 3)),
    st.sampled_from(["", "person:a"]),
    st.booleans(),
)


@given(st.lists(_values, min_size=1, max_size=4), st.floats(-1e6, 1e6))
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, cast: list[Value], year: float
) -> None:
    path = tmp_path_factory.mktemp("trip") / "x.jsonl"
    item = Item("film:1", "film", {"cast": tuple(cast), "year": (Value(year),)})

    written = write_jsonl([item], path)

    assert written == 1
    assert list(read_items(path, SCHEMA)) == [item]


def test_a_valid_item_passes_and_a_bad_one_names_the_field() -> None:
    validate_item(Item("film:1", "film", {"title": (Value("Big"),)}), SCHEMA)

    with pytest.raises(InvalidArgumentError) as caught:
        validate_item(Item("a", "film", {"genre": (Value("x"), Value("y", float("nan")))}), SCHEMA)

    assert caught.value.field == "attributes.genre[1].weight"
