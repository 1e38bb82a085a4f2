#!/usr/bin/env bash
# From nothing to pictures: set up .venv, draw toy data, train SAGAN and a judge on it, sample a labelled grid, score it.
#
#   bash scripts/quickstart.sh [FOLDER]
#
# Everything goes into FOLDER (default: quickstart/ at the repository's root); started again, it goes on where it was.
# Under 6 minutes on 2 CPU cores once installed; nothing but the installation needs a network.
# ITERATIONS=N in the environment trains for longer or shorter.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"

mkdir -p "${1:-$ROOT/quickstart}"
folder="$(cd "${1:-$ROOT/quickstart}" && pwd -P)"
iterations=${ITERATIONS:-1300}

make_data() {
    "$VENV/bin/python" "$ROOT/scripts/make_toy_data.py" "$folder/data" \
        --layout figures --classes 6 --count 6000 --val_count 600 --size 32 --seed 0
}

# What the pictures are judged by: the features of pictures that are not trained on, and a classifier of the six classes.
make_judges() {
    [ -e "$folder/real.npz" ] || "$VENV/bin/python" -m shared_metrics stats "$folder/data/val" \
        --network efficientnet -o "$folder/real.npz"
    [ -e "$folder/judge.pdparams" ] || "$VENV/bin/python" -m shared_metrics.judges classifier \
        --data_path "$folder/data/train" --val_path "$folder/data/val" \
        --epochs 2 --width 16 --output "$folder/judge.pdparams"
}

# Processes that share the training: two where there are two cores (1.6 times as fast as one), one on a GPU.
count_processes() {
    "$VENV/bin/python" -c "import paddle; from shared_metrics.process import usable_cores
print(1 if paddle.device.is_compiled_with_cuda() else min(2, usable_cores()))"
}

train() (
    cd "$ROOT/sagan"
    "$VENV/bin/python" train.py --data_path "$folder/data/train" --recipe cifar10 --imsize 32 --no-flip \
        --g_conv_dim 8 --d_conv_dim 16 --batch_size 32 --processes "$(count_processes)" --d_steps_per_iter 1 \
        --g_lr 4e-4 --d_lr 8e-4 --ema_decay 0.995 --ema_start 100 \
        --iterations "$iterations" --log_every 25 --sample_every 325 --save_every 325 \
        --eval_every 325 --eval_samples 600 --real_stats "$folder/real.npz" --inception_weights random \
        --num_workers 1 --output_dir "$folder/run" --resume auto
)

# 100 seeds, the same for each class.
sample() (
    cd "$ROOT/sagan"
    newest=$(printf '%s\n' "$folder/run/checkpoints"/iter_*.pdparams | tail -n 1)
    "$VENV/bin/python" test.py --pretrained_model "$newest" --seeds 0-99 --labels 0-5 \
        --test_data_path "$folder/data/val" --real "$folder/real.npz" \
        --metrics acc,fd_eff --classifier "$folder/judge.pdparams" \
        --output_dir "$folder/test" --overwrite
)

step "set up the Python environment" setup_venv
step "draw toy data" make_data
step "train the judge" make_judges
step "train SAGAN for $iterations iterations" train
step "draw samples, score them" sample
cat <<END
== quickstart: done in $SECONDS s
pictures in training   $folder/run/samples
pictures at the end    $folder/test/grid.png and $folder/test/images
curves and log         $folder/run/curves.png, $folder/run/log.txt
VisualDL               "$VENV/bin/visualdl" --logdir "$folder/run/log" --language en --disable-telemetry
scores                 $folder/test/results.json
END
