#!/usr/bin/env bash
# AttGAN on CelebA as PaddleCV trained it.
cd "$(dirname "$0")/.." || exit
python train.py --model_net AttGAN --dataset celeba --train_list ./data/celeba/list_attr_celeba.txt \
    --split pcv --crop_size 170 --image_size 128 --gan_mode wgan --batch_size 32 --epoch 120 \
    --num_discriminator_time 5 --dis_norm instance_norm --output ./output/attgan/ "$@"
