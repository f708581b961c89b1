"""Figures of the method: hypergradients and look-ahead against their oracles, packs and both phases, labels.

python benchmarks/method.py [hypergradient look_ahead packs phases short_axes noisy unlabelled] [--quick] [--json]

packs, phases: what they cost. short_axes: reductions over few entries against torch's. noisy: labels that are wrong in
outer and valid rows, too, on regimes. unlabelled: what train rows without a label are worth, on Criteo. Real tables,
and TGEOKD_ROOT, as in benchmarks/quality.py.
"""

from __future__ import annotations

import torch
from figures import main
from method_hypergradient import hypergradient
from method_look_ahead import look_ahead_figures
from method_noisy import noisy
from method_packs import packs, phases
from method_short_axis import short_axes
from method_unlabelled import unlabelled

MEASURES = {
    "hypergradient": hypergradient,
    "look_ahead": look_ahead_figures,
    "packs": packs,
    "phases": phases,
    "short_axes": short_axes,
    "noisy": noisy,
    "unlabelled": unlabelled,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main("Figures of the method.", MEASURES)
