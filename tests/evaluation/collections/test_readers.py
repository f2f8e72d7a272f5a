import gzip
import json

import pytest

from evaluation.collections import beir, load, trec
from evaluation.collections.files import VARIABLE
from forage.errors import InvalidArgumentError, StartupError


def beir_folder(folder, *, qrels="1\td1\t2\n1\td2\t0\n2\td2\t1\n"):
    rows = [
        {"_id": "d1", "title": "Lanterns", "text": "light in the evening"},
        {"_id": "d2", "title": "", "text": "copper moon", "metadata": {"other": 1}},
    ]
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(r) for r in rows))
    queries = [("1", "evening light"), ("2", "moon"), ("3", "nothing relevant")]
    text = "\n".join(json.dumps({"_id": i, "text": t}) for i, t in queries)
    (folder / "queries.jsonl").write_text(text)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return folder


def trec_folder(folder):
    (folder / "topics.txt").write_text(
        "<top>\n<num> Number: 301\n<title> evening\nlight\n<desc> Description: x\n</top>\n"
        "<top><num>302</num><title>copper moon</title></top>"
    )
    (folder / "qrels.txt").write_text("301 0 d1 1\n302 0 d2 2\n302 0 d1 -1\n")
    (folder / "docs.trec").write_text(
        "<DOC>\n<DOCNO> d1 </DOCNO>\n<TITLE>Lanterns</TITLE><TEXT>evening <b>light</b></TEXT></DOC>"
        "<DOC><DOCNO>d2</DOCNO><TEXT>copper\nmoon</TEXT></DOC>"
    )
    return folder


def test_a_beir_folder_is_read_with_its_parts(tmp_path) -> None:
    found = beir.load(beir_folder(tmp_path))

    assert [t.text for t in found.topics] == ["evening light", "moon"]
    assert found.judgments == {"1": {"d1": 2, "d2": 0}, "2": {"d2": 1}}
    assert found.parts == {"1": "test", "2": "test"}
    assert found.by_id["d2"].texts("title") == ()
    assert "1 queries without" in found.note


def test_a_beir_folder_is_read_with_a_schema_of_ones_own(tmp_path) -> None:
    schema = tmp_path / "own.yaml"
    schema.write_text(
        "name: own\nkinds: [page]\nattributes:\n"
        "  title: {roles: [text]}\n  other: {roles: [number]}\n"
    )

    found = beir.load(beir_folder(tmp_path), own_schema=schema)

    assert found.by_id["d2"].number("other") == 1.0


def test_a_trec_folder_is_read(tmp_path) -> None:
    found = trec.load(trec_folder(tmp_path))

    assert {t.query_id: t.text for t in found.topics} == {
        "301": "evening light",
        "302": "copper moon",
    }
    assert found.judgments["302"] == {"d2": 2, "d1": 0}
    assert found.by_id["d1"].texts("text") == ("Lanterns evening light",)


@pytest.mark.parametrize(
    ("qrels", "problem"),
    [
        ("1\td1\n", r"test.tsv:2: 2 columns"),
        ("1\td1\tmany\n", r"test.tsv:2: gain 'many'"),
        ("1\td1\tnan\n", r"test.tsv:2: gain 'nan'"),
        ("1\td9\t1\n", r"judgments\['1'\]\['d9'\]: unknown item id"),
        ("1\td1\t1\n9\td1\t1\n", r"judgments\['9'\]: unknown query id"),
        ("1\td1\t0\n", "topics: empty"),
    ],
)
def test_bad_qrels_are_refused_naming_the_place(tmp_path, qrels, problem) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        beir.load(beir_folder(tmp_path, qrels=qrels))


def test_missing_files_are_named(tmp_path) -> None:
    with pytest.raises(StartupError, match="has none of train, dev or test"):
        beir.load(tmp_path)
    (tmp_path / "docs.jsonl").write_text("{broken")
    (tmp_path / "topics.tsv").write_text("1\twords\n")
    with pytest.raises(StartupError, match=r"none of qrels"):
        trec.load(tmp_path)
    (tmp_path / "qrels").write_text("1 0 d1 1\n")
    with pytest.raises(InvalidArgumentError, match=r"docs.jsonl:1: no JSON"):
        trec.load(tmp_path)


def test_an_unknown_collection_and_a_missing_folder_are_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(InvalidArgumentError, match="scifact, cranfield"):
        load("scifacts")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(StartupError, match=VARIABLE):
        load("scifact")
