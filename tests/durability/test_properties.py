"""Whatever bytes come: the readers give sound items and records, or errors of their kind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from joyedit.errors import ManifestError, UsageError
from joyedit.job.own_files import RESULTS
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import final_records, read_journal
from joyedit.job.source.names import name_problem
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.sources import open_source
from joyedit.job.spec import EditItem, FailedItem, ItemResult
from support.figures import EXHAUSTIVE, FIGURES, SOAK

MANY = settings(max_examples=150 * SOAK if EXHAUSTIVE else 60, deadline=None, derandomize=SOAK == 1)

TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["id", "image", "images", "instruction", "seed", "steps", "output", "width", "status"]) | TEXTS
LINES = st.dictionaries(KEYS, VALUES, max_size=6).map(lambda line: json.dumps(line).encode())
FILES = st.lists(LINES | st.binary(max_size=60), max_size=6).map(b"\n".join) | st.binary(max_size=400)


def record(name: str, status: str = "ok", text: str = "") -> ItemResult:
    error = None if status == "ok" else {"code": "x", "message": text}
    return ItemResult(
        id=name, status=status, instruction=text, inputs=(), output=None, bucket=None, error=error,  # type: ignore[arg-type]
    )  # fmt: skip


@MANY
@given(data=FILES, ending=st.sampled_from([".jsonl", ".json", ".yaml", ".csv"]))
def test_a_manifest_of_any_bytes(data: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{ending}"
        path.write_bytes(data)
        options = SourceOptions(prompt="x", output=Path(folder) / "out", look=False)
        FIGURES["manifests of any bytes"] += 1
        try:
            source = open_source(str(path), options)
            source.check()
        except (ManifestError, UsageError):
            return
        seen: set[str] = set()
        for item in source.items():
            assert isinstance(item, EditItem | FailedItem)
            assert item.id not in seen
            seen.add(item.id)
            assert isinstance(item, EditItem), "the check has passed every line"
            assert name_problem(item.id) is None
            assert name_problem(item.output.rpartition(".")[0]) is None
            assert item.instruction.strip()


@MANY
@given(
    before=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "failed"]), TEXTS), max_size=5),
    tail=st.binary(max_size=120) | LINES | LINES.map(lambda line: line + b"\n"),
    cut=st.integers(0, 400),
)
def test_a_journal_with_any_end(before: list[tuple[str, str, str]], tail: bytes, cut: int) -> None:
    """What was recorded before the damage is there after it, and what is appended then is too."""
    FIGURES["journals with any end"] += 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder)
        ends = [0]
        for given_ in before:
            journal.append(record(*given_))
            ends.append(journal.path.stat().st_size)
        journal.close()
        data = journal.path.read_bytes()
        kept = data[: len(data) - cut] if cut < len(data) and cut % 2 else data
        whole = sum(len(kept) >= end for end in ends[1:])
        (folder / RESULTS).write_bytes(kept + tail)
        try:
            journal = Journal(folder)
        except ManifestError:  # a record of somebody else stands behind the damage, or nothing is ours
            assert (folder / RESULTS).read_bytes() == kept + tail
            return
        journal.append(record("new"))
        journal.close()
        message = list(read_journal(folder / RESULTS))
        assert [(one["id"], one["status"]) for one in message[:whole]] == [(one[0], one[1]) for one in before[:whole]]
        assert message[-1]["id"] == "new"
        final = {one["id"]: one["status"] for one in final_records(folder / RESULTS)}
        assert {one["id"]: one["status"] for one in message} == {key: value or "" for key, value in final.items()}
        again = Journal(folder)
        assert (len(again), again.repaired) == (len(final), None)
        failed = [one["id"] for one in again.failures()]
        again.close()
        assert set(failed) == {key for key, status in final.items() if status != "ok"}


@MANY
@given(data=FILES)
def test_a_journal_of_any_bytes(data: bytes) -> None:
    FIGURES["journals of any bytes"] += 1
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / RESULTS
        path.write_bytes(data)
        try:
            message = list(read_journal(path))
            assert all(isinstance(one["id"], str) for one in message)
            list(final_records(path))
        except ManifestError as error:
            message = [str(problem) for problem in error.problems]
            assert all(problem.startswith(f"{path}:") for problem in message)
        try:
            Journal(Path(name)).close()
        except ManifestError:
            assert path.read_bytes() == data
