"""Small datasets of drawn pictures, in the layouts in which people publish theirs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw


def drawn(number: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A scene: a background and a square, of other colours and at another place for each number."""
    colours = ("red", "green", "blue", "yellow", "purple", "orange")
    image = Image.new("RGB", size, "white")
    left = 6 + number * 7 % (size[0] // 2)
    ImageDraw.Draw(image).rectangle((left, 12, left + 24, 36), fill=colours[number % len(colours)])
    return image


def encoded(number: int, format: str = "PNG", size: tuple[int, int] = (96, 64)) -> bytes:
    """The file of a scene."""
    file = io.BytesIO()
    drawn(number, size).save(file, format)
    return file.getvalue()


def struct(number: int, name: str | None = None, **more: Any) -> dict[str, Any]:
    """A picture as Hugging Face keeps it in a table."""
    return {"bytes": encoded(number, **more), "path": name}


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], *, group: int = 100, **more: Any) -> Path:
    """A Parquet file of these rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group, **more)
    return path


def write_tar(path: Path, members: Iterable[tuple[str, bytes | str | dict[str, Any]]]) -> Path:
    """A tar archive of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            data = data.encode() if isinstance(data, str) else data
            told = tarfile.TarInfo(name)
            told.size = len(data)
            archive.addfile(told, io.BytesIO(data))
    return path


def write_saved(path: Path, rows: Sequence[Mapping[str, Any]], pictures: Iterable[str]) -> Path:
    """A dataset as `save_to_disk` of Hugging Face writes it; with `train/` in its path, in a folder of splits."""
    import datasets

    made = datasets.Dataset.from_list([dict(row) for row in rows])
    for column in pictures:
        made = made.cast_column(column, datasets.Image())
    made.save_to_disk(str(path))
    return path


def gedit_rows() -> list[dict[str, Any]]:
    """Rows with the fields of GEdit-Bench: a picture with an instruction in English, and one in Chinese."""
    return [
        {
            "task_type": task,
            "key": f"k{number}",
            "instruction": text,
            "instruction_language": language,
            "input_image": struct(number),
            "input_image_raw": struct(number, size=(192, 128)),
            "Intersection_exist": number == 0,
        }
        for number, task in enumerate(("color_alter", "subject-remove"))
        for language, text in (("en", "Make the square blue."), ("cn", "把方块变成蓝色。"))
    ]


def magicbrush_rows() -> list[dict[str, Any]]:
    """Rows with the fields of MagicBrush: two turns of one picture."""
    return [
        {
            "img_id": "242679",
            "turn_index": turn,
            "source_img": struct(turn),
            "mask_img": struct(3),
            "instruction": "Make the square blue.",
            "target_img": struct(4),
        }
        for turn in (1, 2)
    ]


def omniedit_rows() -> list[dict[str, Any]]:
    """Rows with the fields of OmniEdit."""
    return [
        {
            "omni_edit_id": "task_obj_swap_1",
            "task": "obj_swap",
            "src_img": struct(1, format="JPEG"),
            "edited_img": struct(2),
            "edited_prompt_list": ["Make the square blue.", "The square should be blue."],
            "width": 96,
            "height": 64,
        }
    ]


def hq_edit_rows() -> list[dict[str, Any]]:
    """Rows with the fields of HQ-Edit."""
    return [
        {
            "input": "a red square",
            "input_image": struct(0),
            "edit": "Make the square blue.",
            "inverse_edit": "Make the square red.",
            "output": "a blue square",
            "output_image": struct(2),
        }
    ]


def instructpix2pix_rows() -> list[dict[str, Any]]:
    """Rows with the fields of InstructPix2Pix."""
    return [
        {
            "original_prompt": "a red square",
            "original_image": struct(0),
            "edit_prompt": "Make the square blue.",
            "edited_prompt": "a blue square",
            "edited_image": struct(2),
        }
    ]


def save(path: Path, number: int = 0) -> Path:
    """A scene as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn(number).save(path)
    return path
