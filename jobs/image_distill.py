"""Distil an image classifier into a small one: scikit-learn's digits by default, or CIFAR as its publisher gives it.

python jobs/image_distill.py
python jobs/image_distill.py --card datasets/cifar100.yaml --data cifar-100-binary --device cuda
"""

from tgeokd_ray.cli.jobs import job_main

if __name__ == "__main__":
    job_main("Distil an image classifier into a small student.", card="digits")
