"""Laws on the source itself: nothing executes data, everything public is explained, every piece is short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = sorted((REPOSITORY / "tgeokd_ray").rglob("*.py"))
JOBS = sorted((REPOSITORY / "jobs").glob("*.py"))
BESIDE = sorted(file for folder in ("tests", "benchmarks") for file in (REPOSITORY / folder).rglob("*.py"))

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_JOB_LINES = 60

# Modules that execute what they read, also inside another package (`ray.cloudpickle`).
BANNED_MODULES = {"pickle", "_pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
BANNED_NAMES = {"eval", "exec", "builtins.eval", "builtins.exec", "torch.load", "torch.jit.load", "pandas.read_pickle"}
SAFE_YAML = {"yaml.safe_load", "yaml.safe_dump", "yaml.YAMLError", "yaml.SafeLoader", "yaml.SafeDumper", "yaml.dump"}
IMPORTERS = {"__import__", "importlib.import_module"}


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def bindings(tree: ast.AST) -> dict[str, str]:
    """What each imported local name stands for, in full."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str | None:
    """`torch.load` for `t.load` after `import torch as t`; None for attributes of anything that was not imported."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if node.id in BANNED_NAMES | IMPORTERS else None)
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, names)
        return f"{owner}.{node.attr}" if owner else None
    return None


def banned(name: str) -> bool:
    """Whether this full name leads to code in data; of yaml only the safe names pass."""
    unsafe_yaml = name.startswith("yaml.") and name not in SAFE_YAML
    return name in BANNED_NAMES or unsafe_yaml or bool(BANNED_MODULES & set(name.split(".")))


def forbidden_uses(source: str) -> Iterator[str]:
    """`line N: NAME` for every use of what X8 of the fault list bans."""
    tree = ast.parse(source)
    names = bindings(tree)
    for node in ast.walk(tree):
        found: list[str | None] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Name | ast.Attribute):
            found = [full_name(node, names)]
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            safe = isinstance(node.value, ast.Constant) and node.value.value is False
            found = [] if safe else ["pickle"]
        elif isinstance(node, ast.Call) and full_name(node.func, names) in IMPORTERS:
            found = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
        yield from (f"line {getattr(node, 'lineno', 0)}: {name}" for name in found if name and banned(name))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import cloudpickle",
        "from ray import cloudpickle",
        "import ray\nray.cloudpickle.loads(b'')",
        "import joblib",
        "import torch\ntorch.load('x')",
        "import torch as t\nread = t.load",
        "from torch import load",
        "from torch import load as read",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nflag = True\nnp.load('x', allow_pickle=flag)",
        "import yaml\nyaml.load('x', Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "import yaml as y\ny.full_load('x')",
        "eval('1')",
        "run = exec",
        "import builtins\nbuiltins.eval('1')",
        "import importlib\nimportlib.import_module('pickle')",
        "__import__('marshal')",
    ],
)
def test_x8_the_search_finds(source: str) -> None:
    assert list(forbidden_uses(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "def evaluate(exec_time):\n    return exec_time",
        "import yaml\nyaml.safe_load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import re\nre.compile('x')",
        "store.load('pickle')",
    ],
)
def test_x8_the_search_lets_pass(source: str) -> None:
    assert not list(forbidden_uses(source))


@pytest.mark.parametrize("path", PACKAGE + JOBS, ids=relative)
def test_x8_nothing_executes_data(path: Path) -> None:
    assert not list(forbidden_uses(path.read_text(encoding="utf-8")))


def without_sentence(tree: ast.Module) -> list[str]:
    """The module, public classes and public functions at its top whose docstring holds no whole sentence."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    texts = {"module": ast.get_docstring(tree) if tree.body else "Empty."}
    texts |= {f"{node.name} (line {node.lineno})": ast.get_docstring(node) for node in public}
    return [name for name, text in texts.items() if not text or not re.search(r"\w[^.!?]*[.!?]['\")`]*(\s|$)", text)]


def test_docstrings_are_looked_for() -> None:
    source = '"""A module."""\ndef bare(): ...\ndef title():\n    """Title only"""\nclass Whole:\n    """Says it."""\n'
    assert without_sentence(ast.parse(source)) == ["bare (line 2)", "title (line 3)"]


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_everything_public_is_explained(path: Path) -> None:
    assert not without_sentence(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{f.name} (line {f.lineno})": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert len(source.splitlines()) <= MAX_FILE_LINES
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}


@pytest.mark.parametrize("path", BESIDE, ids=relative)
def test_tests_and_benchmarks_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", JOBS, ids=relative)
def test_jobs_are_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_JOB_LINES


def test_the_source_was_found() -> None:
    names = {relative(path) for path in PACKAGE + JOBS}
    assert {"tgeokd_ray/errors.py", "tgeokd_ray/events.py", "jobs/ctr_distill.py"} <= names
    assert not [name for name in names if Path(name).name == "utils.py"]
