"""Search what a student is trained with: many students on one copy of table and logits, and the best one for good.

python jobs/sweep.py sweep.yaml
python jobs/sweep.py sweep.yaml --dry-run
ray job submit --working-dir . -- python jobs/sweep.py sweep.yaml --root /shared/artifacts
"""

from tgeokd_ray.cli.sweep import sweep_main

if __name__ == "__main__":
    sweep_main()
