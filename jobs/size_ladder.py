"""How small may the student be? Students at shares of the teacher's parameters, with and without distillation.

python jobs/size_ladder.py --sizes 1/4,1/10,1/30,1/100 --seeds 5
python jobs/size_ladder.py --card datasets/criteo.yaml --data train.txt --seeds 5
"""

from tgeokd_ray.cli.ladder import ladder_main

if __name__ == "__main__":
    ladder_main()
