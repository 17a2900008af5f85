"""Benchmarks whose rows stand in JSON files: ImgEdit, KRIS-Bench, SpatialEdit-Bench, and lists of `picture: text`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from joyedit.errors import Problem, os_reason
from joyedit.job.contained import ContainedPicture, is_url
from joyedit.job.containers.files import joined, open_file
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row, Rows
from joyedit.job.source.problems import shown
from joyedit.job.source.schema import ALIASES, PICTURE_KEYS
from joyedit.job.source.text import BOM

MAX_JSON = 256 << 20
_TURNS = 65
ANNOTATION = "annotation.json"
_KEYS = (*PICTURE_KEYS, "instruction")


class JsonReader(Reader):
    """JSON files in one of these layouts: `kind` is imgedit, kris-bench or spatialedit-bench."""

    def __init__(self, root: str, files: Collection[str], kind: str) -> None:
        super().__init__(root, files)
        self.kind = kind
        self.format = "JSON"
        self.has_turns = kind == "imgedit"

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        for name in self.files:
            path = joined(self.root, name)
            document = read_document(path)
            for row in _ROWS[self.kind](document, path, name):
                yield row._replace(values=self._with_remote(row))

    def _with_remote(self, row: Row) -> dict[str, Any]:
        """The values with pictures behind a URL, where the dataset is there."""
        if not is_url(self.root):
            return row.values
        folder = joined(self.root, row.base) if row.base else self.root
        images = row.values.get("image")
        if isinstance(images, str):
            return row.values | {"image": ContainedPicture(joined(folder, images), "", None)}
        if isinstance(images, list):
            return row.values | {"image": [ContainedPicture(joined(folder, str(one)), "", None) for one in images]}
        return row.values


def read_document(path: str) -> Any:
    """The value of a JSON file. Raises BrokenDatasetError."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise BrokenDatasetError(Problem(f"this file has more than {MAX_JSON >> 20} MiB").at(path))
        return json.loads(data.removeprefix(BOM))
    except OSError as error:
        raise BrokenDatasetError(Problem(f"cannot read this file: {os_reason(error)}").at(path)) from error
    except (ValueError, RecursionError) as error:
        raise BrokenDatasetError(Problem(f"broken JSON: {' '.join(str(error).split())[:200]}").at(path)) from error


def kind_of(document: Any) -> str | None:
    """Which layout a JSON document has, by its first entry; None for any other, a manifest for example."""
    if isinstance(document, list):
        first = document[0] if document else None
        is_spatial = isinstance(first, dict) and {"image_path", "image_id", "edit_id", "prompt"} <= first.keys()
        if is_spatial:
            return "spatialedit-bench"
        is_turns = isinstance(first, dict) and {"id", "turn1"} <= first.keys()
        return "imgedit" if is_turns else None
    if not isinstance(document, dict) or not document:
        return None
    first = next(iter(document.values()))
    if isinstance(first, str):  # a picture and its instruction; or an item by itself, which is no list
        return None if any(key in ALIASES or key in _KEYS for key in document) else "imgedit"
    if isinstance(first, dict) and {"ori_img", "instruction"} <= first.keys():
        return "kris-bench"
    return "imgedit" if isinstance(first, dict) and ("prompt" in first or "turn1" in first) else None


def _imgedit(document: Any, path: str, name: str) -> Iterator[Row]:
    """`{key: {id, prompt, edit_type}}`, where `id` is the path of the picture; a list of such; `{picture: text}`.

    With `turn1`, `turn2`, ... in place of `prompt`, each of them edits the result of the one before.
    """
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    base, stem = os.path.dirname(name), os.path.splitext(name)[0]
    for key, entry in entries:
        row = Row(f"{path}#{key}", f"{stem}-{key}", {}, key=str(key), base=base)
        if isinstance(entry, str):  # the picture's name and its instruction
            values = {"image": key, "instruction": entry}
            yield row._replace(values=values, key=os.path.splitext(str(key))[0], own_names={"image": ""})
            continue
        problem = _problem(entry, "id")
        if problem is not None:
            yield row._replace(problem=problem)
            continue
        rest = {column: value for column, value in entry.items() if not column.startswith("turn")}
        turns = [entry[f"turn{n}"] for n in range(1, _TURNS) if entry.get(f"turn{n}")]
        if not turns:
            values = {**rest, "image": entry["id"], "instruction": entry.get("prompt")}
            yield row._replace(values=_without(values, "prompt"), own_names={"image": "", "instruction": "prompt"})
            continue
        yield row._replace(own_names={"image": ""}, values={**rest, "image": entry["id"], "turns": turns})


def _kris(document: Any, path: str, name: str) -> Iterator[Row]:
    """`{category}/annotation.json`: `{id: {ori_img, instruction, explain, gt_img}}`; `ori_img` may be a list."""
    base = os.path.dirname(name)
    category = os.path.basename(base) or os.path.basename(os.path.dirname(path))
    for key, entry in (document if isinstance(document, dict) else {}).items():
        row = Row(f"{path}#{key}", f"{category}/{key}", {}, key=f"{category}/{key}", base=base)
        problem = _problem(entry, "ori_img")
        if problem is not None:
            yield row._replace(problem=problem)
        else:
            values = {**entry, "image": entry["ori_img"], "category": category, "key": key}
            yield row._replace(values=_without(values, "ori_img"), own_names={"image": "ori_img"})


def _spatial(document: Any, path: str, name: str) -> Iterator[Row]:
    """A list of `{image_path, image_id, edit_id, type, prompt, object, bbox_gt}`."""
    for number, entry in enumerate(document if isinstance(document, list) else []):
        row = Row(f"{path}#{number}", f"{os.path.splitext(name)[0]}-{number}", {}, base=os.path.dirname(name))
        problem = _problem(entry, "image_path")
        if problem is not None:
            yield row._replace(problem=problem)
            continue
        parts = [str(entry.get(column, "")).replace("/", "_") for column in ("type", "image_id", "edit_id")]
        key = "/".join(parts) if all(parts) else None
        values = {**entry, "image": entry["image_path"], "instruction": entry.get("prompt")}
        yield row._replace(values=_without(values, "prompt"), key=key, own_names={"image": "", "instruction": "prompt"})


_ROWS: dict[str, Callable[[Any, str, str], Iterator[Row]]] = {
    "imgedit": _imgedit,
    "kris-bench": _kris,
    "spatialedit-bench": _spatial,
}


def _without(values: dict[str, Any], column: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != column}


def _problem(entry: Any, column: str) -> Problem | None:
    """Why an entry has no picture, or one outside of the folder of pictures."""
    if not isinstance(entry, dict):
        return Problem(f"an entry is a mapping, not {shown(entry)}")
    given = entry.get(column)
    for one in given if isinstance(given, list) and given else [given]:
        if not isinstance(one, str) or not one:
            return Problem(f"{column} must be the path of a picture, not {shown(one)}")
        if one.startswith(("/", "~", "$", "@")) or is_url(one) or ".." in one.replace("\\", "/").split("/"):
            return Problem(f"{shown(one)} leads out of the folder of pictures", "give their folder with --image-root")
    return None
