#!/usr/bin/env bash
# gpu.sh - verifies and measures Fortet on a machine that has a GPU, nvcc and
# python3, and no Go. What needs Go is built beforehand, elsewhere:
#
#   bench/gpu.sh pack        test programs, fortet and the suites into build/gpu/
#   bench/gpu.sh run [correctness|speed]
#                            on the machine with the GPU, both parts if none is named.
#                            First the CUDA library and fortet doctor, which end the run
#                            where the card cannot be used. Then
#              correctness:  every test of the packages that use devices, with
#                            FORTET_REQUIRE_GPU=1; agreement of CPU and GPU and 250
#                            bit-equal repeats of every operation at sizes that fill the
#                            card; memcheck, racecheck, initcheck and synccheck of every
#                            operation; memcheck of the packages' own tests
#              speed:        fortet bench, the suites kernels and gpu, which has solves and
#                            training steps with their peers, and a profile by ncu
#   bench/gpu.sh rehearse [correctness|speed]
#                            the same here, in small sizes, with the emulation library in
#                            the GPU's place and stand-ins for NVIDIA's tools
#
# Eight files or fewer are left in $OUT, or else in build/gpu/out: summary.txt, which is
# printed last, logs, the profile, and <suite>-<card>.jsonl, rows to be copied into
# bench/results (see docs/gpu.md). Every step has a time limit of its own. LIMIT, in
# seconds, is that of the whole call (540); steps for which no time is left are left out,
# and that is a failure. REPEATS is the number of repeats.
# NVCC, SANITIZER, NCU and SMI are NVIDIA's tools, where they are not on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
PACK=$ROOT/build/gpu
MOST=40 # MiB that may travel
# One for each package whose tests run on every device.
USES='fortet/kernels/kerneltest"'

die() {
  echo "gpu.sh: $*" >&2
  exit 1
}

# ---- Packing.

pack() {
  local go=${GO:-go} folder name before
  rm -rf "$PACK"
  mkdir -p "$PACK/programs" "$PACK/wheels"
  CGO_CFLAGS="-g -O3 -DFORTET_HEADERS=$(cat kernels/include/*.h kernels/*/*.h | cksum | cut -d' ' -f1)u"
  export CGO_CFLAGS
  "$go" build -ldflags='-s -w' -o "$PACK/programs/fortet" ./cmd/fortet
  "$go" build -ldflags='-s -w' -o "$PACK/programs/bench" ./bench/runner
  for folder in gpu bench $(grep -rl --include='*_test.go' "$USES" kernels tensor solver models | xargs -n1 dirname | sort -u); do
    name=${folder//\//_}
    "$go" test -c -ldflags='-s -w' -o "$PACK/programs/test_$name" "./$folder"
    [ -f "$PACK/programs/test_$name" ] || continue # its tests need a build tag
    echo "$name $folder" >>"$PACK/tests.list"
  done
  echo "$(git rev-parse --short=12 HEAD)$([ -z "$(git status --porcelain -- . ':!bench/results' ':!docs')" ] || echo ' dirty')" >"$PACK/commit"
  wheels
  before=$(du -sm "$PACK/programs" | cut -f1)
  compress
  rm -rf "$PACK/programs"
  local total
  total=$(du -sm "$PACK" | cut -f1)
  [ "$total" -lt $MOST ] || die "pack: $total MiB, want under $MOST"
  echo "$PACK: $(wc -l <"$PACK/tests.list") test programs, fortet and the suites, $before MiB in $total MiB with $(find "$PACK/wheels" -name '*.whl' | wc -l) wheels"
}

# Programs of one module share most of their bytes, far apart: a dictionary that
# reaches over several of them packs three times better than gzip does. The
# filter makes the targets of calls absolute, which are then equal.
compress() {
  python3 - "$PACK" <<'PYTHON'
import lzma, pathlib, sys, tarfile

pack = pathlib.Path(sys.argv[1])
filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 192 << 20}]
with open("/proc/self/exe", "rb") as f:
    if f.read(20)[18:20] == b"\x3e\x00":  # x86-64
        filters.insert(0, {"id": lzma.FILTER_X86})
