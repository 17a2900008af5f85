"""The records of results.jsonl: what each holds, and how they are written as lines and read again.

A record is one JSON object on one line:

    id            the item's id
    status        "ok" or "failed"
    instruction   the text as it went to the model, template filled in
    inputs        paths of the references, in order; of a picture in a line data:image/png;sha256=<its hash>
    output        path of the picture, relative to the output folder; null if there is none
    bucket        [height, width] of the target in pixels; null if the item never had one
    size          [height, width] of the picture in pixels; only of a finished one
    fit           how the last reference was put into its bucket; only where there is one: mode (crop, pad, stretch),
                  source ([height, width] of the reference), lost and padded (shares from 0 to 1), scale
    parts         of a panorama that went through in parts: count, size ([height, width] of each in pixels), overlap
                  (the least share of a part that the next one shows too)
    drift         how far the model moved the picture, measured before that is undone: dx and dy in pixels of the
                  reference, and zoom; only where both have enough in common
    computed      where steps left something out: the share of the DiT's blocks that ran for the item over all steps
                  and branches, how many that were (block_steps), and how many were left out because a step was
                  reused (reused) or guidance was (unguided); with regions also how many tokens went through the blocks
                  that ran, counted for each block (tokens), how many did not (tokens_left_out), and share_of_tokens
    mask          where there is one: its path, as in inputs; of a finished picture also share, the part that may
                  change (0 to 1), and seen, as in inputs_seen
    settings      steps, guidance_scale, seed, negative_prompt, basesize, width, height (as asked for,
                  or null), size and fit (as asked for), schedule, model, dtype, attention, joyedit (its version);
                  lora where the item has some: file (its name), sha256 and scale of each; box where one is drawn;
                  mask (its name) where there is one; speed, and reuse (threshold, order, most), guidance_reuse (every,
                  levels) and regions (level, first, every, margin) where steps leave out something;
                  empty for a line of the manifest that is no item
    seconds       the item's share of each stage: read, encode, denoise, decode, write
    notes         unusual steps that the pictures needed, as texts
    error         null, or {"code": a stable word, "message": one line}
    source        {"file", "line"}: where the item comes from; line is null if the source has no lines
    fingerprint   sha256 of everything that the picture depends on (see fingerprint.py); null for a failed item
    shared        sha256 of what all items of the run have in common: flags, recipe, model, source; null if it failed
    output_bytes, output_sha256   of the picture's file; null for a failed item
    inputs_seen   for each reference, as joyedit read it: [sha256, bytes, mtime_ns, ctime_ns]; no times in a line
    planned_output   the output of a failed item; null for a finished item and for a line that is no item
    replaces      other ids that the item had before: their records do not count any more; only where there are some
    earlier       for each of inputs the id of the item whose result it is, or null; only where there are some
    chain         the id by which the shard of an item is chosen, where that is not its own: it is linked with others
    loras         paths of the LoRAs, in the order of settings; only where there are some
    columns       what --keep-columns carries from the source, by the names there; only where it does
    row           of a run that writes datasets: what else its row has. values (cells by column), pictures (their
                  addresses by column), edited (the column of the pictures that were edited)
    beside        files that belong to the picture: [file, bytes, sha256] of each; only where there are some
    packed        of a picture in a shard, which output names then (x.tar#name): shard (its number), name (the file
                  that the picture was before)
    at            when the item was finished, in UTC

A line that is no record (damaged, or of another program) is kept, counted and passed over. So is what a record of
another version has more or less than this: every reader here takes what it knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from joyedit.job.boxes import box_numbers
from joyedit.job.clock import utc_now
from joyedit.job.data_picture import address_of
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.spec import Beside, EditItem, ItemResult, SourceRow
from joyedit.printable import printable_json

MAX_RECORD = 64 << 20
"""The most bytes of a record: of one that is written, and of one that is read."""
_MAX_MESSAGE = 4000
"""The most characters of an error message or a note where a record would be too long otherwise."""

_ONLY_SOME = ("lora", "box", "mask")
"""Settings that stand only in the records of items that have them."""

BLOCK = 1 << 14
"""Bytes to read at once for one record: a resume often needs its neighbours next."""


def record_of(result: ItemResult) -> dict[str, Any]:
    """The record of `result`, ready for JSON."""
    more: dict[str, Any] = {"replaces": list(result.replaces)} if result.replaces else {}
    if result.result is not None:
        more["size"] = list(result.result)
    if result.fit is not None:
        more["fit"] = result.fit.as_record()
    if result.parts is not None:
        parts = result.parts
        more["parts"] = {"count": len(parts.begins), "size": list(parts.bucket), "overlap": parts.overlap}
    if result.work is not None:
        more["computed"] = result.work.as_record()
    if result.drift is not None:
        more["drift"] = result.drift
    if result.mask is not None:
        more["mask"] = {"path": result.mask}
        if result.mask_seen is not None:
            seen, share = result.mask_seen
            more["mask"] |= {"share": share, "seen": [seen.sha256, *seen.stamp]}
    if result.earlier:
        more["earlier"] = list(result.earlier)
    if result.chain is not None:
        more["chain"] = result.chain
    more |= {} if result.columns is None else {"columns": result.columns}
    more |= {} if result.row is None else {"row": row_record(result.row)}
    if result.beside:
        more["beside"] = [list(one) for one in result.beside]
    if result.loras:
        more["loras"] = list(result.loras)
    return {
        "id": result.id,
        "status": result.status,
        "instruction": result.instruction,
        "inputs": list(result.inputs),
        "output": result.output,
        "bucket": None if result.bucket is None else list(result.bucket),
        "settings": result.settings,
        "seconds": {stage: round(seconds, 6) for stage, seconds in result.seconds.items()},
        "notes": list(result.notes),
        "error": result.error,
        "source": None if result.origin is None else {"file": result.origin.file, "line": result.origin.line},
        "fingerprint": result.fingerprint,
        "shared": result.shared,
        "output_bytes": result.output_bytes,
        "output_sha256": result.output_sha256,
        "inputs_seen": [[seen.sha256, *seen.stamp] for seen in result.inputs_seen],
        "planned_output": result.planned_output,
        **more,
        "at": utc_now("milliseconds"),
    }


def row_record(row: SourceRow) -> dict[str, Any]:
    """What a record says of the row of a dataset."""
    pictures = {
        column: [address_of(one) for one in held] if isinstance(held, tuple) else address_of(held)
        for column, held in row.pictures.items()
    }
    return {"values": dict(row.values), "pictures": pictures, "edited": row.edited}


def settings_of(item: EditItem) -> dict[str, Any]:
    """The settings of an item as its record holds them, beside those of the run."""
    height, width = (None, None) if item.size is None else item.size
    return {
        "steps": item.sampling.steps,
        "guidance_scale": item.sampling.guidance_scale,
        "seed": item.sampling.seed,
        "negative_prompt": item.sampling.negative_prompt,
        "basesize": item.basesize,
        "width": width,
        "height": height,
        "size": item.result_size,
        "fit": item.fit,
        **({"lora": loras_of(item)} if item.loras else {}),
        **({} if item.box is None else {"box": box_numbers(item.box)}),
        **({} if item.mask is None else {"mask": item.mask.name}),
    }


def has_same_settings(item: EditItem, record: dict[str, Any]) -> bool:
    """Whether a record says the settings of this item, and no box, LoRA or mask beside them."""
    then, now = record.get("settings"), settings_of(item)
    if not isinstance(then, dict) or mask_path(record) != (None if item.mask is None else address_of(item.mask)):
        return False
    return all(then.get(key) == now.get(key) for key in (*now, *_ONLY_SOME))


def mask_path(record: Mapping[str, Any]) -> str | None:
    """What a record says of the mask of its item, as of an input; None if it has none."""
    mask = record.get("mask")
    path = mask.get("path") if isinstance(mask, dict) else None
    return path if isinstance(path, str) else None


def mask_seen(record: Mapping[str, Any]) -> list[Any] | None:
    """The sha256 and the stamp of the mask that a record holds; None if it holds none."""
    mask = record.get("mask")
    seen = mask.get("seen") if isinstance(mask, dict) else None
    return seen if isinstance(seen, list) and seen else None


def mask_share(record: Mapping[str, Any]) -> float | None:
    """The part of its picture that a mask lets change, 0 to 1; None if a record does not hold it."""
    mask = record.get("mask")
    share = mask.get("share") if isinstance(mask, dict) else None
    return float(share) if isinstance(share, (int, float)) and 0 <= share <= 1 else None


def loras_of(item: EditItem) -> list[dict[str, Any]]:
    """The LoRAs of an item as its record holds them. Of a path only the last name is told."""
    return [{"file": lora.name, "sha256": lora.sha256, "scale": lora.scale} for lora in item.loras]


def line_of(record: dict[str, Any]) -> str:
    """`record` as one line of JSON, without the newline. It is valid UTF-8 for any path, and safe to print."""
    text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    return printable_json(text)


def line_of_result(result: ItemResult) -> str:
    """The line of the record of `result`, at most `MAX_RECORD` bytes: what is too long in it is cut."""
    line = line_of(record_of(result))
    if len(line) < MAX_RECORD // 4 or len(line.encode()) < MAX_RECORD:
        return line
    record = record_of(result)
    record |= {
        "instruction": record["instruction"][:_MAX_MESSAGE],
        "inputs": [] if result.status == "failed" else record["inputs"],
        "settings": {} if result.status == "failed" else record["settings"],
        "notes": [note[:_MAX_MESSAGE] for note in result.notes[:100]],
        "error": result.error and {key: text[:_MAX_MESSAGE] for key, text in result.error.items()},
    }
    return line_of(record)


def parse(line: bytes) -> dict[str, Any] | None:
    """The record of this line; None if it is no record. The end of the line may be missing, no other part."""
    try:
        record = from_json(line)  # takes a third of the time of json
    except ValueError:  # it also refuses some valid JSON: half a surrogate pair, deep nesting
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return None
    if not isinstance(record, dict):
        return None
    return record if isinstance(record.get("id"), str) and isinstance(record.get("status"), str) else None


def lines_of(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line and its length; only the beginning of a line that is too long for a record."""
    while line := file.readline(MAX_RECORD):
        length = len(line)
        while length >= MAX_RECORD and not line.endswith(b"\n"):
            rest = file.readline(MAX_RECORD)
            length += len(rest)
            if not rest or rest.endswith(b"\n"):
                line = line[:BLOCK]
                break
        yield line, length


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All records of a journal, one at a time, also those that a later record of the same id replaces.

    Passes over lines that are no records. Raises `OutputError` for what is no plain file, and OSError.
    """
    for _, record in _records(path):
        yield record


def final_records(path: Path) -> Iterator[dict[str, Any]]:
    """The last record of each id, in the order of the file. Reads the file twice. Errors as in `read_journal`."""
    last: dict[str, int] = {}
    for number, record in _records(path):
        for name in replaced_by(record):
            last.pop(name, None)
        last[record["id"]] = number
    for number, record in _records(path):
        if last.get(record["id"]) == number:
            yield record


def damaged_lines(path: Path) -> tuple[list[int], int]:
    """The numbers of the lines that are no records although a record follows, and the bytes after the last record."""
    damaged: list[int] = []
    waiting: list[int] = []
    torn = 0
    with open(open_to_read(path), "rb") as file:
        for number, (line, length) in enumerate(lines_of(file), 1):
            if parse(line) is None:
                waiting.append(number)
                torn += length
            else:
                damaged += waiting
                waiting, torn = [], 0
    return damaged, torn


def error_code(record: dict[str, Any]) -> str | None:
    """The code of a failed record ("unknown" if it has none); None for the record of a picture."""
    if record.get("status") == "ok":
        return None
    error = record.get("error")
    return str(error.get("code")) if isinstance(error, dict) else "unknown"


def output_of(record: Mapping[str, Any]) -> str | None:
    """The picture that a record names as finished, relative to the output folder; None if it names none.

    That of a picture in a shard is its address there (`x.tar#name`).
    """
    output = record.get("output")
    return output if record.get("status") == "ok" and isinstance(output, str) else None


class Packed(NamedTuple):
    """Where a picture lies that was packed: the number of its shard. `name` is the file that it was before."""

    shard: int
    name: str


def packed_in(record: Mapping[str, Any]) -> Packed | None:
    """What a record says of the shard that holds its finished picture; None where the picture is a file."""
    told = record.get("packed")
    number, name = (told.get("shard"), told.get("name")) if isinstance(told, dict) else (None, None)
    if not isinstance(number, int) or not isinstance(name, str) or "#" not in (output_of(record) or ""):
        return None
    return Packed(number, name)


def name_of(record: Mapping[str, Any]) -> str | None:
    """The name by which an item knows its finished picture: that of its file, also where it was packed since."""
    packed = packed_in(record)
    return output_of(record) if packed is None else packed.name


def file_of(record: Mapping[str, Any]) -> str | None:
    """The file of a finished picture, relative to the output folder: its own, or the shard that holds it."""
    output = output_of(record)
    return output if output is None or packed_in(record) is None else output.partition("#")[0]


def beside_of(record: Mapping[str, Any]) -> list[Beside]:
    """The files that belong to a finished picture."""
    told = record.get("beside")
    found = [one for one in told if isinstance(one, list) and len(one) == 3] if isinstance(told, list) else []
    return [Beside(*one) for one in found if list(map(type, one)) == [str, int, str]]


def chain_in(record: dict[str, Any]) -> str:
    """The id by which the shard of an item is chosen."""
    chain = record.get("chain")
    return chain if isinstance(chain, str) else str(record["id"])


def replaced_by(record: dict[str, Any]) -> list[str]:
    """The other ids whose earlier records do not count any more."""
    names = record.get("replaces")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def without_replaced(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, to be appended to its own journal once more: what it replaced is replaced already there.

    By now another item may have one of these ids.
    """
    return {key: value for key, value in record.items() if key != "replaces"}


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records, each with the number of its line."""
    with open(open_to_read(path), "rb") as file:
        for number, (line, _) in enumerate(lines_of(file), 1):
            record = parse(line)
            if record is not None:
                yield number, record
