"""How far the shards of an output folder are, from the folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyedit.job.results.status import Status
from joyedit.job.results.verify import read_report
from joyedit.job.writing.shard_names import ENDINGS, ShardFiles, shards_in


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedShards:
    """The shards that a run writes. `format`: webdataset or parquet. `complete` and `partial` count files, `loose`
    finished items whose picture is in none of them.
    """

    format: str
    complete: int
    partial: int
    loose: int

    @classmethod
    def of(cls, folder: Path, status: Status) -> PackedShards | None:
        """Those of an output folder; None where its last run wrote no shards."""
        written = read_report(folder).get("write")
        name = written.get("format") if isinstance(written, dict) else None
        if not isinstance(name, str) or name not in ENDINGS:
            return None
        files = ShardFiles.of(shards_in(folder), name)
        return cls(format=name, complete=files.complete, partial=files.partial, loose=status.done - status.packed)

    def text(self) -> str:
        """`12 complete, 1 partial (webdataset); 30 finished pictures are in none yet`."""
        partial = f", {self.partial:,} partial" if self.partial else ""
        are = "1 finished picture is" if self.loose == 1 else f"{self.loose:,} finished pictures are"
        return f"{self.complete:,} complete{partial} ({self.format})" + (f"; {are} in none yet" if self.loose else "")
