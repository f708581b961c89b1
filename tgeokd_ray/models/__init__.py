"""Networks for encoded tables, built from plain arguments."""

from tgeokd_ray.models.build import build, count_parameters
from tgeokd_ray.models.embedding import FusedEmbedding
from tgeokd_ray.models.ensemble import Ensemble
from tgeokd_ray.models.images import ResNet, WideResNet
from tgeokd_ray.models.network import Network
from tgeokd_ray.models.options import ModelOptions
from tgeokd_ray.models.tabular import MLP, DCNv2, WideDeep

__all__ = [
    "MLP",
    "DCNv2",
    "Ensemble",
    "FusedEmbedding",
    "ModelOptions",
    "Network",
    "ResNet",
    "WideDeep",
    "WideResNet",
    "build",
    "count_parameters",
]
