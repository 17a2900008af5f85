"""The HTML that notebooks show: escaped, small, and complete in itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from joyedit.errors import JoyeditError

_THUMBNAIL = 96
_SHOWN_TEXT = 300
_STATUS = {"ok": "#1a7f37", "failed": "#cf222e"}
_FILLED = "display:block;height:8px;background:#0969da"
_BAR = "display:inline-block;width:240px;height:8px;background:#d0d7de;border-radius:4px;overflow:hidden"


def figure(image: Image.Image | None, name: str, instruction: str, message: str) -> str:
    """One picture with its id and instruction; `message` in its place where there is none."""
    shown = _failed(message or "no picture") if image is None else _img(image, name)
    caption = f"<b>{escape(_cut(name))}</b> {escape(_cut(instruction))}"
    return f'<figure style="margin:0">{shown}<figcaption>{caption}</figcaption></figure>'


def table(head: str, rows: Iterable[Sequence[str]], left: int) -> str:
    """A table with `head` above it. The cells of `rows` are HTML; `left` rows more are only counted."""
    names = ("", "id", "instruction", "status")
    lines = ["<tr>" + "".join(f'<th style="text-align:left">{name}</th>' for name in names) + "</tr>"]
    for cells in rows:
        columns = "".join(f'<td style="text-align:left;vertical-align:top">{one}</td>' for one in cells)
        lines.append(f"<tr>{columns}</tr>")
    more = f"<p>... and {left} more</p>" if left else ""
    return f"<div><p>{escape(head)}</p><table>{''.join(lines)}</table>{more}</div>"


def row(thumbnail: str, name: str, instruction: str, status: str, message: str) -> tuple[str, str, str, str]:
    """The cells of a result. `thumbnail` is HTML already."""
    told = f'<span style="color:{_STATUS.get(status, "inherit")}">{escape(status)}</span>'
    if message:
        told += f"<br>{escape(_cut(message))}"
    return thumbnail, escape(_cut(name)), escape(_cut(instruction)), told


def thumbnail_of(path: Path | None, opened: Callable[[Path], Image.Image]) -> str:
    """A small picture of a file, which `opened` opens; nothing for one that cannot be read."""
    if path is None:
        return ""
    try:
        with opened(path) as image:
            image.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))
            image.thumbnail((_THUMBNAIL, _THUMBNAIL))
            return _img(image.convert("RGBA" if "A" in image.getbands() else "RGB"), path.name)
    except (OSError, ValueError, Image.DecompressionBombError, JoyeditError):
        return ""


def progress(text: str, share: float | None, details: Mapping[str, str]) -> str:
    """A bar (empty where nobody knows the share, 0 to 1), a line of text, and details below."""
    width = 0 if share is None else round(100 * min(1.0, max(0.0, share)))
    bar = (
        f'<span style="{_BAR}"><span style="display:block;height:8px;width:{width}%;background:#0969da"></span></span>'
    )
    lines = "".join(f"<div>{escape(name)}: {escape(_cut(value))}</div>" for name, value in details.items())
    return f'<div style="font-family:sans-serif;font-size:13px">{bar} {escape(text)}{lines}</div>'


def _img(image: Image.Image, name: str) -> str:
    held = io.BytesIO()
    kind = "PNG" if image.mode == "RGBA" else "JPEG"
    image.save(held, kind, **({} if kind == "PNG" else {"quality": 88}))
    data = base64.b64encode(held.getvalue()).decode()
    alt = escape(name, quote=True)
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img alt="{alt}" {size} src="data:image/{kind.lower()};base64,{data}">'


def _failed(message: str) -> str:
    return f'<p style="color:{_STATUS["failed"]}">{escape(_cut(message))}</p>'


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + " [cut]"
