#!/usr/bin/env bash
# torch_cpu.sh VENV: lets the torch of VENV run on a CPU without NVIDIA's
# libraries.
#
# PyPI's torch for x86-64 Linux is linked with some 2 GB of CUDA libraries, all
# of which the loader wants even where no GPU is ever touched. In their place
# this makes small ones that have the same names and symbols and whose every
# function answers 35, "the driver is too old", so that torch finds no GPU. Use
# with LD_LIBRARY_PATH=VENV/lib/stubs.
set -euo pipefail
export LC_ALL=C
venv=$1
torch=$(echo "$venv"/lib/python3.*/site-packages/torch/lib)
out=$venv/lib/stubs
rm -rf "$out"
mkdir -p "$out"

libraries=$(readelf -d "$torch"/*.so | sed -n 's/.*NEEDED.*\[\(.*\)\]$/\1/p' | sort -u |
  grep -E '^lib(cu|nv|nccl)' | while read -r l; do [ -e "$torch/$l" ] || echo "$l"; done)
nm -D --undefined-only "$torch"/*.so | awk '$1 == "U" || $1 == "w" { print $2 }' | sort -u >"$out/symbols"

# Which versions of symbols are wanted of which library: "library version".
readelf -VW "$torch"/*.so | awk '
  / File: / { file = $0; sub(/.* File: /, "", file); sub(/ .*/, "", file) }
  / Name: / { name = $0; sub(/.* Name: /, "", name); sub(/ .*/, "", name); print file, name }' | sort -u >"$out/versions"

for library in $libraries; do
  : >"$out/stub.c"
  : >"$out/stub.map"
  for version in $(sed -n "s/^${library} //p" "$out/versions"); do
    found=$(sed -n "s/^\([A-Za-z_0-9]*\)@$version\$/\1/p" "$out/symbols")
    for s in $found; do echo "int $s(void) { return 35; }"; done >>"$out/stub.c"
    echo "$version { global: $(for s in $found; do printf '%s; ' "$s"; done) };" >>"$out/stub.map"
  done
  case $library in
    libcudart.so.*) # symbols without a version may come from anywhere
      for s in $(grep -E '^(cu|nccl|nvshmem|nvrtc|nvml|nvtx)[A-Za-z_0-9]*$' "$out/symbols" || true); do
        echo "int $s(void) { return 35; }" >>"$out/stub.c"
      done ;;
  esac
  flags="-Wl,-soname,$library"
  if [ -s "$out/stub.map" ]; then flags+=",--version-script=$out/stub.map"; fi
  gcc -shared -fPIC -w -fno-builtin "$flags" -o "$out/$library" -x c "$out/stub.c"
done
rm -f "$out"/stub.c "$out"/stub.map "$out"/symbols "$out"/versions
