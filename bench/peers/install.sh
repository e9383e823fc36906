#!/usr/bin/env bash
# install.sh - installs the libraries that bench compares with, in the pinned
# versions of requirements*.txt, into a virtual environment outside the project:
# $FORTET_PEERS, or else ~/.cache/fortet/peers. It needs Python 3.11 or newer,
# gcc, and 3 GB of disk. Done twice, it does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${FORTET_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/fortet/peers}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "install.sh: $python is $("$python" --version), want Python 3.11 or newer" >&2
  exit 1
}
wanted=$(cat requirements.txt requirements-torch.txt torch_cpu.sh | cksum)
if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ]; then
  echo "$venv: installed"
  exit 0
fi
mkdir -p "$(dirname "$venv")"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }
pip install -r requirements.txt
pip install --no-deps -r requirements-torch.txt
if [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]; then ./torch_cpu.sh "$venv"; fi
# The compiled formulas of KeOps stay in the environment too.
LD_LIBRARY_PATH=$venv/lib/stubs KEOPS_CACHE_FOLDER=$venv/keops "$venv/bin/python" solve.py --versions
echo "$wanted" >"$venv/.installed"
echo "$venv: installed"
