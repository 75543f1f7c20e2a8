#!/usr/bin/env bash
# Triton's perf_analyzer 2.60. It needs glibc 2.38: where that is missing, it runs through the loader
# of a newer Debian, unpacked aside (nothing is installed).
#
#   scripts/peers/setup_perf_analyzer.sh [FOLDER]   # default: $TENANTDL_PEERS or ~/.cache/tenantdl/peers
set -euo pipefail
dir=${1:-${TENANTDL_PEERS:-$HOME/.cache/tenantdl/peers}}/perf_analyzer
mkdir -p "$dir"/{wheel,deb/lists/partial,root}
dir=$(cd "$dir" && pwd)
python3 -m pip download -q --no-deps --only-binary=:all: --platform manylinux_2_38_x86_64 \
  --python-version 3.11 -d "$dir/wheel" perf-analyzer==2.60.0
(cd "$dir/wheel" && python3 -m zipfile -e perf_analyzer-*.whl .)
mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/*.sources)
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror trixie main" >"$dir/deb/trixie.list"
options="-oDir::Etc::sourcelist=$dir/deb/trixie.list -oDir::Etc::sourceparts=- -oDir::State::Lists=$dir/deb/lists"
apt-get $options update -qq
(cd "$dir/deb" && apt-get $options download -qq libc6 libstdc++6 libgcc-s1 zlib1g libssl3t64)
for deb in "$dir"/deb/*.deb; do dpkg-deb -x "$deb" "$dir/root"; done
binary=$(find "$dir/wheel" -type f -name perf_analyzer | head -1)
chmod +x "$binary"
loader=$(find "$dir/root" -name 'ld-linux-x86-64.so.2' | head -1)
libraries=$(find "$dir/root" -name 'libc.so.6' -printf '%h\n' | head -1)
printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$loader" "$libraries" "$binary" >"$dir/perf_analyzer"
chmod +x "$dir/perf_analyzer"
echo "perf_analyzer is set up in $dir"
