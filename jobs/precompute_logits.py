"""Score a table once, for every student to come: from raw files to verified teacher logits with class means.

python jobs/precompute_logits.py --card datasets/criteo.yaml --data train.txt
python jobs/precompute_logits.py --card datasets/criteo.yaml --data train.txt --set logits.dtype=float16
"""

from tgeokd_ray.cli.jobs import job_main

if __name__ == "__main__":
    job_main("Score a table with a teacher, once for all students.", card="synthetic_ctr", students=False)
