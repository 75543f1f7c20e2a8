#!/usr/bin/env bash
# Triton 2.51 for CPUs, from the nvidia-pytriton wheel, with onnxruntime inside its python backend, in
# an environment of its own. Needs the Python that the wheel's backend stub is built for (3.11 here).
#
#   scripts/peers/setup_triton.sh [FOLDER]     # default: $TENANTDL_PEERS or ~/.cache/tenantdl/peers
set -euo pipefail
folder=${1:-${TENANTDL_PEERS:-$HOME/.cache/tenantdl/peers}}/triton
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
python3 -m venv "$folder"
"$folder/bin/pip" install -q nvidia-pytriton==0.7.0 onnxruntime==1.31.1 numpy
server=$(find "$folder" -type d -path '*pytriton/tritonserver' | head -1)
stub=$(find "$folder" -path "*python_backend_stubs/$version/triton_python_backend_stub" | head -1)
[ -n "$stub" ] || { echo "the wheel has no backend stub for Python $version" >&2; exit 1; }
cp "$stub" "$server/backends/python/"
chmod +x "$server/bin/tritonserver" "$server/backends/python/triton_python_backend_stub"
echo "Triton is set up in $folder"
