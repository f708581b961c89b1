"""Parsing of words, and how a command ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tgeokd_ray.cli.guard import guarded
from tgeokd_ray.cli.spreading import spread
from tgeokd_ray.errors import ConfigError, DataError, IntegrityError, Problem, ProvenanceError, ResourceError


def test_several_files_may_follow_one_data_option() -> None:
    words = ["--card", "c", "--data", "a", "b", "--quick", "--data", "d", "--seed", "1"]
    assert spread(words) == ["--card", "c", "--data", "a", "--data", "b", "--quick", "--data", "d", "--seed", "1"]
    assert spread(["x", "--data"]) == ["x", "--data"]
    assert spread([]) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError, 2), (DataError, 3), (ProvenanceError, 4), (IntegrityError, 5), (ResourceError, 6)],
)
def test_an_error_is_one_block_with_its_exit_code(capsys, error, code: int) -> None:  # type: ignore[no-untyped-def]
    def fails() -> None:
        raise error("the rule was broken", fix="do this")

    with pytest.raises(SystemExit) as ended:
        guarded(fails, debug=False)
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert "the rule was broken" in shown
    assert "do this" in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback_and_keeps_the_exit_code(capsys) -> None:  # type: ignore[no-untyped-def]
    def fails() -> None:
        raise DataError([Problem("bad \x1b[2Jvalue", row=3), Problem("bad label", row=7)], fix="mend them")

    with pytest.raises(SystemExit) as ended:
        guarded(fails, debug=True)
    assert ended.value.code == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "in fails" in shown
    assert r"row 3: bad \x1b[2Jvalue" in shown
    assert "row 7: bad label" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_of_ours_is_raised_as_it_is(debug: bool) -> None:
    def fails() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        guarded(fails, debug=debug)


def test_k12_ctrl_c_ends_with_130() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        guarded(interrupted, debug=False)
    assert ended.value.code == 130


@pytest.mark.timeout(60)
def test_json_goes_to_stdout_alone_also_beside_child_processes() -> None:
    script = (
        "import os, sys\n"
        "from tgeokd_ray.cli.guard import only_json\n"
        "with only_json(True) as stream:\n"
        "    print('chatter'); sys.stdout.flush(); os.system('echo child')\n"
        "    stream.write('{}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "{}"
    assert "chatter" in done.stderr
    assert "child" in done.stderr
