#!/usr/bin/env bash
# SPADE on Cityscapes in PaddleCV's size; the lists have label map, photo and instance map.
cd "$(dirname "$0")/.." || exit
python train.py --model_net SPADE --dataset cityscapes --train_list train_list \
    --test_list val_list --crop_type Random --batch_size 1 --epoch 200 --load_height 612 \
    --load_width 1124 --crop_height 512 --crop_width 1024 --label_nc 36 \
    --output ./output/spade/ "$@"
