"""A card as a file: YAML that holds no surprises, paths beside it, the cards of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgeokd_ray.errors import ConfigError
from tgeokd_ray.tables.cards import Card, load_card

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
DATASETS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("protocols/*.yaml")])


class TestFiles:
    def refused(self, path: Path, content: str | bytes, line: int | None) -> str:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(ConfigError) as caught:
            load_card(path)
        assert (caught.value.problems[0].file, caught.value.problems[0].line) == (str(path), line)
        return caught.value.problems[0].what

    @pytest.mark.parametrize(
        ("content", "line", "what"),
        [
            ("name: a\nname: b\n", 2, "the key 'name' is there twice"),
            ("name: a\nlabel:\n  column: y\n  column: z\n", 4, "the key 'column' is there twice"),
            ("name: a\nformat: &f {kind: csv}\nlabel: *f\n", 3, "a * begins an alias"),
            ("name: !!python/object/apply:os.system [true]\n", 1, "is not YAML: could not determine a constructor"),
            ("name: [a\nlabel: b\n", 2, "is not YAML: "),
            ("a: 1\n---\nb: 2\n", 2, "is not YAML: "),
            (b"name: a\ntitle: caf\xe9\n", 2, "is not UTF-8 text"),
            ("- a\n- b\n", None, "must hold keys and values"),
            ("", None, "must hold keys and values"),
            ("a: " + "[\n" * 500, 1, "cannot be understood"),
            ("#" * (1 << 20) + "\n", 1, "is larger than "),
        ],
        ids=lambda value: str(value)[:24],
    )
    def test_text_that_is_no_card(self, tmp_path: Path, content: str | bytes, line: int | None, what: str) -> None:
        assert self.refused(tmp_path / "card.yaml", content, line).startswith(what)

    def test_a_card_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no such card; did you mean 'synthetic_ctr'\?") as caught:
            load_card("synthetic_ctx")
        assert "a card of the package: digits, synthetic_ctr" in str(caught.value.fix)
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load_card(tmp_path)

    def test_files_are_taken_from_beside_the_card(self, tmp_path: Path) -> None:
        text = "\ufeffname: a\nformat: {kind: csv}\nfiles: [data/x.csv]\nlabel: {column: y, classes: [0, 1]}\n"
        (tmp_path / "card.yaml").write_text(text + "columns: {numeric: [x]}\nsplits: {parts: {train: 1}}\n")
        assert load_card(tmp_path / "card.yaml").files == (str(tmp_path / "data" / "x.csv"),)

    def test_the_packaged_card_needs_no_path(self) -> None:
        assert (load_card("synthetic_ctr").name, load_card("synthetic_ctr").format.kind) == (
            "synthetic_ctr",
            "synthetic",
        )

    @pytest.mark.parametrize("path", DATASETS, ids=lambda path: path.stem)
    def test_the_cards_of_the_repository_load(self, path: Path) -> None:
        made = load_card(path)
        assert made.name == path.stem
        assert Card.model_validate(made.model_dump(mode="json")) == made
        assert {"criteo", "gas", "nsl_kdd"} <= {path.stem for path in DATASETS}
