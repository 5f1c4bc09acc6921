#!/usr/bin/env bash
# Set up .venv-bench (once, and again when a pin changes) and time the library beside its peers.
# Arguments go to run.py: benchmarks/run.sh --rounds 30 --threads 2
set -euo pipefail
cd "$(dirname "$0")/.."

env=.venv-bench
pip=("$env/bin/python" -m pip --disable-pip-version-check)
pins="$(cat requirements.txt benchmarks/requirements-peers.txt pyproject.toml)"

if [ "$pins" != "$(cat "$env/.ready" 2>/dev/null || true)" ]; then
  echo "Installing torch and the peers into $env (once; some minutes)"
  [ -x "$env/bin/python" ] || "${PYTHON:-python3}" -m venv "$env"
  grep -E '^(torch|numpy)==' requirements.txt >"$env/requirements-torch.txt"
  "${pip[@]}" install --progress-bar on -r "$env/requirements-torch.txt"
  "${pip[@]}" install --quiet --no-deps --editable .
  "${pip[@]}" install --quiet --no-deps -r benchmarks/requirements-peers.txt
  echo "$pins" >"$env/.ready"
fi

"$env/bin/python" benchmarks/run.py "$@"
