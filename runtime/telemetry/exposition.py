"""Prometheus' text format, version 0.0.4: families of samples as text. No I/O.

https://prometheus.io/docs/instrumenting/exposition_formats/ says how names, labels and numbers are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass
class Family:
    """One metric with all its samples. `suffix` of a sample is what its name has behind the family's."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, labels: Labels) -> None:
        self.samples.append(("", labels, value))

    def add_histogram(self, counts: Mapping[float, int], total: float, labels: Labels) -> None:
        """`counts` are cumulative, by upper bound; the last bound is infinity. `total` is the sum of what was seen."""
        for bound, count in counts.items():
            self.samples.append(("_bucket", {**labels, "le": number(bound)}, count))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, max(counts.values(), default=0)))


def text_of(families: Iterable[Family]) -> str:
    """All families that have samples."""
    lines = []
    for family in families:
        if family.samples:
            lines.append(f"# HELP {family.name} {_escaped(family.meaning)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += [f"{family.name}{suffix}{_labels(labels)} {number(v)}" for suffix, labels, v in family.samples]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Whole numbers without a point, infinity as Prometheus spells it."""
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inner = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
