#!/usr/bin/env bash
# Train all eleven papers inside a time budget, score them under one protocol, put them side by side on one page.
#
#   bash scripts/run_all.sh --budget MINUTES [--data toy|FOLDER] [--output FOLDER] [--only NAME,...]
#
#   --budget 30       minutes in all, once installed; the shares are laid out for 30 on 2 CPU cores
#   --data FOLDER     one sub-folder of pictures a class, for the papers that take such; the others draw their own toy data
#   --output FOLDER   where everything goes (default: run_all/ at the repository's root)
#   --only NAMES      some of the papers, e.g. sagan,pix2pix
#
# Started again on the same FOLDER, it goes on: what is scored is kept, what was cut short trains on. A paper that fails
# is shown as failed and does not stop the others. Ends with FOLDER/comparison/index.html.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
case "${1:-}" in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" && exit ;; esac
step "set up the Python environment" setup_venv
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$VENV/bin/python" "$ROOT/scripts/run_all.py" "$@"
