#!/usr/bin/env bash
# Train one AC-GAN for every ten classes of an ImageNet-like folder: 100 of them for its 1000 (Odena et al., sec. 4).
#
#   bash scripts/train_acgan_groups.sh DATA OUTPUT [--shard I/N] [--gpus 0,1,...] [-- ARGUMENT...]
#
#   DATA             folder with one sub-folder of images per class
#   OUTPUT           every group goes into a folder of its own there, e.g. OUTPUT/group-010-020 (20 is not in it)
#   --shard I/N      train the I-th of N shares, I from 1, so that N hosts or cards divide the groups between them
#   --gpus 0,1,...   a group on each of these cards at a time (a card named twice takes two); what a group prints then
#                    goes to output.txt in its folder. Without it: one group at a time, on the first visible card or
#                    the CPU
#   -- ARGUMENT...   for acgan/train.py, e.g. -- --niter 100 --batchSize 50
#
# Started again it goes on where it was: finished groups end at once. A group that fails does not stop the others; it
# is named at the end and the exit status is 1. Ctrl-C saves and ends all that runs; a second one does not wait.
# PYTHON=... names the Python, by default that of .venv, else `python`.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; }

say() { printf '== %s\n' "$*"; }

fail() {
    echo "train_acgan_groups.sh: error: $*" >&2
    exit 2
}

# Sets $data, $output, $share, $shares, $cards and $arguments from the command line.
read_arguments() {
    local paths=() argument
    share=1 shares=1 cards=("") arguments=()
    while (($#)); do
        case $1 in
        --shard)
            [[ ${2:-} =~ ^([0-9]{1,6})/([0-9]{1,6})$ ]] || fail "--shard ${2:-}: give I/N, e.g. 1/4"
            share=$((10#${BASH_REMATCH[1]})) shares=$((10#${BASH_REMATCH[2]}))
            ((1 <= share && share <= shares)) || fail "--shard $2: the first number must lie in 1..$shares"
            shift 2
            ;;
        --gpus)
            [[ ${2:-} =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--gpus ${2:-}: give the numbers of cards, e.g. 0,1"
            IFS=, read -ra cards <<<"$2"
            shift 2
            ;;
        --)
            shift
            arguments=("$@")
            break
            ;;
        -h | --help) usage && exit ;;
        -*) fail "unknown argument $1; arguments for train.py come after --" ;;
        *) paths+=("$1") && shift ;;
        esac
    done
    ((${#paths[@]} == 2)) || fail "give two folders, DATA and OUTPUT; --help tells more"
    data=${paths[0]} output=${paths[1]}
    for argument in ${arguments[@]+"${arguments[@]}"}; do
        case ${argument%%=*} in
        --dataroot | --data_path | --classes | --resume | --output_dir | --*_path)
            fail "$argument: is set for each group here; leave it out after --"
            ;;
        esac
    done
}

# Sets $groups to this share's slices of the sorted class folders, such as 10-20.
list_groups() {
    local folders count all i
    [ -d "$data" ] || fail "$data: no such folder; give the folder that holds one sub-folder of images per class"
    shopt -s nullglob
    folders=("$data"/*/)
    count=${#folders[@]} all=$(((${#folders[@]} + 9) / 10)) groups=()
    ((count)) || fail "$data: no sub-folders; give the folder that holds one sub-folder of images per class"
    for ((i = share - 1; i < all; i += shares)); do
        groups+=("$((10 * i))-$((10 * i + 10 < count ? 10 * i + 10 : count))")
    done
    say "$data: $count classes in $all groups; ${#groups[@]} to train here"
}

# train SLICE CARD: one group, on this card ("": as it comes). Its exit status is that of train.py.
train() (
    folder="$output/$(group_name "$1")"
    device=()
    if [ -n "$2" ]; then
        export CUDA_VISIBLE_DEVICES=$2
        device=(--device gpu)
        mkdir -p "$folder"
        exec >>"$folder/output.txt" 2>&1
    fi
    exec "$python" "$ROOT/acgan/train.py" ${device[@]+"${device[@]}"} ${arguments[@]+"${arguments[@]}"} \
        --dataroot "$data" --classes "$1" --output_dir "$folder" --resume auto </dev/null
)

group_name() { printf 'group-%03d-%03d' "${1%-*}" "${1#*-}"; }

# work CARD: train one group after the other, each that no other worker has claimed by making its folder in $claims.
# A signal reaches train.py too, which saves and ends; this shell then goes no further.
work() {
    local slice name status stopped="" card=${1:+ on card $1}
    trap 'stopped=yes' TERM
    for slice in ${groups[@]+"${groups[@]}"}; do
        mkdir "$claims/$slice" 2>/dev/null || continue
        name=$(group_name "$slice") status=0
        say "$name$card: started"
        train "$slice" "$1" || status=$?
        [ -z "$stopped" ] || return 0
        if ((status)); then
            echo "$status" >"$claims/$slice/failed"
            say "$name$card: FAILED with exit status $status"
        else
            say "$name$card: done"
        fi
    done
}

# Pass a signal on to the workers and what they run, each in a process group of its own: it reaches them once.
stop() {
    signal=$1
    kill -TERM -- "${workers[@]/#/-}" 2>/dev/null || true
}

read_arguments "$@"
python=${PYTHON:-$ROOT/.venv/bin/python}
if [ -z "${PYTHON:-}" ] && [ ! -x "$python" ]; then python=python; fi
command -v "$python" >/dev/null || fail "$python: no such Python; run scripts/quickstart.sh once, or set PYTHON"
list_groups

claims=$(mktemp -d)
trap 'rm -rf "$claims"' EXIT
signal=0 workers=()
set -m # a process group for each worker
for card in "${cards[@]}"; do
    work "$card" &
    workers+=($!)
done
trap 'stop 2' INT
trap 'stop 15' TERM
trap 'stop 1' HUP
for worker in "${workers[@]}"; do
    while kill -0 "$worker" 2>/dev/null; do wait "$worker" || true; done
done

if ((signal)); then
    say "stopped; the same command goes on"
    exit $((128 + signal))
fi
failed=""
for slice in ${groups[@]+"${groups[@]}"}; do
    if [ -e "$claims/$slice/failed" ]; then
        failed+=", $(group_name "$slice") (exit status $(cat "$claims/$slice/failed"))"
    fi
done
if [ -n "$failed" ]; then
    say "FAILED: ${failed#, }"
    exit 1
fi
say "all ${#groups[@]} groups done in $SECONDS s"
