"""`docs/telemetry.md` and the settings it names agree with the code."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from forage.instruments import Instruments
from forage.settings import TelemetrySettings
from forage.signals import Attribute, Metric, Span

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    body = DOCUMENT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize(
    ("section", "names"), [("Spans", Span), ("Attributes", Attribute)], ids=["spans", "attributes"]
)
def test_every_name_is_documented_with_its_meaning(
    section: str, names: type[Span] | type[Attribute]
) -> None:
    documented = {row[0].strip("`"): row[1] for row in rows(section)}

    assert documented == {str(name): name.description for name in names}


def test_every_metric_is_documented_with_kind_unit_and_labels() -> None:
    documented = {
        (name.strip("`"), kind, unit.strip("`"), labels, meaning)
        for name, kind, unit, labels, meaning in rows("Metrics")
    }

    assert documented == {
        (
            str(metric),
            metric.kind.value,
            metric.unit,
            ", ".join(f"`{label!s}`" for label in metric.labels) or "none",
            metric.description,
        )
        for metric in Metric
    }


@pytest.mark.parametrize("names", [Span, Attribute, Metric])
def test_no_name_is_used_for_two_things(names: type[StrEnum]) -> None:
    assert len(names.__members__) == len(set(names))


def test_every_telemetry_setting_is_documented() -> None:
    documented = set(re.findall(r"`telemetry\.(\w+)`", DOCUMENT))

    assert documented == set(TelemetrySettings.model_fields)


def test_every_instrument_and_span_is_used_by_some_service() -> None:
    sources = "".join(
        path.read_text()
        for folder in ("forage", "generators", "orchestrator", "ranker")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in {"instruments.py", "signals.py"}
    )
    recorders = [
        name
        for name, member in vars(Instruments).items()
        if callable(member) and not name.startswith("_") and name not in {"create", "record"}
    ]

    assert recorders
    assert [name for name in recorders if f".{name}(" not in sources] == []
    assert [span.name for span in Span if f"Span.{span.name}" not in sources] == []
