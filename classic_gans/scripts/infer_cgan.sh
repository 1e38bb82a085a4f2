#!/usr/bin/env bash
# Digits of the last checkpoint of run_cgan.sh.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net CGAN --init_model ./output/cgan/checkpoints/19/ --n_samples 32 \
    --noise_size 100 --output ./infer_result/cgan/ "$@"
