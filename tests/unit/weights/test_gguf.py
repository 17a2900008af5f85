"""GGUF files: what is read of them, and that a torn or hostile one ends in one error, in little memory and time."""

from __future__ import annotations

import random
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joyedit.errors import CheckpointError
from joyedit.weights import gguf_file, gguf_header
from joyedit.weights.encoder_names import deepstack_layers, encoder_from_llama_cpp
from joyedit.weights.gguf_header import read_gguf_header
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import check
from joyedit.weights.locate import locate
from joyedit.weights.wanted import Wanted
from support import single_files as single
from support.figures import FIGURES, SOAK
from support.single_files import DIT, ENCODER, state_of

gguf = pytest.importorskip("gguf")

U8, U32, F32, BOOL, TEXT, LIST, U64 = 0, 4, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def head(tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def entry(name: str = "x", shape: tuple[int, ...] = (2, 4), kind: int = 0, offset: int = 0) -> bytes:
    sides = struct.pack(f"<{len(shape)}Q", *shape[::-1])
    return text(name) + struct.pack("<I", len(shape)) + sides + struct.pack("<IQ", kind, offset)


def padded(data: bytes, more: bytes = b"") -> bytes:
    return data + bytes(-len(data) % 32) + more


def test_what_a_header_says(tmp_path: Path) -> None:
    words = struct.pack("<IQ", TEXT, 3) + text("a") + text("b" * 5000) + text("")
    data = head(2, 6)
    data += key("general.alignment", U32, struct.pack("<I", 64)) + key("words", LIST, words)
    data += key("flags", LIST, struct.pack("<IQ", BOOL, 2) + b"\1\0") + key("name", TEXT, text("qwen3vl"))
    data += key("long", TEXT, text("x" * 5000)) + key("many", LIST, struct.pack("<IQ", U8, 5000) + bytes(5000))
    data += entry("a", (2, 4)) + entry("b", (3,), offset=64)
    start = -(-len(data) // 64) * 64
    (tmp_path / "x.gguf").write_bytes(data.ljust(start, b"\0") + bytes(128))
    header = read_gguf_header(tmp_path / "x.gguf")
    assert header.values == {"general.alignment": 64, "flags": [True, False], "name": "qwen3vl"}
    assert header.tensors["a"].shape == (2, 4)
    assert header.tensors["b"].offset == start + 64


HOSTILE = {
    "nothing": (b"", "it is empty"),
    "a magic alone": (b"GGUF", "its header goes on behind its end"),
    "another magic": (b"GGML" + bytes(100), "it does not begin with GGUF"),
    "version 1": (head(version=1), "its version is 1, joyedit reads 2 and 3"),
    "other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "its version is 50331648"),
    "many tensors": (head(1 << 62), "it claims 4611686018427387904 tensors, 65536 are allowed"),
    "many keys": (head(0, 1 << 62), "it claims 4611686018427387904 keys"),
    "tensors that are not there": (head(60000), "its header goes on behind its end"),
    "a long name": (head(0, 1) + struct.pack("<Q", 1 << 62), "a name of 4611686018427387904 bytes"),
    "a name of other bytes": (head(0, 1) + text(b"\xff\xfe") + bytes(100), "utf-8"),
    "a long text": (head(0, 1) + text("k") + struct.pack("<IQ", TEXT, 1 << 62), "goes on behind its end"),
    "a long list": (head(0, 1) + key("k", LIST, struct.pack("<IQ", U64, 1 << 61)), "goes on behind its end"),
    "a long list of texts": (head(0, 1) + key("k", LIST, struct.pack("<IQ", TEXT, 1 << 61)), "behind its end"),
    "a list of lists": (head(0, 1) + key("k", LIST, struct.pack("<IQ", LIST, 1)) + bytes(99), "a list of kind 9"),
    "an unknown value": (head(0, 1) + key("k", 77, bytes(99)), "a value of kind 77"),
    "many dimensions": (head(1) + text("x") + struct.pack("<I", 1 << 31), "has 2147483648 dimensions"),
    "a huge tensor": (padded(head(1) + entry(shape=(1 << 40, 1 << 40))), "larger than any tensor can be"),
    "an offset behind the end": (padded(head(1) + entry(offset=1 << 60)), "begins behind its end"),
    "a doubled name": (padded(head(2) + entry() + entry(), bytes(64)), "the tensor x is there twice"),
    "no alignment": (head(0, 1) + key("general.alignment", U32, bytes(4)), "its alignment is no number of bytes"),
    "an alignment of text": (head(0, 1) + key("general.alignment", TEXT, text("x")), "its alignment is no number"),
    "an alignment of truth": (head(0, 1) + key("general.alignment", BOOL, b"\1"), "its alignment is no number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header(tmp_path: Path, name: str) -> None:
    data, reason = HOSTILE[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_gguf_header(path)
    assert str(caught.value).startswith(f"{path}: not a complete GGUF file (")
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


HOSTILE_DATA = {
    "a type that is not known": (entry(kind=9999), b"", "x is of type 9999, which this release of the package gguf"),
    "a cut tensor": (entry(shape=(1024, 1024)), bytes(64), "x is larger than its data; download the file again"),
    "rows of no whole blocks": (entry(shape=(2, 33), kind=8), bytes(4096), "the rows of x are no whole blocks of Q8_0"),
}


@pytest.mark.parametrize("name", HOSTILE_DATA)
def test_hostile_tensors(tmp_path: Path, name: str) -> None:
    tensor, more, reason = HOSTILE_DATA[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(padded(head(1) + tensor, more))
    with pytest.raises(CheckpointError, match=r"x\.gguf: ") as caught:
        gguf_file.GgufFiles([path])
    assert reason in str(caught.value)


def test_a_header_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_header, "MOST_HEADER", 1 << 20)
    (tmp_path / "x.gguf").write_bytes(head(0, 1) + key("k", LIST, struct.pack("<IQ", TEXT, 1 << 20)) + bytes(9 << 20))
    with pytest.raises(CheckpointError, match="its header goes on behind 1 MiB"):
        read_gguf_header(tmp_path / "x.gguf")


def test_claims_take_no_memory(tmp_path: Path) -> None:
    """A sparse file of 64 GiB, whose one list would have billions of entries."""
    path = tmp_path / "x.gguf"
    path.write_bytes(head(0, 1) + key("k", LIST, struct.pack("<IQ", U8, 60 << 30)))
    with open(path, "r+b") as file:
        file.truncate(64 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="its header goes on behind 32 MiB"):
        read_gguf_header(path)
    scale = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale < 256 << 20


def test_mutations(tmp_path: Path, plain_checkpoint: Path) -> None:
    """Bytes of the header exchanged, and the file cut: a typed error, or tensors."""
    source = single.write_gguf_text(tmp_path / "x.gguf", state_of(plain_checkpoint, ENCODER),
                                    single.config_of(plain_checkpoint)).read_bytes()  # fmt: skip
    path = tmp_path / "y.gguf"
    for seed in range(60 * SOAK):
        chance = random.Random(f"gguf {seed}")
        data = bytearray(source)
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(3000)] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        path.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data)
        try:
            files = gguf_file.GgufFiles([path])
            for _, tensor in files.read(torch.device("cpu")):
                assert tensor.dtype.is_floating_point
            outcome = "read"
        except CheckpointError as error:
            outcome = "refused" if str(error).isprintable() else "unprintable"
        assert outcome != "unprintable"
        FIGURES[f"mutated GGUF files {outcome}"] += 1


def test_types_of_numbers(tmp_path: Path) -> None:
    """Every type that the package dequantises is read as it dequantises it; whole numbers are no weights."""
    chance = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "test")
    wanted: dict[str, Any] = {}
    for kind in gguf.GGMLQuantizationType:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        raw = chance.integers(0, 100, (3, 2 * size), dtype=np.uint8)
        if kind.name in ("F64", "I8", "I16", "I32", "I64"):
            values = np.arange(6, dtype={"F64": "f8", "I8": "i1", "I16": "i2", "I32": "i4", "I64": "i8"}[kind.name])
            writer.add_tensor(kind.name, values.reshape(3, 2))
            wanted[kind.name] = values.reshape(3, 2) if kind.name == "F64" else None
            continue
        try:
            with np.errstate(all="ignore"):
                wanted[kind.name] = gguf.quants.dequantize(raw, kind)
        except NotImplementedError:
            wanted[kind.name] = None
        assert wanted[kind.name] is None or wanted[kind.name].shape == (3, 2 * block)
        writer.add_tensor(kind.name, raw, raw_shape=raw.shape, raw_dtype=kind)
    single.close(writer, tmp_path / "x.gguf")
    files = gguf_file.GgufFiles([tmp_path / "x.gguf"])
    found = dict(files.read(torch.device("cpu")))
    assert files.other_types().keys() == {name for name, value in wanted.items() if value is None}
    assert found.keys() == {name for name, value in wanted.items() if value is not None}
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.double().numpy(), wanted[name])
    assert len(found) > 20


def test_a_tensor_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"x": torch.randn(70, 64)}
    path = single.write_gguf_dit(tmp_path / "x.gguf", state, "Q8_0")
    (whole,) = (tensor for _, tensor in gguf_file.GgufFiles([path]).read(torch.device("cpu")))
    monkeypatch.setattr(gguf_file, "_AT_ONCE", 96)
    (parts,) = (tensor for _, tensor in gguf_file.GgufFiles([path]).read(torch.device("cpu")))
    assert torch.equal(whole, parts)
    assert (whole - state["x"]).abs().max() < 0.05


