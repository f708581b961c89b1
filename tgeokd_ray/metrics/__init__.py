"""Mergeable summaries of a classification pass, and intervals for what they say."""

from tgeokd_ray.metrics.comparison import paired_gain
from tgeokd_ray.metrics.evaluation import Evaluation
from tgeokd_ray.metrics.histogram import AucHistogram
from tgeokd_ray.metrics.intervals import bootstrap_interval, paired_difference
from tgeokd_ray.metrics.ranking import auc_exact

__all__ = ["AucHistogram", "Evaluation", "auc_exact", "bootstrap_interval", "paired_difference", "paired_gain"]
