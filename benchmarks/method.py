"""Figures of the method: hypergradients and look-ahead against their oracles.

python benchmarks/method.py [hypergradient look_ahead] [--quick] [--json]
"""

from __future__ import annotations

import torch
from figures import main
from method_hypergradient import hypergradient
from method_look_ahead import look_ahead_figures

if __name__ == "__main__":
    torch.set_num_threads(1)
    main("Figures of the method.", {"hypergradient": hypergradient, "look_ahead": look_ahead_figures})
