"""Which layout a source has: by its name, by the files in it, or as `--layout` says."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from joyedit.errors import UsageError, os_reason
from joyedit.job.contained import is_url
from joyedit.job.containers.files import files_below, is_folder, joined
from joyedit.job.containers.pictures import ARROW, PARQUET, TARS
from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES
from joyedit.job.source.layouts.arrow import ArrowReader
from joyedit.job.source.layouts.choice import ALL, DatasetChoice
from joyedit.job.source.layouts.imagefolder import METADATA, ImageFolderReader
from joyedit.job.source.layouts.json_layouts import ANNOTATION, JsonReader, kind_of, read_document
from joyedit.job.source.layouts.parquet import ParquetReader
from joyedit.job.source.layouts.presets import PRESETS
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader
from joyedit.job.source.layouts.webdataset import WebDatasetReader
from joyedit.job.source.passed_over import is_excluded, plain_patterns

_JSON = ("imgedit", "kris-bench", "spatialedit-bench")
_TABLES = tuple(dict.fromkeys(one.name for one in PRESETS))
_SAVED, _SAVED_ALL = "state.json", "dataset_dict.json"
_MOST_LOOKED = 2000
_SPLIT = re.compile(r"(?:^|[/._-])(train|training|validation|valid|val|dev|test|testing|eval)(?=[/._-]|$)")
_SAME = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "testing": "test"}
_SNIFFED = 1 << 16


def kind_of_source(source: str) -> str | None:
    """The layout that a file or folder surely has; None for what is read as it was before there were datasets."""
    suffix = os.path.splitext(source)[1].lower()
    if is_folder(source):
        return _kind_of_folder(source)
    if suffix in PARQUET:
        return "parquet"
    if suffix in TARS:
        return "webdataset"
    if suffix in ARROW:
        return "arrow"
    return _kind_of_json(source) if suffix == ".json" else None


def kind_of_files(names: Sequence[str]) -> str | None:
    """The layout of several files, where all of them are of one format that a dataset has in several files."""
    for endings, kind in ((TARS, "webdataset"), (PARQUET, "parquet"), (ARROW, "arrow")):
        if names and all(name.lower().endswith(endings) and not is_folder(name) for name in names):
            return kind
    return None


def _kind_of_folder(folder: str) -> str | None:
    names = _names_in(folder)
    if {_SAVED, _SAVED_ALL} & set(names):
        return "arrow"
    has_picture = any(name.lower().endswith(tuple(SUPPORTED_SUFFIXES)) for name in names)
    if any(os.path.basename(name) in METADATA for name in names):
        return "imagefolder"
    if any(os.path.basename(name) == ANNOTATION for name in names):
        return "kris-bench"
    if has_picture:
        return None
    if any(name.lower().endswith(PARQUET) for name in names):
        return "parquet"
    if any(name.lower().endswith(TARS) for name in names):
        return "webdataset"
    return None


def _names_in(folder: str) -> list[str]:
    """The files of a folder, and those of its folders; of a large one the first few thousand."""
    if is_url(folder):
        return list(files_below(folder))
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry, _ in zip(entries, range(_MOST_LOOKED), strict=False)]
        for entry in sorted(listed, key=lambda one: one.name):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                found.append(entry.name)
            elif len(found) < _MOST_LOOKED:
                with os.scandir(entry.path) as inner:
                    found += [
                        f"{entry.name}/{one.name}"
                        for one, _ in zip(inner, range(_MOST_LOOKED), strict=False)
                        if not one.name.startswith(".")
                    ]
    except OSError:
        return found
    return found


def _kind_of_json(path: str) -> str | None:
    """The layout of a JSON file. A list is a manifest, unless its first entry has the keys of a benchmark."""
    try:
        with open(path, "rb") as file:
            begin = file.read(_SNIFFED).decode("utf-8-sig", "replace").lstrip()
        if not begin.startswith("{") and '"image_path"' not in begin and '"turn1"' not in begin:
            return None
        return kind_of(read_document(path))
    except (OSError, BrokenDatasetError):
        return None


def open_reader(sources: Sequence[str], choice: DatasetChoice, exclude: Sequence[str]) -> tuple[Reader, DatasetChoice]:
    """The reader of a dataset with the layout `choice.layout`, and the choice with the split that is read.

    Raises UsageError, also where the split has to be chosen.
    """
    kind = choice.layout
    is_listed = len(sources) > 1 or not is_folder(sources[0])
    root = sources[0]
    try:
        if is_listed:
            folders = [os.path.dirname(one) for one in sources]
            root = os.path.commonpath(folders) if not is_url(sources[0]) and all(folders) else folders[0]
            names = [_below(one, root) for one in sources]
        else:
            names = list(files_below(root))
    except OSError as error:
        raise UsageError(f"{root}: cannot read this dataset: {os_reason(error)}") from error
    patterns = plain_patterns(exclude)
    names = [name for name in names if not is_excluded(name, patterns)]
    reader, split = _reader(kind, root, names, choice.split, is_listed=is_listed)
    if not reader.files:
        raise UsageError(f"{sources[0]}: no file of the layout {kind} is there{_found(names)}")
    return reader, replace(choice, split=split)


def _below(path: str, root: str) -> str:
    return path[len(root) + 1 :] if is_url(path) else os.path.relpath(path, root or os.curdir)


def _reader(kind: str, root: str, names: list[str], split: str | None, *, is_listed: bool) -> tuple[Reader, str | None]:
    if kind in _TABLES:
        kind = "arrow" if not any(one.lower().endswith(PARQUET) for one in names) else "parquet"
    if kind == "arrow" and not is_listed:
        return _saved(root, names, split)
    found = [name for name in names if _is_of(kind, name, is_listed=is_listed)]
    if kind in _JSON:
        if split is not None:
            raise UsageError(f"--split: {kind} has no splits (leave it out)")
        return JsonReader(root, found, kind), None
    chosen, split = (found, split) if is_listed and split is None else _of_split(root, found, split)
    if kind == "imagefolder":
        endings = {os.path.splitext(name)[1] for name in chosen}
        if len(endings) > 1:
            both = " and ".join(sorted(os.path.basename(name) for name in chosen)[:2])
            raise UsageError(f"{root}: the lists {both} are both there (leave one out with --exclude)")
        return ImageFolderReader(root, chosen), split
    readers: dict[str, Callable[[str, list[str]], Reader]] = {
        "parquet": ParquetReader,
        "webdataset": WebDatasetReader,
        "arrow": ArrowReader,
    }
    return readers[kind](root, chosen), split


def _is_of(kind: str, name: str, *, is_listed: bool) -> bool:
    base, lower = os.path.basename(name), name.lower()
    if kind == "imagefolder":
        return base in METADATA or is_listed
    if kind == "kris-bench":
        return base == ANNOTATION or is_listed
    if kind in _JSON:
        return lower.endswith(".json")
    endings = {"parquet": PARQUET, "webdataset": TARS, "arrow": ARROW}[kind]
    return lower.endswith(endings) and base not in METADATA


def _saved(root: str, names: list[str], split: str | None) -> tuple[Reader, str | None]:
    """The files of a folder of `save_to_disk`: of one dataset, or of the split that is asked for."""
    folder = ""
    if _SAVED_ALL in names:
        told = _json(joined(root, _SAVED_ALL)).get("splits")
        splits = [str(one) for one in told] if isinstance(told, list) else []
        split = _chosen(root, splits, split, dict.fromkeys(splits, 1))
        if split == ALL:
            files = [name for one in splits for name in _data_files(root, f"{one}/")]
            return ArrowReader(root, files), split
        folder = f"{split}/"
    elif split is not None:
        raise UsageError(f"{root}: this dataset has no splits (leave out --split)")
    elif _SAVED not in names:
        return ArrowReader(root, [name for name in names if name.lower().endswith(ARROW)]), None
    return ArrowReader(root, _data_files(root, folder)), split


def _data_files(root: str, folder: str) -> list[str]:
    told = _json(joined(root, f"{folder}{_SAVED}"))
    if told.get("_indices_data_files"):
        raise UsageError(
            f"{root}: this dataset keeps a selection of its rows apart (call flatten_indices, save it anew)"
        )
    files = told.get("_data_files")
    names = [one.get("filename") for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    return [f"{folder}{name}" for name in names if isinstance(name, str) and os.path.basename(name) == name]


def _json(path: str) -> dict[str, Any]:
    try:
        found = read_document(path)
    except BrokenDatasetError as error:
        raise UsageError(str(error.problem)) from error
    return found if isinstance(found, dict) else {}


def _of_split(root: str, names: list[str], split: str | None) -> tuple[list[str], str | None]:
    """The files of the split, by their names and those of their folders."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_split[split_of(name)].append(name)
    if split is None and len(by_split) < 2:
        return names, next(iter(by_split), "") or None
    wanted = _SAME.get(split or "", split)
    if wanted not in (None, ALL, *by_split):
        by_split = defaultdict(list, {key: found for key, found in by_split.items() if key})
    chosen = _chosen(root, list(by_split), wanted, {key: len(found) for key, found in by_split.items()})
    return (names if chosen == ALL else by_split[chosen]), chosen or None


def split_of(name: str) -> str:
    """The split that a path names; "" for one that names none."""
    found = _SPLIT.findall(name.lower())
    return _SAME.get(found[-1], found[-1]) if found else ""


def _chosen(root: str, splits: Iterable[str], split: str | None, counts: dict[str, int]) -> str:
    """The split that is asked for, or the only one. Raises UsageError with those that are there."""
    there = list(splits)
    if split == ALL or split in there:
        return split
    if split is None and len(there) == 1:
        return there[0]
    listed = ", ".join(
        f"{one or 'files of none'} ({counts[one]} file{'s' if counts[one] != 1 else ''})" for one in there
    )
    if split is None:
        raise UsageError(f"{root}: this dataset has several splits: {listed} (choose one: --split NAME, or all)")
    raise UsageError(f"{root}: this dataset has no split {split} (there are: {listed or 'none'})")


def _found(names: Sequence[str]) -> str:
    return f" (there are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