@pytest.mark.parametrize("shape", ["x", [], [0, 8], [4, 4], [1.5], [True, 8], [-2, -4]])
def test_a_shape_before_that_cannot_be(shape: Any) -> None:
    """The shape in the file stands."""
    assert gguf_file._shape_before(gguf_header.GgufTensor(0, (2, 4), 0), shape) == (2, 4)
    assert gguf_file._shape_before(gguf_header.GgufTensor(0, (2, 4), 0), [8, 1]) == (8, 1)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain_checkpoint: Path) -> None:
    path = single.write_gguf_dit(tmp_path / "x.gguf", state_of(plain_checkpoint, DIT))
    monkeypatch.setitem(sys.modules, "gguf", None)
    wanted = Wanted(model=str(plain_checkpoint), dit=str(path))
    assert locate(wanted).parts["dit"].kind == "gguf"  # it is recognised without the package
    with pytest.raises(CheckpointError, match=r"needs the package gguf, install it with pip install 'joyedit\[gguf\]'"):
        open_checkpoint(locate(wanted))


@pytest.fixture
def folder(tmp_path: Path, plain_checkpoint: Path) -> Path:
    """Text encoder and vision tower of llama.cpp."""
    encoder, config = state_of(plain_checkpoint, ENCODER), single.config_of(plain_checkpoint)
    single.write_gguf_text(tmp_path / "encoder" / "Qwen3VL-8B-F16.gguf", encoder, config, "F16")
    single.write_gguf_vision(tmp_path / "encoder" / "mmproj-F16.gguf", encoder, config, "F16")
    return tmp_path / "encoder"


