"""Tensor files: what goes in comes out, the same bytes each time, and nothing hostile or torn is taken."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tgeokd_ray.artifacts import load_tensors, save_tensors, staging
from tgeokd_ray.errors import IntegrityError, ResourceError


def test_values_types_and_shapes_survive(tmp_path: Path):
    tensors = {
        "float": torch.randn(3, 4),
        "half": torch.randn(5).to(torch.bfloat16),
        "integer": torch.tensor(7, dtype=torch.int64),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    save_tensors(tmp_path / "a.safetensors", tensors)
    loaded = load_tensors(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert not loaded[name].requires_grad
        assert torch.equal(loaded[name], tensor)


def test_numpy_views_and_shared_memory_are_written_in_full(tmp_path: Path):
    base = torch.arange(12.0).reshape(3, 4)
    frozen = np.arange(3.0)
    frozen.setflags(write=False)
    save_tensors(tmp_path / "a", {"base": base, "same": base, "row": base[1], "turned": base.T, "numpy": frozen})
    loaded = load_tensors(tmp_path / "a")
    assert torch.equal(loaded["same"], base)
    assert loaded["row"].tolist() == [4, 5, 6, 7]
    assert torch.equal(loaded["turned"], base.T)
    assert loaded["numpy"].dtype == torch.float64


def test_the_order_of_names_does_not_change_the_bytes(tmp_path: Path):
    tensors = {name: torch.full((3,), float(i)) for i, name in enumerate("dacb")}
    save_tensors(tmp_path / "a", tensors)
    save_tensors(tmp_path / "b", dict(reversed(tensors.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_n1_values_that_are_not_finite_are_refused_at_write_and_at_read(tmp_path: Path, value):
    tensors = {"good": torch.ones(2), "logits": torch.tensor([1.0, value, value]), "other": torch.tensor([value])}
    with pytest.raises(IntegrityError) as caught:
        save_tensors(tmp_path / "a", tensors, finite=True)
    assert [problem.what for problem in caught.value.problems] == [
        "tensor 'logits' holds 2 values that are NaN or Inf",
        "tensor 'other' holds 1 values that are NaN or Inf",
    ]
    assert not (tmp_path / "a").exists()
    save_tensors(tmp_path / "a", tensors)
    with pytest.raises(IntegrityError, match=r"'logits' holds 2[^$]*\n  next: find"):
        load_tensors(tmp_path / "a", finite=True)
    assert load_tensors(tmp_path / "a")["logits"].isfinite().tolist() == [True, False, False]


class Hostile:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_x1_a_pickle_with_another_name_is_refused_and_not_executed(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(IntegrityError, match=r"a\.safetensors"):
        load_tensors(Path("a.safetensors"))
    assert not Path("executed").exists()


@pytest.mark.parametrize("size", [0, 7, 8, 60, -1])
def test_s1_a_torn_or_missing_file_is_refused(tmp_path: Path, size):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": torch.ones(100)})
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    with pytest.raises(IntegrityError, match=r"not a whole safetensors file.*\n  next: run the command"):
        load_tensors(path)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"a\.safetensors"):
        load_tensors(path)


def test_s5_a_full_disk_is_a_resource_error(tmp_path: Path, monkeypatch):
    def full(tensors: object, path: str) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with staging(tmp_path, "students", "demo", arguments={}, parents={}) as work:
        with pytest.raises(ResourceError, match="free space"):
            work.write("a.safetensors", lambda path: save_tensors(path, {"a": torch.ones(2)}))
        assert list(work.folder.iterdir()) == []


def test_a_missing_folder_is_the_callers_mistake(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        save_tensors(tmp_path / "missing" / "a", {"a": torch.ones(2)})


def test_others_may_read_the_file_as_the_umask_says(tmp_path: Path):
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "a", {"a": torch.ones(2)})
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
