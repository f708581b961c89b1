"""The bound: the dense part alone on fixed input whose embedded rows need a gradient, with loss, backward and Adam.

python benchmarks/peers/bound.py [--model dcnv2] [--precision bf16] [--compile]; any interpreter with torch.
"""

from __future__ import annotations

import argparse

import torch
from dense import PRECISIONS, Dense, trainer
from rows import EMBEDDING, Clocked, report, settled, shared

NUM_NUMERIC, NUM_CATEGORICAL = 13, 26


def main() -> None:
    """Time the steps and print rows per CPU-second."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared(parser, ("dnn", "dcnv2"))
    parser.set_defaults(steps=40)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    settled(options)
    numeric = torch.randn(options.batch_rows, NUM_NUMERIC)
    embedded = torch.randn(options.batch_rows, NUM_CATEGORICAL * EMBEDDING).mul_(0.1).requires_grad_()
    labels = (torch.rand(options.batch_rows) < 0.3).float()
    dense = Dense(options.model, NUM_NUMERIC, NUM_CATEGORICAL)
    if options.compile:
        dense.compile()
    step = trainer(dense, options.precision)
    steps = Clocked(range(options.steps), options.warm_up_steps)
    for _ in steps:
        embedded.grad = None
        step(numeric, embedded, labels)
    speed = steps.rows_per_cpu_second(options.batch_rows)
    found = {"rows_per_cpu_second": speed, "precision": options.precision, "compiled": options.compile}
    report("bound", options, **found, native_bf16=native_bf16(), steps=options.steps, version=torch.__version__)


def native_bf16() -> bool:
    """Whether this processor multiplies bf16 itself; where it does not, bf16 is emulated and slower than fp32."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


if __name__ == "__main__":
    main()