def opened(plain: Path, encoder: Path | str) -> Any:
    checkpoint = open_checkpoint(locate(Wanted(model=str(plain), encoder=str(encoder))))
    check(checkpoint.components, checkpoint.layout)
    return checkpoint


def message(plain: Path, encoder: Path | str) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        opened(plain, encoder)
    return str(caught.value).splitlines()


def test_the_header_tells_what_shapes_do_not(folder: Path, plain_checkpoint: Path) -> None:
    config = opened(plain_checkpoint, folder).text_encoder.config
    plain = open_checkpoint(locate(Wanted(model=str(plain_checkpoint)))).text_encoder.config
    for name in ("vision_config", "text_config"):
        ours, theirs = (getattr(one, name).to_dict() for one in (config, plain))
        ignored = {"dtype", "initializer_range", "attention_dropout", "use_cache", "torch_dtype"}
        assert {k: v for k, v in ours.items() if k not in ignored} == {
            k: v for k, v in theirs.items() if k not in ignored
        }
    assert config.image_token_id == plain.image_token_id


def test_the_vision_tower_lies_beside_the_text_encoder(folder: Path, plain_checkpoint: Path) -> None:
    assert opened(plain_checkpoint, folder / "Qwen3VL-8B-F16.gguf").components
    second = folder / "mmproj-second.gguf"
    second.write_bytes((folder / "mmproj-F16.gguf").read_bytes())
    lines = message(plain_checkpoint, folder / "Qwen3VL-8B-F16.gguf")
    assert lines[0] == "2 files hold the vision tower of a text encoder"
    assert lines[-1] == f"name the one to take: --encoder {folder}/Qwen3VL-8B-F16.gguf,{folder}/mmproj-F16.gguf"
    assert opened(plain_checkpoint, f"{folder}/Qwen3VL-8B-F16.gguf,{second}").components


