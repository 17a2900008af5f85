"""Whatever bytes come, a manifest is refused, or its items are valid or failed; and memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from joyedit.errors import ItemError, ManifestError
from joyedit.job.pictures import decode as images
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.source.names import fold, name_problem
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem, FailedItem
from support.figures import EXHAUSTIVE

FEW = settings(
    max_examples=60 if EXHAUSTIVE else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

WORDS = [
    "image", "images", "instruction", "prompt", "id", "seed", "steps", "guidance_scale", "width", "height",
    "output", "negative_prompt", "items", "defaults", "a.png", "x.png", "../x", "1", "-1", "1e999", "NaN",
    "true", "null", "\\ud800", "\\u0000", "天", "{", "}", "[", "]", ":", ",", '"', "'", "- ", "\n",
    "\r\n", " ", "&a ", "*a", "!!binary ", "|", "<<", "%YAML 1.1", "---", "...", "? ", "#", ";", "\t",
]  # fmt: skip

soup = st.lists(st.sampled_from(WORDS), max_size=30).map(lambda words: "".join(words).encode())
noise = st.binary(max_size=80)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(WORDS[:12]), values, max_size=6)
lines = st.lists(records, max_size=4).map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode())
listed = st.lists(records, max_size=4).map(lambda rows: json.dumps(rows, indent=1).encode())
anything = noise | soup | lines | listed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    Image.new("RGB", (4, 4)).save(made / "a.png")
    return made


def path_of(place: str | None) -> str:
    """The file itself: an entry of a dataset in JSON is `file#key`."""
    return (place or "").partition("#")[0]


def holds(folder: Path, name: str, data: bytes) -> None:
    file = folder / name
    file.write_bytes(data)
    opened = open_source(str(file), SourceOptions(output=folder / "out", prompt="go"))
    passed = True
    try:
        opened.check()
    except ManifestError as refused:
        passed = False
        problems, total = refused.problems, refused.total
        str(refused).encode()  # it can be printed
    if not passed:
        assert total >= len(problems) > 0
        assert all(path_of(problem.file) == str(file) for problem in problems)
    try:
        got = list(opened.items())
    except ManifestError:
        assert not passed  # faults of `defaults:` leave no item to be made
        return
    if passed:
        assert all(isinstance(item, EditItem) for item in got)
    assert len({item.id for item in got}) == len(got)
    outputs = [item.output for item in got if isinstance(item, EditItem)]
    assert len({fold(output) for output in outputs}) == len(outputs)
    for item in got:
        assert name_problem(item.id) is None
        assert path_of(item.origin.file) == str(file)
        if isinstance(item, EditItem):
            assert name_problem(item.output) is None
            assert item.output.lower().endswith(".png")
            assert item.instruction.strip()
            item.instruction.encode()
            assert item.sampling.steps >= 1
            assert 0 <= item.sampling.guidance_scale <= 100
        else:
            assert isinstance(item, FailedItem)
            assert item.code == "bad_line"
            item.message.encode()


@FEW
@given(data=anything)
@example(data=b'{"":""}')
@example(data=b'{"image": "a.png", "id": "\\ud800"}')
@example(data=b'{"\\ud800": 1}')
@example(data=b'{"image": "\\udc80.png"}')
def test_jsonl(folder: Path, data: bytes) -> None:
    holds(folder, "m.jsonl", data)


@FEW
@given(data=anything)
@example(data=b"[" + b'{"a":' * 3000)
def test_json(folder: Path, data: bytes) -> None:
    holds(folder, "m.json", data)


@FEW
@given(data=anything)
@example(data=b'- {image: a.png, id: "\\ud800"}')
@example(data=b"%YAML 99999999999999999999.1\n--- []")
@example(data=b"- ? [a]\n  : b\n")
@example(data=b"? {a: b}\n: c\n")
@example(data=b"- 1e99999\n- .inf\n- 0x\n- 99:99\n- 2024-99-99\n- =\n- <<: x\n")
@example(data=b"[" * 5000)
@example(data=b"defaults: {seed: -1}\nitems: [{image: a.png}]")
@example(data=b"\xff\xfe-\0 \0a\0")
@example(data=b"items: [{image: a.png}]\nitems: *x\n")
def test_yaml(folder: Path, data: bytes) -> None:
    holds(folder, "m.yaml", data)


@FEW
@given(data=anything)
@example(data=b"image,id\na.png,\0\n\0,x\n")
@example(data=b"image\n" + b"x" * 200_000)
@example(data=b'image,images\n,"[' + b"[" * 5000 + b'"\n')
@example(data=b"image\rinstruction\ra.png")
@example(data=b"image,seed\na.png,\xd9\xa3\n")
def test_csv(folder: Path, data: bytes) -> None:
    holds(folder, "m.csv", data)


@FEW
@given(data=anything)
@example(data=b"instruction: '{a[0]} {a.b} {a!r} {0} {} {'\nparameters: {a: }")
def test_recipe(folder: Path, data: bytes) -> None:
    (folder / "r.yaml").write_bytes(data)
    try:
        recipe = load_recipe(str(folder / "r.yaml"))
    except ManifestError as error:
        str(error).encode()
    else:
        assert recipe.name


HEADS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"P6\n",
    b"RIFF\0\0\0\0WEBPVP8 ",
]


@FEW
@given(head=st.sampled_from(HEADS), data=st.binary(max_size=200))
def test_pictures_of_noise(folder: Path, head: bytes, data: bytes) -> None:
    file = folder / "noise.png"
    file.write_bytes(head + data)
    codes = []
    for read in (header_size, load_picture):
        try:
            read(file)
        except ItemError as error:
            codes.append(error.code)
    assert set(codes) <= {"unreadable_picture", "truncated_picture", "empty_picture", "picture_too_large"}


@FEW
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]),
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
)
def test_pictures_with_a_wrong_byte(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at: int, byte: int
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)  # a byte of the size may ask for much memory
    whole = folder / f"whole.{kind}"
    if not whole.exists():
        Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(whole, kind)
    data = bytearray(whole.read_bytes())
    data[at % len(data)] = byte
    file = folder / "wrong.png"
    file.write_bytes(data)
    try:
        size = header_size(file)
        image = load_picture(file).image
    except ItemError:
        return
    assert image.mode == "RGB"
    assert (image.height, image.width) == size


PROBE = """
import json, sys
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.pictures import decode as images
from joyedit.job.pictures.decode import header_size
source = open_source(sys.argv[1], SourceOptions(output="out", prompt="go"))
def peak():  # in KiB, of this program alone: getrusage would tell that of the parent as well
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
header_size(next(source.items()).images[0])
before = peak()
count = source.check().items
for item in source.items():
    header_size(item.images[0])
print(json.dumps({"items": count, "kib": peak() - before, "peak": peak()}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_many_lines_take_little_memory(folder: Path) -> None:
    """20,000 lines: below 600 bytes for each. benchmarks/durability.py measures the speed."""
    count = 20_000
    with (folder / "many.jsonl").open("w") as file:
        for number in range(count):
            line = {
                "image": "a.png",
                "instruction": f"make it {number} times as red",
                "id": f"part/{number:07d}",
            }
            file.write(json.dumps(line) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder / "many.jsonl")], capture_output=True, text=True, check=True
    )
    message = json.loads(done.stdout)
    assert message["items"] == count
    assert message["kib"] * 1024 / count < 600
    assert message["peak"] < 250 * 1024
