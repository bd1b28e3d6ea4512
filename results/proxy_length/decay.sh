#!/usr/bin/env bash
# Weight decay of the proxies with one centre per class, beside free and fixed length without (run.sh has ten centres), at ten
# times the head's rate, nothing searched, two seeds. From the root: bash results/proxy_length/decay.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  own=$anchor,loss.proxies_per_class=1,optim.proxy_multiple=10
  methods+=(--method "$anchor-k1-fixed-x10:$own,optim.proxy_length=fixed")
  methods+=(--method "$anchor-k1-free-x10:$own,optim.proxy_length=free")
  for decay in 1e-4 1e-2 1; do
    methods+=(--method "$anchor-k1-free-x10-decay$decay:$own,optim.proxy_length=free,optim.proxy_weight_decay=$decay")
  done
done
out=runs/proxy_length_decay
polyanchor compare configs/cars196_half_features.toml "${methods[@]}" --seeds 2 --trials 0 --out $out > /dev/null
python results/keep.py $out/table.json results/proxy_length/decay.json
