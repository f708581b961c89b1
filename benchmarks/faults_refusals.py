"""What must be refused, through the command line: the exit code, the form of the block, and that nothing was made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from faults_children import end, start
from faults_work import NAME, QUICKLY, make_inputs, make_table, make_teacher, precompute_words, tgeokd

from tgeokd_ray.artifacts import Artifact, file_sha256, open_artifact, read_json, staging, version_folders
from tgeokd_ray.artifacts.manifest import FileEntry, Parent, content_digest
from tgeokd_ray.errors import ConfigError, DataError, IntegrityError, ProvenanceError, ResourceError, UserError

TABLE, OTHER_TABLE, REFITTED, PERMUTED = (f"tables/{NAME}/v{number:06d}" for number in range(1, 5))
TEACHER, FOREIGN_TEACHER = (f"teachers/{NAME}/v{number:06d}" for number in range(1, 3))
LOGITS = f"logits/{NAME}/v000001"
# A child that trains by mistake ends soon.
SHORT = (*QUICKLY, "--set", "student.training.epochs=1")
MARKER = "executed"


@dataclass(frozen=True)
class Case:
    """A row of the fault list, the words after `tgeokd`, and the error that must come."""

    row: str
    what: str
    words: tuple[str, ...]
    error: type[UserError]


CASES = (
    Case("P1", "a teacher of another table", ("precompute", TABLE, FOREIGN_TEACHER, *SHORT), ProvenanceError),
    Case("P1", "a file of another teacher's logits", ("distill", TABLE, "logits/mixed", *SHORT), IntegrityError),
    Case("P2", "logits of another version", ("distill", OTHER_TABLE, LOGITS, *SHORT), ProvenanceError),
    Case("P2", "a teacher of another version", ("precompute", OTHER_TABLE, TEACHER, *SHORT), ProvenanceError),
    Case("P3", "a refitted encoder: precompute", ("precompute", REFITTED, TEACHER, *SHORT), ProvenanceError),
    Case("P3", "a refitted encoder: distill", ("distill", REFITTED, LOGITS, *SHORT), ProvenanceError),
    Case("P3", "a refitted encoder: evaluate", ("evaluate", TEACHER, REFITTED), ProvenanceError),
    Case("P4", "a table with permuted classes", ("distill", PERMUTED, LOGITS, *SHORT), ProvenanceError),
    Case("P4", "logits with permuted classes", ("distill", TABLE, "logits/permuted", *SHORT), ProvenanceError),
    Case("P6", "logits without 1 % of the ids", ("distill", TABLE, "logits/missing", *SHORT), ProvenanceError),
    Case("P7", "an edited manifest: distill", ("distill", TABLE, "logits/edited", *SHORT), IntegrityError),
    Case("P7", "an edited manifest: verify", ("verify", "logits/edited"), IntegrityError),
    Case("N1", "logits with NaN", ("distill", TABLE, "logits/nan", *SHORT), IntegrityError),
    Case("S3", "one flipped bit: verify", ("verify", "logits/flipped"), IntegrityError),
    Case("S3", "one flipped bit in a teacher", ("evaluate", "teachers/flipped", TABLE), IntegrityError),
    Case("S4", "a missing and a stray file", ("verify", "logits/stray"), IntegrityError),
    Case("X1", "a pickle in place of the weights", ("evaluate", "teachers/pickled", TABLE), IntegrityError),
    Case("X1", "a pickle with a forged manifest", ("evaluate", "teachers/forged", TABLE), IntegrityError),
    Case("X1", "the same as a teacher", ("precompute", TABLE, "teachers/forged", *SHORT), IntegrityError),
    Case("X1", "a pickle as JSON", ("evaluate", "teachers/forged-json", TABLE), IntegrityError),
    Case("X4", "../ in a manifest", ("verify", "logits/leaving"), IntegrityError),
    Case("X4", "../ in a manifest, read", ("distill", TABLE, "logits/leaving", *SHORT), IntegrityError),
    Case("X4", "a link in place of the folder", ("distill", TABLE, "logits/linked", *SHORT), IntegrityError),
    Case("X6", "a manifest cut in half", ("verify", "logits/torn"), IntegrityError),
    Case("X3", "../ in a run", ("distill", TABLE, LOGITS, *SHORT, "--set", "run=../x"), ConfigError),
    Case("X3", "../ as an artifact", ("verify", "../../etc/passwd"), ConfigError),
    Case("X3", "../ in the name of a card", ("encode", "--local", "--card", "{folder}/leaving.yaml"), ConfigError),
    Case("", "an unknown key", ("encode", "--local", "--set", "nope=1"), ConfigError),
    Case("", "an artifact of another kind", ("precompute", TABLE, LOGITS, *SHORT), ConfigError),
    Case("D6", "text in a numeric column", ("encode", "--local", "--card", "{folder}/raw.yaml", "{folder}/raw.csv"),
         DataError),
    Case("S8", "a file in the way of the root", ("encode", "--local", "--root", "{folder}/raw.csv/x"), ResourceError),
)  # fmt: skip


def refused(case: Case, folder: Path) -> list[str]:
    """What is wrong with how a case ends; `prepare(folder)` made what it needs."""
    root, log, before = folder / "root", folder / "log.txt", version_folders(folder / "root")
    words = [word.replace("{folder}", str(folder)) for word in case.words]
    words += [] if "--root" in words else ["--root", str(root)]
    code = end(start(lambda: tgeokd(*words, log=log)), 60)
    found = [] if code == case.error.exit_code else [f"exit code {code} in place of {case.error.exit_code}"]
    found += not_a_block(log.read_text(), case.error.code)
    new = [str(path) for path in version_folders(root) if path not in before]
    found += [f"made {path}" for path in new]
    for path in new:
        shutil.rmtree(path)
    if (folder / MARKER).exists():
        found.append("the data was executed")
    return found


def not_a_block(text: str, code: str) -> list[str]:
    """What the end of stderr lacks of one block: `code: what`, indented lines, a way out; no traceback."""
    lines = text.rstrip("\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.startswith(f"{code}: ")), None)
    if "Traceback" in text or first is None:
        return [f"no block of {code}: {text[-300:]}"]
    block = lines[first + 1 :]
    found = [f"not indented: {line}" for line in block if not line.startswith("  ")]
    return found if block and block[-1].startswith("  next: ") else [*found, f"no way out: {lines[first]}"]


def prepare(folder: Path) -> None:
    """Tables, teachers, logits, and forgeries of them. Only for a child: it trains."""
    root = folder / "root"
    table, other = make_table(root), make_table(root, 4)
    make_table(root, min_count=9)
    make_table(root, label={"column": "label", "classes": ["1", "0"]})
    make_teacher(root, table)
    make_teacher(root, other)
    tgeokd(*precompute_words(root, root), *QUICKLY)
    make_inputs(folder / "theirs", teachers=1, seed=4)
    tgeokd(*precompute_words(folder / "theirs", folder / "theirs"), *QUICKLY)
    teacher, logits, theirs = (
        open_artifact(path) for path in (root / TEACHER, root / LOGITS, folder / "theirs" / LOGITS)
    )
    _copy(logits, "mixed", lambda home: shutil.copy(theirs.path / _shard(theirs), home / _shard(logits)))
    _copy(logits, "edited", lambda home: _edit(home, lambda text: text.replace('"train"', '"valid"')))
    _copy(logits, "leaving", _leave)
    _copy(logits, "stray", lambda home: (home / _shard(logits)).rename(home / "stray.parquet"))
    _copy(logits, "torn", lambda home: _edit(home, lambda text: text[: len(text) // 2]))
    _copy(logits, "linked", lambda home: home.rename(home.parent / "x") and home.symlink_to(home.parent / "x"))
    for artifact in (logits, teacher):
        _copy(artifact, "flipped", lambda home, artifact=artifact: _flip(home / artifact.manifest.files[-1].path))
    _rewrite(root, "missing", logits, lambda shard: shard.take([n for n in range(len(shard)) if n % 100 != 7]))
    _rewrite(root, "nan", logits, _with_nan)
    _rewrite(root, "permuted", logits, lambda shard: shard, classes=["1", "0"])
    bad = _pickle(folder / MARKER)
    _copy(teacher, "pickled", lambda home: (home / "model.safetensors").write_bytes(bad))
    _copy(teacher, "forged", lambda home: _forge(home, "model.safetensors", bad))
    _copy(teacher, "forged-json", lambda home: _forge(home, "model.json", bad))
    _raw(folder)


def _raw(folder: Path) -> None:
    card = {
        "name": "raw",
        "format": {"kind": "csv"},
        "label": {"column": "y", "classes": ["0", "1"]},
        "columns": {"numeric": ["x"], "categorical": []},
        "splits": {"kind": "hash", "salt": "a", "parts": {"train": 1.0}},
    }
    (folder / "raw.yaml").write_text(json.dumps(card))
    (folder / "leaving.yaml").write_text(json.dumps(card | {"name": "../x"}))
    rows = [f"{n % 2},{'much' if n == 900 else n}" for n in range(1000)]
    (folder / "raw.csv").write_text("\n".join(["y,x", *rows]) + "\n")


def _shard(logits: Artifact) -> str:
    return next(entry.path for entry in logits.manifest.files if entry.path.startswith("train"))


def _copy(artifact: Artifact, name: str, change: Callable[[Path], object]) -> None:
    """A copy of an artifact under another name, then changed behind the protocol's back."""
    home = artifact.path.parent.parent / name / "v000001"
    shutil.copytree(artifact.path, home)
    _manifest(home, lambda manifest: manifest | {"name": name})
    change(home)


