#!/usr/bin/env bash
# Pictures of domain B translated by the last checkpoint of run_cyclegan.sh.
cd "$(dirname "$0")/.." || exit
python infer.py --model_net CycleGAN --init_model ./output/cyclegan/checkpoints/199/ \
    --input_style B --net_G resnet_9block --g_base_dims 32 --image_size 256 --crop_size 256 \
    --n_samples 1 --dataset_dir ./data/cityscapes/ --test_list testB.txt \
    --output ./infer_result/cyclegan/ "$@"
