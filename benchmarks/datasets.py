"""How fast a dataset is planned, and how much memory that takes: no model, and no picture is edited.

    python benchmarks/datasets.py --rows 1000000 --folder /tmp/rows

It writes a Parquet dataset of small drawn pictures (once), then plans it as `joyedit run` does: the check of all rows,
then the items with the sizes of their pictures from the headers, in batches. It prints one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

from PIL import Image

from joyedit.job.plan import plan
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import FailedItem

_SHAPES = ((64, 48), (48, 64), (64, 64))
_PICTURES = 97


def write(folder: Path, rows: int, files: int) -> None:
    """The dataset, if it is not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = []
    for number in range(_PICTURES):
        file = io.BytesIO()
        Image.new("RGB", _SHAPES[number % len(_SHAPES)], (number, 255 - number, 90)).save(file, "PNG")
        pictures.append(file.getvalue())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("key", pa.string()), ("instruction", pa.string()), ("input_image", kind)])
    each = -(-rows // files)
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(files):
        path = folder / f"train-{part:05d}-of-{files:05d}.parquet"
        if path.exists():
            continue
        with pq.ParquetWriter(path, schema) as writer:
            for first in range(part * each, min(rows, (part + 1) * each), 1000):
                numbers = range(first, min(rows, (part + 1) * each, first + 1000))
                table = {
                    "key": [f"row-{number}" for number in numbers],
                    "instruction": [f"Make the square {number} blue." for number in numbers],
                    "input_image": [{"bytes": pictures[n % _PICTURES], "path": f"{n}.png"} for n in numbers],
                }
                writer.write_table(pa.table(table, schema=schema))


def peak_mib() -> float:
    """The most memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rows", type=int, default=1_000_000)
    asked.add_argument("--files", type=int, default=10)
    asked.add_argument("--folder", type=Path, required=True)
    given = asked.parse_args()
    if not (given.folder / "done").exists():
        write(given.folder, given.rows, given.files)
        (given.folder / "done").touch()
        os.execv(sys.executable, [sys.executable, *sys.argv])  # what the writing took must not count
    begin = peak_mib()
    source = open_source(str(given.folder), SourceOptions(output=Path("out")))
    start, used = perf_counter(), process_time()
    summary = source.check()
    checked, check_cpu = perf_counter() - start, process_time() - used
    start, used = perf_counter(), process_time()
    planned = 0
    for entry in plan(source.items(), batch_size=4, window=256):
        planned += 1 if isinstance(entry, FailedItem) else len(entry.items)
    seconds, plan_cpu = perf_counter() - start, process_time() - used
    told = {
        "rows": summary.items,
        "planned": planned,
        "check_seconds": round(checked, 1),
        "check_cpu_seconds": round(check_cpu, 1),
        "plan_seconds": round(seconds, 1),
        "plan_cpu_seconds": round(plan_cpu, 1),
        "rows_per_second": round(planned / (checked + seconds)),
        "rows_per_cpu_second": round(planned / (check_cpu + plan_cpu)),
        "peak_mib_before": round(begin),
        "peak_mib": round(peak_mib()),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
