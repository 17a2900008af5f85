"""What `--shard` makes of a run: its part of the items, and the folder that it writes to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from joyedit.errors import UsageError
from joyedit.job.results.shard_folders import folder_of, refuse_other_parts, whole_of
from joyedit.job.results.verify import read_report
from joyedit.job.run_config import RunConfig
from joyedit.job.shard import Shard
from joyedit.job.shard_choice import chosen_shard


def as_shard(
    config: RunConfig, asked: str | None, sources: Sequence[str], *, makes_file: bool
) -> tuple[RunConfig, Shard | None]:
    """The configuration of the run, and its shard (None: it edits all items). `makes_file`: the run makes one file.

    Raises `UsageError` for a shard that cannot be, also where other shards in the output folder are not merged;
    `OutputError` where somebody writes to the folder of all shards.
    """
    shard = None if asked is None else chosen_shard(asked, os.environ)
    whole = whole_of(config.output)
    if whole != config.output and isinstance(read_report(config.output).get("shard"), dict):
        message = f"{config.output} is the folder of a shard, and of no other run"
        raise UsageError(f"{message} (give -o {whole} with the --shard that made it)")
    if shard is None:
        if not makes_file:
            refuse_other_parts(config.output, None)
        return config, None
    if makes_file:
        raise UsageError("-o names one picture, and --shard divides many (name a folder, or leave --shard out)")
    if "-" in sources:
        raise UsageError("--shard reads the whole source in each shard, and standard input comes once (use a file)")
    refuse_other_parts(config.output, shard)
    return replace(config, output=folder_of(config.output, shard), tree=config.output), shard
