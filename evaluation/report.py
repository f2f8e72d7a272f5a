"""The quality report: measures whatever is not measured yet, and writes `docs/quality.md`.

Run it as `python -m evaluation.report`, or `make quality`. Each part keeps its figures as JSON in
the work folder, so that a run that was cut short goes on, and one part can be measured again by
deleting its file.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from evaluation.collections import catalogue
from evaluation.collections.files import judged_data
from evaluation.evaluate import commands as evaluating
from evaluation.evaluate.debiasing import measure_debiasing
from evaluation.evaluate.experiment import LEARNED, MIX, RANKER, STATIC, TWO, evaluate
from evaluation.evaluate.letor import measure_letor
from evaluation.mesh import Mesh
from evaluation.ope.coverage import CoverageSettings, measure_coverage
from evaluation.simulation.run import RunSettings, run
from evaluation.understanding.measuring import measure as measure_understanding

Json = Any
Tell = Callable[[str, float], None]
SEEDS = 3
FOLDS = 5
_SIMULATION = RunSettings(requests=4_000, seeds=2, robustness=True)
_TARGETS: Mapping[tuple[str, str], tuple[float, float | None]] = {
    ("music", "5 folds by query"): (0.93, 0.025),
    ("scifact", "official split"): (0.765, None),
    ("scifact", "official, disjoint documents"): (0.73, 0.0),
    ("cranfield", "5 folds by query"): (0.435, 0.01),
    ("chorus", "5 folds by query"): (0.76, 0.005),
}
"""By collection and split: nDCG@10 of the ranker, and by how much it must exceed tuned static."""
_ENGINES: Mapping[tuple[str, str], float] = {
    ("scifact", "lexical"): 0.66,
    ("cranfield", "lexical"): 0.37,
    ("scifact", "semantic"): 0.645,
    ("scifact", TWO): 0.70,
}


_LIMITS = (
    "The depth of the ranker's trees and its feature set were chosen after looking at"
    " cross-validated figures of Cranfield and music, the weight of stems on Cranfield and on"
    " SciFact's training claims: those two collections are mildly tuned on what is measured.",
    "While credit and copula of the plan were built, streams that ask held-out needs were looked"
    " at; `plan.redundancy` and `plan.price` were then chosen on training needs alone.",
    "Chorus: the lexical generator alone is below a flat BM25 over one text field (.741), so the"
    " static rival here is weaker than it could be.",
    "Mixed traffic: intervals of cost, level and regret are over seeds, of which there are few."
    " Candidate lists are those of one moment; the shares of the"
    " kinds of query are our choice. Where call-everything is no better than the best mix, there is"
    " no +.03 to be won by planning.",
    "The off-policy figures are of one simulated world with rewards around .6.",
    "Clicks are simulated on a fixed shown order; when the order varies with the clicks, training"
    " without debiasing lost less than training with it.",
)


def main(
    work: Annotated[Path, typer.Option(help="Folder of the parts' figures.")] = Path(
        "data/quality"
    ),
    out: Annotated[Path, typer.Option(help="The report; pictures go beside it.")] = Path(
        "docs/quality.md"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parts at a time; by default one per core.")
    ] = None,
) -> None:
    """Measure what is missing in the work folder and write the report."""
    console = Console(stderr=True)
    pictures = out.with_suffix("")
    parts = _measured(work, workers or os.cpu_count() or 1)
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in sorted((work / "simulation").glob("*.png")):
        shutil.copy(picture, pictures / picture.name)
    lines = _report(parts, sorted(p.name for p in pictures.glob("*.png")), pictures.name)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    console.print(f"Written: {out}. Pictures: {pictures}.")


def _measured(work: Path, workers: int) -> dict[str, Json]:
    """Return the figures of all parts, by name; what is in the work folder is not done again."""
    work.mkdir(parents=True, exist_ok=True)
    began = time.time()
    missing = [name for name in _PARTS if not _file(work, name).exists()]
    # Engines and XGBoost keep threads that would not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_measure, work, name, began) for name in missing]):
            done.result()
    return {name: json.loads(_file(work, name).read_text(encoding="utf-8")) for name in _PARTS}


def _file(work: Path, part: str) -> Path:
    return work / f"{part}.json"


def _measure(work: Path, part: str, began: float) -> None:
    console = Console(stderr=True)
    told = 0.0

    def tell(stage: str, share: float) -> None:
        nonlocal told
        if share >= 1 or time.time() - told > 10:
            told = time.time()
            console.print(f"{told - began:6.0f} s  {part}: {stage}: {share:.0%}")

    figures = json.dumps(_PARTS[part](work, tell), indent=1)
    _file(work, part).write_text(figures, encoding="utf-8")
    console.print(f"{time.time() - began:6.0f} s  {part}: measured")


def _evaluated(name: str, work: Path, tell: Tell) -> Json:
    collection = catalogue.load(name)
    mesh = Mesh(collection, work / "cache")
    mesh.open(lambda done, wanted: tell("index", done / wanted))
    try:
        found = evaluate(
            mesh,
            collection,
            seeds=range(SEEDS),
            folds=FOLDS,
            progress=lambda stage, done, wanted: tell(stage, done / wanted),
        )
    finally:
        mesh.close()
    return [asdict(e) for e in found]


def _simulation(work: Path, tell: Tell) -> Json:
    folder = work / "simulation"
    folder.mkdir(exist_ok=True)
    run(_SIMULATION, judged_data(), cache=work / "scenes", out=folder, progress=tell)
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _coverage(_: Path, tell: Tell) -> Json:
    found = measure_coverage(
        CoverageSettings(), progress=lambda share: tell("off-policy coverage", share)
    )
    return asdict(found)


def _letor(_: Path, tell: Tell) -> Json:
    tell("learning to rank", 0.0)
    return [asdict(figure) for figure in measure_letor(judged_data(), seeds=range(SEEDS))]


def _debiasing(_: Path, tell: Tell) -> Json:
    tell("clicks with position bias", 0.0)
    return asdict(measure_debiasing(judged_data(), seeds=range(SEEDS)))


def _understanding(_: Path, tell: Tell) -> Json:
    tell("query understanding", 0.0)
    return asdict(measure_understanding(judged_data()))


_EVALUATIONS = tuple(f"evaluation-{name}" for name in evaluating.DEFAULT)
# The longest first, so that all cores are busy to the end.
_PARTS: Mapping[str, Callable[[Path, Tell], Json]] = {
    "simulation": _simulation,
    **{
        part: partial(_evaluated, name)
        for part, name in zip(_EVALUATIONS, evaluating.DEFAULT, strict=True)
    },
    "coverage": _coverage,
    "letor": _letor,
    "debiasing": _debiasing,
    "understanding": _understanding,
}


def _report(parts: Mapping[str, Json], pictures: Sequence[str], folder: str) -> list[str]:
    evaluations = [one for part in _EVALUATIONS for one in parts[part]]
    targets = [
        *_targets(evaluations),
        *_ranker_targets(parts["letor"], parts["debiasing"]),
        *_simulated_targets(parts["simulation"]),
        *_coverage_targets(parts["coverage"]),
    ]
    missed = [t for t in targets if t[-1] == "**no**"]
    return [
        "# Quality",
        "",
        "Generated by `make quality`; do not edit. Brackets are 95 % intervals of the bootstrap"
        " over queries. Nothing is tuned on what is measured; the split rules are in"
        " `evaluation/collections/splits.py` and refuse a split that leaks.",
        "",
        "## Targets",
        "",
        f"{len(targets) - len(missed)} of {len(targets)} are met.",
        "",
        *_table(["target", "figure", "wanted", "met"], targets),
        "",
        "## Judged collections",
        "",
        "`forage evaluate`. Rankers are LambdaMART on the judgments of the training part, through"
        " the product's own features and trainer; the rival is the best of all static fusions of"
        " the training part, not equal weights. Milliseconds add up what the called generators"
        " took.",
        "",
        *(line for one in evaluations for line in _evaluation(one)),
        "## Learning to rank",
        "",
        *_letor_lines(parts["letor"], parts["debiasing"]),
        "",
        "## Mixed traffic, simulated users",
        "",
        "`forage simulate`: title queries, people and years, misspelt and partial names, themes,"
        " empty browsing and next items, repeated by a Zipf law; position-based clicks with noise."
        " The real planner, learner, memory and ranker, over lists that the real generators gave"
        " once.",
        "",
        *_simulation_rows(parts["simulation"]),
        "",
        *_simulation_notes(parts["simulation"]["about"]),
        *(line for name in pictures for line in (f"![{name}]({folder}/{name})", "")),
        "## Off-policy evaluation",
        "",
        *_coverage_lines(parts["coverage"]),
        "",
        "## Query understanding",
        "",
        *_understanding_lines(parts["understanding"]),
        "",
        "## What does not work yet",
        "",
        *(f"- {what}: {figure}, wanted {wanted}." for what, figure, wanted, _ in missed),
        "",
        "And of the figures above:",
        "",
        *(f"- {limit}" for limit in _LIMITS),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _met(*, met: bool) -> str:
    return "yes" if met else "**no**"


def _targets(evaluations: Sequence[Json]) -> Iterator[list[str]]:
    for one in evaluations:
        rows = {row["contender"]: row for row in one["rows"]}
        for (collection, contender), wanted in _ENGINES.items():
            if collection == one["collection"] and "disjoint" not in one["rule"]:
                found = rows[contender]["metrics"]["ndcg@10"]
                yield [
                    f"{collection}: {contender}, nDCG@10",
                    _interval(found),
                    f"≥ {wanted}",
                    _met(met=found["mean"] >= wanted),
                ]
        gap = next(d for d in one["differences"] if d["contender"] == LEARNED and d["rival"] == MIX)
        yield [
            f"{one['collection']}, {one['rule']}: learned plan less best static mix",
            _interval(gap["interval"]),
            "≥ -.01",
            _met(met=gap["interval"]["mean"] >= -0.01),
        ]
        if (one["collection"], one["rule"]) not in _TARGETS:
            continue
        wanted, margin = _TARGETS[(one["collection"], one["rule"])]
        found = rows[RANKER]["metrics"]["ndcg@10"]
        what = f"{one['collection']}, {one['rule']}: ranker"
        yield [
            f"{what}, nDCG@10",
            _interval(found),
            f"≥ {wanted}",
            _met(met=found["mean"] >= wanted),
        ]
        if margin is not None:
            gap = next(d for d in one["differences"] if d["rival"] == STATIC)["interval"]
            yield [
                f"{what} less tuned static",
                _interval(gap),
                f"≥ {margin}",
                _met(met=gap["mean"] >= margin),
            ]


def _ranker_targets(letor: Json, debiasing: Json) -> Iterator[list[str]]:
    for figure in letor:
        wanted = 0.74 if "example" in figure["data"] else 0.71
        if figure["trainer"] == "forage":
            yield [
                f"{figure['data']}: ranker, nDCG@10",
                _interval(figure["ndcg"]),
                f"≥ {wanted}",
                _met(met=figure["ndcg"]["mean"] >= wanted),
            ]
    kept = debiasing["debiased"]["mean"] / debiasing["full"]["mean"]
    yield [
        "trained on clicks, as a share of full information",
        f"{kept:.3f}",
        "≥ .98",
        _met(met=kept >= 0.98),
    ]


def _coverage_targets(coverage: Json) -> Iterator[list[str]]:
    found = next(e for e in coverage["estimators"] if e["estimator"] == "doubly robust")
    error, covered = found["mean_error"], found["coverage"]
    yield [
        "doubly robust estimate, mean error",
        f"{error:.1%}",
        "≤ 2 %",
        _met(met=error <= 0.02),
    ]
    yield [
        "doubly robust, 95 % intervals that cover the truth",
        f"{covered:.3f}",
        "≥ .93",
        _met(met=covered >= 0.93),
    ]


def _simulated_targets(simulation: Json) -> Iterator[list[str]]:
    for found in simulation["findings"]:
        searches = found["what"].startswith("searches until")
        figure = (
            f"{found['value']:.0f}, median {found['low']:.0f}"
            if searches
            else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        )
        yield [found["what"], figure, found["target"], _met(met=found["met"])]


def _evaluation(one: Json) -> Iterator[str]:
    metrics = list(one["rows"][0]["metrics"])
    queries = one["rows"][0]["metrics"][metrics[0]]["queries"]
    yield f"### {one['collection']}, {one['rule']}"
    yield ""
    yield (
        f"{one['items']:,} items, {queries} test and {one['trained']} training topics, seeds"
        f" {', '.join(map(str, one['seeds']))}. {one['overlap']:.0%} of the test topics share a"
        f" relevant item with training. Static fusion chosen: {one['static']}. Static mix of plans"
        f" chosen: {one['mix']}; the learned plan fell back to it in {one['fallbacks']} splits."
    )
    yield ""
    rows = [
        [
            row["contender"],
            *(_interval(row["metrics"][m]) for m in metrics),
            f"{row['candidates']:.0f}",
            f"{row['milliseconds']:.1f}",
            f"{row['cost']:.2f}",
        ]
        for row in one["rows"]
    ]
    yield from _table(["", *metrics, "candidates", "ms", "cost"], rows)
    yield ""
    for d in one["differences"]:
        yield f"- nDCG@10, {d['contender']} less {d['rival']}: {_interval(d['interval'])}"
    yield ""


def _letor_lines(letor: Json, debiasing: Json) -> list[str]:
    rows = [[f["data"], f["trainer"], _interval(f["ndcg"])] for f in letor]
    orders = [
        [name, _interval(debiasing[key])]
        for name, key in (
            ("true grades", "full"),
            ("clicks, debiased", "debiased"),
            ("clicks, naive", "naive"),
            ("no training: the order shown", "shown"),
        )
    ]
    return [
        *_table(["data", "trainer", "nDCG@10"], rows),
        "",
        f"Trained on {debiasing['clicks']:,} clicks of a position-based click model in"
        f" {debiasing['searches']:,} searches of one fixed order on the MQ2008 part:",
        "",
        *_table(["trained on", "nDCG@10, held-out queries"], orders),
    ]


def _simulation_rows(simulation: Json) -> list[str]:
    rows = [
        [
            row["contender"],
            *(f"{row[k]:.3f}" for k in ("ndcg", "net", "cost", "engaged")),
            f"{row['regret']:.1f}",
        ]
        for row in simulation["contenders"]
    ]
    head = ["contender", "nDCG@10", "net reward", "cost", "engaged item covered", "regret"]
    return _table(head, rows)


def _simulation_notes(about: Json) -> Iterator[str]:
    yield (
        "Regret is against the contextual oracle: of every need the plan whose true expected reward"
        " net of cost is largest, among all plans the most promising and all that anybody played."
        f" For {about['proven']:.0%} of the needs that plan is proven to be the best of all 3,124."
        " The class oracle is the product's model taught by full pulls of other traffic."
    )
    yield ""
    found = about["exploration"]
    yield (
        f"Exploration: {found['items']} new items, {found['slots_per_search']:.2f} slots given away"
        f" per search, of which new items got {found['share_of_slots']:.1%}. S new items need about"
        " 10 S / (slots per search x share) searches for their first ten impressions each, here"
        f" {found['expected_searches']:.0f}; slots per search are `slots.probability` times the"
        " number of `slots.positions`."
    )
    yield ""
    rows = [
        [row["users"], row["contender"], *(f"{row[k]:.3f}" for k in ("ndcg", "net", "cost"))]
        for row in about["robustness"]
    ]
    if rows:
        yield "Other users, one seed, the static plans chosen for each:"
        yield ""
        yield from _table(["users", "contender", "nDCG@10", "net reward", "cost"], rows)
        yield ""


def _coverage_lines(coverage: Json) -> list[str]:
    runs, requests = coverage["settings"]["runs"], coverage["settings"]["logging"]["requests"]

    def share(value: float) -> str:
        return "" if value != value else f"{value:.3f}"

    rows = [
        [
            e["estimator"],
            f"{e['bias']:+.2%}",
            f"{e['mean_error']:.2%}",
            share(e["coverage"]),
            share(e["mean_width"]),
            str(e["refused"]),
        ]
        for e in coverage["estimators"]
    ]
    return [
        f"{runs} simulated logs of {requests:,} searches by an adaptive Thompson logger, true value"
        f" {coverage['truth']:.4f}, seed {coverage['settings']['logging']['seed']}.",
        "",
        *_table(
            ["estimator", "bias", "mean error", "95 % covers", "width", "refused"],
            rows,
        ),
    ]


def _understanding_lines(found: Json) -> list[str]:
    lines = []
    for one in found["slots"]:
        lines += [f"### {one['collection']}, {one['utterances']} utterances", ""]
        rows = [
            [
                s["kind"],
                str(s["gold"]),
                str(s["known"]),
                *(_interval(s[k]) for k in ("recall", "recall_any", "precision")),
            ]
            for s in one["scores"]
            if s["known"]
        ]
        head = ["slot", "marked", "in the catalogue", "recall", "in any reading", "precision"]
        lines += [*_table(head, rows), ""]
        if one["spurious_titles"]:
            claimed = _interval(one["spurious_titles"])
            lines += [f"Best readings that claim a title nobody marked: {claimed}.", ""]
    rows = [
        [one["collection"], str(s["slips"]), _interval(s["best"]), _interval(s["anywhere"])]
        for one in found["spelling"]
        for s in one["scores"]
    ]
    lines += ["### Misspelt names", ""]
    return [*lines, *_table(["names", "slips", "best reading", "any reading"], rows)]


if __name__ == "__main__":
    typer.run(main)
