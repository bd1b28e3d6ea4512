#!/usr/bin/env bash
# What run.sh leaves out: five and twenty centres. From the root: bash results/digits/centres.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 5 20; do
    methods+=(--method "$anchor-k$k:$anchor,loss.proxies_per_class=$k")
  done
done
out=runs/digits_centres
polyanchor compare configs/digits.toml "${methods[@]}" --seeds 5 --trials 0 --against class-k5 --out $out > /dev/null
python results/keep.py $out/table.json results/digits/centres.json
