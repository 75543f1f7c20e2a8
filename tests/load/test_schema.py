"""The published schema of workload files: the examples fit it, mistakes do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantdl.load.workload import json_schema

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = sorted((ROOT / "workloads").glob("*.toml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(msgspec.json.encode(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_todays() -> None:
    published = json.loads((ROOT / "docs" / "workload.schema.json").read_bytes())
    today = json.loads(msgspec.json.encode(json_schema()))
    assert published == today, "tenantdl schema > docs/workload.schema.json"


@pytest.mark.parametrize("file", WORKLOADS, ids=lambda file: file.name)
def test_the_examples_fit(validator: Any, file: Path) -> None:
    assert [e.message for e in validator.iter_errors(msgspec.toml.decode(file.read_bytes()))] == []


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nprot = 8000",
        "[[tenant]]\nname = 'a'\nbundle = 'b'\nqos_ms = -1",
        "[observe]\nlog = 'xml'",
    ],
)
def test_what_does_not_fit_is_found(validator: Any, text: str) -> None:
    assert list(validator.iter_errors(msgspec.toml.decode(text)))


def test_everything_is_described(validator: Any) -> None:
    kinds = validator.schema["$defs"]
    assert all(kind["description"] for kind in kinds.values())
    assert all("  " not in kind["description"] for kind in kinds.values())
