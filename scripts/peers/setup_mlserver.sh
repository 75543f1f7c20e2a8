#!/usr/bin/env bash
# MLServer 1.7 with onnxruntime, in an environment of its own.
#
#   scripts/peers/setup_mlserver.sh [FOLDER]     # default: $TENANTDL_PEERS or ~/.cache/tenantdl/peers
set -euo pipefail
folder=${1:-${TENANTDL_PEERS:-$HOME/.cache/tenantdl/peers}}/mlserver
python3 -m venv "$folder"
"$folder/bin/pip" install -q mlserver==1.7.1 "uvloop<0.22" onnxruntime==1.31.1
echo "MLServer is set up in $folder"
