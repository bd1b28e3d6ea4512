#!/usr/bin/env bash
# Every loss on handwritten digits, a tiny network from scratch, five seeds, nothing searched.
# From the root: bash results/digits/run.sh
set -euo pipefail
methods=(--method all --method class-k1:class,loss.proxies_per_class=1 --method class-k2:class,loss.proxies_per_class=2)
methods+=(--method data-k1:data,loss.proxies_per_class=1 --method data-k2:data,loss.proxies_per_class=2)
methods+=(--method mixed-k1:mixed,loss.proxies_per_class=1 --method mixed-k2:mixed,loss.proxies_per_class=2)
out=runs/digits
polyanchor compare configs/digits.toml "${methods[@]}" --seeds 5 --trials 0 --against proxy-anchor --out $out > /dev/null
python results/keep.py $out/table.json results/digits/comparison.json
polyanchor analyze measures $out > /dev/null
cp $out/stability/stability.json results/digits/stability.json
