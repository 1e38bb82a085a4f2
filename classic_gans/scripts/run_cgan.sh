#!/usr/bin/env bash
# CGAN on MNIST as PaddleCV trained it; further flags override these.
cd "$(dirname "$0")/.." || exit
python train.py --model_net CGAN --dataset mnist --noise_size 100 --batch_size 121 --epoch 20 \
    --output ./output/cgan/ "$@"
