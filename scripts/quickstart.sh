#!/usr/bin/env bash
# From nothing to pictures: set up .venv, make toy data, train SAGAN on it, sample a labelled grid, score it.
#
#   bash scripts/quickstart.sh [FOLDER]
#
# Everything goes into FOLDER (default: quickstart/ at the repository's root); started again, it goes on where it was.
# Under 6 minutes on 2 CPU cores once installed. Without network it scores with random Inception weights and says so.
# ITERATIONS=N in the environment trains for longer or shorter.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

mkdir -p "${1:-$ROOT/quickstart}"
folder="$(cd "${1:-$ROOT/quickstart}" && pwd -P)"
iterations=${ITERATIONS:-600}

make_data() {
    "$VENV/bin/python" "$ROOT/scripts/make_toy_data.py" "$folder/data" \
        --classes 4 --count 4000 --val_count 512 --size 32 --seed 0
}

train() (
    cd "$ROOT/sagan"
    "$VENV/bin/python" train.py --data_path "$folder/data/train" --recipe cifar10 --imsize 32 \
        --g_conv_dim 8 --d_conv_dim 16 --batch_size 16 --d_steps_per_iter 1 --g_lr 4e-4 --d_lr 4e-4 \
        --ema_decay 0.99 --ema_start 100 \
        --iterations "$iterations" --log_every 50 --sample_every 150 --save_every 150 --num_workers 2 \
        --output_dir "$folder/run" --resume auto
)

# Sets $inception: the published weights where they are in the cache or can be fetched, else a random network.
get_inception() {
    local fetch="from shared_metrics import inception_weights as w; w.fetch(w.URL, w.SHA256)"
    inception=auto
    if ! "$VENV/bin/python" -c "$fetch" 2>&1 | tail -n 1; then
        inception=random
        echo "Going on with random Inception weights: FID and IS will show progress, but compare with no other number."
    fi
}

# 128 seeds, the same for each class; FID against as many pictures that were not trained on.
sample() (
    cd "$ROOT/sagan"
    newest=$(printf '%s\n' "$folder/run/checkpoints"/iter_*.pdparams | tail -n 1)
    "$VENV/bin/python" test.py --pretrained_model "$newest" --seeds 0-127 --labels circle,square,triangle,star \
        --metrics fid,is --real "$folder/data/val" --inception_weights "$inception" \
        --output_dir "$folder/test" --overwrite
)

step "set up the Python environment" setup_venv
step "draw toy data" make_data
step "train SAGAN for $iterations iterations" train
step "get the published Inception weights (91 MB)" get_inception
step "draw samples, compute FID and IS" sample
cat <<END
== quickstart: done in $SECONDS s
pictures in training   $folder/run/samples
pictures at the end    $folder/test/grid.png and $folder/test/images
curves and log         $folder/run/curves.png, $folder/run/log.txt
VisualDL               "$VENV/bin/visualdl" --logdir "$folder/run/log" --language en --disable-telemetry
scores                 $folder/test/results.json
END
