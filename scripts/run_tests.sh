#!/usr/bin/env bash
# Set up .venv where needed, check format and lint, run the tests.
#
#   bash scripts/run_tests.sh [--paddle VERSION] [--slow] [-- PYTEST_ARGUMENT...]
#
#   --paddle 2.6.2    test with that Paddle, in a venv of its own (.venv-paddle-2.6.2)
#   --slow            also the attacks that take minutes: kill -9, a full disk, flipped bits, gigabytes out of a file
#   -- ARGUMENT...    for pytest, e.g. -- tests/sagan -k attention; paths start at the repository's root
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; }

paddle=""
slow=()
while (($#)); do
    case $1 in
    --paddle)
        paddle=${2:-}
        if [ -z "$paddle" ]; then echo "run_tests.sh: error: --paddle: give a version, e.g. 2.6.2" >&2 && exit 2; fi
        shift 2
        ;;
    --slow) slow=(-m "slow or not slow") && shift ;;
    --)
        shift
        break
        ;;
    -h | --help) usage && exit ;;
    *) echo "run_tests.sh: error: unknown argument $1; arguments for pytest come after --" >&2 && exit 2 ;;
    esac
done

step "set up the Python environment" setup_venv "$paddle"
cd "$ROOT"
python="$VENV/bin/python"
# One process a core, at most four: starting Paddle takes longer than most tests.
workers=$("$python" -c 'import os; print(min(4, os.cpu_count()))')
step "check the format (ruff format)" "$python" -m ruff format --check .
step "check the code (ruff check)" "$python" -m ruff check .
step "run the tests (pytest)" "$python" -m pytest -n "$workers" --dist loadfile --durations 10 ${slow[@]+"${slow[@]}"} "$@"
say "all passed in $SECONDS s"