def test_a_text_encoder_without_its_vision_tower(folder: Path, plain_checkpoint: Path) -> None:
    (folder / "mmproj-F16.gguf").unlink()
    lines = message(plain_checkpoint, folder)
    assert lines[0] == f"{plain_checkpoint}: 1 file is missing"
    assert lines[1] == f"{folder}/mmproj-*.gguf (the vision tower)"


def test_a_vision_tower_alone(folder: Path, plain_checkpoint: Path) -> None:
    (line,) = message(plain_checkpoint, folder / "mmproj-F16.gguf")
    assert line == "--encoder: give one file of text encoder, and at most one of its vision tower"


def test_a_language_model_of_another_qwen_is_none(folder: Path, plain_checkpoint: Path) -> None:
    path = folder / "Qwen3VL-8B-F16.gguf"
    data = path.read_bytes()
    path.write_bytes(data.replace(text("qwen3vl"), text("qwen333"), 1))
    (line,) = message(plain_checkpoint, path)
    assert line.endswith("its tensors are those of another network, not of a text encoder")


def test_strange_and_missing_tensors_of_llama_cpp(folder: Path, plain_checkpoint: Path) -> None:
    encoder, config = state_of(plain_checkpoint, ENCODER), single.config_of(plain_checkpoint)
    del encoder["model.language_model.layers.1.mlp.up_proj.weight"]
    single.write_gguf_text(folder / "Qwen3VL-8B-F16.gguf", encoder, config, "F16")
    vision = folder / "mmproj-F16.gguf"
    vision.write_bytes(vision.read_bytes().replace(text("v.blk.3.ln1.bias"), text("v.blk.3.lnx.bias"), 1))
    lines = message(plain_checkpoint, folder)
    assert lines[1] == f"text encoder ({folder}/Qwen3VL-8B-F16.gguf and {folder}/mmproj-F16.gguf):"
    assert sorted(lines[2].removeprefix("  2 missing: ").split(", ")) == [
        "model.language_model.layers.1.mlp.up_proj.weight",
        "model.visual.blocks.3.norm1.bias",
    ]
    assert lines[3] == "  1 unexpected: v.blk.3.lnx.bias"


def test_names_of_llama_cpp() -> None:
    known = ["v.deepstack.16.norm.weight", "v.deepstack.8.fc1.bias", "v.deepstack.24.fc2.weight", "token_embd.weight"]
    assert deepstack_layers(known) == [8, 16, 24]
    rename = encoder_from_llama_cpp(known)
    assert rename("v.deepstack.16.norm.weight") == "model.visual.deepstack_merger_list.1.norm.weight"
    assert rename("output.weight") == ""
    assert rename("rope_freqs.weight") is None
    assert rename("blk.0.attn_qkv.weight") is None