with lzma.open(pack / "unfinished", "wb", filters=filters) as out, tarfile.open(fileobj=out, mode="w|") as tar:
    for file in sorted((pack / "programs").iterdir()):
        tar.add(file, "programs/" + file.name)
(pack / "unfinished").rename(pack / "programs.tar.xz")
PYTHON
}

unpack() { # in a shell of its own
  python3 - "$PACK" <<'PYTHON'
import lzma, pathlib, sys, tarfile, zipfile

pack = pathlib.Path(sys.argv[1])
with lzma.open(pack / "programs.tar.xz") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
    tar.extractall(pack)
for wheel in (pack / "wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as z:
        z.extractall(pack / "site")
PYTHON
}

# wheels fetches what the peers need beside PyTorch, Triton and JAX, which the machine
# must have.
wheels() {
  local list=bench/peers/requirements-gpu.txt
  if [ ! -f $list ]; then
    echo "no $list: no peers in this pack" | tee "$PACK/wheels/README"
  elif ! python3 -m pip wheel -q --no-deps -w "$PACK/wheels" -r $list; then
    rm -f "$PACK"/wheels/*.whl
    echo "pip could not fetch $list: no peers in this pack" | tee "$PACK/wheels/README" >&2
  elif [ "$(du -sm "$PACK/wheels" | cut -f1)" -gt 8 ]; then
    rm -f "$PACK"/wheels/*.whl
    echo "the wheels of $list are larger than 8 MiB: no peers in this pack" | tee "$PACK/wheels/README" >&2
  fi
}

# ---- Steps.

failed=0 steps=0 shown=0

# begin NAME SECONDS LOG COMMAND... starts a step as soon as fewer than WIDTH run,
# for at most so many seconds; finish waits for all. A step whose name ends in
# " *" may be stopped by its limit: how far it came is worth having.
begin() {
  local name=$1 limit=$2 log=$3 id left
  shift 3
  while [ "$(jobs -rp | wc -l)" -ge "$WIDTH" ]; do wait -n || true; done
  steps=$((steps + 1))
  id=$WORK/$(printf '%04d' $steps)
  echo "$log" >"$id.to"
  left=$((LIMIT - SECONDS))
  if [ $left -lt 5 ]; then
    printf '%s\tLEFT OUT: no time\t0\n' "$name" >"$id.status"
    return 0
  fi
  attempt "$id" "$name" $((limit < left ? limit : left)) "$@" &
}

attempt() {
  local id=$1 name=$2 limit=$3 start=$SECONDS rc=0 how
  shift 3
  timeout -k 5 "$limit" "$@" >"$id.log" 2>&1 </dev/null || rc=$?
  case $rc in
    0) how=passed ;;
    124 | 137)
      how="FAILED: time limit of $limit s"
      if [[ $name == *' *' ]] && ! faults "$id.log" >/dev/null; then how="stopped at $limit s, no fault"; fi
      ;;
    *) how="FAILED: exit code $rc" ;;
  esac
  printf '%s\t%s\t%d\n' "${name% \*}" "$how" $((SECONDS - start)) >"$id.status"
}

# What went wrong, in a few lines of a log; status 1 where nothing did.
faults() {
  awk '
    told == 8 { exit }
    next_line { sub(/^[ \t]+/, "        "); print; told++; next_line = 0 }
    /Received unexpected error/ { next_line = 1; next }
    /^ *--- FAIL|^panic:|^fatal error|Error: +[^ \t]|ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]|^=+ (Invalid|Error:|Race|Uninit)|wrong answer|: error:|FAILS|not compiled/ { print; told++ }
    END { exit !told }' "$1"
}

# finish waits for the steps and tells how they ended, in their order.
finish() {
  local id name how seconds
  wait
  while [ $shown -lt $steps ]; do
    shown=$((shown + 1))
    id=$WORK/$(printf '%04d' $shown)
    IFS=$'\t' read -r name how seconds <"$id.status"
    printf '%-46s %-30s %4d s\n' "$name" "$how" "$seconds" >>"$OUT/summary.txt"
    echo "== $name: $how" >>"$OUT/$(cat "$id.to")"
    touch "$id.log"
    case $how in
      FAILED* | LEFT*)
        failed=1
        faults "$id.log" | cut -c1-200 | sed 's/^ */      /' >>"$OUT/summary.txt" || true
        tail -c 100000 "$id.log" >>"$OUT/$(cat "$id.to")"
        ;;
      *) tail -c 6000 "$id.log" >>"$OUT/$(cat "$id.to")" ;;
    esac
  done
}

