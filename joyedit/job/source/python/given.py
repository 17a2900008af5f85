"""What a program gives as a source: which kind of objects it is, and how they are opened.

No library is imported here to find out: an object of pandas can only be there where pandas was imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from joyedit.errors import UsageError
from joyedit.job.source.python.feed import RowFeed
from joyedit.job.source.python.iterator import IteratorSource
from joyedit.job.source.python.memory_dataset import MemoryDataset
from joyedit.job.source.python.rows import NAME, RowsSource
from joyedit.job.source.python.tables import PandasReader, TableReader, of_arrow_table, of_hub_dataset
from joyedit.job.source.source import Source
from joyedit.job.source.source_options import SourceOptions

_KNOWN = (
    "paths, a list of mappings, an iterator of mappings, pictures of Pillow, a DataFrame of pandas, a table of Arrow, "
    "or a dataset of Hugging Face"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Objects that a run is to edit. `open` makes the source; `feed` is where an iterator's rows pass, else None."""

    open: Callable[[SourceOptions], Source]
    feed: RowFeed | None = None
    takes_split: bool = False
    """Whether `split` was needed to choose the rows."""


def given_objects(data: Any, split: str | None = None) -> Given | None:
    """What `data` is; None for a path, or a list of paths, which are opened by their names.

    `split` names one of a `DatasetDict`. Raises UsageError.
    """
    if isinstance(data, (str, os.PathLike)):
        return None
    given = _of_hub(data, split)
    if split is not None and not _are_names(data) and not (given is not None and given.takes_split):
        raise UsageError("split is for a DatasetDict, and for datasets in files (leave it out)")
    if given is not None or _are_names(data):
        return given
    return _of_table(data) or _of_rows(data)


def _are_names(data: Any) -> bool:
    """Whether this is a list of paths; an empty one names nothing, and is refused as such."""
    return isinstance(data, (list, tuple)) and all(isinstance(one, (str, os.PathLike)) for one in data) and bool(data)


def _of_hub(data: Any, split: str | None) -> Given | None:
    """A dataset of Hugging Face."""
    kinds = [_class("datasets", name) for name in ("DatasetDict", "IterableDatasetDict", "Dataset", "IterableDataset")]
    dictionary, streamed_dictionary, dataset, streamed = kinds
    place, takes_split = NAME, False
    if _is(data, dictionary) or _is(data, streamed_dictionary):
        splits = list(data)
        name = splits[0] if split is None and len(splits) == 1 else split
        if name not in splits:
            listed = ", ".join(map(str, splits)) or "none"
            if name is None:
                raise UsageError(f"this DatasetDict has several splits: {listed} (choose one: split=NAME)")
            raise UsageError(f"this DatasetDict has no split {name!r} (there are: {listed})")
        data, place, takes_split = data[name], f"{NAME}[{name!r}]", True
    if _is(data, dataset):
        return _in_memory(lambda: of_hub_dataset(data, place), takes_split)
    if _is(data, streamed):
        return _streamed(_undecoded(data), place, is_dataset=True, takes_split=takes_split)
    return None


def _of_table(data: Any) -> Given | None:
    """A DataFrame, a table of Arrow, or what says that it can be one."""
    if _is(data, _class("pandas", "DataFrame")):
        return _in_memory(lambda: PandasReader(data, NAME))
    if _is(data, _class("pyarrow", "Table")) or _is(data, _class("pyarrow", "RecordBatch")):
        return _in_memory(lambda: of_arrow_table(data, NAME))
    if not hasattr(data, "__arrow_c_stream__"):
        return None
    try:
        import pyarrow as pa
    except ImportError:
        what = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
        raise UsageError(f'{what} is read through Arrow: pip install "joyedit[parquet]"') from None
    return _in_memory(lambda: of_arrow_table(pa.table(data), NAME))


def _of_rows(data: Any) -> Given:
    """Mappings, pictures and paths, in a list or one by one. Raises UsageError for anything else."""
    if isinstance(data, (Image.Image, Mapping)):
        data = [data]
    if isinstance(data, Sequence) and not isinstance(data, (bytes, bytearray, memoryview)):
        rows = data
        return Given(open=lambda options: _plain(RowsSource(rows, options), options))
    if isinstance(data, Iterable) and not hasattr(data, "__array__") and not isinstance(data, (bytes, bytearray)):
        return _streamed(data, NAME, is_dataset=False)
    kind = type(data)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    more = "; PIL.Image.fromarray makes a picture of an array" if hasattr(data, "__array__") else ""
    raise UsageError(f"a source is {_KNOWN}, not {name}{more}")


def _in_memory(reader: Callable[[], TableReader], takes_split: bool = False) -> Given:
    return Given(open=lambda options: _plain(MemoryDataset(reader(), options), options), takes_split=takes_split)


def _streamed(rows: Iterable[Any], place: str, *, is_dataset: bool, takes_split: bool = False) -> Given:
    feed = RowFeed(rows, place)

    def open_rows(options: SourceOptions) -> Source:
        if options.shard is not None:
            raise UsageError("--shard reads all items in each shard, and an iterator comes once (give a list)")
        return _plain(IteratorSource(feed, place, options, is_dataset=is_dataset), options)

    return Given(open=open_rows, feed=feed, takes_split=takes_split)


def _plain(source: Source, options: SourceOptions) -> Source:
    """The source, where the options can be about objects of a program. Raises UsageError."""
    options.check()
    if options.exclude:
        raise UsageError("--exclude is for folders and patterns (leave such rows out of what you give)")
    choice = options.dataset
    if isinstance(source, RowsSource) and choice.given():
        raise UsageError(f"{' and '.join(choice.given())}: a list of mappings is no dataset (leave it out)")
    return source


def _undecoded(dataset: Any) -> Any:
    """A dataset that streams, with pictures as the bytes of their files."""
    features = getattr(dataset, "features", None) or {}
    kind = _class("datasets", "Image")
    for name, feature in features.items():
        if _is(feature, kind):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def _class(module: str, name: str) -> Any:
    """A class of a library; None where nobody has imported it."""
    return getattr(sys.modules.get(module), name, None)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(kind, type) and isinstance(value, kind)
