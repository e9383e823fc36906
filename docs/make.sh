#!/usr/bin/env bash
# docs/make.sh - regenerates docs/{solve,static,timecourse}.md and the figures of README.md:
# builds the program, runs the commands that the page shows, keeps their results
# in docs/data and their pictures in docs/pictures.
#
# FORTET_DATA is the folder with cifar10/ and timecourse/. Without it the
# results that are kept stay, and every command that was not run is named.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${MAKELEVEL:-}" ] || exec make docs # make knows the compiler's flags
"${GO:-go}" build -o bin/ ./examples/... ./docs/generate
exec bin/generate -root .
