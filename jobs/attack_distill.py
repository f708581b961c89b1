"""Distil an attack detector that fits on a small gateway: five classes of NSL-KDD by default, or any card.

python jobs/attack_distill.py --data KDDTrain+.txt.gz KDDTest+.txt.gz
python jobs/attack_distill.py --card datasets/gas.yaml --data gas_pipeline.arff.gz
"""

from pathlib import Path

from tgeokd_ray.cli.jobs import job_main

CARD = Path(__file__).resolve().parent.parent / "datasets" / "nsl_kdd.yaml"

if __name__ == "__main__":
    job_main("Distil an attack detector into a small student.", card=str(CARD))
