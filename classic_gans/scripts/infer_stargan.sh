#!/usr/bin/env bash
# Sheets of the last checkpoint of run_stargan.sh: the faces that it held out.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net StarGAN --init_model ./output/stargan/checkpoints/19/ \
    --dataset_dir ./data/celeba/ --image_size 128 --c_dim 5 \
    --selected_attrs Black_Hair,Blond_Hair,Brown_Hair,Male,Young \
    --output ./infer_result/stargan/ "$@"