step() {
  begin "$@"
  finish
}

passed() { # whether the last step did
  grep -q $'\tpassed\t' "$WORK/$(printf '%04d' $steps).status"
}

note() { printf '%-46s %s\n' "$1" "$2" >>"$OUT/summary.txt"; }

# in_folder FOLDER COMMAND... runs where a package's tests find their files.
in_folder() {
  cd "$1"
  shift
  "$@"
}
export -f in_folder

# test_of NAME SECONDS LOG FOLDER ARGUMENTS... runs the tests of a package, under
# the command in WRAP.
WRAP=()
test_of() {
  local name=$1 limit=$2 log=$3 folder=$4
  shift 4
  begin "$name" "$limit" "$log" bash -c 'in_folder "$@"' - "$folder" "${WRAP[@]}" \
    "$PACK/programs/test_${folder//\//_}" -test.timeout "$limit"s "$@"
}

tool() { # CHOICE NAME: where a tool of NVIDIA's is, or nothing
  local nvcc
  if [ -n "$1" ]; then
    echo "$1"
  elif command -v "$2"; then
    :
  else
    nvcc=$(command -v "${NVCC:-nvcc}" || true)
    if [ -n "$nvcc" ] && [ -x "$(dirname "$nvcc")/$2" ]; then echo "$(dirname "$nvcc")/$2"; fi
  fi
}

# ---- The parts.

# build makes the library of this card alone: half the time of all architectures.
build() {
  local capability
  if ! command -v "${NVCC:-nvcc}" >/dev/null; then
    if [ -f lib/libfortet_cuda.so ]; then
      note "build.sh cuda" "not run: no nvcc; lib/libfortet_cuda.so as it is"
    else
      note "build.sh cuda" "NOT RUN: no nvcc on this machine, and no lib/libfortet_cuda.so"
      failed=1
    fi
    return 0
  fi
  capability=$("$SMI" --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ' || true)
  case $capability in
    80 | 90) ARCHITECTURES=sm_$capability step "build.sh cuda, sm_$capability" 300 correctness.log ./build.sh cuda ;;
    *) step "build.sh cuda" 300 correctness.log ./build.sh cuda ;;
  esac
}

diagnose() { # in a shell of its own
  "$PACK/programs/fortet" doctor --json >"$WORK/doctor.json" || true # the emulation may be missing
  python3 - "$WORK/doctor.json" <<'PYTHON'
import json, os, sys

with open(sys.argv[1]) as f:  # the emulation keeps its name where it stands for the card
    card = [d for d in json.load(f)["devices"] if d["name"].startswith("cuda") or d.get("library") == os.environ["FORTET_CUDA_LIB"]]
if not card or not card[0]["available"]:
    sys.exit("doctor: Error: no card: " + "; ".join(d.get("reason", "") for d in card))
d = card[0]
print(d["model"], d["features"], d.get("driver", ""), d["library"])
with open(sys.argv[1] + ".card", "w") as f:
    f.write("".join(c if c.isalnum() else "-" for c in d["model"].lower()).strip("-"))
sick = [k["family"] + ": " + k.get("error", "") for k in d["kernels"] if not k["ok"]]
if sick:
    sys.exit("doctor: Error: " + "; ".join(sick))
PYTHON
}

