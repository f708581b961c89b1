"""Whether this process is the driver of a submitted job. Needs no ray, so that a chain with nothing to do stays fast.

The driver's exit code is the job's `driver_exit_code`; `ray job submit` itself ends with 0 or 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job supervisor sets it for the entrypoint, with RAY_ADDRESS


def in_submitted_job(environ: Mapping[str, str] | None = None) -> bool:
    """True in the entrypoint of `ray job submit` and in what it starts."""
    return JOB_CONFIG in (os.environ if environ is None else environ)


def submission_id(environ: Mapping[str, str] | None = None) -> str | None:
    """The id under which Ray lists this job, None outside of one."""
    environ = os.environ if environ is None else environ
    if not in_submitted_job(environ):
        return None
    metadata = json.loads(environ[JOB_CONFIG]).get("metadata") or {}
    name = metadata.get("job_submission_id")
    return None if name is None else str(name)
