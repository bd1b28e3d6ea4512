#!/usr/bin/env bash
# The same study with few classes, many images of each: CIFAR-100 with its 20 coarse labels, 15 of them train, judged on the
# five held out, two epochs. Nothing is searched; two seeds. From the root: bash results/proxy_length/cifar100.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 10; do
    own=$anchor,loss.proxies_per_class=$k,optim.proxy_multiple
    for rate in 10 100; do
      methods+=(--method "$anchor-k$k-free-x$rate:$own=$rate,optim.proxy_length=free")
      methods+=(--method "$anchor-k$k-fixed-x$rate:$own=$rate,optim.proxy_length=fixed")
      methods+=(--method "$anchor-k$k-kaiming-x$rate:$own=$rate,optim.proxy_length=free,loss.init=kaiming")
    done
    methods+=(--method "$anchor-k$k-free-x10-decay1:$own=10,optim.proxy_length=free,optim.proxy_weight_decay=1")
  done
done
out=runs/proxy_length_cifar100
polyanchor compare configs/cifar100_coarse_heads.toml --set data.val_share=0.25 --set batches.classes=15 --set run.epochs=2 \
  "${methods[@]}" --seeds 2 --trials 0 --out $out > /dev/null
python results/keep.py $out/table.json results/proxy_length/cifar100.json
