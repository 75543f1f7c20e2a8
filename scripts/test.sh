#!/usr/bin/env bash
# All checks, from nothing: environment, ruff, mypy --strict, import layers, tests.
# Arguments go to pytest: scripts/test.sh tests/sched -x
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh dev,bench

bin=.venv/bin
"$bin/ruff" check tenantdl tests scripts
"$bin/ruff" format --check tenantdl tests scripts
"$bin/mypy"
"$bin/lint-imports"
exec "$bin/python" -m pytest -n auto -m "not slow and not hardware" "$@"
