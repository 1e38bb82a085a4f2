#!/usr/bin/env bash
# Sheets of the last checkpoint of run_attgan.sh: the faces that it held out.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net AttGAN --init_model ./output/attgan/checkpoints/119/ \
    --dataset_dir ./data/celeba/ --image_size 128 --output ./infer_result/attgan/ "$@"
