#!/usr/bin/env bash
# StarGAN on CelebA as PaddleCV trained it.
cd "$(dirname "$0")/.." || exit
python train.py --model_net StarGAN --dataset celeba --train_list ./data/celeba/list_attr_celeba.txt \
    --split pcv --crop_size 178 --image_size 128 --gan_mode wgan --batch_size 16 --epoch 20 \
    --output ./output/stargan/ "$@"
