#!/usr/bin/env bash
# After the run.sh of cars196_half_features and of digits, from the root: bash results/gradients/run.sh
set -euo pipefail
study=results/gradients/study.py
python $study runs/cars196_half_features 1 class-k1 class-k10 data-k1 data-k10 mixed-k1 mixed-k10 \
  proxy-nca normsoftmax softtriple arcface subcenter-arcface supcon triplet > results/gradients/cars196_half_features.json
python $study runs/digits 3 class-k1 class data-k1 data mixed-k1 mixed \
  proxy-nca normsoftmax softtriple arcface > results/gradients/digits.json
python results/gradients/switching.py > results/gradients/switching.json
