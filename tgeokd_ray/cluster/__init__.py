"""The only floor that imports ray: connecting, data, training, shared memory, jobs.

Importing it prepares the environment variables that Ray reads while it is imported; ray itself comes with the modules.
"""

from tgeokd_ray.cluster.environment import prepare

prepare()
