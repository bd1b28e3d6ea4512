#!/usr/bin/env bash
# All members of the family, K from 1 to 20, and all baselines, as heads on frozen features: ten trials for each, then five
# seeds. Every method searches its own rates and parameters; each is tested against Proxy Anchor.
# From the root: bash results/cars196_half_features/run.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 2 5 10 20; do
    methods+=(--method "$anchor-k$k:$anchor,loss.proxies_per_class=$k")
  done
  methods+=(--method "$anchor-k10-merging:$anchor,loss.merging=0.2")
done
for name in proxy-anchor proxy-nca normsoftmax softtriple arcface subcenter-arcface \
  multi-similarity supcon triplet contrastive; do
  methods+=(--method $name)
done
out=runs/cars196_half_features
polyanchor compare configs/cars196_half_features.toml "${methods[@]}" --seeds 5 --trials 10 --against proxy-anchor \
  --out $out > /dev/null
python results/keep.py $out/table.json results/cars196_half_features/comparison.json
polyanchor analyze measures $out > /dev/null
cp $out/stability/stability.json results/cars196_half_features/stability.json
