"""What stands under the name of a picture or of weights is told by what it holds."""

from __future__ import annotations

import base64

import pytest

from joyedit.contents import HEAD, content_of, stand_in_of

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\xef\xbb\xbf\r\n <!DOCTYPE html>\n<html><head><title>403 Forbidden</title>"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (POINTER, "a pointer of Git LFS: run 'git lfs pull'"),
        (b"/annex/objects/SHA256E-s1--0.png\n", "a pointer of git-annex: run 'git annex get'"),
        (PAGE, "a web page"),
        (b"<HTML>", "a web page"),
        (b'<?xml version="1.0"?>\n<svg width="1">', "an SVG drawing"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "text, which begins with '<?xml"),
        (b'{"error": "not found"}', """text, which begins with '{"error": "not found"}'"""),
        ("\u5931\u8d25".encode(), "text, which begins with '\u5931\u8d25'"),
        (b"\x1b[31mred", None),
        (bytes(HEAD), "zeros only"),
        (b"\0\0\0\x18ftypcrx ....", "a RAW photo (CR3)"),
        (b"\0\0\0\x18ftypmp42....", "a video or sound"),
        (b"\xff\x0a....", "a JPEG XL picture (joyedit does not read it: convert it to PNG or JPEG)"),
        (b"8BPS\0\x01", "a Photoshop project"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (b"\0\x05\x16\x07....", "what macOS keeps beside a file"),
        (b"\x89PNG\n\x1a\n\0", "a PNG that was transferred as text, which destroys it (get it again"),
        (b"\x89PNG\r\r\n\x1a\r\n", "a PNG that was transferred as text"),
        (b"\x89PNG\r\n\x1a\r\n\0\0", "a PNG that was transferred as text"),
        (b"\x89PNG\r\n\x1a\n".decode("utf-8", "replace").encode(), "a PNG that was transferred as text"),
        (b"\x89PNG\r\n\x1a\n".decode("latin-1").encode(), "a PNG that was transferred as text"),
        (b"\xff\xd8\xff\xe0".decode("utf-8", "replace").encode(), "a picture that was transferred as text"),
        (b"\xff\xd8\xff\xe0".decode("latin-1").encode(), "a JPEG that was transferred as text"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "a PNG in base64: decode it first (base64 -d)"),
        (base64.b64encode(b"\xff\xd8\xff\xe0\0\x10JFIF"), "a JPEG in base64"),
        (base64.b64encode(b"GIF89a....."), "a GIF in base64"),
        (base64.b64encode(b"RIFF....WEBP"), "a WebP in base64"),
        (b"data:image/png;base64,iVBORw0", "a data: URI, which a manifest or standard input can hold"),
        (b"\x01\x02\x03\x04", None),
        (b"", None),
    ],
)
def test_what_a_file_holds(head: bytes, words: str | None) -> None:
    held = content_of(head)
    assert held is None if words is None else held is not None and held.startswith(words)


def test_a_character_that_is_cut_at_the_end_of_the_head_is_no_reason_to_doubt_the_text() -> None:
    text = ("x" * (HEAD - 1) + "\u00e9").encode()[:HEAD]
    assert str(content_of(text)).startswith("text, which begins with 'xxx")


def test_a_long_line_is_shown_short_and_without_what_moves_a_cursor() -> None:
    held = str(content_of(("\u202eabc" + "y" * 400).encode()))
    assert len(held) < 140
    assert "\u202e" not in held


@pytest.mark.parametrize("head", [b'{"a": 1}', b"plain text", b"", bytes(8), b"PK\x03\x04"])
def test_only_pointers_and_web_pages_stand_in_for_weights(head: bytes) -> None:
    assert stand_in_of(head) is None


def test_pointers_and_web_pages_stand_in_for_weights() -> None:
    assert str(stand_in_of(POINTER)).startswith("a pointer of Git LFS")
    assert str(stand_in_of(PAGE)).startswith("a web page")
