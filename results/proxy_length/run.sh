#!/usr/bin/env bash
# How long and how fast: every member of the family with three kinds of proxy length, at five learning rates.
# Nothing is searched; two seeds. Judged on held-out training classes. From the root: bash results/proxy_length/run.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 10; do
    for rate in 1 3 10 30 100; do
      own=$anchor,loss.proxies_per_class=$k,optim.proxy_multiple=$rate
      methods+=(--method "$anchor-k$k-free-x$rate:$own,optim.proxy_length=free")
      methods+=(--method "$anchor-k$k-fixed-x$rate:$own,optim.proxy_length=fixed")
      methods+=(--method "$anchor-k$k-kaiming-x$rate:$own,optim.proxy_length=free,loss.init=kaiming")
    done
  done
  for decay in 1e-4 1e-2 1; do
    methods+=(--method "$anchor-k10-free-x10-decay$decay:$anchor,optim.proxy_length=free,optim.proxy_multiple=10,optim.proxy_weight_decay=$decay")
  done
done
out=runs/proxy_length
polyanchor compare configs/cars196_half_features.toml "${methods[@]}" --seeds 2 --trials 0 --out $out > /dev/null
python results/keep.py $out/table.json results/proxy_length/cars196_half_features.json
