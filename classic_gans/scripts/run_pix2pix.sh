#!/usr/bin/env bash
# Pix2Pix on Cityscapes as PaddleCV trained it; the lists are of make_pair_data.py.
cd "$(dirname "$0")/.." || exit
python train.py --model_net Pix2pix --dataset cityscapes \
    --train_list pix2pix_train_list --test_list pix2pix_test_list --crop_type Random \
    --dropout True --gan_mode vanilla --batch_size 1 --epoch 200 --image_size 286 --crop_size 256 \
    --output ./output/pix2pix/ "$@"
