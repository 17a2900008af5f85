"""`--write`: whether a run can write what was asked for, and what its pictures are called then."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.results.journal import has_records
from joyedit.job.results.objects.address import address_of
from joyedit.job.run_config import RunConfig
from joyedit.job.source.dataset_source import DatasetSource
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.source import Source
from joyedit.job.writing.image_folder import refuse_foreign_list
from joyedit.job.writing.shard_names import ENDINGS, kind_of, shards_in
from joyedit.job.writing.trees import TREES, Tree
from joyedit.options import RunOptions


def with_writing(options: RunOptions) -> RunOptions:
    """The options with the format that a scorer takes. Raises UsageError with every fault of `--write`."""
    write: Any = options.write.lower() if isinstance(options.write, str) else options.write
    options = replace(options, write=write)
    tree = TREES.get(write)
    faults = []
    if write not in ENDINGS:
        for name, flag in (("shard_size", "--shard-size"), ("write_partial", "--write-partial")):
            if getattr(options, name):
                faults.append(f"{flag} is for shards: give --write webdataset or --write parquet")
    if write == "folder":
        if faults:
            raise UsageError("\n".join(faults))
        return options
    if options.shard is not None:
        faults.append(
            f"--write {write} and --shard exclude each other (edit the shards and merge them as loose pictures, then "
            f"run the same command without --shard and with --write {write}: it edits nothing again)"
        )
    if address_of(options.output) is not None:
        faults.append(
            f"--write {write} makes files in a folder (name one with -o, and copy it to the store afterwards)"
        )
    elif options.engine != "local":
        faults.append(
            f"--write {write} and --engine {options.engine} exclude each other (run it as loose pictures, then the "
            f"same command without --engine and with --write {write}: it edits nothing again)"
        )
    if write == "parquet" and importlib.util.find_spec("pyarrow") is None:
        faults.append('--write parquet needs an extra: pip install "joyedit[parquet]"')
    if tree is not None:
        if options.format not in (None, tree.format):
            told = "JPEG" if tree.format == "jpg" else "PNG"
            faults.append(f"--write {write}: the scorer of {tree.benchmark} reads {told} (leave --format out)")
        if options.name is not None:
            faults.append(
                f"--write {write} names the pictures as their scorer wants, and --name does too (leave it out)"
            )
        options = replace(options, format=options.format or tree.format)  # type: ignore[arg-type]
    if faults:
        raise UsageError("\n".join(faults))
    return options


def refuse_writing(config: RunConfig, matrix: Matrix, *, makes_file: bool) -> None:
    """Raises UsageError where the output folder holds something else, or items are not of the kind that is written."""
    write, tree = config.write, TREES.get(config.write)
    if makes_file:
        if write != "folder":
            raise UsageError(f"-o names one picture, and --write {write} makes a dataset (name a folder)")
        return
    if tree is not None and matrix:
        raise UsageError(
            f"--write {write}: its scorer reads one picture of each row, and each item is edited with {matrix.text}"
        )
    for name in shards_in(config.output):
        kind = kind_of(name)
        if not has_records(config.output):
            if write in ENDINGS:
                raise UsageError(
                    f"{config.output / name}: this file is not from joyedit (move it away, or choose another output "
                    "folder with -o)"
                )
        elif kind != write:
            raise UsageError(
                f"{config.output} holds shards of {kind} ({name}): go on with --write {kind}, or choose another output "
                "folder with -o"
            )
    if write == "imagefolder":
        refuse_foreign_list(config.output)


def refuse_source(source: Source, tree: Tree | None) -> None:
    """Raises UsageError where the rows were not read as those of the benchmark, so that the fields are missing."""
    if tree is None:
        return
    layout = source.layout if isinstance(source, DatasetSource) else source.kind
    if layout != tree.layout:
        raise UsageError(
            f"--write {tree.write} needs the fields {', '.join(tree.fields)} of {tree.benchmark}, and {source.name} is "
            f"read as {layout} (name the files of {tree.benchmark}, with --layout {tree.layout} where they are not "
            "recognised, or leave --write out)"
        )


def tree_of(config: RunConfig) -> Tree | None:
    """The tree that is asked for, with the name of the model."""
    named = config.model or config.dit or "joyedit"
    tree = TREES.get(config.write)
    return None if tree is None else replace(tree, model=os.path.basename(os.path.abspath(named)) or "joyedit")
