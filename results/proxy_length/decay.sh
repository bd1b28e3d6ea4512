#!/usr/bin/env bash
# Weight decay of the proxies, for every member with one and ten centres, beside free and fixed length without: Cars features,
# ten times the head's rate, nothing searched, two seeds. From the root: bash results/proxy_length/decay.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 10; do
    own=$anchor,loss.proxies_per_class=$k,optim.proxy_multiple=10
    for decay in 0 1e-4 1e-2 1; do
      methods+=(--method "$anchor-k$k-free-decay$decay:$own,optim.proxy_length=free,optim.proxy_weight_decay=$decay")
    done
    methods+=(--method "$anchor-k$k-fixed:$own,optim.proxy_length=fixed")
  done
done
out=runs/proxy_length_decay
polyanchor compare configs/cars196_half_features.toml "${methods[@]}" --seeds 2 --trials 0 --out $out > /dev/null
python results/keep.py $out/table.json results/proxy_length/decay.json
