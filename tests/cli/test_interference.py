"""`tenantdl bench interference`: rows with the fields that were agreed."""

from __future__ import annotations

from pathlib import Path

from tenantdl.bench.envelope import read_results
from tests.cli.conftest import Cli


def test_rows_of_the_contract(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "i.json"
    code, out, err = cli("bench", "interference", "--encounters", "40", "--json", str(file))
    assert code == 0
    assert err == "this machine has no profile: tenantdl profile --corun BUNDLE… makes one\n"
    assert "xgboost" in out
    for row in read_results(file).results:
        assert row.keys() >= {"machine", "split", "predictor", "mape", "r2", "p95_error", "regret"}


def test_an_unknown_machine_is_one_line(cli: Cli) -> None:
    code, _, err = cli("bench", "interference", "--machine", "8192-core")
    assert code == 2
    assert "8192-core" in err and len(err.splitlines()) == 1
