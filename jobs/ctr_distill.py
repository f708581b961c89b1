"""Distil a click-through-rate teacher into a small student: from raw files to a table of results.

python jobs/ctr_distill.py                                              the embedded synthetic table
python jobs/ctr_distill.py --card datasets/criteo.yaml --data train.txt your copy of Criteo
ray job submit --working-dir . -- python jobs/ctr_distill.py --root /shared/artifacts
"""

from tgeokd_ray.cli.jobs import job_main

if __name__ == "__main__":
    job_main("Distil a click-through-rate teacher into a small student.", card="synthetic_ctr")
