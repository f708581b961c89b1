"""Figures of the method: hypergradients and look-ahead against their oracles.

python benchmarks/method.py [hypergradient look_ahead noisy] [--quick] [--json]

noisy: labels that are wrong in outer and valid rows, too, on regimes; real tables as in benchmarks/quality.py.
"""

from __future__ import annotations

import torch
from figures import main
from method_hypergradient import hypergradient
from method_look_ahead import look_ahead_figures
from method_noisy import noisy

if __name__ == "__main__":
    torch.set_num_threads(1)
    main("Figures of the method.", {"hypergradient": hypergradient, "look_ahead": look_ahead_figures, "noisy": noisy})
