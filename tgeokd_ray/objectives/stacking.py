"""Plain modules to and from states with a leading axis R: students of one shape trained side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def stack(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The parameters of R modules of one shape as `{name: [R, ...]}`, detached copies in the modules' own order.

    ValueError for no module, for modules that differ in names or shapes, and for modules with buffers: running
    statistics (batch norm) would have to be averaged over workers and students, which no step does.
    """
    if not modules:
        raise ValueError("stack needs at least one module")
    buffers = sorted({name for module in modules for name, _ in module.named_buffers()})
    if buffers:
        raise ValueError(f"modules with buffers can not be stacked: {', '.join(buffers)}; use layer norm, or no norm")
    parameters = [dict(module.named_parameters()) for module in modules]
    shapes = [{name: tuple(value.shape) for name, value in one.items()} for one in parameters]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"module {index} has other parameters than module 0: {shape} against {shapes[0]}")
    return {name: torch.stack([one[name].detach() for one in parameters]) for name in parameters[0]}


def apply(
    module: nn.Module, state: Mapping[str, Tensor], *inputs: Tensor, stacked: bool = False, own: Sequence[Tensor] = ()
) -> Tensor:
    """The outputs [R, ...] of `module` with each of the R students' parameters; the module's own values are not used.

    Inputs are shared by all students, or carry the axis R themselves when `stacked`; those in `own`, which come last,
    always carry it. One student runs as the plain module does, bit for bit. More run as one batched model: in the
    module's own products where it `stacks`, which copies nothing that is shared, else under torch.func.vmap.
    """
    if next(iter(state.values())).shape[0] == 1:
        parameters = {name: value.squeeze(0) for name, value in state.items()}
        arguments = tuple(value.squeeze(0) for value in inputs) if stacked else inputs
        alone: Tensor = functional_call(module, parameters, (*arguments, *(value.squeeze(0) for value in own)))
        return alone.unsqueeze(0)

    def one(parameters: dict[str, Tensor], *arguments: Tensor) -> Tensor:
        output: Tensor = functional_call(module, parameters, arguments)
        return output

    if getattr(module, "stacks", False):
        return one(dict(state), *inputs, *own)
    in_dims = (0, *[0 if stacked else None for _ in inputs], *[0 for _ in own])
    outputs: Tensor = vmap(one, in_dims=in_dims)(dict(state), *inputs, *own)
    return outputs


def of_students(value: Tensor, students: Sequence[int]) -> Tensor:
    """The part [r, ...] of these students of a pack's [R, ...], in this order; the value itself where that is all.

    Piece by piece: a list as an index would be sent to the device, and waited for.
    """
    places = list(students)
    return value if places == list(range(value.shape[0])) else torch.stack([value[place] for place in places])


def affine(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + b` for features x that come in parts side by side, without putting them together.

    A weight [o, i] is a plain module's, as in torch.nn.Linear; [R, o, i] with bias [R, o] is a pack's, whose parts are
    each student's own [R, N, k] or shared [N, k]. The parts' widths k sum to i. Gives [..., N, o], or [R, N, o].
    """
    columns = torch.split(weight.mT, [part.shape[-1] for part in parts], dim=-2)
    # A product that is added to the bias would first write the bias down for every row: of a pack's size, out of cache.
    total = product_sum([(own_part(part, weight), own) for part, own in zip(parts, columns, strict=True)])
    # Under autocast the product is in its narrower type; a wider bias would widen all of it and narrow it again.
    return total if bias is None else total.add_(bias.to(total.dtype).unsqueeze(-2))


def product_sum(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of the matrix products of these pairs, each added where the first one lies: [..., N, o], or [R, N, o]."""
    (left, right), *more = pairs
    total = left @ right
    for left, right in more:
        add_product = total.addmm_ if total.dim() == 2 else total.baddbmm_
        total = add_product(left.to(total.dtype), right.to(total.dtype))
    return total


def own_part(part: Tensor, weight: Tensor) -> Tensor:
    """A part [N, k] that students share as each one's [R, N, k], a view."""
    return part.expand(weight.shape[0], *part.shape) if weight.dim() > part.dim() else part
