"""Arithmetic on states: dicts of tensors [R, ...] as one vector per student."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Linear = Callable[[Tensors], Tensors]


def rows(value: Tensor) -> Tensor:
    """[R, ...] as [R, K], also where a parameter is one number."""
    return value.reshape(value.shape[0], -1)


def spread(per_student: Tensor, like: Tensor) -> Tensor:
    """A value [R] in the type of `like`, shaped to broadcast over its other axes."""
    return per_student.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def flattened(tensors: Mapping[str, Tensor]) -> Tensor:
    """All tensors of a student side by side, [R, K]: arithmetic on them then is one operation each."""
    return torch.cat([rows(value) for value in tensors.values()], 1)


def unflattened(flat: Tensor, like: Mapping[str, Tensor]) -> Tensors:
    """The inverse of `flattened` for tensors shaped and named as `like`, as views."""
    parts = torch.split(flat, [value[0].numel() for value in like.values()], dim=1)
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


def inner_products(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """`<left, right>` [R] of each student over all its tensors; the names are those of `right`."""
    return torch.stack([rows(left[name] * value).sum(1) for name, value in right.items()]).sum(0)


def norms(tensors: Mapping[str, Tensor]) -> Tensor:
    """The norm [R] of each student over all its tensors, as the norm of its tensors' norms."""
    parts = torch.stack([torch.linalg.vector_norm(rows(value), dim=1) for value in tensors.values()])
    return parts.square().sum(0).sqrt()
