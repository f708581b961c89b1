"""Encoders: numbers against scikit-learn and closed forms, ids against small tables worked out by hand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.tables.cards import Card, NumericColumn
from tgeokd_ray.tables.encoders import Encoder, fit_encoder, fit_partial
from tgeokd_ray.tables.numeric import CLIP, SAMPLE, NumericEncoding, NumericSummary, signed_log1p

RNG = np.random.default_rng(5)


def make_card(numeric: Sequence[dict[str, Any]] = (), categorical: Sequence[dict[str, Any]] = ()) -> Card:
    return Card.model_validate(
        {
            "name": "small",
            "format": {"kind": "csv"},
            "label": {"column": "y", "classes": ["0", "1"]},
            "columns": {"numeric": list(numeric), "categorical": list(categorical)},
            "splits": {"kind": "hash", "parts": {"train": 1.0}},
        }
    )


def fit(card: Card, frame: pa.Table, cuts: Sequence[int] = (), **options: Any) -> Encoder:
    """The encoder of a frame, fitted in the pieces between the cuts."""
    bounds = [0, *cuts, frame.num_rows]
    ids = np.arange(frame.num_rows, dtype=np.int64)
    pieces = [slice(a, b) for a, b in pairwise(bounds)]
    return fit_encoder(card, (fit_partial(card, frame[p.start : p.stop], ids[p]) for p in pieces), **options)


def number(values: Sequence[float] | np.ndarray, **options: Any) -> tuple[np.ndarray, Encoder]:
    """A numeric column fitted on its own values: what it becomes, and the encoder."""
    card = make_card([{"name": "x", "missing_flag": False, **options}])
    frame = pa.table({"x": pa.array(values, type=pa.float64(), from_pandas=True)})
    encoder = fit(card, frame)
    return encoder.transform(frame)[0][:, 0], encoder


def text(values: Sequence[str | None], card: Card | None = None, **options: Any) -> tuple[list[int], Encoder]:
    card = card or make_card(categorical=[{"name": "c", **options}])
    frame = pa.table({"c": pa.array(values, type=pa.string())})
    encoder = fit(card, frame)
    return encoder.transform(frame)[1][:, 0].tolist(), encoder


def plain_mix(word: int) -> int:
    """splitmix64 in Python's own whole numbers."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def plain_hash(value: str) -> int:
    """The hash of a text for buckets, byte by byte."""
    word = int.from_bytes(hashlib.blake2b(b"str:bucket", digest_size=8).digest(), "little")
    data = value.encode()
    total = sum(plain_mix(plain_mix(256 * place + byte) ^ word) for place, byte in enumerate(data)) % 2**64
    return plain_mix(plain_mix(total ^ plain_mix(len(data))) ^ word)


