"""Digests: canonical bytes, what they refuse, and the cache of file digests."""

import json
import os
import sys
from pathlib import Path

import pytest
from artifacts_faults import make
from hypothesis import given
from hypothesis import strategies as st

from tgeokd_ray.artifacts import canonical, digest, file_digests, file_sha256

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_canonical_bytes_and_digest_are_those_of_sha256sum():
    value = {"é": 0.5, "b": (1, 2, {"c": None}), "a": 1}
    assert canonical(value) == b'{"a":1,"b":[1,2,{"c":null}],"\\u00e9":0.5}'
    assert digest(value) == "6d468e24edfc987d6a8eb9cbf80d08a7f0f2dea414925412446c570a12802b13"


@given(VALUES)
def test_a_digest_survives_being_written_and_read(value):
    assert digest(json.loads(canonical(value))) == digest(value)


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_order_of_keys_is_no_content(value):
    assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"a": -float("inf")}]])
def test_canonical_rejects_nan(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)


@pytest.mark.parametrize("value", [{1: 2}, [{"a": {None: 1}}], {"a": b"x"}, {1, 2}])
def test_canonical_rejects_what_json_would_change_or_cannot_hold(value):
    with pytest.raises(TypeError):
        canonical(value)


def test_x6_canonical_rejects_deep_nesting():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="64 levels"):
        canonical(value)


def test_file_sha256_is_that_of_sha256sum(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"hello")
    assert file_sha256(tmp_path / "a") == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_the_same_content_has_the_same_digest_on_another_day_host_and_name(tmp_path: Path, monkeypatch):
    first = make(tmp_path / "one")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    monkeypatch.setattr("tgeokd_ray.artifacts.commit.made_here", lambda: {"created": "2001-01-01T00:00:00+00:00"})
    second = make(tmp_path / "two", name="other")
    assert second.digest == first.digest
    assert second.manifest.inputs == first.manifest.inputs
    assert second.manifest.record != first.manifest.record
    assert make(tmp_path / "two", value=1).digest != first.digest


class TestFileDigests:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "raw.csv"
        path.write_bytes(b"hello")
        os.utime(path, (1e9, 1e9))
        return path

    @pytest.fixture
    def hashed(self, monkeypatch) -> list[Path]:
        """Every file that is really read."""
        seen: list[Path] = []
        module = sys.modules["tgeokd_ray.artifacts.digest"]
        monkeypatch.setattr(module, "file_sha256", lambda path: (seen.append(path), file_sha256(path))[1])
        return seen

    def test_an_unchanged_file_is_read_once(self, file, hashed, tmp_path):
        cache = tmp_path / "deep" / "cache.json"
        assert file_digests([file, file], cache) == [file_sha256(file)] * 2
        hashed.clear()
        assert file_digests([file], cache) == [file_sha256(file)]
        assert hashed == []

    def test_a_changed_time_size_or_inode_is_read_again(self, file, hashed, tmp_path):
        cache = tmp_path / "cache.json"
        file_digests([file], cache)
        file.write_bytes(b"HELLO")
        os.utime(file, (1e9 + 1, 1e9 + 1))
        assert file_digests([file], cache) == [file_sha256(file)]
        (tmp_path / "new").write_bytes(b"jello")
        os.utime(tmp_path / "new", (1e9 + 1, 1e9 + 1))
        os.replace(tmp_path / "new", file)
        assert file_digests([file], cache) == [file_sha256(file)]
        assert len(hashed) == 3

    def test_a_file_modified_just_now_is_not_remembered(self, file, hashed, tmp_path):
        os.utime(file)
        file_digests([file], tmp_path / "cache.json")
        file_digests([file], tmp_path / "cache.json")
        assert len(hashed) == 2

    @pytest.mark.parametrize("torn", ["", "[1]", '{"', '{"FILE": [1, 2, 3, "wrong"]}', '{"FILE": 5}'])
    def test_s7_a_torn_or_foreign_cache_counts_as_empty(self, file, tmp_path, torn):
        cache = tmp_path / "cache.json"
        cache.write_text(torn.replace("FILE", str(file)))
        assert file_digests([file], cache) == [file_sha256(file)]

    def test_where_no_cache_can_be_written_the_digest_is_right(self, file):
        assert file_digests([file], file / "below" / "cache.json") == [file_sha256(file)]
