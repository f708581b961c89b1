"""Cards of public sets that nobody can ship: small files in the published form go through check and a whole job."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from image_rows import write_cifar

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.errors import DataError
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.engine import LocalEngine
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.pipeline.study import Study, run_study
from tgeokd_ray.pipeline.study_cell import StudyCell
from tgeokd_ray.pipeline.study_grid import StudyGrid
from tgeokd_ray.report.html import render
from tgeokd_ray.tables.cards import load_card
from tgeokd_ray.tables.check import summarise
from tgeokd_ray.training import finish
from tgeokd_ray.training.data import EVALUATED_IMAGES

FOLDER = Path(__file__).resolve().parents[2] / "datasets"
REAL = Path(os.environ.get("TGEOKD_DATA") or FOLDER.parents[1] / "shared" / "data") / "hil_power_system"
QUICK = (
    "teacher.training.epochs=1",
    "teacher.model.hidden=[8]",
    "teacher.model.embedding=2",
    "student.model.embedding=2",
    "student.training.epochs=1",
    "distill.constants=[0.5]",
    "distill.strengths=[1.0]",
    "distill.shifts=[0.0]",
    "distill.fusion.look_ahead=1",
)
AVAZU_TEXT = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)
UNSW_TEXT = (
    "id,dur,proto,service,state,spkts,dpkts,sbytes,dbytes,rate,sttl,dttl,sload,dload,sloss,dloss,sinpkt,dinpkt,sjit,"
    "djit,swin,stcpb,dtcpb,dwin,tcprtt,synack,ackdat,smean,dmean,trans_depth,response_body_len,ct_srv_src,ct_state_ttl,"
    "ct_dst_ltm,ct_src_dport_ltm,ct_dst_sport_ltm,ct_dst_src_ltm,is_ftp_login,ct_ftp_cmd,ct_flw_http_mthd,ct_src_ltm,"
    "ct_srv_dst,is_sm_ips_ports,attack_cat,label"
)
# As in the publisher's summary of each file.
HAI_TEXT = """\
timestamp, P1_B2004, P1_B2016, P1_B3004, P1_B3005, P1_B4002, P1_B4005, P1_B400B, P1_B4022, P1_FCV01D, P1_FCV01Z,
P1_FCV02D, P1_FCV02Z, P1_FCV03D, P1_FCV03Z, P1_FT01, P1_FT01Z, P1_FT02, P1_FT02Z, P1_FT03, P1_FT03Z, P1_LCV01D,
P1_LCV01Z, P1_LIT01, P1_PCV01D, P1_PCV01Z, P1_PCV02D, P1_PCV02Z, P1_PIT01, P1_PIT01_HH, P1_PIT02, P1_PP01AD, P1_PP01AR,
P1_PP01BD, P1_PP01BR, P1_PP02D, P1_PP02R, P1_PP04, P1_PP04SP, P1_SOL01D, P1_SOL03D, P1_STSP, P1_TIT01, P1_TIT02,
P1_TIT03, P2_24Vdc, P2_ATSW_Lamp, P2_AutoGO, P2_AutoSD, P2_Emerg, P2_MASW, P2_MASW_Lamp, P2_ManualGO, P2_ManualSD,
P2_OnOff, P2_RTR, P2_SCO, P2_SCST, P2_SIT01, P2_TripEx, P2_VIBTR01, P2_VIBTR02, P2_VIBTR03, P2_VIBTR04, P2_VT01,
P2_VTR01, P2_VTR02, P2_VTR03, P2_VTR04, P3_FIT01, P3_LCP01D, P3_LCV01D, P3_LH01, P3_LIT01, P3_LL01, P3_PIT01, P4_HT_FD,
P4_HT_PO, P4_HT_PS, P4_LD, P4_ST_FD, P4_ST_GOV, P4_ST_LD, P4_ST_PO, P4_ST_PS, P4_ST_PT01, P4_ST_TT01, Attack"""
UNSW_CLASSES = (
    *("Normal", "Analysis", "Backdoor", "DoS", "Exploits"),
    *("Fuzzers", "Generic", "Reconnaissance", "Shellcode", "Worms"),
)


def written(path: Path, names: Sequence[str], rows: int, value: Callable[[str, int], object]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([value(name, row) for name in names] for row in range(rows))
    return path


def avazu(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)

    def value(name: str, row: int) -> object:
        if name == "id":
            return f"{10_000_169_349_117_863_715 - row}"  # too large for 64 bits with a sign
        if name == "hour":
            return 14102100 + 100 * (row // 300) + row % 24
        return row % 3 // 2 if name == "click" else f"{int(random.integers(0, 30)):08x}"

    return [written(folder / "train.csv", AVAZU_TEXT.split(","), 3000, value)]


def unsw_nb15(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)

    def value(name: str, row: int) -> object:
        if name == "attack_cat":
            return UNSW_CLASSES[row % 10]
        if name in ("proto", "service", "state"):
            return ("tcp", "udp", "-")[row % 3]
        return {"id": row + 1, "label": int(row % 10 > 0)}.get(name, round(float(random.exponential(3)), 4))

    files = {"training": 1500, "testing": 500}
    return [
        written(folder / f"UNSW_NB15_{part}-set.csv", UNSW_TEXT.split(","), rows, value) for part, rows in files.items()
    ]


def hil_power(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    names = [*load_card(str(FOLDER / "hil_power.yaml")).numeric, "marker"]

    def value(name: str, row: int) -> object:
        if name == "marker":
            return ("NoEvents", "Natural", "Attack", "Attack")[row % 4]
        return "inf" if name.endswith(":Z") and row % 50 == 0 else round(float(random.normal(60, 5)), 6)

    return [written(folder / f"data{k}.csv", names, 400, value) for k in (1, 2)]


def hai(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    names = [*HAI_TEXT.replace("\n", " ").split(", ")]

    def value(name: str, row: int) -> object:
        if name == "timestamp":
            return f"2021-07-10 00:{row // 60:02d}:{row % 60:02d}"
        return 0 if name in ("P2_Emerg", "P2_OnOff") else round(float(random.normal(30, 4)), 5)

    def attacked(name: str, row: int) -> object:
        return int(row % 40 < 8) if name == "Attack" else value(name, row)

    def calm(name: str, row: int) -> object:
        return 0 if name == "Attack" else value(name, row)

    train = [written(folder / f"train{k}.csv", names, 300, calm) for k in (1, 2)]
    return train + [written(folder / f"test{k}.csv", names, 400, attacked) for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("make", [avazu, unsw_nb15, hil_power, hai])
def test_a_file_in_the_published_form_goes_through_check_and_a_job(
    tmp_path: Path, make: Callable[[Path], list[Path]]
) -> None:
    files = make(tmp_path)
    card = str(FOLDER / f"{make.__name__}.yaml")
    told = summarise(load_card(card), files)
    for path, rows in ((path, len(path.read_text().splitlines()) - 1) for path in files):
        said = any(text.startswith(f"{path.name} has {rows} rows, the published copy ") for text in told["warnings"])
        assert said == (make is not hil_power), "its card publishes no counts"
    options = {"card": card, "data": [str(path) for path in files], "root": str(tmp_path / "root")}
    job, its_card = resolve(options, settings=QUICK)
    results, _ = run_job(job, its_card, Place(local=True), Silent())
    rows = results["table"]["rows"]
    assert sum(rows.values()) == told["rows"]
    assert all(rows[split] > 0 for split in ("teacher", "train", "outer", "valid", "test"))
    assert {model["name"] for model in results["models"]} == {"teacher", "labels", "constant-0.5", "tgeo"}
    assert results["metric"] == its_card.defaults["metric"]
    if make is avazu:
        assert (rows["valid"], rows["test"]) == (300, 300), "a day each"
    if make is unsw_nb15:
        assert rows["test"] == 500
    if make is hai:
        assert (rows["valid"], rows["test"]) == (400, 400), "a file each"


def test_the_counts_of_the_cards_are_those_published() -> None:
    rows = load_card(str(FOLDER / "hai.yaml")).checks.rows
    assert sum(count for name, count in rows.items() if name.startswith("train")) == 1_004_402
    assert sum(count for name, count in rows.items() if name.startswith("test")) == 361_200
    assert [*load_card(str(FOLDER / "hai.yaml")).numeric] == HAI_TEXT.replace("\n", " ").split(", ")[1:-1]


@pytest.fixture
def head() -> Path:
    path = REAL / "power_system_head527.csv"
    if not path.exists():
        pytest.skip(f"real data absent: {path.name} (set TGEOKD_DATA)")
    return path


def test_the_head_of_the_power_systems_own_file_has_the_columns_and_not_all_classes(head: Path) -> None:
    card = load_card(str(FOLDER / "hil_power.yaml"))
    with head.open(newline="") as file:
        reader = csv.DictReader(file)
        assert [*(reader.fieldnames or ())] == [*card.numeric, "marker"]
        assert {row["marker"] for row in reader} == {"Natural", "Attack"}
    with pytest.raises(DataError, match="no train row is of class 'none'; got 527 rows"):
        summarise(card, [head])


def test_the_head_goes_through_a_study_where_the_card_has_its_classes(tmp_path: Path, head: Path) -> None:
    told = yaml.safe_load((FOLDER / "hil_power.yaml").read_text())
    told["label"] = {"column": "marker", "classes": ["natural", "attack"]}
    told["label"]["mapping"] = {"natural": ["Natural"], "attack": ["Attack"]}
    card = tmp_path / "head.yaml"
    card.write_text(yaml.safe_dump(told))
    assert summarise(load_card(str(card)), [head])["rows"] == 527
    rows = studied(tmp_path, card, (str(head),), (*QUICK, "teacher.model.members=1"))
    assert rows["tgeo"]["seeds"] == rows["wls"]["seeds"] == 1


def test_images_go_through_a_study_of_their_table(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    write_cifar(folder / "data_batch_1.bin", 400)
    write_cifar(folder / "test_batch.bin", 60, seed=1)
    small = (
        "teacher.model={kind: mlp, hidden: [8], depth: null}",
        "student.model={kind: mlp, hidden: [8], depth: null}",
    )
    rows = studied(tmp_path, FOLDER / "cifar10.yaml", (str(folder),), (*QUICK, *small))
    assert rows["ada"]["refused"] is None
    assert rows["labels"]["accuracy"] is not None


def write_small_imagenet(path: Path, rows: int) -> Path:
    labels = np.arange(rows) % 1000 + 1
    pixels = np.repeat((labels % 251).astype(np.uint8)[:, None], 3 * 16 * 16, axis=1)
    pixels[:, ::7] = np.random.default_rng(rows).integers(0, 256, (rows, 110))
    np.savez(path, data=pixels, labels=labels, mean=pixels.mean(axis=0))
    return path


def test_the_splits_of_small_imagenet_are_those_of_its_files(tmp_path: Path) -> None:
    told = yaml.safe_load((FOLDER / "imagenet32.yaml").read_text()) | {"format": {"kind": "imagenet16"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(told))
    files = [write_small_imagenet(tmp_path / f"train_data_batch_{k}.npz", 8000) for k in (1, 10)]
    files.append(write_small_imagenet(tmp_path / "val_data.npz", 1000))
    checked = summarise(load_card(str(tmp_path / "small.yaml")), files)
    assert "2 files train_data_batch_* have 16000 rows, the published ones 1281167" in checked["warnings"]
    assert "1 files val_data* have 1000 rows, the published ones 50000" in checked["warnings"]
    rows = {split["split"]: split["rows"] for split in checked["splits"]}
    assert (sum(rows.values()), rows["test"]) == (17_000, 1000)
    for split, share in {"teacher": 0.48, "train": 0.46, "outer": 0.03, "valid": 0.03}.items():
        assert rows[split] / 16_000 == pytest.approx(share, abs=0.015)


def test_images_of_a_thousand_classes_go_through_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A train row of each class; what is written and held stays small."""
    told = yaml.safe_load((FOLDER / "imagenet32.yaml").read_text()) | {"format": {"kind": "imagenet16"}}
    shares = {"teacher": 0.5, "outer": 0.2, "valid": 0.3}
    told["splits"] |= {"files": {"train_data_batch_1.*": "train", "train_data_batch_2.*": shares, "val_data*": "test"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(told))
    for name in ("train_data_batch_1", "train_data_batch_2", "val_data"):
        write_small_imagenet(tmp_path / f"{name}.npz", 1000)
    small = [f"{who}.model={{kind: resnet, depth: 8, width: 1}}" for who in ("teacher", "student")]
    options = {"card": str(tmp_path / "small.yaml"), "data": [str(tmp_path)], "root": str(tmp_path / "root")}
    settings = [one for one in QUICK if ".model." not in one]
    job, its_card = resolve(options, settings=[*settings, *small, "distill.rivals=[ada]"])
    at_once, score = list[int](), finish.score
    monkeypatch.setattr(finish, "score", lambda *inputs: at_once.append(inputs[-1]) or score(*inputs))
    results, _ = run_job(job, its_card, Place(local=True), Silent())
    assert {model["name"] for model in results["models"]} == {"teacher", "labels", "constant-0.5", "ada", "tgeo"}
    assert all(len(model["recall"]) == 1000 and model["nll"] > 0 for model in results["models"])
    assert (results["table"]["rows"]["test"], results["metric"]) == (1000, "accuracy")
    assert at_once == [EVALUATED_IMAGES], "maps of images are large"
    assert len(json.dumps(results)) < 500_000, "vectors of a thousand classes, no matrix of them"
    assert len(render(results)) < 150_000


def studied(folder: Path, card: Path, files: tuple[str, ...], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of a study of the whole table, by rule."""
    rules, name = ("ada", "tgeo", "wls"), card.stem
    grid = StudyGrid((1.0,), (1.0,))
    cell = StudyCell(str(folder), str(folder / "d"), rules, {name: str(card)}, {name: files}, tuple(settings), grid)
    study = Study("s", (f"{name}.whole",), rules, 1)
    results = run_study(study, cell, folder / "studies" / "s", lambda: LocalEngine("cpu", 1), Silent())
    assert results["warnings"] == []
    return {row["rule"]: row for row in results["rows"]}
