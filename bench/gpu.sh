#!/usr/bin/env bash
# gpu.sh - verifies and measures Fortet on a machine that has a GPU, nvcc and
# no Go. What needs Go is built beforehand, elsewhere:
#
#   bench/gpu.sh pack       test programs and benchmarks into build/gpu/
#   bench/gpu.sh run        on the machine with the GPU: builds the CUDA library;
#                           runs all tests of the packages that use every device with
#                           FORTET_REQUIRE_GPU=1, then their cuda tests under
#                           compute-sanitizer's memcheck and racecheck; then the
#                           kernel suite
#   bench/gpu.sh rehearse   the same steps here, on the emulation library in the
#                           GPU's place, in small sizes
#
# Logs, rows and summary.txt are left in $OUT, or else in build/gpu/out. The
# summary is printed last. Every step has a time limit of its own; LIMIT, in
# seconds, is that of the whole (540), after which steps are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PACK=build/gpu
MOST=64 # MiB that may travel

die() {
  echo "gpu.sh: $*" >&2
  exit 1
}

pack() {
  local go=${GO:-go} package folder name total
  rm -rf "$PACK"
  mkdir -p "$PACK/tests"
  CGO_CFLAGS="-g -O3 -DFORTET_HEADERS=$(cat kernels/include/*.h kernels/*/*.h | cksum | cut -d' ' -f1)u"
  export CGO_CFLAGS
  # A package takes part if its tests run on every device.
  for folder in gpu $(grep -rlE --include='*_test.go' 'kerneltest\.(Each|Devices)' kernels tensor solver models | xargs -n1 dirname | sort -u); do
    package=./$folder name=${folder//\//_}
    "$go" test -c -ldflags='-s -w' -o "$PACK/tests/$name" "$package"
    [ -f "$PACK/tests/$name" ] || continue # its tests need a build tag
    echo "$name $folder" >>"$PACK/tests.list"
  done
  "$go" build -ldflags='-s -w' -o "$PACK/bench" ./bench/runner
  echo "$(git rev-parse --short=12 HEAD)$([ -z "$(git status --porcelain -- . ':!bench/results' ':!docs')" ] || echo ' dirty')" >"$PACK/commit"
  # Programs of one module share most of their bytes.
  tar -C "$PACK" -cf - tests bench | gzip -6 >"$PACK/programs.tar.gz"
  rm -rf "$PACK/tests" "$PACK/bench"
  total=$(du -sm "$PACK" | cut -f1)
  [ "$total" -lt $MOST ] || die "pack: $total MiB, want under $MOST"
  echo "$PACK: $(wc -l <"$PACK/tests.list") test programs and bench, $total MiB"
}

failed=0
# step NAME SECONDS LOG COMMAND... runs a step within its time and notes how it ended.
step() {
  local name=$1 limit=$2 log=$OUT/$3 start=$SECONDS left rc=0
  shift 3
  left=$((LIMIT - SECONDS))
  if [ $left -lt 10 ]; then
    printf '%-44s %s\n' "$name" "left out: no time" >>"$OUT/summary.txt"
    failed=1
    return 0
  fi
  echo "== $name" >>"$log"
  timeout -k 5 $((limit < left ? limit : left)) "$@" >>"$log" 2>&1 || rc=$?
  case $rc in
    0) rc=passed ;;
    124 | 137) rc="FAILED: time limit" failed=1 ;;
    *) rc="FAILED: exit code $rc" failed=1 ;;
  esac
  printf '%-44s %-20s %4d s\n' "$name" "$rc" $((SECONDS - start)) >>"$OUT/summary.txt"
}

note() { printf '%-44s %s\n' "$1" "$2" >>"$OUT/summary.txt"; }

# inside FOLDER COMMAND... runs in a folder, where a package's tests find their files.
inside() {
  cd "$1"
  shift
  "$@"
}
export -f inside

tests() { # all tests of every program, on the GPU and on the CPU
  local name folder
  while read -r name folder; do
    step "test $folder" 180 tests.log bash -c 'inside "$@"' - "$folder" "$ROOT/$PACK/tests/$name" -test.timeout 170s "${SHORT[@]}"
  done <"$PACK/tests.list"
}

sanitize() { # TOOL: the cuda tests of the kernels
  local name folder sanitizer
  sanitizer=$(command -v compute-sanitizer || echo "$(dirname "$(command -v nvcc || echo /none/nvcc)")/compute-sanitizer")
  if [ ! -x "$sanitizer" ]; then
    note "$1" "not run: no compute-sanitizer on this machine"
    return 0
  fi
  while read -r name folder; do
    case $folder in kernels/*) ;; *) continue ;; esac
    step "$1 $folder" 120 "$1.log" bash -c 'inside "$@"' - "$folder" "$sanitizer" --tool "$1" --error-exitcode 99 \
      "$ROOT/$PACK/tests/$name" -test.timeout 110s -test.short -test.run '/^cuda$'
  done <"$PACK/tests.list"
}

run() { # cuda | emu
  ROOT=$PWD OUT=${OUT:-$PWD/$PACK/out} LIMIT=${LIMIT:-540} SHORT=()
  mkdir -p "$OUT"
  rm -f "$OUT"/{summary.txt,build.log,tests.log,memcheck.log,racecheck.log,kernels.jsonl,kernels.log}
  [ -f "$PACK/programs.tar.gz" ] || die "$PACK/programs.tar.gz is missing: run bench/gpu.sh pack where Go is"
  tar -C "$PACK" -xzf "$PACK/programs.tar.gz"
  FORTET_COMMIT=$(cat "$PACK/commit")
  export FORTET_COMMIT FORTET_REQUIRE_GPU=1 FORTET_NO_EMU=1
  if [ "$1" = cuda ]; then
    { nvidia-smi; nvcc --version; } >"$OUT/build.log" 2>&1 || true
    step "build.sh cuda" 300 build.log ./build.sh cuda
    export FORTET_CUDA_LIB=$ROOT/lib/libfortet_cuda.so
  else
    if command -v nvcc >/dev/null || [ -n "${NVCC:-}" ]; then
      step "build.sh cuda" 1200 build.log ./build.sh cuda
    else
      note "build.sh cuda" "not run: no nvcc on this machine"
    fi
    step "build.sh emu" 600 build.log ./build.sh emu
    export FORTET_CUDA_LIB=$ROOT/lib/libfortet_emu.so
    SHORT=(-test.short)
  fi
  tests
  if [ "$1" = cuda ]; then
    step "suite kernels" 150 kernels.log "$PACK/bench" -suites kernels -device cuda -results "$OUT"
  else
    step "suite kernels" 150 kernels.log "$PACK/bench" -suites kernels -device cuda -quick -results "$OUT"
  fi
  sanitize memcheck
  sanitize racecheck
  { grep -E '^(--- FAIL|FAIL|panic:)' "$OUT/tests.log" || true; tail -n 40 "$OUT/kernels.log" 2>/dev/null || true; } >>"$OUT/summary.txt"
  cat "$OUT/summary.txt"
  return $failed
}

case ${1:-} in
  pack) pack ;;
  run) run cuda ;;
  rehearse) LIMIT=${LIMIT:-3600} && run emu ;;
  *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
