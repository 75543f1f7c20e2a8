#!/usr/bin/env bash
# Ray Serve 2.60 with onnxruntime, in an environment of its own (with what decoding tensors takes).
#
#   scripts/peers/setup_rayserve.sh [FOLDER]     # default: $TENANTDL_PEERS or ~/.cache/tenantdl/peers
set -euo pipefail
folder=${1:-${TENANTDL_PEERS:-$HOME/.cache/tenantdl/peers}}/rayserve
python3 -m venv "$folder"
"$folder/bin/pip" install -q "ray[serve]==2.60.0" onnxruntime==1.31.1 msgspec ml_dtypes
echo "Ray Serve is set up in $folder"
