"""Hashes, row ids and splits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.hashing import key, keyed, mix, shares
from tgeokd_ray.tables.cards import SPLITS
from tgeokd_ray.tables.ids import UNUSED, assign_splits, file_row_ids, repeated_ids, text_ids
from tgeokd_ray.tables.text_hash import text_hash

STEP = 0x9E3779B97F4A7C15
IDS = np.arange(20_000, dtype=np.int64)


def rules(**parts: float) -> dict[str, object]:
    return {"kind": "hash", "salt": "pepper", "parts": parts}


class TestHashing:
    def test_mix_is_splitmix64(self) -> None:
        # Published outputs of the generator for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
        states = np.array([(1234567 + n * STEP) % 2**64 for n in range(4)], dtype=np.uint64)
        assert mix(states).tolist() == expected

    def test_shares_are_uniform_and_keys_independent(self) -> None:
        words = np.arange(50_000, dtype=np.uint64)
        a, b = shares(words, key("a")), shares(words, key("b"))
        assert a.min() >= 0
        assert a.max() < 1
        assert stats.kstest(a, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.02
        assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.02

    def test_key_tells_numbers_from_texts_and_borders(self) -> None:
        assert len({int(key(*parts)) for parts in ((1,), ("1",), (1, 2), (12,), ("1", "2"), ("12",))}) == 6

    def test_equal_texts_agree_in_every_array(self) -> None:
        texts = ["", "a", "ab", "ba", "naïve", "😀", "a\0b", "x" * 1000, None]
        whole = text_hash(pa.array(texts), key("t"))
        assert text_hash(pa.array(["pad", *texts, "pad"])[1:-1], key("t")).tolist() == whole.tolist()
        assert text_hash(pa.array(texts, type=pa.large_string()), key("t")).tolist() == whole.tolist()
        assert [int(text_hash(pa.array([t], type=pa.string()), key("t"))[0]) for t in texts] == whole.tolist()
        assert len(set(whole[:-1].tolist())) == len(texts) - 1
        assert whole[-1] == whole[0]  # a null hashes as the empty text
        assert not set(whole.tolist()) & set(text_hash(pa.array(texts), key("u")).tolist())

    def test_empty_arrays(self) -> None:
        assert len(text_hash(pa.array([], type=pa.string()), key("t"))) == 0

    def test_no_collision_among_many_and_every_bit_is_used(self) -> None:
        words = text_hash(pa.array([f"{n:x}" for n in range(100_000)]), key("t"))
        assert len(np.unique(words)) == 100_000
        bits = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 0.01

    @given(st.lists(st.text(max_size=12), max_size=30), st.integers(0, 30))
    def test_a_hash_does_not_depend_on_neighbours(self, texts: list[str], cut: int) -> None:
        array = pa.array(texts, type=pa.string())
        parts = [text_hash(array[:cut], key("t")), text_hash(array[cut:], key("t"))]
        assert np.concatenate(parts).tolist() == text_hash(array, key("t")).tolist()


class TestRowIds:
    def test_file_and_row(self) -> None:
        assert file_row_ids(0, np.array([0, 5])).tolist() == [0, 5]
        assert file_row_ids(3, np.array([7])).tolist() == [3 * 2**40 + 7]
        assert file_row_ids(2**23 - 1, np.array([2**40 - 1])).tolist() == [2**63 - 1]

    def test_texts_become_positive_ids_with_an_independent_check(self) -> None:
        ids, checks = text_ids(pa.array([f"user-{n}" for n in range(10_000)]))
        assert ids.dtype == checks.dtype == np.int64
        assert ids.min() >= 0
        assert len(np.unique(ids)) == len(np.unique(checks)) == 10_000
        assert abs(np.corrcoef(ids, checks)[0, 1]) < 0.05

    @pytest.mark.parametrize("pass_rows", [1 << 23, 100, 7])
    def test_d9_repeated_ids_are_counted_in_any_number_of_passes(self, pass_rows: int) -> None:
        ids = np.concatenate([np.arange(1000), np.arange(0, 100, 2), [4, 4], [-5, -5, 2**62]])
        pieces = np.array_split(np.random.default_rng(0).permutation(ids).astype(np.int64), 5)
        first, count = repeated_ids(lambda: iter(pieces), len(ids), pass_rows)
        assert first.tolist() == [-5, *range(0, 38, 2)]
        assert count == 51

    def test_no_rows_and_no_repeats(self) -> None:
        assert repeated_ids(lambda: iter([]), 0)[1] == 0
        assert repeated_ids(lambda: iter([IDS]), len(IDS))[1] == 0


class TestSplits:
    def test_shares_are_met_and_the_rest_is_unused(self) -> None:
        codes = assign_splits(rules(train=0.5, test=0.2, teacher=0.1), IDS, "f")
        found = {code: int((codes == code).sum()) for code in (0, 1, 4, UNUSED)}
        assert sum(found.values()) == len(IDS)
        for code, share in ((0, 0.1), (1, 0.5), (4, 0.2), (UNUSED, 0.2)):
            sigma = (share * (1 - share) / len(IDS)) ** 0.5
            assert abs(found[code] / len(IDS) - share) < 4 * sigma

    def test_a_row_keeps_its_split_in_any_company_and_order(self) -> None:
        whole = assign_splits(rules(train=0.5, test=0.5), IDS, "f")
        chosen = np.random.default_rng(1).permutation(len(IDS))[:500]
        assert (assign_splits(rules(test=0.5, train=0.5), IDS[chosen], "other") == whole[chosen]).all()

    def test_shares_of_one_leave_no_row_out(self) -> None:
        parts = {"teacher": 0.4, "train": 0.3, "outer": 0.06, "valid": 0.06, "test": 0.18}
        assert (assign_splits(rules(**parts), np.arange(300_000, dtype=np.int64), "f") != UNUSED).all()

    def test_another_salt_is_another_independent_split(self) -> None:
        a = assign_splits(rules(train=0.5, test=0.5), IDS, "f")
        b = assign_splits({**rules(train=0.5, test=0.5), "salt": "other"}, IDS, "f")
        assert abs((a == b).mean() - 0.5) < 0.02

    def test_by_file(self) -> None:
        by_file = {"kind": "file", "salt": "", "files": [["KDDTest*", "test"], ["*", {"train": 0.5, "valid": 0.5}]]}
        assert (assign_splits(by_file, IDS, "KDDTest+.txt") == SPLITS.index("test")).all()
        nested = assign_splits(by_file, IDS, "KDDTrain+.txt")
        assert set(np.unique(nested)) == {SPLITS.index("train"), SPLITS.index("valid")}
        with pytest.raises(ConfigError, match=r"no pattern under splits.files fits the file 'x.csv'.*'a\*'"):
            assign_splits({**by_file, "files": [["a*", "test"]]}, IDS, "x.csv")

    def test_by_time(self) -> None:
        by_time = {"kind": "time", "salt": "", "periods": [[10.0, {"train": 1.0}], [20.0, "valid"], [None, "test"]]}
        times = np.array([0.0, 9.9, 10.0, 19.9, 20.0, 1e12, np.nan, -np.inf, np.inf])
        names = [SPLITS[c] if c >= 0 else None for c in assign_splits(by_time, IDS[:9], "f", times)]
        assert names == ["train", "train", "valid", "valid", "test", "test", None, "train", "test"]
        closed = {**by_time, "periods": [[10.0, "train"]]}
        assert assign_splits(closed, IDS[:3], "f", np.array([1.0, 10.0, 11.0])).tolist() == [1, UNUSED, UNUSED]
        with pytest.raises(ValueError, match="need the times"):
            assign_splits(by_time, IDS, "f")


def test_keyed_hashes_of_one_value_differ_between_keys() -> None:
    one = np.array([7], dtype=np.uint64)
    assert len({int(keyed(one, key(n))[0]) for n in range(1000)}) == 1000
