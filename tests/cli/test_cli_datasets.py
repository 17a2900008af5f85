"""Datasets from the command line: edited, resumed, tried again, shown and looked at."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from support import datasets

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "--size", "bucket")


def records(out: str = "edited") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "results.jsonl").read_text().splitlines()]


def broken_rows() -> list[dict[str, Any]]:
    rows = datasets.gedit_rows()
    rows[1]["input_image"]["bytes"] = rows[1]["input_image"]["bytes"][:-40]
    return rows


def test_parquet_from_the_dataset_to_the_page_and_back(joyedit: Command) -> None:
    datasets.write_parquet(Path("gedit/train.parquet"), broken_rows())
    dry = joyedit("run", "gedit", *RUN, "--dry-run")
    assert dry.code == 0
    assert "dataset: gedit-bench, Parquet, 1 file, split train" in dry.err
    ended = joyedit("run", "gedit", *RUN)
    assert ended.code == 3, ended.err
    assert "dataset: gedit-bench, Parquet, 1 file, split train" in ended.err
    by_id = {one["id"]: one for one in records()}
    assert len(by_id) == 4
    address = f"{Path('gedit').resolve()}/train.parquet#row=1.input_image"
    failed = by_id["color_alter/cn/k0"]
    assert (failed["inputs"], failed["error"]["code"]) == ([address], "truncated_picture")
    assert address in failed["error"]["message"]
    good = by_id["color_alter/en/k0"]
    assert good["columns"]["task_type"] == "color_alter"
    assert good["source"] == {"file": "gedit/train.parquet#row=0", "line": None}
    with Image.open(Path("edited", good["output"])) as picture:
        assert picture.format == "PNG"
    assert not list(Path("gedit").glob("*.png")), "a picture never touches the disk"
    copies = [path.name for path in Path("edited/index.files/pictures").iterdir()]
    assert f"v-{good['inputs_seen'][0][0][:24]}.jpg" in copies

    again = joyedit("run", "gedit", *RUN)
    assert again.code == 3
    assert sum(one["status"] == "ok" for one in records()) == 3, "what is done is not edited again"
    shown = joyedit("show", Path("edited", good["output"]))
    assert "train.parquet#row=0.input_image" in shown.out + shown.err
    assert joyedit("verify", "edited").out == "records 4, ok 3, failed 1, left 0, files 3, off 0\n"
    redone = joyedit("run", Path("edited", good["output"]), *RUN, "-o", "redone")
    assert redone.code == 0, redone.err
    [line] = [json.loads(one) for one in Path("edited/failed.jsonl").read_text().splitlines()]
    assert line["image"] == address

    datasets.write_parquet(Path("gedit/train.parquet"), datasets.gedit_rows())
    mended = joyedit("run", "edited/failed.jsonl", *RUN, "-o", "mended")
    assert mended.code == 0, mended.err
    assert records("mended")[0]["inputs"] == [address]
    assert joyedit("run", "gedit", *RUN, "--retry-failed").code == 0


def test_webdataset_and_image_folder(joyedit: Command) -> None:
    members = [
        (f"{n:04d}.{end}", data) for n in range(2) for end, data in (("jpg", datasets.encoded(n, "JPEG")), ("txt", "x"))
    ]
    datasets.write_tar(Path("shards/a.tar"), members)
    assert joyedit("run", "shards/a.tar", *RUN, "--format", "same", "-o", "wds").code == 0
    assert sorted(path.name for path in Path("wds").glob("*.jpg")) == ["0000.jpg", "0001.jpg"]
    assert min(one["inputs"] for one in records("wds")) == [f"{Path('shards').resolve()}/a.tar#0000.jpg"]
    assert joyedit("run", "shards", *RUN, "--format", "same", "-o", "wds", "--trust-journal", "-q").code == 0
    datasets.save(Path("photos/a.png"))
    Path("photos/metadata.csv").write_text("file_name,edit_prompt,shot_by\na.png,x,me\n")
    ended = joyedit("run", "photos", *RUN, "-o", "folder")
    assert ended.code == 0, ended.err
    assert records("folder")[0]["columns"] == {"shot_by": "me"}
    plain = joyedit("run", "photos", "-p", "y", *RUN, "-o", "plain")
    assert plain.code == 0
    assert "dataset:" not in plain.err


def test_flags_of_datasets(joyedit: Command) -> None:
    datasets.write_parquet(Path("d/train.parquet"), datasets.gedit_rows())
    datasets.write_parquet(Path("d/test.parquet"), datasets.gedit_rows())
    ended = joyedit("run", "d", *RUN)
    assert ended.code == 2
    assert "several splits" in ended.err
    assert joyedit("run", "d", "--split", "test", "--where", "task_type=color_alter", *RUN, "--limit", "1").code == 0
    assert [one["id"] for one in records()] == ["color_alter/en/k0"]
    assert joyedit("run", "d", "--layout", "nothing", *RUN).code == 2


def test_columns_whose_names_have_dots(joyedit: Command) -> None:
    """As datasets of robots have them. One name may begin like another, and end like a place in a list."""
    pytest.importorskip("pyarrow")
    names = ("obs.image.left", "obs.image", "obs", "cam.0")
    row = {name: datasets.struct(number) for number, name in enumerate(names)}
    rows = [{**row, "task.text": "Make it blue.", "nested": {"a": [1], "b": "x"}}] * 2
    datasets.write_parquet(Path("d/train.parquet"), rows)
    for number, name in enumerate(names):
        out = f"out{number}"
        argv = ("run", "d", "--map", f"image={name}", "--map", "instruction=task.text", "-m", "fake", "--no-page")
        ended = joyedit(*argv, "--basesize", "256", "--steps", "1", "-o", out)
        assert ended.code == 0, ended.err
        lines = [json.loads(line) for line in Path(out, "results.jsonl").read_text().splitlines()]
        seen = {one["inputs_seen"][0][0] for one in lines}
        assert seen == {hashlib.sha256(row[name]["bytes"]).hexdigest()}
        assert lines[0]["columns"]["nested"] == {"a": [1], "b": "x"}
        again = joyedit(*argv, "--basesize", "256", "--steps", "1", "-o", f"{out}p", "--write", "parquet")
        assert again.code == 0, again.err
        assert joyedit("verify", f"{out}p").code == 0
