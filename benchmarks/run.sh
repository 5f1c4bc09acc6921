#!/usr/bin/env bash
# Set up .venv-bench (once, and again when a pin changes) and compare the library with its peers.
# Both comparisons, or one with its own arguments:
#   benchmarks/run.sh
#   benchmarks/run.sh steps --rounds 30 --threads 2
#   benchmarks/run.sh training --seconds 600
set -euo pipefail
cd "$(dirname "$0")/.."

what="${1:-both}"
case "$what" in
  both | steps | training) ;;
  *) echo "Expected steps or training, with their arguments, or nothing; got $what" >&2; exit 2 ;;
esac

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

if [ "$what" != both ]; then
  exec "$env/bin/python" "benchmarks/$what.py" "${@:2}"
fi
"$env/bin/python" benchmarks/steps.py
"$env/bin/python" benchmarks/training.py
