"""What a job does with its options, and what its results and its run folder say of classes and of re-used models."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tgeokd_ray.artifacts import Artifact, latest
from tgeokd_ray.cli import commands
from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import ConfigError, DataError, Problem, UserError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job, run_stage, write_run_folder
from tgeokd_ray.pipeline.own_card import check_card, own_card
from tgeokd_ray.pipeline.record import known_digests
from tgeokd_ray.pipeline.results import build_results, by_name
from tgeokd_ray.tables.cards import PACKAGED, load_card
from tgeokd_ray.training.spec import Finished

LOCAL = Place(local=True)
SMALL = [
    "teacher.training.epochs=2",
    "teacher.model={hidden: [8], members: 2}",
    "student.training.epochs=2",
    "distill.constants=[0.5]",
    "metric=macro_f1",
]
# Class names that are numbers of other classes: only names may be shown. The test rows have none of class "0".
CARD = """
name: numbered
format: {kind: csv}
label: {column: verdict, classes: ["1", "2", "0"], display: {"1": Normal, "0": Worm}}
columns: {numeric: [size], categorical: [port]}
splits:
  kind: file
  salt: numbered
  files:
    old*: {teacher: 0.4, train: 0.3, outer: 0.15, valid: 0.15}
    new*: test
"""


def rows(count: int, classes: Sequence[str]) -> str:
    draws = np.random.default_rng(count)
    kinds = draws.integers(len(classes), size=count)
    lines = [f"{draws.normal(kind):.4f},p{kind},{classes[kind]}" for kind in kinds]
    return "\n".join(["size,port,verdict", *lines]) + "\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a card, old.csv and new.csv."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "card.yaml").write_text(CARD)
    (folder / "old.csv").write_text(rows(900, ["1", "2", "0"]))
    (folder / "new.csv").write_text(rows(200, ["1", "2"]))
    return folder


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Path]:
    """(results, run folder, root) of one job."""
    root = tmp_path_factory.mktemp("root")
    options = {"card": str(raw / "card.yaml"), "root": str(root), "data": [str(raw)]}
    results, folder = run_job(*resolve(options, settings=SMALL), LOCAL, Silent())
    return results, folder, root


def table_of(root: Path) -> Artifact:
    found = latest(root, "tables", "numbered")
    assert found is not None
    return found


def test_data_of_a_synthetic_table_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n1\n")
    options = {"root": str(tmp_path / "root"), "data": [str(tmp_path / "mine.csv")]}
    for work in (lambda *a: run_job(*a), lambda job, card, *a: run_stage("encode", job, card, {}, *a)):
        with pytest.raises(ConfigError, match="makes its own rows and takes no data"):
            work(*resolve(options), LOCAL, Silent())
    assert not (tmp_path / "root").exists(), "nothing was made"


def test_a_synthetic_table_needs_no_data_whatever_files_its_card_names(tmp_path: Path) -> None:
    card = yaml.safe_load((PACKAGED / "synthetic_ctr.yaml").read_text())
    card["format"] |= {"rows": 500}
    for number, more in enumerate(({}, {"files": ["unused.csv"]})):
        (tmp_path / "card.yaml").write_text(yaml.safe_dump(card | more))
        options = {"card": str(tmp_path / "card.yaml"), "root": str(tmp_path / f"root{number}")}
        (table,) = run_stage("encode", *resolve(options), {}, LOCAL, Silent())
        assert sum(table.manifest.schema["rows"].values()) == 500


def test_options_that_a_local_job_would_ignore_are_refused(tmp_path: Path) -> None:
    job, card = resolve({"root": str(tmp_path / "root"), "workers": 4})
    place = Place(local=True, address="ray://here:1")
    for work in (
        lambda: run_job(job, card, place, Silent()),
        lambda: run_stage("encode", job, card, {}, place, Silent()),
    ):
        with pytest.raises(ConfigError) as caught:
            work()
        assert "expected workers 1; got 4" in str(caught.value)
        assert "expected no --address; got ray://here:1" in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_classes_go_by_name_everywhere(whole: tuple[dict[str, Any], Path, Path]) -> None:
    results, folder, root = whole
    assert results["table"]["classes"] == ["1", "2", "0"]
    assert results["table"]["display"] == {"1": "Normal", "0": "Worm"}
    for model in results["models"]:
        assert set(model["recall"]) == {"1", "2", "0"}
        assert model["recall"]["0"] is None, "no test row is of class 0, the third"
        assert model["predicted_over_observed"]["0"] is None
        assert f"{model['name']}: recall.0 is undefined on test: no row of class 0" in results["warnings"]
    ratio = results["models"][-1]["ratio"]["by_class"]
    assert set(ratio) == {"1", "2", "0"}
    stored = json.loads((root / results["models"][-1]["artifact"] / "metrics.json").read_text())
    assert list(ratio.values()) == [stored["ratio"]["by_class"][index] for index in "012"]
    page = (folder / "report.html").read_text()
    for shown in (">Normal<", ">Worm<", ">2<"):
        assert shown in page


def test_evaluate_names_classes_as_the_card_says(  # type: ignore[no-untyped-def]
    whole, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _, root = whole
    words = (str(root), "students/numbered-tgeo", "tables/numbered", "test")
    stream = io.StringIO()
    commands.evaluate(*words, stream, as_json=True)
    assert json.loads(stream.getvalue())["recall"].keys() == results["models"][-1]["recall"].keys()
    commands.evaluate(*words, stream, as_json=False)
    shown = capsys.readouterr().out
    assert re.search(r"recall +Normal [\d.]+, 2 [\d.]+, Worm -", shown)


def test_a_config_fed_back_is_the_same_job(whole: tuple[dict[str, Any], Path, Path]) -> None:
    results, folder, _ = whole
    job, card = resolve({}, config=str(folder / "config.yaml"), defaults={"card": "synthetic_ctr"})
    again, there = run_job(job, card, LOCAL, Silent())
    assert there == folder
    assert all(stage["reused"] for stage in again["stages"])
    assert again["models"] == results["models"]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_job_that_reuses_all_has_a_whole_run_folder(whole: tuple[dict[str, Any], Path, Path]) -> None:
    results, folder, _ = whole
    job, card = resolve({}, config=str(folder / "config.yaml"), settings=["run=again"])
    again, there = run_job(job, card, LOCAL, Silent())
    assert all(stage["reused"] for stage in again["stages"])
    assert {path.name for path in there.iterdir()} >= {path.name for path in folder.iterdir()} - {"checkpoints"}
    names = [model["name"] for model in results["models"]]
    for run in (folder, there):
        assert sorted(path.name for path in (run / "tensorboard").iterdir()) == sorted(names)
    trained = [line for line in lines(folder) if "valid_auc" in line]  # those of a pack epoch by epoch
    trained = [line for line in trained if line["run"] != "shape"]  # which is no model
    written = sorted(trained, key=lambda line: names.index(line["run"]))
    restored = lines(there)
    assert [(line["run"], line["epoch"], line["step"]) for line in restored] == [
        (line["run"], line["epoch"], line["step"]) for line in written
    ]
    for old, new in zip(written, restored, strict=True):
        assert old.keys() == new.keys()
        for key, value in old.items():
            if old["run"] == "tgeo":  # trained as many candidates, restored as the one that was chosen
                assert len(new[key]) == 1 if isinstance(value, list) else new[key] == value
            elif isinstance(value, list) and None not in value:
                assert new[key] == pytest.approx([sum(value) / len(value)]), "an ensemble has the mean of its members"


def test_s7_torn_files_of_a_run_folder_are_written_anew(whole: tuple[dict[str, Any], Path, Path]) -> None:
    results, folder, _ = whole
    job, card = resolve({}, config=str(folder / "config.yaml"), settings=["run=torn"])
    _, there = run_job(job, card, LOCAL, Silent())
    names = ("results.json", "metrics.jsonl", "report.html", "config.yaml")
    before = {name: (there / name).read_bytes() for name in names}
    for cut in (0, 2):
        for name, data in before.items():
            (there / name).write_bytes(data[: len(data) * cut // 3])
        again, _ = run_job(job, card, LOCAL, Silent())
        assert [model["digest"] for model in again["models"]] == [model["digest"] for model in results["models"]]
        assert all(stage["reused"] for stage in again["stages"]), "manifests say what is there"
        assert json.loads((there / "results.json").read_text()) == again
        assert (there / "config.yaml").read_bytes() == before["config.yaml"]
        assert {line["run"] for line in lines(there)} == {model["name"] for model in results["models"]}


def entry(name: str, digest: str, *steps: int) -> dict[str, Any]:
    figures = {"auc": 0.5, "nll": 0.5, "accuracy": 0.5, "role": "student", "rule": {"kind": "labels"}}
    history = [{"epoch": k, "step": step, "loss": float(step)} for k, step in enumerate(steps)]
    return {"name": name, "digest": digest, "history": history, **figures}


def test_lines_and_events_tell_of_the_models_of_the_last_job(tmp_path: Path) -> None:
    job, _ = resolve({})

    def write(reused: list[str], *models: dict[str, Any]) -> list[tuple[str, int]]:
        write_run_folder(tmp_path, job, {"run": "x", "models": list(models)}, reused=reused)
        return [(line["run"], line["step"]) for line in lines(tmp_path)]

    (tmp_path / "metrics.jsonl").write_text('{"run": "tgeo", "epoch": 0, "step": 1, "loss": [1.0]}\n{"run": "tg')
    trained, other = entry("tgeo", "A", 1), entry("tgeo", "B", 7)
    write(["labels"], entry("labels", "L", 2, 3), trained)
    assert write(["labels"], entry("labels", "L", 2, 3), trained) == [("labels", 2), ("labels", 3), ("tgeo", 1)]
    assert lines(tmp_path)[0] == {"run": "labels", "epoch": 0, "step": 2, "loss": [2.0]}
    events = next((tmp_path / "tensorboard" / "tgeo").iterdir()).read_bytes()
    assert write(["tgeo"], trained) == [("labels", 2), ("labels", 3), ("tgeo", 1)], "its own lines stay"
    assert next((tmp_path / "tensorboard" / "tgeo").iterdir()).read_bytes() == events
    assert sorted(write(["tgeo"], other)) == [("labels", 2), ("labels", 3), ("tgeo", 7)]
    assert next((tmp_path / "tensorboard" / "tgeo").iterdir()).read_bytes() != events
    assert known_digests(tmp_path) == {"tgeo": "B"}
    for content in ("{}", "[]", "{", '{"models": [1]}'):
        (tmp_path / "results.json").write_text(content)
        assert known_digests(tmp_path) == {}


def test_a_failed_student_is_one_line_of_warnings(whole: tuple[dict[str, Any], Path, Path], raw: Path) -> None:
    _, _, root = whole
    error: UserError = DataError(
        [Problem("bad\r\nvalue", row=3), Problem("bad label", row=7)], fix="mend them", total=9
    )
    done = [Finished("tgeo", "", "", {"valid": {}}, False, 0.0, error=error)]
    job, card = resolve({"card": str(raw / "card.yaml")})
    results = build_results(job, "x", card, table_of(root), done, [], ["first\n  second"])
    assert results["warnings"] == [
        "first; second",
        "tgeo: data: row 3: bad; value; row 7: bad label; ... 9 in all, the first 2 are shown; next: mend them",
    ]


def test_only_what_is_told_per_class_is_renamed() -> None:
    undefined = {"recall.1": "no row of class 1", "auc": "every row is of class 0", "nll": "no rows"}
    figures = {"auc": 0.5, "recall": {"0": 1.0, "1": None}, "predicted_over_observed": 0.9, "undefined": undefined}
    assert by_name(figures, ["b", "a"]) == {
        "auc": 0.5,
        "recall": {"b": 1.0, "a": None},
        "predicted_over_observed": 0.9,
        "undefined": {"recall.a": "no row of class a", "auc": "every row is of class b", "nll": "no rows"},
    }
    assert figures["undefined"] is undefined
    assert "recall.1" in undefined, "what was given stays as it is"


def test_the_card_of_a_table_has_its_name_and_no_defaults(whole: tuple[dict[str, Any], Path, Path], raw: Path) -> None:
    path, card = own_card(table_of(whole[2]))
    assert (card.name, card.defaults, card.files) == ("numbered", {}, ())
    assert path.endswith("tables/numbered/v000001/card.json")
    check_card(load_card(raw / "card.yaml"), "card.yaml", table_of(whole[2]))


@pytest.mark.parametrize(
    ("old", "new", "differing"),
    [
        ("name: numbered", "name: other", "name"),
        ("numeric: [size]", "numeric: [{name: size, kind: standard}]", "columns"),
        ("salt: numbered", "salt: other", "splits"),
        ("name: numbered\nformat: {kind: csv}", "name: other\nformat: {kind: tsv}", "name, format"),
    ],
)
def test_another_card_than_the_tables_is_refused(  # type: ignore[no-untyped-def]
    whole, raw: Path, tmp_path: Path, old: str, new: str, differing: str
) -> None:
    (tmp_path / "card.yaml").write_text(CARD.replace(old, new))
    table = table_of(whole[2])
    job, card = resolve({"card": str(tmp_path / "card.yaml"), "root": str(whole[2])})
    with pytest.raises(ConfigError) as caught:
        run_stage("teacher", job, card, {"table": [table]}, LOCAL, Silent())
    text = str(caught.value)
    assert f"the card {card.name} ({tmp_path / 'card.yaml'}) did not make tables/numbered/v000001" in text
    assert f": {differing} differ" in text
    assert f"the table's own card numbered ({table.path / 'card.json'})" in text


def test_texts_and_defaults_of_a_card_may_differ(whole: tuple[dict[str, Any], Path, Path], tmp_path: Path) -> None:
    text = CARD.replace("Normal", "normal traffic") + "title: Numbers\ndefaults: {seed: 3}\n"
    (tmp_path / "card.yaml").write_text(text)
    check_card(load_card(tmp_path / "card.yaml"), "card.yaml", table_of(whole[2]))