# doctor opens the card and runs a small problem of each family. CARD is its name
# as files have it.
doctor() {
  step "fortet doctor" 90 correctness.log bash -c diagnose
  if [ ! -f "$WORK/doctor.json.card" ]; then
    note "everything else" "LEFT OUT: the card cannot be used"
    tail -n 3 "$WORK/$(printf '%04d' $steps).log" >>"$OUT/summary.txt"
    end
  fi
  CARD=$(cat "$WORK/doctor.json.card")
}

correctness() {
  local name folder sanitizer check some=softmin more='duallse|gmm|proximal' rest='ensemble|fdual'
  WIDTH=$((CORES > 4 ? CORES / 2 : 2))
  while read -r name folder; do
    case $folder in bench | kernels/selftest) continue ;; esac
    test_of "test $folder" 150 correctness.log "$folder" "${SHORT[@]}"
  done <"$PACK/tests.list"
  finish
  test_of "CPU and GPU agree on every operation" 120 correctness.log kernels/selftest -test.run 'Agreement|Families|Complete' "${SHORT[@]}"
  finish
  FORTET_REPEATS=$REPEATS test_of "$REPEATS bit-equal repeats of every operation" 150 correctness.log kernels/selftest \
    -test.run 'TestRepeats/^cuda$' "${SHORT[@]}"
  finish

  sanitizer=$(tool "${SANITIZER:-}" compute-sanitizer)
  if [ -z "$sanitizer" ]; then
    note "compute-sanitizer" "not run: there is none on this machine"
    return 0
  fi
  export FORTET_REPEATS=2
  for check in memcheck racecheck synccheck initcheck; do
    WRAP=("$sanitizer" --tool "$check" --error-exitcode 99 --print-limit 20)
    for family in "$some" "$more" "$rest"; do
      test_of "$check: $family" 120 correctness.log kernels/selftest -test.short -test.run "TestRepeats/^cuda\$/^($family)"
    done
    test_of "$check: all other operations" 120 correctness.log kernels/selftest -test.short -test.run 'TestRepeats/^cuda$' \
      -test.skip "TestRepeats/^cuda\$/^($some|$more|$rest)"
  done
  finish
  WRAP=("$sanitizer" --tool memcheck --error-exitcode 99 --print-limit 20)
  while read -r name folder; do
    case $folder in kernels/selftest) ;; kernels/*) test_of "memcheck: tests of $folder *" 60 correctness.log "$folder" -test.short -test.run '/^cuda$' ;; esac
  done <"$PACK/tests.list"
  finish
  WRAP=()
  unset FORTET_REPEATS
}

speed() {
  local rows=$WORK/rows file
  WIDTH=1
  mkdir -p "$rows"
  step "fortet bench" 120 speed.log "$PACK/programs/fortet" bench --out "$rows/compare.jsonl" "${BENCH[@]}"
  suite kernels 150
  suite gpu 280 -limit 170s # of its peers
  for file in "$rows"/*.jsonl; do
    if [ -s "$file" ]; then cp "$file" "$OUT/$(basename "$file" .jsonl)-$CARD.jsonl"; fi
  done
  profile
}

suite() { # NAME SECONDS ARGUMENT...
  PYTHONPATH=$PACK/site${PYTHONPATH:+:$PYTHONPATH} step "suite $1" "$2" speed.log "$PACK/programs/bench" -suites "$1" -device cuda \
    -results "$rows" -fortet "$PACK/programs/fortet" "${@:3}" "${QUICK[@]}"
}

# profile has ncu measure each kernel of the families once, at their largest sizes.
profile() {
  local ncu
  ncu=$(tool "${NCU:-}" ncu)
  if [ -z "$ncu" ]; then
    note "profile" "not run: there is no ncu on this machine"
    return 0
  fi
  local count=("$ncu" --set basic --section InstructionStats --section WarpStateStats --csv --page raw --target-processes all --launch-count)
  FORTET_PROFILE=cuda WRAP=("${count[@]}" 150 --log-file "$WORK/families.csv")
  export FORTET_PROFILE
  test_of "profile of the families" 120 speed.log bench -test.run TestProfile "${SHORT[@]}"
  finish
  WRAP=()
  step "profile of training steps" 60 speed.log "${count[@]}" 120 --log-file "$WORK/steps.csv" \
    "$PACK/programs/bench" -suites gpu -device cuda -peers none -quick -results "$WORK" -fortet "$PACK/programs/fortet"
  cat "$WORK"/{families,steps}.csv >"$OUT/profile.csv" 2>/dev/null || true
  if grep -qs ERR_NVGPUCTRPERM "$WORK"/*.log "$WORK"/*.csv; then
    note "profile" "empty: this user may not read the card's counters"
  fi
}

end() {
  { "$SMI" --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv,noheader || true; } 2>/dev/null |
    sed 's/^/card at the end: /' >>"$OUT/summary.txt"
  note "in all" "$SECONDS s, $([ $failed = 0 ] && echo 'nothing failed' || echo FAILED)"
  cat "$OUT/summary.txt"
  exit $failed
}

# run PART, with what rehearse and a machine with a card set otherwise.
run() {
  case $1 in '' | correctness | speed) ;; *) die "$1: want correctness, speed or nothing" ;; esac
  LIMIT=${LIMIT:-540} OUT=${OUT:-$PACK/out}
  export WORK=$PACK/work
  CORES=$(nproc) WIDTH=1
  [ -f "$PACK/programs.tar.xz" ] || die "$PACK/programs.tar.xz is missing: run bench/gpu.sh pack where Go is"
  rm -rf "$WORK"
  mkdir -p "$OUT" "$WORK"
  rm -f "$OUT"/{summary.txt,correctness.log,correctness.log,speed.log,profile.csv,*.jsonl}
  FORTET_COMMIT=$(cat "$PACK/commit")
  export FORTET_COMMIT FORTET_REQUIRE_GPU=1 FORTET_NO_EMU=1 FORTET_CUDA_LIB
  echo "gpu.sh ${1:-run}: commit $FORTET_COMMIT, $(date -u '+%Y-%m-%d %H:%M UTC'), $CORES cores" >"$OUT/summary.txt"
  { "$SMI" || true; } >>"$OUT/correctness.log" 2>&1
  step "unpack" 60 correctness.log bash -c unpack
  library
  doctor
  if [ "$1" != speed ]; then correctness; fi
  if [ "$1" != correctness ]; then speed; fi
  end
}

export -f unpack diagnose
export PACK

case ${1:-} in
  pack) pack ;;
  run)
    SMI=$(tool "${SMI:-}" nvidia-smi)
    SMI=${SMI:-nvidia-smi} REPEATS=${REPEATS:-250} SHORT=() QUICK=() BENCH=()
    FORTET_CUDA_LIB=$ROOT/lib/libfortet_cuda.so
    library() { build; }
    run "${2:-}"
    ;;
  rehearse)
    TOOLS=$ROOT/bench/testdata/gpu
    SMI=$TOOLS/nvidia-smi SANITIZER=${SANITIZER:-$TOOLS/compute-sanitizer} NCU=${NCU:-$TOOLS/ncu}
    REPEATS=${REPEATS:-3} SHORT=(-test.short) QUICK=(-quick) BENCH=(--quick)
    FORTET_CUDA_LIB=$ROOT/lib/libfortet_emu.so
    library() { step "build.sh emu" 300 correctness.log ./build.sh emu; }
    LIMIT=${LIMIT:-1500} run "${2:-}"
    ;;
  *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
