#!/usr/bin/env bash
# From a fresh machine to a table of figures: installs into .venv, compiles four models, serves them
# to four tenants, drives 20 s of load at them. Mostly installing; nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh bench
tenantdl=.venv/bin/tenantdl

echo
"$tenantdl" doctor
for model in ppocr_cls magika minilm_l6 mobilenet_v2; do
    echo
    echo "== Compiling $model"
    "$tenantdl" compile "$model" -o "out/bundles/$model.bundle"
done

echo
echo "== Serving four tenants (workloads/demo.toml) under 20 s of load"
"$tenantdl" bench qos workloads/demo.toml --duration 20 --report out/demo.html

cat <<'NEXT'

The report with plots is out/demo.html. To try next (. .venv/bin/activate first):
  tenantdl bench qos workloads/demo.toml --rate 80        twice the load
  tenantdl serve workloads/demo.toml                      and talk to it with tritonclient
  tenantdl bench latency mobilenet_v2 ppocr_cls           beside onnxruntime and OpenVINO
  tenantdl zoo list                                       other models to compile
NEXT
