"""Rows of tables: the way of each device, derivatives of every order, and kernels only where they are right."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tgeokd_ray.objectives import rows

GENERATOR = torch.Generator().manual_seed(0)
PLACES = torch.randint(0, 7, (40,), generator=GENERATOR)
CPU = torch.device("cpu")


def _write(table: Tensor, ids: Tensor, values: Tensor, own: Tensor) -> None:
    known = own == torch.arange(len(ids))
    table[ids[known]] = values[known]


TORCH = SimpleNamespace(
    gather=lambda table, ids: table.index_select(0, ids.clamp_min(0)) * (ids >= 0).unsqueeze(-1),
    add=lambda values, places, num_rows: values.new_zeros(num_rows, values.shape[1]).index_add_(0, places, values),
    write=_write,
    mean_square=lambda values: values.square().mean(-1, keepdim=True),
)


@pytest.fixture(params=["torch", "bags", "kernels"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor, of few values and of many, and as on a GPU, with stand-ins for the kernels."""
    if request.param == "bags":
        monkeypatch.setattr(rows, "_in_bags", lambda *_: True)
    if request.param == "kernels":
        monkeypatch.setattr(rows, "kernels", lambda like: TORCH)

        def read(table: Tensor, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
            return rows._read(table, ids.flatten(), table.dtype).reshape(*ids.shape, -1)

        monkeypatch.setattr(rows, "read", read)
        monkeypatch.setattr(rows, "added", rows._added)


def test_reading_and_adding_up_are_adjoint(way: None) -> None:
    table = torch.randn(7, 3, dtype=torch.float64, generator=GENERATOR)
    values = torch.randn(40, 3, dtype=torch.float64, generator=GENERATOR)
    assert torch.equal(rows.read(table, PLACES.reshape(8, 5)), table[PLACES].reshape(8, 5, 3))
    summed = rows.added(values, PLACES, 7)
    torch.testing.assert_close(summed, torch.stack([values[place == PLACES].sum(0) for place in range(7)]))
    torch.testing.assert_close((rows.read(table, PLACES) * values).sum(), (table * summed).sum())


def test_they_are_differentiated_in_both_modes_as_often_as_one_likes(way: None) -> None:
    table = torch.randn(7, 3, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
    values = torch.randn(40, 3, dtype=torch.float64, generator=GENERATOR, requires_grad=True)

    def read(table: Tensor) -> Tensor:
        return rows.read(table, PLACES).pow(3)

    def added(values: Tensor) -> Tensor:
        return rows.added(values, PLACES, 7).pow(3)

    for function, leaf in ((read, table), (added, values)):
        assert torch.autograd.gradcheck(function, (leaf,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, (leaf,))
    slope = torch.func.jvp(torch.func.grad(lambda t: read(t).sum()), (table.detach(),), (torch.ones_like(table),))[1]
    counts = torch.bincount(PLACES, minlength=7).unsqueeze(-1)
    torch.testing.assert_close(slope, 6 * table.detach() * counts)


@pytest.mark.parametrize("num_rows", [3, 40_000, 1 << 16])
def test_many_values_are_added_up_in_bags_to_the_same_bits(num_rows: int) -> None:
    places = (torch.rand(1 << 16, generator=GENERATOR).pow(3) * num_rows).long()
    values = torch.randn(len(places), 9, generator=GENERATOR)
    expected = torch.zeros(num_rows, 9).index_add_(0, places, values)
    assert rows._in_bags(values, len(places), num_rows)
    assert torch.equal(rows.added(values, places, num_rows), expected)
    with pytest.raises(IndexError, match=f"out of bounds, there are {num_rows - 1} rows"):
        rows.added(values, places.clamp_min(num_rows - 1), num_rows - 1)
    table = torch.randn(num_rows, 9, generator=GENERATOR, requires_grad=True)
    (rows.read(table, places.int().reshape(256, 256)).reshape(-1, 9) * values).sum().backward()
    assert torch.equal(table.grad, expected)


@pytest.mark.parametrize(
    ("values", "count", "num_rows"),
    [
        (torch.ones(1, 7), 1 << 16, 3),
        (torch.ones(1, 8), (1 << 16) - 1, 3),
        (torch.ones(1, 8), 1 << 16, (1 << 16) + 1),
        (torch.ones(1, 8, dtype=torch.float64), 1 << 16, 3),
    ],
)
def test_few_or_short_or_wide_numbers_are_not(values: Tensor, count: int, num_rows: int) -> None:
    assert not rows._in_bags(values, count, num_rows)


@pytest.mark.parametrize("num_rows", [7, 99])
def test_numbers_of_a_narrow_type_have_gradients_that_are_added_up_in_the_tables_own(way: None, num_rows: int) -> None:
    table = torch.randn(num_rows, 3, generator=GENERATOR, requires_grad=True)
    values = torch.randn(40, 3, generator=GENERATOR).bfloat16()
    found = rows.read(table, PLACES.reshape(8, 5), torch.bfloat16)
    narrow = rows.kernels(table) is None  # those of a GPU leave the type as it is
    assert found.dtype is (torch.bfloat16 if narrow else torch.float32)
    if narrow:
        assert torch.equal(found, table.detach()[PLACES].bfloat16().reshape(8, 5, 3))
        with torch.no_grad():
            assert torch.equal(rows.read(table, PLACES, torch.bfloat16), found.reshape(40, 3))
    (found.reshape(40, 3) * values).sum().backward()
    assert table.grad.dtype is torch.float32
    assert torch.equal(table.grad, torch.zeros(num_rows, 3).index_add_(0, PLACES, values.float()))


def test_a_row_that_comes_twice_is_written_once(way: None) -> None:
    tables = torch.zeros(2, 9, 3)
    ids, values = torch.tensor([2, 5, 5]), torch.arange(18.0).reshape(2, 3, 3) + 1
    rows.write(tables, ids, values, torch.tensor([0, 1, 1]))
    assert torch.equal(tables[:, [2, 5]], values[:, :2])
    assert tables.count_nonzero() == 12
    assert torch.equal(rows.selected(tables, ids), tables[:, ids])
    expected = tables[:, ids]
    expected[:, 2] = 0
    assert torch.equal(rows.selected(tables, ids, torch.tensor([0, 1, 1])), expected)
    rows.write(tables, ids[:2], values[:, 1:], None)
    assert torch.equal(tables[:, [2, 5]], values[:, 1:])


def test_the_mean_of_squares(way: None) -> None:
    values = torch.randn(2, 5, 3, generator=GENERATOR)
    torch.testing.assert_close(rows.mean_square(values), values.square().mean(-1, keepdim=True))


@pytest.mark.parametrize("name", ["gather", "add", "write", "mean_square"])
def test_kernels_that_say_something_else_are_told(name: str) -> None:
    for dtype, width in ((torch.float32, 16), (torch.float64, 1)):
        assert rows.disagreement(TORCH, CPU, dtype, width) is None
        wrong = SimpleNamespace(**vars(TORCH))
        right = getattr(TORCH, name)
        setattr(wrong, name, lambda *a, right=right: None if name == "write" else right(*a) + 1e-2)
        assert rows.disagreement(wrong, CPU, dtype, width) == name


def test_a_device_whose_compiler_fails_is_served_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise NotImplementedError("no such machine\nmore")

    monkeypatch.setattr(rows, "disagreement", fails)
    monkeypatch.setattr(rows, "find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "tgeokd_ray.objectives.row_kernels", SimpleNamespace())
    monkeypatch.setattr("tgeokd_ray.objectives.row_kernels", SimpleNamespace(), raising=False)
    with pytest.warns(UserWarning, match=r"slower: our kernels fail here \(NotImplementedError: no such machine\)"):
        assert rows._kernels.__wrapped__(CPU, torch.float32, 16) is None
    monkeypatch.setattr(rows, "find_spec", lambda name: None)
    assert rows._kernels.__wrapped__(CPU, torch.float32, 16) is None


INTERPRETED = """
import torch
from tgeokd_ray.objectives import row_kernels, rows

for dtype, width in ((torch.float32, 16), (torch.float64, 1), (torch.float32, 18)):
    assert rows.disagreement(row_kernels, torch.device("cpu"), dtype, width) is None
for width in (1, 3, 16):
    for size, num_rows in ((1, 3), (31, 2), (32, 5), (33, 1), (500, 7), (3000, 2), (777, 900)):
        places = torch.randint(0, num_rows, (size,))
        values = torch.randn(size, width, dtype=torch.float64)
        expected = torch.zeros(num_rows, width, dtype=torch.float64).index_add_(0, places, values)
        torch.testing.assert_close(row_kernels.add(values, places, num_rows), expected)
        table = torch.randn(num_rows, width)
        assert torch.equal(row_kernels.gather(table, places), table[places])
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton absent (it comes with torch for CUDA)")
def test_the_kernels_in_tritons_interpreter() -> None:
    """Runs shorter and longer than a tile and than all tiles that are added at once, rows of one number and of more."""
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("width", [1, 3, 16])
@pytest.mark.parametrize(("size", "num_rows"), [(1, 3), (31, 2), (33, 1), (3000, 2), (200_000, 3), (100_000, 90_000)])
def test_the_kernels_on_a_gpu(size: int, num_rows: int, width: int) -> None:
    """The same as torch, and the same bits every time."""
    assert rows._kernels(torch.device("cuda", 0), torch.float64, width) is not None
    places = torch.randint(0, num_rows, (size,), generator=GENERATOR)
    values = torch.randn(size, width, dtype=torch.float64, generator=GENERATOR)
    expected = torch.zeros(num_rows, width, dtype=torch.float64).index_add_(0, places, values)
    found = [rows.added(values.cuda(), places.cuda(), num_rows) for _ in range(2)]
    torch.testing.assert_close(found[0].cpu(), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(*found)
    table = torch.randn(num_rows, width, generator=GENERATOR)
    assert torch.equal(rows.read(table.cuda(), places.int().cuda()).cpu(), table[places])
