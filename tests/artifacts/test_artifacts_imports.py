"""The floor is light: a chain that is re-used as a whole must not wait for torch."""

import subprocess
import sys

import pytest

from tgeokd_ray.artifacts.record import git_commit

CODE = """
import sys, tgeokd_ray.artifacts
print(sorted({"torch", "numpy", "polars", "pyarrow", "ray", "safetensors", "pydantic"} & set(sys.modules)))
"""


@pytest.mark.timeout(30)
def test_importing_the_floor_imports_only_the_standard_library():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commit_of_a_working_folder(tmp_path):
    sha = "0123456789abcdef0123456789abcdef01234567"
    assert git_commit(tmp_path) is None
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert git_commit(tmp_path) is None
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text(f"{sha}\n")
    assert git_commit(tmp_path) == sha
    (tmp_path / ".git" / "HEAD").write_text(f"{sha}\n")
    assert git_commit(tmp_path) == sha
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/../../secret\n")
    assert git_commit(tmp_path) is None
