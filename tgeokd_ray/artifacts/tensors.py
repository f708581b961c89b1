"""Tensors on disk: safetensors files, which execute nothing, with the finiteness that the format does not check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgeokd_ray.artifacts.disk import error_number
from tgeokd_ray.errors import IntegrityError, Problem

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Any], *, finite: bool = False) -> None:
    """Write torch tensors or numpy arrays to a safetensors file; the same values give the same bytes in any order.

    Tensors may be on any device, share memory or be views: each one is written in full. With `finite`, IntegrityError
    lists every tensor that holds NaN or Inf, and nothing is written. OSError where the disk refuses. The file is not
    synced: write it through `Staging.write`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        partial = storage.nbytes() != tensor.numel() * tensor.element_size()
        plain[name] = tensor.clone() if partial or storage.data_ptr() in storages else tensor
        storages.add(storage.data_ptr())
    if finite:
        _check_finite(path, plain)
    # safetensors renames a file of its own, which only this user may read, to `path`: give that one the usual mode.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(plain, str(path))
        path.chmod(mode)
    except SafetensorError as error:
        number = error_number(error)
        if number == 0:
            raise
        raise OSError(number, str(error), str(path)) from error


def load_tensors(path: Path, *, finite: bool = False) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    IntegrityError for a missing, torn or disguised file (a pickle is never executed) and, with `finite`, for NaN or
    Inf, with every tensor that holds some.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, FileNotFoundError) as error:
        problem = Problem("this is not a whole safetensors file", file=str(path), got=str(error)[:200])
        raise IntegrityError([problem], fix="run the command that made it again") from None
    if finite:
        _check_finite(path, tensors)
    return tensors


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    problems = []
    for name, tensor in sorted(tensors.items()):
        bad = int(tensor.numel() - tensor.isfinite().sum())
        if bad:
            problems.append(Problem(f"tensor {name!r} holds {bad} values that are NaN or Inf", file=str(path)))
    if problems:
        raise IntegrityError(problems, fix="find what made them: a damaged file or a diverged model")
