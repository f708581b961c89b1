"""Whether this process is the driver of a submitted job. Needs no ray, so that a chain with nothing to do stays fast.

The driver's exit code is the job's `driver_exit_code`; `ray job submit` itself ends with 0 or 1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job supervisor sets it for the entrypoint, with RAY_ADDRESS


def in_submitted_job(environ: Mapping[str, str] | None = None) -> bool:
    """True in the entrypoint of `ray job submit` and in what it starts."""
    return JOB_CONFIG in (os.environ if environ is None else environ)