class TestNumbers:
    def test_standard_is_scikit_learn_s(self) -> None:
        values = RNG.normal(50, 3, size=500)
        expected = StandardScaler().fit_transform(values[:, None])[:, 0]
        np.testing.assert_allclose(number(values, kind="standard")[0], expected, rtol=1e-5, atol=1e-6)

    def test_log1p_is_odd_and_standardised(self) -> None:
        assert signed_log1p(np.array([0.0, math.e - 1, 1 - math.e])).tolist() == pytest.approx([0.0, 1.0, -1.0])
        values = np.array([0.0, math.e - 1, 1 - math.e, math.exp(2) - 1])
        warped = np.array([0.0, 1.0, -1.0, 2.0])
        np.testing.assert_allclose(number(values)[0], (warped - 0.5) / warped.std(), rtol=1e-6)

    def test_quantiles_are_scikit_learn_s(self) -> None:
        values = np.exp(RNG.normal(size=4000))
        ranks = QuantileTransformer(n_quantiles=257, subsample=None).fit_transform(values[:, None])[:, 0]
        encoded = number(values, kind="quantile")[0]
        np.testing.assert_allclose(encoded, (ranks - ranks.mean()) / ranks.std(), atol=0.02)
        assert abs(encoded.mean()) < 1e-5
        assert encoded.std() == pytest.approx(1.0, abs=1e-5)

    def test_tied_values_get_the_middle_of_their_ranks(self) -> None:
        encoder = number(np.repeat([0.0, 5.0], [800, 200]), kind="quantile")[1]
        column = encoder.numeric[0]
        np.testing.assert_allclose(column.levels, [0.4, 0.9], atol=0.01)

    def test_as_is_changes_nothing_but_what_lies_far_out(self) -> None:
        assert number([-0.5, 0.25, 3.0, 1e6], kind="as_is")[0].tolist() == [-0.5, 0.25, 3.0, 10.0]
        assert number([2.0, 2.0], kind="as_is")[0].tolist() == [2.0, 2.0], "a constant, too"

    @pytest.mark.parametrize("kind", ["log1p", "standard", "quantile"])
    def test_d10_missing_and_constant_are_zero_and_flagged(self, kind: str) -> None:
        card = make_card([{"name": "x", "kind": kind}, {"name": "k", "kind": kind, "missing_flag": False}])
        frame = pa.table({"x": pa.array([1.0, None, 3.0, math.nan]), "k": pa.array([0.1] * 4)})
        encoder = fit(card, frame)
        assert encoder.numeric_names == ("x", "k", "x:missing")
        numeric = encoder.transform(frame)[0]
        assert numeric.dtype == np.float32
        assert numeric[:, 1].tolist() == [0.0] * 4  # 0.1 added up is not 0.4, yet its spread is none
        assert numeric[:, 2].tolist() == [0.0, 1.0, 0.0, 1.0]
        assert numeric[[1, 3], 0].tolist() == [0.0, 0.0]
        assert numeric[[0, 2], 0] == pytest.approx([-1.0, 1.0])

    def test_d10_a_column_without_train_values_says_nothing(self) -> None:
        encoded, encoder = number([math.nan, math.nan])
        assert encoded.tolist() == [0.0, 0.0]
        later = encoder.transform(pa.table({"x": pa.array([3.0])}))
        assert later[0].tolist() == [[0.0]]

    def test_d15_far_values_are_cut(self) -> None:
        encoder = number([-1.0, 1.0], kind="standard", inf="clip")[1]
        far = pa.table({"x": pa.array([1e308, -1e308, 10.5, -3.0, math.inf, -math.inf])})
        assert encoder.transform(far)[0][:, 0].tolist() == [CLIP, -CLIP, CLIP, -3.0, CLIP, -CLIP]

    @pytest.mark.parametrize(("policy", "expected"), [("clip", [CLIP, 0.0]), ("missing", [0.0, 1.0])])
    def test_d15_infinite_values_follow_the_card(self, policy: str, expected: list[float]) -> None:
        card = make_card([{"name": "x", "kind": "standard", "inf": policy}])
        frame = pa.table({"x": pa.array([1.0, 2.0, math.inf])})
        encoder = fit(card, frame)
        assert encoder.transform(frame)[0][2].tolist() == expected
        assert encoder.numeric[0].mean == 1.5  # infinite values never count

    def test_d15_huge_values_need_another_kind(self) -> None:
        with pytest.raises(DataError, match=r"column 'x'.*squares.*overflow"):
            number([1e308, -1e308], kind="standard")
        for kind in ("log1p", "quantile"):
            assert number([1e308, -1e308, 0.0], kind=kind)[0] == pytest.approx([1.5**0.5, -(1.5**0.5), 0.0], abs=0.05)

    def test_d15_whole_numbers_near_two_to_the_63(self) -> None:
        card = make_card([{"name": "x", "kind": "standard", "missing_flag": False}])
        frame = pa.table({"x": pa.array([2**63 - 1, -(2**63)])})
        assert fit(card, frame).transform(frame)[0].tolist() == [[1.0], [-1.0]]

    @given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=60), st.data())
    def test_merged_parts_equal_one_pass(self, values: list[float], data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
        columns = [{"name": kind, "kind": kind} for kind in ("log1p", "standard", "quantile")]
        frame = pa.table({kind: pa.array(values) for kind in ("log1p", "standard", "quantile")})
        whole, merged = fit(make_card(columns), frame), fit(make_card(columns), frame, cuts)
        for one, two in zip(whole.numeric, merged.numeric, strict=True):
            assert two.mean == pytest.approx(one.mean, rel=1e-9, abs=1e-6)
            assert two.std == pytest.approx(one.std, rel=1e-6, abs=1e-6)
        np.testing.assert_array_equal(whole.numeric[2].knots, merged.numeric[2].knots)
        assert np.isfinite(merged.transform(frame)[0]).all()

    def test_the_sample_is_bounded_and_its_ranks_are_right(self) -> None:
        column = NumericColumn(name="x", kind="quantile")
        total = 8 * SAMPLE
        values = RNG.permutation(total).astype(np.float64)
        hashes = RNG.integers(0, 2**64, size=total, dtype=np.uint64)
        parts = [
            NumericSummary.of(column, v, h) for v, h in zip(values.reshape(8, -1), hashes.reshape(8, -1), strict=True)
        ]
        forward, backward = NumericSummary(), NumericSummary()
        for one, two in zip(parts, reversed(parts), strict=True):
            forward, backward = forward.merge(one), backward.merge(two)
        np.testing.assert_array_equal(forward.sample, backward.sample)
        assert len(forward.sample) == SAMPLE
        knots = NumericEncoding.fit(column, forward).knots
        levels = NumericEncoding.fit(column, forward).levels
        error = np.abs(knots / total - levels)  # the values are their own ranks
        assert error.max() < 4 * 0.0028
        assert error[128] > 0


class TestValues:
    def test_ids_by_hand(self) -> None:
        ids, encoder = text(["b", "a", "b", None, "c", "a", "", "b"])
        # b three times, a twice, then "" and c once each in the order of their bytes
        assert encoder.categorical[0][1].values == ("b", "a", "", "c")
        assert ids == [2, 3, 2, 0, 5, 3, 4, 2]
        assert encoder.num_ids == 6
        unseen = pa.table({"c": pa.array(["z", None, "c"])})
        assert encoder.transform(unseen)[1].tolist() == [[1], [0], [5]]

    def test_d11_rare_values_share_the_id_of_unseen_ones(self) -> None:
        ids, encoder = text(["a", "a", "b", "c", "c", "c"], min_count=2)
        assert ids == [3, 3, 1, 2, 2, 2]
        assert encoder.num_ids == 4

    def test_columns_follow_one_another_in_one_id_space(self) -> None:
        card = make_card(categorical=[{"name": "c"}, {"name": "d"}])
        frame = pa.table({"c": ["x", "y"], "d": ["x", None]})
        encoder = fit(card, frame)
        assert encoder.categorical_spaces == [
            {"name": "c", "offset": 0, "size": 4},
            {"name": "d", "offset": 4, "size": 3},
        ]
        assert encoder.transform(frame)[1].tolist() == [[2, 6], [3, 4]]

    def test_shared_columns_have_the_same_ids(self) -> None:
        card = make_card(
            categorical=[{"name": "from", "shared": "place"}, {"name": "c"}, {"name": "to", "shared": "place"}]
        )
        frame = pa.table({"from": ["oslo", "rome", "rome"], "c": ["k"] * 3, "to": ["rome", "bern", None]})
        encoder = fit(card, frame)
        # rome 3, then bern and oslo once each; the shared space comes first, then c
        assert encoder.transform(frame)[1].tolist() == [[4, 7, 2], [2, 7, 3], [2, 7, 0]]
        assert encoder.categorical_spaces[0]["offset"] == encoder.categorical_spaces[2]["offset"] == 0
        assert encoder.num_ids == 5 + 3

    def test_buckets_hash_and_nothing_is_unseen(self) -> None:
        values = [f"id-{n}" for n in range(5000)]
        ids, encoder = text(values, buckets=50)
        assert encoder.num_ids == 52
        assert set(ids) == set(range(2, 52))
        assert np.bincount(ids)[2:].min() > 50  # 100 expected in each
        assert encoder.transform(pa.table({"c": ["never seen", None]}))[1][1].tolist() == [0]
        again = text(list(reversed(values)), buckets=50)[0]
        assert again[::-1] == ids  # of the text alone

    def test_bucket_ids_are_those_of_a_plain_loop(self) -> None:
        values = ["oslo", "rome", "", "naïve", "😀"]
        assert text(values, buckets=1000)[0] == [2 + plain_hash(value) % 1000 for value in values]

    @given(st.lists(st.none() | st.sampled_from("abcdefg"), max_size=60), st.data())
    def test_merged_parts_equal_one_pass(self, values: list[str | None], data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
        card = make_card(categorical=[{"name": "c", "min_count": 2}])
        frame = pa.table({"c": pa.array(values, type=pa.string())})
        assert fit(card, frame, cuts).to_json() == fit(card, frame).to_json()

    def test_d12_too_many_values(self) -> None:
        card = make_card(categorical=[{"name": "c"}])
        frame = pa.table({"c": [str(n) for n in range(300)]})
        assert fit(card, frame, [100, 200], max_distinct=300).num_ids == 302
        with pytest.raises(DataError, match=r"column 'c'.*too many distinct.*at most 299; got at least 300") as caught:
            fit(card, frame, [100, 200], max_distinct=299)
        assert "buckets" in str(caught.value.fix)

    def test_d14_strange_texts(self) -> None:
        strange = ["a\0b", "😀", "line\nbreak", "x" * 1_000_000, " ", "NaN"]
        ids, encoder = text(strange)
        assert sorted(ids) == [2, 3, 4, 5, 6, 7]
        restored = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
        assert restored.transform(pa.table({"c": strange}))[1][:, 0].tolist() == ids

    @given(st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=40), st.integers(1, 3))
    def test_every_id_lies_in_its_column_s_range(self, values: list[str | None], min_count: int) -> None:
        card = make_card(categorical=[{"name": "c", "min_count": min_count}, {"name": "d", "buckets": 3}])
        frame = pa.table({"c": pa.array(values, type=pa.string()), "d": pa.array(values, type=pa.string())})
        encoder = fit(card, frame[: len(values) // 2])
        ids = encoder.transform(frame)[1]
        for k, space in enumerate(encoder.categorical_spaces):
            assert ((ids[:, k] >= space["offset"]) & (ids[:, k] < space["offset"] + space["size"])).all()
        assert ids.max() < encoder.num_ids


class TestState:
    def test_json_restores_every_bit(self) -> None:
        card = make_card(
            [{"name": k, "kind": k, "inf": "clip"} for k in ("log1p", "standard", "quantile")],
            [{"name": "c", "shared": "s"}, {"name": "d", "shared": "s"}, {"name": "e", "buckets": 7}],
        )
        numbers = RNG.normal(size=300)
        texts = [f"v{n}" for n in RNG.integers(0, 20, size=300)]
        frame = pa.table(
            {k: pa.array(numbers) for k in ("log1p", "standard", "quantile")}
            | {k: pa.array(texts) for k in ("c", "d", "e")}
        )
        encoder = fit(card, frame)
        restored = Encoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
        for one, two in zip(encoder.transform(frame), restored.transform(frame), strict=True):
            np.testing.assert_array_equal(one, two)
        assert restored.to_json() == encoder.to_json()
        assert restored.numeric_names == encoder.numeric_names
        assert restored.categorical_spaces == encoder.categorical_spaces

    @pytest.mark.parametrize("state", [{}, [], None, {"format": 2}, {"format": 1, "spaces": 3}])
    def test_foreign_json_is_refused(self, state: Any) -> None:
        with pytest.raises(IntegrityError, match="not the state of an encoder"):
            Encoder.from_json(state)

    def test_a_table_without_columns_of_a_kind(self) -> None:
        frame = pa.table({"x": [1.0, 2.0]})
        numeric, categorical = fit(make_card([{"name": "x"}]), frame).transform(frame)
        assert (numeric.shape, categorical.shape) == ((2, 2), (2, 0))
        assert fit(make_card([{"name": "x"}]), frame).num_ids == 0

    def test_no_rows(self) -> None:
        card = make_card([{"name": "x"}], [{"name": "c"}])
        empty = pa.table({"x": pa.array([], pa.float64()), "c": pa.array([], pa.string())})
        numeric, categorical = fit(card, empty).transform(empty)
        assert (numeric.shape, categorical.shape) == ((0, 2), (0, 1))
