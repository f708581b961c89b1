"""Compare rules of distillation fairly: the same rows, teachers, grids, stopping and seeds for all of them.

python jobs/benchmark.py --datasets synth.soft,synth.null --seeds 5
python jobs/benchmark.py --datasets nsl_kdd.both --data nsl_kdd=KDDTrain+.txt.gz --rules ada,wls,tgeo --seeds 5
"""

from pathlib import Path

from tgeokd_ray.cli.study import study_main

CARDS = Path(__file__).resolve().parent.parent / "datasets"

if __name__ == "__main__":
    study_main({path.stem: str(path) for path in sorted(CARDS.glob("*.yaml"))})
