#!/usr/bin/env bash
# DCGAN on MNIST as PaddleCV trained it; further flags override these.
cd "$(dirname "$0")/.." || exit
python train.py --model_net DCGAN --dataset mnist --noise_size 100 --batch_size 128 --epoch 20 \
    --output ./output/dcgan/ "$@"
