"""Any source by its name: a manifest (JSONL, YAML, a JSON list, a table), a folder of pictures, one picture, or `-`.

`check()` of a source reads all of it and tells every problem at once; `items()` streams it. Both hold only one
item in memory, and the names given out so far.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.errors import UsageError, first_line
from joyedit.job.contained import is_url
from joyedit.job.shard import Shard
from joyedit.job.source.beside_pictures import lacks_instruction, text_of_one
from joyedit.job.source.columns import Columns
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.dataset_source import DatasetSource
from joyedit.job.source.gzip_lines import kind_of_compressed
from joyedit.job.source.layouts.choice import NO_DATASET, DatasetChoice
from joyedit.job.source.layouts.find import kind_of_files, kind_of_source, open_reader
from joyedit.job.source.manifests import KINDS, LIST, ManifestSource
from joyedit.job.source.many_sources import ManySource, expand
from joyedit.job.source.matrix import MOST_SEED, Matrix
from joyedit.job.source.name_template import BY_ID
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.job.source.picture_sources import FolderSource, PictureSource
from joyedit.job.source.problems import nearest, shown
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.standard_input import StdinSource
from joyedit.job.spec import Settings

__all__ = ["Source", "SourceOptions", "SourceSummary", "open_source", "reopen"]


_OTHER_TABLES = {
    ".feather": "Arrow tables",
    ".xlsx": "workbooks of Excel",
    ".xls": "workbooks of Excel",
    ".ods": "workbooks of LibreOffice",
}


def open_source(sources: str | Sequence[str], options: SourceOptions, stdin: BinaryIO | None = None) -> Source:
    """The source of this name, or of these names; nothing of it is read yet.

    `-` is `stdin`, or else the standard input of this process. Patterns (`*.jpg`) are expanded. Raises UsageError.
    """
    options.check()
    given = [sources] if isinstance(sources, str) else sources
    _refuse_web_pictures(given)
    names: list[str] = []
    passed: list[tuple[str, str]] = []
    for one in given:
        fitting, left = expand(one, options.output)
        names += fitting
        passed += left
    try:
        dataset = _dataset(names, options)
    except OSError as error:
        address = next((one for one in names if is_url(one)), None)
        if address is None:
            raise
        raise UsageError(
            f"{address}: cannot be read ({first_line(error)}); check the address and the network"
        ) from error
    if dataset is not None:
        return dataset
    if len(names) == 1 and not passed:
        source = _open_one(names[0], options, stdin)
        refuse_dataset_flags(source.name, options)
        if source.kind in ("folder", "picture"):
            refuse_line_field(source.name, options)
        if options.exclude and not isinstance(source, FolderSource):
            raise UsageError(f"--exclude is for folders and patterns, and {source.name} is none (leave it out)")
        if source.kind in ("folder", "picture", LIST):
            options.refuse_line_flags(source.name if source.kind != LIST else f"@{source.name}")
        return source
    options.refuse_line_flags("SOURCE")
    refuse_dataset_flags("SOURCE", options)
    refuse_line_field("SOURCE", options)
    skip_missing = options.skip_missing and any(map(os.path.lexists, names))
    for name in names:
        _refuse_among_others(name, skip_missing=skip_missing)
    return ManySource(names, options, passed)


def _dataset(names: list[str], options: SourceOptions) -> DatasetSource | None:
    """The dataset that these names are; None for what is none. Raises UsageError."""
    choice = options.dataset
    if choice.layout in NO_DATASET or "-" in names:
        return None
    if not choice.is_dataset:
        kind = _kind_of(names, options)
        if kind is None:
            return None
        choice = replace(choice, layout=kind)
    for name in names:
        if not is_url(name) and not os.path.exists(name):
            raise UsageError(f"{name}: no such file or folder")
    refuse_line_field(names[0], options)
    reader, choice = open_reader(names, choice, options.exclude)
    if choice.image_root is not None and not os.path.isdir(choice.image_root):
        raise UsageError(f"--image-root {choice.image_root}: no such folder")
    if len(names) == 1:
        return DatasetSource(names[0], reader, choice, options)
    return DatasetSource(reader.root or os.curdir, reader, choice, options, names)


def _kind_of(names: list[str], options: SourceOptions) -> str | None:
    """The layout of a source that nobody named. A list in a folder of pictures counts where it gives instructions."""
    if len(names) != 1:
        return kind_of_files(names)
    name = names[0]
    if not is_url(name) and ("\0" in name or not os.path.exists(name)):
        return None
    kind = kind_of_source(name)
    is_list = kind == "imagefolder" and not is_url(name)
    return None if is_list and not lacks_instruction(options) else kind


def _refuse_web_pictures(names: Sequence[str]) -> None:
    for name in names:
        path = name.partition("#")[0].partition("?")[0] if name.startswith(("https://", "http://")) else ""
        if os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES:
            raise UsageError(f"{name}: joyedit fetches no picture from the web (download it, and give the file)")


def refuse_dataset_flags(source: str, options: SourceOptions) -> None:
    """Raises UsageError for flags about datasets, where `source` is none."""
    given = options.dataset.given()
    if given:
        raise UsageError(f"{' and '.join(given)}: {source} is no dataset (--layout NAME says that it is one)")


def refuse_line_field(source: str, options: SourceOptions) -> None:
    """Raises UsageError for `{line}` in `--name`, where `source` has no lines."""
    if options.template is not None and "line" in options.template.fields:
        raise UsageError(f"--name: {{line}} is a line of a manifest, and {source} has none (try {{index}} or {{id}})")


def _refuse_among_others(name: str, *, skip_missing: bool) -> None:
    """Raises UsageError for what cannot be one of several sources."""
    if name == "-":
        raise UsageError("standard input is a source alone (leave out the others)")
    if "\0" in name or not name:
        raise UsageError(f"{shown(name)} cannot be the name of a file or folder")
    if _is_list(name):
        raise UsageError(f"{name}: a list of paths is a source alone (leave out the others)")
    if is_data(name):
        raise UsageError(f"{shown(name)} is no name but a picture (send it to standard input, with - as SOURCE)")
    if not os.path.lexists(name):
        if os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES:
            raise UsageError(f"{name}: no such file or folder")
        if not skip_missing:
            raise UsageError(f"{name}: no such file or folder (--skip-missing edits those that are there)")
    if (os.path.splitext(name)[1].lower() in KINDS or kind_of_compressed(name)) and not os.path.isdir(name):
        raise UsageError(f"{name}: a manifest is a source alone (run each by itself, or put their lines together)")


def _is_list(name: str) -> bool:
    """Whether this is `@` and the name of a list of paths, and not a file whose name begins so."""
    return name.startswith("@") and not os.path.lexists(name)


def _open_one(source: str, options: SourceOptions, stdin: BinaryIO | None) -> Source:
    if source == "-":
        return StdinSource(options, sys.stdin.buffer if stdin is None else stdin)
    if "\0" in source or not source:
        raise UsageError(f"{shown(source)} cannot be the name of a file or folder")
    if _is_list(source):
        if not os.path.exists(source[1:]):
            raise UsageError(f"{source}: there is no list of paths {shown(source[1:])}")
        if os.path.isdir(source[1:]):
            raise UsageError(f"{source}: a list of paths is a file, and this is a folder (its pictures: {source[1:]})")
        return ManifestSource(source[1:], LIST, options)
    if is_data(source):
        raise UsageError(f"{shown(source)} is no name but a picture (send it to standard input, with - as SOURCE)")
    if not os.path.exists(source):
        raise UsageError(f"{source}: no such file or folder")
    if os.path.isdir(source):
        return FolderSource(source, options)
    suffix = os.path.splitext(source)[1].lower()
    if suffix in PICTURE_SUFFIXES:
        return PictureSource(source, options, text_of_one(source, options))
    kind = kind_of_compressed(source) or KINDS.get(suffix)
    if kind is not None:
        return ManifestSource(source, kind, options)
    if suffix in _OTHER_TABLES:
        raise UsageError(f"{source}: joyedit reads no {_OTHER_TABLES[suffix]} (save it as .csv or .jsonl)")
    near = nearest(suffix, KINDS) if suffix else f"valid: {', '.join(KINDS)}"
    raise UsageError(f"{source}: no manifest and no picture ends like this ({near}; @{source} reads a list of paths)")


def _seed(given: dict[str, Any], place: int) -> int | None:
    """The seed from which a matrix counts: what flags and recipe say, or what the checkpoint says."""
    seeds = given.get("seeds")
    seed = seeds[place] if isinstance(seeds, list) and len(seeds) > place else None
    return seed if isinstance(seed, int) and 0 <= seed <= MOST_SEED else None


def _shard(given: dict[str, Any]) -> Shard | None:
    """The shard that a run was asked for."""
    match given.get("shard"):
        case [int(number), int(of)]:
            return Shard.read(f"{number}/{of}")
    return None


def reopen(asked: object, output: Path) -> Source:
    """A source with the same ids, from what `Source.asked` gave; for nothing else than these ids.

    Raises UsageError if there is no such source, or if it cannot be read twice. Its `items` may raise it too.
    """
    given = asked if isinstance(asked, dict) else {}
    path, format, limit, keys, exclude = (given.get(key) for key in ("path", "format", "limit", "keys", "exclude"))
    if not isinstance(path, str) or path == "-" or not isinstance(format, str):
        raise UsageError("the source cannot be read a second time")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UsageError(f"{path}: neither a file nor a folder")  # opening a pipe would wait for ever
    several, told = given.get("given"), given.get("dataset")
    options = SourceOptions(
        prompt="any",
        format=format,
        output=output,
        limit=limit if isinstance(limit, int) else None,
        exclude=tuple(str(pattern) for pattern in exclude) if isinstance(exclude, list) else (),
        keys=tuple(str(key) for key in keys) if isinstance(keys, list) else (),
        columns=Columns.read(given.get("columns")),
        text_to_image=given.get("text_to_image") is True,
        matrix=Matrix.read(given.get("matrix")),
        also_said=frozenset(map(str, said)) if isinstance(said := given.get("said"), list) else frozenset(),
        item_id=given["id"] if isinstance(given.get("id"), str) else None,
        template=BY_ID if given.get("named") is True else None,
        flags=Settings(seed=_seed(given, 0)),
        checkpoint=Settings(seed=_seed(given, 1)),
        shard=_shard(given),
        look=False,
        dataset=DatasetChoice.read(given.get("dataset")),
    )
    options.check()
    if isinstance(told, dict) and told:
        files = told.get("files")
        dataset = _dataset([str(one) for one in files] if isinstance(files, list) else [path], options)
        if dataset is not None:
            return dataset
    if isinstance(several, list):
        return ManySource([os.path.join(path, str(one)) for one in several], options)
    return ManifestSource(path, LIST, options) if given.get(LIST) is True else _open_one(path, options, None)
