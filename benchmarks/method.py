"""Figures of the method: hypergradients and look-ahead against their oracles, the cost of packs and of both phases.

python benchmarks/method.py [hypergradient look_ahead packs phases] [--quick] [--json]

`packs` and `phases` want real tables: TGEOKD_DATA, or `shared/data` beside the repository.
"""

from __future__ import annotations

import torch
from figures import main
from method_hypergradient import hypergradient
from method_look_ahead import look_ahead_figures
from method_packs import packs, phases

if __name__ == "__main__":
    torch.set_num_threads(1)
    measures = {"hypergradient": hypergradient, "look_ahead": look_ahead_figures, "packs": packs, "phases": phases}
    main("Figures of the method.", measures)
