#!/usr/bin/env bash
# build.sh - builds the device libraries. Sources are found, not listed.
#
#   ./build.sh emu      g++   -> lib/libfortet_emu.so   the CUDA kernels, emulated on the CPU
#   ./build.sh cuda     nvcc  -> lib/libfortet_cuda.so  sm_80 and sm_90 code, PTX for later ones
#   ./build.sh check    nvcc  -> build/resources.txt    fails where a kernel spills or has a stack frame
#   ./build.sh nvcc     installs nvcc for this user, from PyPI, without root
#   ./build.sh clean    removes build/ and lib/
#
# CXX, NVCC and JOBS choose the compilers and how many run at once.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")"

CUDA_VERSION=13.0
CUDA_HOME_LOCAL=${XDG_CACHE_HOME:-$HOME/.cache}/fortet/cuda-$CUDA_VERSION
JOBS=${JOBS:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}

die() { echo "build.sh: $*" >&2; exit 1; }

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }

# The hash of the shared headers, as include.Hash computes it.
abi_hash() { cat kernels/include/*.h | sha256; }

# The hash of the shared headers and of an operation's own one, as
# include.Contract computes it.
contract_hash() {
  local header=$1
  { cat kernels/include/*.h; if [ -f "$header" ]; then cat "$header"; fi; } | sha256
}

# The header with the contract of a source: kernels/<op>/<op>.h for all
# sources of kernels/<op>/, else the one that is named as the source is.
contract_header() {
  local src=$1 dir
  dir=$(dirname "$src")
  case $src in
    kernels/*) echo "$dir/$(basename "$dir").h" ;;
    *) echo "${src%.*}.h" ;;
  esac
}

kernel_sources() { find gpu/cuda kernels -mindepth 1 -maxdepth 2 -name '*.cu' | sort; }
emu_sources() { { find gpu/emu -maxdepth 1 '(' -name '*.cpp' -o -name '*.cu' ')'; kernel_sources | grep -v '^gpu/cuda/device\.cu$' || true; } | sort; }

# The headers that a source includes, and those that they include, by quotes.
headers_of() {
  local todo=("$1") seen=" " file name found
  while [ ${#todo[@]} -gt 0 ]; do
    file=${todo[0]}; todo=("${todo[@]:1}")
    while read -r name; do
      for found in "$(dirname "$file")/$name" "kernels/include/$name" "gpu/emu/$name"; do
        [ -f "$found" ] || continue
        found=$(realpath --relative-to=. "$found")
        case $seen in *" $found "*) ;; *) seen+="$found "; todo+=("$found") ;; esac
        break
      done
    done < <(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file")
  done
  echo "$seen"
}

# The object of a source: its name carries the hash of all that it is made of,
# so that an object that exists need not be made.
object() {
  local kind=$1 src=$2 key; shift 2
  key=$({ printf '%s\n' "$@"; cat "$src" $(headers_of "$src"); } | sha256)
  echo "build/$kind/$(echo "${src%.*}" | tr / _)-${key:0:16}.o"
}

# compile KIND SOURCE COMMAND... makes the object of a source and prints its name.
compile() {
  local kind=$1 src=$2; shift 2
  local flags=("$@" "-DFORTET_ABI_HASH=\"$(abi_hash)\"" "-DFORTET_CONTRACT_HASH=\"$(contract_hash "$(contract_header "$src")")\"")
  local obj
  obj=$(object "$kind" "$src" "${flags[@]}")
  if [ ! -f "$obj" ]; then
    mkdir -p "build/$kind"
    rm -f "build/$kind/$(echo "${src%.*}" | tr / _)-"????????????????.*
    "${flags[@]}" -o "$obj.tmp$$" "$src" || { rm -f "$obj.tmp$$"; echo "build.sh: $src: not compiled" >&2; return 1; }
    mv "$obj.tmp$$" "$obj"
  fi
  echo "$obj"
}

# parallel KIND COMMAND... -- SOURCE... compiles all sources, at most JOBS at a
# time, and prints the objects' names.
parallel() {
  local kind=$1; shift
  local cmd=()
  while [ "$1" != -- ]; do cmd+=("$1"); shift; done
  shift
  local list pids=() failed=0 src
  list=$(mktemp)
  for src in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || failed=1; done
    compile "$kind" "$src" "${cmd[@]}" >>"$list" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  sort "$list"
  rm -f "$list"
  return $failed
}

build_emu() {
  local cxx=${CXX:-g++} objects sources
  mapfile -t sources < <(emu_sources)
  local flags=(-O2 -g -std=c++17 -fPIC -pthread -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas
    -Wno-unused-function -DFORTET_EMU -Ikernels/include -Igpu/emu)
  case $(uname -m) in x86_64) flags+=(-mtls-dialect=gnu2) ;; esac
  objects=$(parallel emu "$cxx" "${flags[@]}" -c -x c++ -- "${sources[@]}") || die "the emulation library was not built"
  mkdir -p build
  echo '{ global: fortet_*; local: *; };' >build/exports.map
  link lib/libfortet_emu.so "$cxx" -shared -pthread -Wl,-z,defs,-z,nodelete,--version-script=build/exports.map $objects
}

# link LIBRARY COMMAND... links unless the library is newer than its objects,
# and replaces it in one step.
link() {
  local lib=$1; shift
  local stamp
  stamp=$(printf '%s\n' "$@" | sha256)
  mkdir -p lib build
  local note=build/$(basename "$lib").link
  if [ -f "$lib" ] && [ -f "$note" ] && [ "$(cat "$note")" = "$stamp" ]; then echo "$lib: up to date"; return; fi
  "$@" -o "$lib.tmp$$"
  mv "$lib.tmp$$" "$lib"
  echo "$stamp" >"$note"
  echo "$lib: built"
}

case ${1:-} in
  emu) build_emu ;;
  clean) rm -rf build lib ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
