#!/usr/bin/env bash
# CycleGAN on Cityscapes as PaddleCV trained it: narrow, with BatchNorm.
cd "$(dirname "$0")/.." || exit
python train.py --model_net CycleGAN --dataset cityscapes --batch_size 1 --net_G resnet_9block \
    --g_base_dims 32 --net_D basic --norm_type batch_norm --epoch 200 \
    --image_size 286 --crop_size 256 --crop_type Random --output ./output/cyclegan/ "$@"
