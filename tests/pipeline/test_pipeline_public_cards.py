"""Cards of public sets that nobody can ship: small files in the published form go through check and a whole job."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tgeokd_ray.config.resolve import resolve
from tgeokd_ray.events import Silent
from tgeokd_ray.pipeline.job import Place, run_job
from tgeokd_ray.tables.cards import load_card

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


@pytest.mark.parametrize("make", [avazu, unsw_nb15, hil_power])
def test_a_file_in_the_published_form_goes_through_a_job(tmp_path: Path, make: Callable[[Path], list[Path]]) -> None:
    files = make(tmp_path)
    card = str(FOLDER / f"{make.__name__}.yaml")
    options = {"card": card, "data": [str(path) for path in files], "root": str(tmp_path / "root")}
    job, its_card = resolve(options, settings=QUICK)
    results, _ = run_job(job, its_card, Place(local=True), Silent())
    rows = results["table"]["rows"]
    assert all(rows[split] > 0 for split in ("teacher", "train", "outer", "valid", "test"))
    assert {model["name"] for model in results["models"]} == {"teacher", "labels", "constant-0.5", "tgeo"}
    assert results["metric"] == its_card.defaults["metric"]
    if make is avazu:
        assert (rows["valid"], rows["test"]) == (300, 300), "a day each"
    if make is unsw_nb15:
        assert rows["test"] == 500


def test_the_head_of_the_power_systems_own_file_is_read() -> None:
    path = REAL / "power_system_head527.csv"
    if not path.exists():
        pytest.skip(f"real data absent: {path.name} (set TGEOKD_DATA)")
    card = load_card(str(FOLDER / "hil_power.yaml"))
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        assert [*(reader.fieldnames or ())] == [*card.numeric, "marker"]
        assert {row["marker"] for row in reader} <= {text for texts in card.label.mapping.values() for text in texts}
