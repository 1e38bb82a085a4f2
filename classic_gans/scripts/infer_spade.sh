#!/usr/bin/env bash
# Pictures of a checkpoint of run_spade.sh, of the maps in a list.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net SPADE --init_model ./output/spade/checkpoints/199/ \
    --dataset_dir ./data/cityscapes/ --test_list val_list --label_nc 36 --crop_height 512 \
    --crop_width 1024 --output ./infer_result/spade/ "$@"
