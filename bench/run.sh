#!/usr/bin/env bash
# run.sh - runs the suites, with the peers that make peers has installed, and
# writes bench/results/<suite>.jsonl and docs/benchmarks.md from them.
#
#   bench/run.sh [--suites kernels,solvers,light,static] [--peers pot,ott-jax,pytorch|none]
#                [--limit 10m] [--device cpu|cuda] [--quick]
#
# --limit is the longest that one run of a peer may take. --quick runs small
# sizes to see that all works, and leaves results and page as they are: its rows
# go to build/bench-quick. Fails where an answer is wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
arguments=() quick=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 arguments+=(-quick -results build/bench-quick) ;;
    --suites | --peers | --limit | --device)
      [ $# -ge 2 ] || { echo "run.sh: $1: a value is missing" >&2; exit 2; }
      arguments+=("${1#-}" "$2")
      shift ;;
    *)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
      exit 2 ;;
  esac
  shift
done
${GO:-go} build -o bin/fortet ./cmd/fortet
${GO:-go} build -o bin/bench ./bench/runner
failed=0
bin/bench "${arguments[@]}" || failed=$?
if [ -z "$quick" ] && [ "$failed" -le 1 ]; then bin/bench -report; fi
exit "$failed"
