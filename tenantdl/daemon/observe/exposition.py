"""Prometheus' text format 0.0.4. Written here because Triton's counters have names that do not end
in `_total`, which the client library insists on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Labels = Mapping[str, object]


@dataclass(slots=True)
class Family:
    """One metric: its name, kind (counter, gauge, histogram), help, and samples."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: object) -> None:
        """A sample of a counter or gauge."""
        self.samples.append(("", labels, value))

    def histogram(
        self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: object
    ) -> None:
        """A histogram: `counts` of the values up to each of `bounds`, and of those beyond."""
        running = 0
        for bound, count in zip((*map(_number, bounds), "+Inf"), counts, strict=True):
            running += count
            self.samples.append(("_bucket", {**labels, "le": bound}, running))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, running))


def text(families: Iterable[Family]) -> bytes:
    """The page that Prometheus scrapes; metrics without samples are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {family.help}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            lines.append(f"{family.name}{suffix}{_labels(labels)} {_number(value)}")
    return ("\n".join(lines) + "\n").encode()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escape(str(value))}"' for name, value in labels.items())
    return "{" + inside + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
