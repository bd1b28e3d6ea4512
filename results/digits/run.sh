#!/usr/bin/env bash
# Every loss on handwritten digits, the family with one to twenty centres, a tiny network from scratch, five seeds, nothing
# searched. From the root: bash results/digits/run.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 2 5 10 20; do
    methods+=(--method "$anchor-k$k:$anchor,loss.proxies_per_class=$k")
  done
done
for name in proxy-anchor proxy-nca normsoftmax softtriple arcface subcenter-arcface \
  multi-similarity supcon triplet contrastive; do
  methods+=(--method $name)
done
out=runs/digits
polyanchor compare configs/digits.toml "${methods[@]}" --seeds 5 --trials 0 --against proxy-anchor --out $out > /dev/null
python results/keep.py $out/table.json results/digits/comparison.json
polyanchor analyze measures $out > /dev/null
cp $out/stability/stability.json results/digits/stability.json
