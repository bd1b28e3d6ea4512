"""The GPU's sweep, its Triton kernel run by Triton's interpreter on the CPU, against the eager loss."""

import os
import subprocess
import sys

import pytest
import torch

from polyanchor._kernels import LossOptions
from polyanchor._kernels.fused import why_not

CODE = """
import itertools, torch
from polyanchor.functional import multi_proxy_anchor_loss, unit_rows
from polyanchor._kernels import fused
from polyanchor._kernels.blocks import Part
from polyanchor._kernels.options import Counts, LossOptions

torch.set_num_threads(1)
fused.BLOCK_BYTES = 4 * 19 * 3 * 3  # blocks of three classes, and a last one of one class
for anchor, pooling, k in itertools.product(("class", "data", "mixed"), ("softmax", "max", "logsumexp"), (1, 3)):
    torch.manual_seed(0)
    x, p, y = unit_rows(torch.randn(19, 6)), torch.randn(7, k, 6), torch.randint(6, (19,))
    p[2, 0] = 0
    family, counts = LossOptions(anchor=anchor, pooling=pooling, alpha=16.0), Counts.of(y, 7)
    eager_x, eager_p = x.clone().requires_grad_(), p.clone().requires_grad_()
    loss = multi_proxy_anchor_loss(eager_x, eager_p, y, anchor=anchor, pooling=pooling, alpha=16.0, impl="eager")
    to_x, to_p = torch.autograd.grad(loss, (eager_x, eager_p))
    for wants in ((True, True), (True, False), (False, True), (False, False)):
        swept = fused.gpu_sweep(Part(x, p, y), family, counts, wants=wants)
        torch.testing.assert_close(swept.sums.loss(family, counts), loss.detach(), rtol=1e-5, atol=1e-5)
        assert (swept.to_units is not None, swept.to_proxies is not None) == wants
        if wants[0]:
            across = swept.to_units - (swept.to_units * x).sum(1, keepdim=True) * x
            torch.testing.assert_close(across, to_x, rtol=1e-4, atol=1e-4)
        if wants[1]:
            torch.testing.assert_close(swept.to_proxies, to_p, rtol=1e-4, atol=1e-4)
print("as eager")
"""


@pytest.mark.slow
def test_the_kernel_in_the_interpreter():
    pytest.importorskip("triton", reason="PyTorch brings it on Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.stdout == "as eager\n", done.stderr


@pytest.mark.parametrize(
    ("device", "dtype", "alpha", "words"),
    [
        ("cpu", torch.float64, 1000.0, None),
        ("cuda", torch.float32, 32.0, None),
        ("cuda", torch.float64, 32.0, "float32"),
        ("cuda", torch.float32, 1000.0, "overflow with alpha 1000.0"),
        ("xpu", torch.float32, 32.0, "device type 'xpu'"),
    ],
)
def test_why_not(device, dtype, alpha, words):
    if device == "cuda":
        pytest.importorskip("triton", reason="PyTorch brings it on Linux")
    reason = why_not(torch.device(device), dtype, LossOptions(alpha=alpha))
    assert reason is None if words is None else words in reason
