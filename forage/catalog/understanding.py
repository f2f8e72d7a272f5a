"""Content understanding: predict the entity values that the catalogue's owner left out.

For every attribute with `predict: true`, and every kind of item that usually has it, one logistic
regression per label is trained on the items that have values. Features are the item's other
values and words (tf-idf), and its embedding if an encoder is given. On the demo catalogue values
tell more about a film's genre than its embedding does: people keep to their genres.

Probabilities are calibrated (Platt, 1999) on items held out from training, and measured on items
held out from both. Only values whose calibrated probability reaches the threshold are predicted,
with the probability as weight; a classifier less precise than it promises predicts nothing.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from forage.catalog.embedding_text import embed_text
from forage.catalog.item import Item, Value
from forage.catalog.schema import Role, Schema
from forage.encoder import Encoder

FEWEST_LABELLED = 400
FEWEST_PER_LABEL = 30
MOST_LABELS = 100
_PRECISION_SLACK = 0.1
_INVERSE_REGULARISATION = 9.0
_EMBEDDING_SCALE = 4 / 3
_WORD = re.compile(r"\w+")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Report:
    """How well one attribute of one kind could be predicted, measured on held-out items."""

    attribute: str
    kind: str
    labelled: int
    missing: int
    """How many items lack the attribute."""
    threshold: float
    refused: str = ""
    """Why nothing was predicted; empty if something was."""
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    calibration_error: float = 0.0
    """Mean distance of predicted from observed frequency over ten bins, by size of the bin."""
    items: int = 0
    """How many of the missing items got at least one value."""
    seconds: float = 0.0


@dataclass(slots=True)
class Understanding:
    """The predicted values by item id and attribute, and how far to trust them."""

    values: dict[str, dict[str, tuple[Value, ...]]] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def complete(self, item: Item) -> Item:
        """Return the item with its predicted values added where it has none of its own."""
        added = {a: v for a, v in self.values.get(item.item_id, {}).items() if not item.values(a)}
        return replace(item, attributes={**item.attributes, **added}) if added else item


def understand(
    items: Sequence[Item],
    schema: Schema,
    *,
    rng: np.random.Generator,
    encoder: Encoder | None = None,
    threshold: float = 0.6,
    most_labelled: int = 20_000,
) -> Understanding:
    """Predict what is missing, from at most `most_labelled` labelled items per kind.

    `threshold` is the calibrated probability, in (0, 1], that a predicted value must reach.
    Every attribute and kind with something missing has a `Report`, refused or not.
    """
    result = Understanding()
    for name in (n for n, a in schema.attributes.items() if a.predict):
        for kind in schema.kinds:
            of_kind = [item for item in items if item.kind == kind]
            labelled = [i for i in of_kind if any(not v.predicted for v in i.values(name))]
            missing = [item for item in of_kind if not item.values(name)]
            if not missing:
                continue
            started = time.perf_counter()
            report = Report(name, kind, len(labelled), len(missing), threshold)
            refused = _why_not(len(labelled), len(of_kind))
            if refused:
                result.reports.append(replace(report, refused=refused))
                continue
            picked = rng.permutation(len(labelled))[:most_labelled]
            task = _Task(name, schema, encoder, [labelled[i] for i in picked])
            report = task.measure(report)
            if not report.refused:
                predicted = task.predict(missing, threshold)
                for item_id, values in predicted.items():
                    result.values.setdefault(item_id, {})[name] = values
                report = replace(report, items=len(predicted))
            seconds = round(time.perf_counter() - started, 2)
            result.reports.append(replace(report, seconds=seconds))
    return result


def _why_not(labelled: int, of_kind: int) -> str:
    if labelled < FEWEST_LABELLED:
        return f"{labelled} items have values, at least {FEWEST_LABELLED} are needed"
    if labelled < of_kind / 2:
        return f"only {labelled} of {of_kind} items have values: the kind need not have them"
    return ""


class _Task:
    """One attribute of one kind: train on 70 %, calibrate on 15 %, test on 15 %, predict."""

    def __init__(
        self, attribute: str, schema: Schema, encoder: Encoder | None, labelled: Sequence[Item]
    ) -> None:
        self._attribute = attribute
        self._schema = schema
        self._encoder = encoder
        self._labelled = labelled
        self._words = TfidfVectorizer(
            analyzer=self._features, min_df=2, sublinear_tf=True, dtype=np.float32
        )
        counts = Counter(v for item in labelled for v in set(item.texts(attribute)))
        self._labels = [v for v, n in counts.most_common(MOST_LABELS) if n >= FEWEST_PER_LABEL]
        self._models: list[LogisticRegression] = []
        self._platt = (1.0, 0.0)

    def measure(self, report: Report) -> Report:
        """Train and calibrate, and say how good it is on the test part."""
        if not self._labels:
            return replace(report, refused=f"no value occurs in {FEWEST_PER_LABEL} items")
        texts = self._labelled
        train, calibrate = int(0.7 * len(texts)), int(0.85 * len(texts))
        truth = np.array(
            [[label in item.texts(self._attribute) for label in self._labels] for item in texts]
        )
        if not truth[:train].any(axis=0).all() or truth[:train].all(axis=0).any():
            return replace(report, refused="a value is in all or none of the training items")
        self._words.fit(texts[:train])
        features = self._matrix(texts)
        self._models = [
            LogisticRegression(C=_INVERSE_REGULARISATION, solver="liblinear").fit(
                features[:train], truth[:train, column]
            )
            for column in range(len(self._labels))
        ]
        margins = self._margins(features[train:])
        held_out = truth[train:]
        cut = calibrate - train
        self._platt = _platt(margins[:cut].ravel(), held_out[:cut].ravel())
        return _scored(report, self._probabilities(margins[cut:]), held_out[cut:])

    def predict(self, items: Sequence[Item], threshold: float) -> dict[str, tuple[Value, ...]]:
        """Return the values that reach the threshold, by item id, most likely first."""
        named = {
            str(value.value): value.item_id
            for item in self._labelled
            for value in item.values(self._attribute)
            if value.item_id
        }
        found: dict[str, tuple[Value, ...]] = {}
        probabilities = self._probabilities(self._margins(self._matrix(items)))
        for item, row in zip(items, probabilities, strict=True):
            likely = [int(c) for c in np.argsort(-row, kind="stable") if row[c] >= threshold]
            if likely:
                found[item.item_id] = tuple(
                    Value(
                        self._labels[column],
                        weight=min(1.0, round(float(row[column]), 3)),
                        item_id=named.get(self._labels[column], ""),
                        predicted=True,
                    )
                    for column in likely
                )
        return found

    def _features(self, item: Item) -> list[str]:
        """Return the item's words and its values of other attributes, as feature names."""
        # The kind is in every item, so that there is a feature even where no word recurs.
        features = [f"kind={item.kind}"]
        for name, attribute in self._schema.attributes.items():
            if name == self._attribute or attribute.numeric:
                continue
            for value in item.values(name):
                text = str(value.value).casefold()
                if Role.KEYWORD in attribute.roles or Role.ENTITY in attribute.roles:
                    features.append(f"{name}={text}")
                else:
                    features.extend(_WORD.findall(text))
        return features

    def _matrix(self, items: Sequence[Item]) -> sparse.csr_matrix:
        words = self._words.transform(items)
        if self._encoder is None:
            return words
        texts = [embed_text(i, self._schema, without={self._attribute}) for i in items]
        dense = sparse.csr_matrix(_EMBEDDING_SCALE * self._encoder.encode(texts))
        return sparse.hstack([words, dense], format="csr")

    def _margins(self, features: sparse.csr_matrix) -> Floats:
        return np.column_stack([m.decision_function(features) for m in self._models])

    def _probabilities(self, margins: Floats) -> Floats:
        slope, intercept = self._platt
        probabilities: Floats = 1 / (1 + np.exp(-(slope * margins + intercept)))
        return probabilities


def _platt(margins: Floats, truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept of the logistic that maps margins to frequencies."""
    model = LogisticRegression(C=1e6).fit(margins[:, None], truth)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def _scored(report: Report, probabilities: Floats, truth: npt.NDArray[np.bool_]) -> Report:
    predicted = probabilities >= report.threshold
    right = float((predicted & truth).sum())
    precision = right / float(predicted.sum()) if predicted.any() else 0.0
    recall = right / float(truth.sum()) if truth.any() else 0.0
    bins = np.minimum((probabilities * 10).astype(int), 9).ravel()
    sizes = np.bincount(bins, minlength=10)
    gaps = np.bincount(bins, (probabilities - truth).ravel(), minlength=10)
    report = replace(
        report,
        precision=round(precision, 3),
        recall=round(recall, 3),
        f1=round(2 * precision * recall / (precision + recall), 3) if right else 0.0,
        calibration_error=round(float(np.abs(gaps).sum() / sizes.sum()), 4),
    )
    if precision < report.threshold - _PRECISION_SLACK:
        promised = f"the threshold {report.threshold:g} promises more"
        return replace(report, refused=f"held-out precision is {precision:.2f}, {promised}")
    return report
