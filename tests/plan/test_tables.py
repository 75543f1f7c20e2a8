from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.errors import UserError
from tenantdl.plan.tables import (
    Entry,
    Profile,
    merged,
    read_table,
    table_of,
    write_table,
)

PROFILE = Profile(
    model="m",
    entries=(
        Entry(batch=1, cores=1, latency_ms=10.0, bound_ms=12.0),
        Entry(batch=2, cores=1, latency_ms=11.0),
        Entry(batch=1, cores=2, latency_ms=6.0),
    ),
)


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.json"
    write_table(path, [PROFILE], "how", {"model": "cpu"})
    assert read_table(path) == {"m": PROFILE}


def test_configurations_go_by_the_bound_and_cost_their_cores() -> None:
    found = {(c.hardware, c.batch): (c.duration_s, c.price) for c in table_of(PROFILE)}
    assert found == {
        ("1 core", 1): (0.012, 1.0),
        ("1 core", 2): (0.012, 1.0),  # never faster than a smaller batch
        ("2 cores", 1): (0.006, 2.0),
    }
    assert {c.hardware for c in table_of(PROFILE, cores_max=1)} == {"1 core"}
    assert {c.price for c in table_of(PROFILE, {1: 3.0, 2: 5.0})} == {3.0, 5.0}


def test_of_equal_entries_the_first_counts() -> None:
    other = Profile(model="m", entries=(Entry(batch=1, cores=1, latency_ms=99.0),))
    assert merged([PROFILE, other]).entries[0].latency_ms == 10.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a profile table"),
        ('{"format": 2, "profiles": []}', "profile format 2"),
        (
            '{"format": 1, "profiles": [{"model": "m", "entries": []}]}',
            r"profiles\[0\]\.entries",
        ),
        (
            '{"format": 1, "profiles": [{"model": "m", "entries":'
            ' [{"batch": 0, "cores": 1, "latency_ms": 1}]}]}',
            "batch",
        ),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "none.json")
