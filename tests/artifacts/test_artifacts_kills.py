"""The commit protocol with real processes: SIGKILL at random moments, and writers that meet."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from artifacts_faults import DATA, make, reference, shells
from faults_children import end, start

from tgeokd_ray.artifacts import Disk, collect, staging, verify
from tgeokd_ray.artifacts.names import versions
from tgeokd_ray.errors import ResourceError

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def test_k1_k3_random_sigkills_leave_absent_or_whole(tmp_path: Path):
    expected = reference(tmp_path)
    started = time.monotonic()
    assert end(start(lambda: make(tmp_path / "timed"))) == 0
    duration = time.monotonic() - started
    dice = random.Random(20)
    attempt = killed = 0
    while killed < 40 and attempt < 200:
        attempt += 1
        root = tmp_path / str(attempt)
        child = start(lambda root=root: make(root))
        time.sleep(dice.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        hit = end(child) == -signal.SIGKILL
        killed += hit
        duration *= 1 if hit else 0.9  # the first run was slow: aim earlier
        home = root / "tables" / "demo"
        assert all(verify(path) == ([], []) for path in versions(home))
        assert make(root).digest == expected
        assert [path.name for path in versions(home)] == ["v000001"]
    assert killed == 40


def test_k3_work_done_before_a_sigkill_is_not_done_again(tmp_path: Path):
    def work() -> None:
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            work.write("part-0.bin", lambda path: path.write_bytes(DATA["part-0.bin"]))
            work.write("part-1.bin", lambda path: time.sleep(60))

    child = start(work)
    while not list(tmp_path.glob("*/*/.staging-*/part-0.bin.entry")):
        time.sleep(0.005)
    with pytest.raises(ResourceError, match=f"process {child} on "):
        make(tmp_path)
    os.kill(child, signal.SIGKILL)
    while Path(f"/proc/{child}/stat").exists() and b") Z " not in Path(f"/proc/{child}/stat").read_bytes():
        time.sleep(0.005)
    with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as again:  # a zombie holds nothing
        assert list(again.kept) == ["part-0.bin"]
    assert end(child) == -signal.SIGKILL


def test_k8_two_writers_of_one_version(tmp_path: Path):
    for number in range(8):
        root = tmp_path / str(number)
        children = [start(lambda root=root, value=value: make(root, value=value)) for value in range(3)]
        assert [end(child) for child in children] == [0, 0, 0]
        home = root / "tables" / "demo"
        assert sorted(path.name for path in versions(home)) == ["v000001", "v000002", "v000003"]
        assert all(verify(path) == ([], []) for path in versions(home))
        assert shells(root) == []


def test_k8_two_writers_of_the_same_work(tmp_path: Path):
    expected = reference(tmp_path)
    for number in range(8):
        root = tmp_path / str(number)
        children = [start(lambda root=root: make(root)) for _ in range(3)]
        codes = [end(child) for child in children]
        assert set(codes) <= {0, 6}
        assert 0 in codes
        (version,) = versions(root / "tables" / "demo")
        assert verify(version) == ([], [])
        assert make(root).digest == expected


def test_k8_a_second_adopter_waits_while_the_first_replaces_the_lock(tmp_path: Path):
    class Slow(Disk):
        """Lets the other adopter try between reading the dead lock and replacing it."""

        def remove(self, path: Path) -> None:
            if path.name == "owner.json" and not (tmp_path / "go").exists():
                (tmp_path / "go").touch()
                time.sleep(0.3)
            super().remove(path)

    def second() -> None:
        while not (tmp_path / "go").exists():
            time.sleep(0.002)
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}):
            pass

    work = staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={})
    assert end(start(lambda: (work.__enter__(), os.kill(os.getpid(), signal.SIGKILL)))) == -signal.SIGKILL
    child = start(second)
    with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}, disk=Slow()) as first:
        assert end(child) == 6
        assert first.commit({}).version == "v000001"


def test_k8_many_adopters_of_one_dead_folder(tmp_path: Path):
    def dying() -> None:
        staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}).__enter__()
        os.kill(os.getpid(), signal.SIGKILL)

    def adopt() -> None:
        with staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={}) as work:
            marks = tmp_path / "holders"
            marks.mkdir()  # fails if two hold the folder at once
            time.sleep(0.02)
            marks.rmdir()
            work.kept.clear()

    for _ in range(5):
        assert end(start(dying)) == -signal.SIGKILL
        codes = [end(child) for child in [start(adopt) for _ in range(4)]]
        assert set(codes) <= {0, 6}
        assert 0 in codes


def test_s8_a_folder_without_permission(tmp_path: Path):
    def make_as_nobody() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        make(tmp_path / "root")

    (tmp_path / "root").mkdir(mode=0o500)
    assert end(start(make_as_nobody)) == 6


def test_s10_a_killed_gc_is_finished_by_the_next_one(tmp_path: Path):
    def dying() -> None:
        work = staging(tmp_path, "tables", "demo", arguments={"value": 0}, parents={})
        work.__enter__()
        for number in range(30):
            work.write(f"part-{number}.bin", lambda path: path.write_bytes(b"x"))
        os.kill(os.getpid(), signal.SIGKILL)

    whole = make(tmp_path, value=1)
    dice = random.Random(3)
    for _ in range(6):
        assert end(start(dying)) == -signal.SIGKILL
        child = start(lambda: collect(tmp_path, dry_run=False, min_age_seconds=0))
        time.sleep(dice.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        end(child)
        collect(tmp_path, dry_run=False, min_age_seconds=0)
        assert shells(tmp_path) == []
    assert verify(whole.path) == ([], [])