def _edit(home: Path, change: Callable[[str], str]) -> None:
    file = home / "manifest.json"
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))


def _manifest(home: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the manifest and give it fresh digests, as somebody who knows the format would."""
    obj = change(read_json(home / "manifest.json"))
    files = [FileEntry(**entry) for entry in obj["files"]]
    parents = {role: Parent(**parent) for role, parent in obj["parents"].items()}
    obj["digest"] = content_digest(obj["kind"], obj["arguments"], obj["schema"], files, parents)
    (home / "manifest.json").write_text(json.dumps(obj))


def _leave(home: Path) -> None:
    secret = home.parent / "secret"
    secret.write_bytes(b"secret")
    entry = FileEntry("../secret", 6, file_sha256(secret))
    _manifest(home, lambda manifest: manifest | {"files": [*manifest["files"], asdict(entry)]})


def _forge(home: Path, name: str, data: bytes) -> None:
    (home / name).write_bytes(data)
    facts = {"bytes": len(data), "sha256": file_sha256(home / name)}

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        files = [entry | (facts if entry["path"] == name else {}) for entry in manifest["files"]]
        return manifest | {"files": files}

    _manifest(home, change)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def _pickle(marker: Path) -> bytes:
    """A pickle, written by hand, that makes the file `marker` when somebody loads it."""
    return b"cos\nmkdir\n(S'" + os.fsencode(marker) + b"'\ntR."


def _rewrite(root: Path, name: str, logits: Artifact, change: Callable[[pa.Table], pa.Table], **schema: Any) -> None:
    """Well-formed logits of the same parents with other rows, as another tool could have written them."""
    manifest = logits.manifest
    with staging(root, "logits", name, arguments=manifest.arguments, parents=manifest.parents) as stage:
        for entry in manifest.files:
            if "split" not in entry.extra:
                stage.take_over(logits, entry)
                continue
            rows = change(pq.read_table(logits.file(entry.path), use_threads=False))
            extra = dict(entry.extra) | ({} if len(rows) == entry.rows else _other_rows(rows))
            stage.write(entry.path, lambda path, rows=rows: pq.write_table(rows, path), rows=len(rows), extra=extra)
        stage.commit({**manifest.schema, **schema})


def _other_rows(rows: pa.Table) -> dict[str, Any]:
    import hashlib

    ids = rows["row_id"].to_numpy().astype("<i8").tobytes()
    return {"row_ids": hashlib.sha256(ids).hexdigest(), "groups": [len(rows)]}


def _with_nan(shard: pa.Table) -> pa.Table:
    values = shard["logits"].combine_chunks().flatten().to_numpy().copy()
    values[3] = float("nan")
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), shard["logits"].type.list_size)
    return shard.set_column(shard.column_names.index("logits"), "logits", column)


def all_refusals(folder: Path, cases: Sequence[Case] = CASES) -> dict[str, list[str]]:
    """What is wrong with each case, by row and description."""
    if end(start(lambda: prepare(folder)), 120):
        raise RuntimeError("the inputs were not made")
    assert open_artifact(folder / "root" / LOGITS)
    return {f"{case.row} {case.what}".strip(): refused(case, folder) for case in cases}
