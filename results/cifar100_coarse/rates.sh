#!/usr/bin/env bash
# The same heads with proxies that turn more slowly: fixed length at one and three times the head's rate (ten times in
# run.sh), and free length at ten times. Three seeds. From the root: bash results/cifar100_coarse/rates.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 5 10; do
    own=$anchor,loss.proxies_per_class=$k
    methods+=(--method "$anchor-k$k-fixed-x1:$own,optim.proxy_length=fixed,optim.proxy_multiple=1")
    methods+=(--method "$anchor-k$k-fixed-x3:$own,optim.proxy_length=fixed,optim.proxy_multiple=3")
    methods+=(--method "$anchor-k$k-free-x10:$own,optim.proxy_length=free,optim.proxy_multiple=10")
  done
done
out=runs/cifar100_coarse_rates
polyanchor compare configs/cifar100_coarse_heads.toml "${methods[@]}" --seeds 3 --trials 0 \
  --against class-k1-fixed-x3 --out $out > /dev/null
python results/keep.py $out/table.json results/cifar100_coarse/rates.json
