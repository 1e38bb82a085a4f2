#!/usr/bin/env bash
# Pictures of the last checkpoint of run_pix2pix.sh, of a list with one path a line.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net Pix2pix --init_model ./output/pix2pix/checkpoints/199/ \
    --net_G unet_256 --image_size 256 --crop_size 256 --n_samples 1 \
    --dataset_dir ./data/cityscapes/ --test_list testB.txt --output ./infer_result/pix2pix/ "$@"
