"""Tensor files from somebody who means no good: nothing runs, nothing grows beyond the file, and names are escaped."""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from joyedit.errors import CheckpointError
from joyedit.weights.files import open_safetensors
from joyedit.weights.pickle_file import MOST_DIRECTORY, PickleFile
from joyedit.weights.state_dict_pickle import MOST_OPCODES, DamagedPickleError, RefusedPickleError, read_pickle
from support.hostile import KINDS, Refused, put, put_kind, safetensors, sampled

DIT = "transformer/diffusion_pytorch_model.safetensors"
PTH = "transformer/transformer.pth"
State = dict[str, Any]


def save(path: Path, state: State) -> None:
    path.unlink()
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize(("name", "kind"), sampled([DIT, "text_encoder/model-00002-of-00013.safetensors"], KINDS, 2))
def test_something_else_under_the_name_of_a_tensor_file(
    diffusers: Path, refused: Refused, name: str, kind: str
) -> None:
    assert (diffusers / name).exists()
    put_kind(diffusers / name, kind)
    assert f"CKPT/{name}: " in refused(diffusers)


@pytest.mark.parametrize(("name", "kind"), sampled([PTH, "vae/Wan2.1_VAE.pth"], KINDS, 2))
def test_something_else_under_the_name_of_a_pickle(original: Path, refused: Refused, name: str, kind: str) -> None:
    put_kind(original / name, kind)
    assert f"CKPT/{name}: " in refused(original)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has 0 bytes, and its header alone should have 0"),
        (b"\x08", "it has 1 bytes, and its header alone should have 8"),
        (safetensors({}, length=1 << 60), "its header alone should have 1152921504606846976"),
        (safetensors({}, length=0), "not a complete safetensors file ("),
        (safetensors({"a": F32}), "not a complete safetensors file ("),
        (safetensors({"a": F32, "b": F32}, b"\0" * 8), "not a complete safetensors file ("),
        (safetensors({"a": F32 | {"data_offsets": [8, 0]}}, b"\0" * 8), "not a complete safetensors file ("),
        (safetensors({"a": F32 | {"shape": [1 << 62, 1 << 62]}}, b"\0" * 8), "not a complete safetensors file ("),
        (safetensors({"a": F32 | {"dtype": "\x1b[31m"}}, b"\0" * 8), "not a complete safetensors file ("),
        (safetensors({"\x1b[31m\u202e\n": F32 | {"shape": [3]}}, b"\0" * 8), "not a complete safetensors file ("),
        (safetensors(b'{"a":' * 100_000), "not a complete safetensors file ("),
        (safetensors(b'{"\\ud800": 1}'), "not a complete safetensors file ("),
        (safetensors(b" " * (17 << 20)), "its header has 17825792 bytes, 16777216 are allowed"),
        (safetensors({"a": F32 | {"shape": [0, 1 << 62], "data_offsets": [0, 0]}}), "80 missing: "),
        (safetensors({}), "too few for the 3 layers"),
    ],
)
def test_a_header_that_lies(diffusers: Path, refused: Refused, content: bytes, reason: str) -> None:
    put(diffusers / DIT, content)
    message = refused(diffusers)
    assert message.startswith(f"CKPT/{DIT}: ")
    assert reason in message or "too few for" in message


def test_names_and_shapes_are_escaped_and_cut(diffusers: Path, refused: Refused) -> None:
    state = load_file(diffusers / DIT)
    state["\x1b[2J\u202e\u2028\x9b31m\r\n" + "x" * 10_000] = torch.zeros(1)
    state["proj_out.bias"] = torch.zeros(*[1] * 60)
    save(diffusers / DIT, state)
    message = refused(diffusers)
    assert "1 unexpected: \\x1b[2J\\u202e\\u2028\\x9b31m\\r\\nxxx" in message
    assert "1 misshaped: proj_out.bias is of 60 dimensions, expected [64]" in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_that_are_no_floats(diffusers: Path, refused: Refused, dtype: torch.dtype) -> None:
    state = load_file(diffusers / DIT)
    name = "proj_out.weight"
    save(diffusers / DIT, state | {name: torch.zeros(state[name].shape).to(dtype)})
    assert f"1 not of floats: {name} is " in refused(diffusers)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16])
def test_weights_of_a_pickle_that_are_no_floats(original: Path, refused: Refused, dtype: torch.dtype) -> None:
    state = torch.load(original / PTH, weights_only=True)["model"]
    rewrite(original / PTH, state | {"proj_out.weight": torch.zeros(state["proj_out.weight"].shape).to(dtype)})
    assert "1 not of floats: proj_out.weight is " in refused(original)


def rewrite(path: Path, state: object) -> None:
    path.unlink(missing_ok=True)
    torch.save(state, path)


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/etc/passwd", "..", ".", "", "a/b", "\0", "\ud800", "x" * 5000, "\x1b[31m", "a\nb", "\u202e"],
)
def test_the_name_of_a_shard(diffusers: Path, refused: Refused, shard: str) -> None:
    index = diffusers / "text_encoder" / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    put(index, json.dumps({"weight_map": dict.fromkeys(raw["weight_map"], shard)}))
    assert refused(diffusers).startswith(("CKPT/text_encoder", "CKPT: 1 file is missing\ntext_encoder/"))


def test_very_many_shards(diffusers: Path, refused: Refused) -> None:
    index = diffusers / "text_encoder" / "model.safetensors.index.json"
    put(index, json.dumps({"weight_map": {str(n): f"{n}.safetensors" for n in range(2000)}}))
    assert "names 2000 shards, 1000 are allowed" in refused(diffusers)


def test_a_shard_through_a_link_out_of_the_folder(tmp_path: Path) -> None:
    """As in the hub's cache."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "blobs" / "abc")
    (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blobs/abc")
    files = open_safetensors(tmp_path / "snapshot", "model")
    assert dict(files.shapes()) == {"a": (2,)}


def archive(path: Path, pickled: bytes, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive as torch.save writes one, with a pickle of our own."""
    path.unlink(missing_ok=True)
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, data in records.items():
            file.writestr(f"archive/{name}", data)
    return path


def pickled_tensors(path: Path, tensors: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]], floats: int) -> Path:
    """A file whose tensors all lie in one storage of so many floats, at (offset, shape, stride)."""
    text = [b"\x80\x02}(" if tensors else b"\x80\x02}"]
    for name, (offset, shape, stride) in tensors.items():
        text.append(binary(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + binary("storage"))
        text.append(b"ctorch\nFloatStorage\n" + binary("0") + binary("cpu") + integer(floats) + b"tQ")
        text.append(integer(offset) + tupled(shape) + tupled(stride) + b"\x89ccollections\nOrderedDict\n)RtR")
    text.append(b"u." if tensors else b".")
    return archive(path, b"".join(text), {"data/0": struct.pack(f"<{floats}f", *range(floats))})


def binary(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(number: int) -> bytes:
    data = pickle.encode_long(number)
    return b"\x8a" + bytes([len(data)]) + data


def tupled(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(integer(number) for number in numbers) + b"t"


def test_views_of_a_storage_are_read(tmp_path: Path) -> None:
    path = pickled_tensors(tmp_path / "a.pth", {"a": (1, (2, 2), (1, 2)), "b": (5, (), ()), "c": (6, (0,), (1,))}, 6)
    tensors = dict(PickleFile(path).read(torch.device("cpu")))
    assert tensors["a"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert (tensors["b"].item(), tensors["c"].shape) == (5.0, (0,))


@pytest.mark.parametrize(
    "place",
    [
        (0, (1 << 40,), (0,)),
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (7,), (1,)),
        (3, (4,), (1,)),
        (0, (2,), (1 << 40,)),
        (1 << 40, (1,), (1,)),
        (0, (1 << 47,) * 8, (0,) * 8),
        (0, (2, 4), (4, 1)),
    ],
)
def test_a_tensor_larger_than_its_data(tmp_path: Path, place: tuple[int, tuple[int, ...], tuple[int, ...]]) -> None:
    path = pickled_tensors(tmp_path / "a.pth", {"fine": (0, (1,), (1,)), "\x1b[31m": place}, 6)
    with pytest.raises(CheckpointError, match=r"a\.pth: \\x1b\[31m is larger than its data"):
        PickleFile(path)


@pytest.mark.parametrize(
    "place",
    [
        (-1, (1,), (1,)), (0, (-1,), (1,)), (0, (1,), (-1,)), (0, (1 << 200,), (1,)), (0, (1, 1), (1,)),
        (0, (1,) * 100, (1,) * 100),
    ],
)  # fmt: skip
def test_a_tensor_of_a_shape_that_there_is_not(
    tmp_path: Path, place: tuple[int, tuple[int, ...], tuple[int, ...]]
) -> None:
    path = pickled_tensors(tmp_path / "a.pth", {"a": place}, 6)
    with pytest.raises(
        CheckpointError, match=r"not a readable PyTorch file \(a damaged pickle \(a tensor of a strange shape\)"
    ):
        PickleFile(path)


def test_tensors_that_share_their_data_too_often(tmp_path: Path) -> None:
    path = pickled_tensors(tmp_path / "a.pth", {str(n): (0, (10_000,), (1,)) for n in range(20)}, 10_000)
    with pytest.raises(CheckpointError, match="its tensors are larger than the file"):
        PickleFile(path)


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    path = pickled_tensors(tmp_path / "a.pth", {"a": (0, (1,), (1,))}, 6)
    with zipfile.ZipFile(path) as file:
        pickled = file.read("archive/data.pkl")
    for key in (b"9", b"\x1b", b"/"):
        archive(path, pickled.replace(binary("0"), b"X\x01\x00\x00\x00" + key), {})
        with pytest.raises(CheckpointError, match="a is larger than its data"):
            PickleFile(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("bomb", ["data.pkl", "data/0", "version"])
def test_a_zip_bomb(tmp_path: Path, bomb: str, compression: int) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "data/0", "version"):
            file.writestr(f"archive/{name}", b"\0" * (1 << 20), compression if name == bomb else zipfile.ZIP_STORED)
    with pytest.raises(
        CheckpointError, match=f"not a readable PyTorch file \\(its record archive/{bomb} is compressed"
    ):
        PickleFile(path)


def test_a_pickle_that_is_too_long(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", b"\0" * (17 << 20), {})
    with pytest.raises(CheckpointError, match=r"its record data\.pkl has 17825792 bytes, 16777216 are allowed"):
        PickleFile(path)


def test_a_list_of_records_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, MOST_DIRECTORY + 1000, 0, 0)
    path.write_bytes(b"\0" * (MOST_DIRECTORY + 1000) + end)
    with pytest.raises(CheckpointError, match="its list of records has more than 4194304 bytes"):
        PickleFile(path)


def test_every_cut_of_an_archive(tmp_path: Path) -> None:
    whole = pickled_tensors(tmp_path / "a.pth", {"a": (0, (6,), (1,))}, 6).read_bytes()
    for end in range(0, len(whole), 3):
        (tmp_path / "a.pth").write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"a\.pth: "):
            PickleFile(tmp_path / "a.pth")


def test_every_byte_of_an_archive_changed(tmp_path: Path) -> None:
    """Each change is refused, or what is read still lies inside the file."""
    whole = pickled_tensors(tmp_path / "a.pth", {"a": (0, (6,), (1,))}, 6).read_bytes()
    read = 0
    for place in range(len(whole)):
        (tmp_path / "a.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            tensors = dict(PickleFile(tmp_path / "a.pth").read(torch.device("cpu")))
        except CheckpointError:
            continue
        assert sum(tensor.numel() for tensor in tensors.values()) <= 6
        read += 1
    assert 0 < read < len(whole)


class Call:
    """Pickled, it calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_function_of_a_pickle_is_called(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "called"
    for evil in (Call(Path.touch, mark), Call(open, str(mark), "w"), Call(exec, f"open({str(mark)!r}, 'w')")):
        for value in (evil, {"model": evil}, {"model": {"a": evil}}, [evil], {"a": Call(getattr, evil, "x")}):
            path = archive(tmp_path / "a.pth", pickle.dumps(value, protocol), {})
            with pytest.raises(CheckpointError, match="refused, the file holds more than tensors"):
                PickleFile(path)
    path = archive(tmp_path / "a.pth", pickle.dumps({"a": Call(torch.save, {}, str(mark))}, protocol), {})
    with pytest.raises(CheckpointError):
        PickleFile(path)
    assert not mark.exists()


def nested(depth: int, kind: str) -> bytes:
    opening, closing = {"tuple": (b"(", b"t"), "list": (b"](", b"e"), "dict": (b"}(X\x01\0\0\0a", b"u")}[kind]
    return b"\x80\x02" + opening * depth + b"N" + closing * depth + b"."


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_a_pickle_that_is_nested_deeply(tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path / "a.pth", nested(100_000, kind), {})
    with pytest.raises(CheckpointError, match="holds no state dict"):
        PickleFile(path)


def hash_bomb() -> bytes:
    """A dictionary whose key is a tuple of pairs of pairs ...: its hash takes 2 ** 60 steps."""
    doubled = b"".join(b"h" + bytes([n]) * 1 + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60))
    return b"\x80\x02}X\x01\0\0\0aq\0" + doubled + b"Ns."


@pytest.mark.parametrize(
    "pickled",
    [
        hash_bomb(),
        b"\x80\x02}(X\x01\0\0\0aN)Nu.",
        b"\x80\x02}(Nu.",
        b"\x80\x02u.",
        b"\x80\x02t.",
        b"\x80\x02(t",
        b"\x80\x02N0.",
        b"\x80\x02h\x05.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02NNR.",
        b"\x80\x02)\x81.",
        b"\x80\x02ccollections\nOrderedDict\nK\x05\x85R.",
        b"\x80\x02(X\x07\0\0\0storageNNNNtQ.",
        b"\x80\x02NQ.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        b"\x80\x02\x8c\x01a\x8c\x01b\x93.",
        b"\x80\x02NN\x93.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02X\x01\0\0\0\xff.",
        b"I" + b"9" * 10_000 + b"\n.",
        b"\xff" * 100,
        b"",
        b".",
        b"\x80\x02" + b"N" * (MOST_OPCODES + 1) + b".",
    ],
    ids=range(28),
)
def test_a_pickle_that_describes_nothing(pickled: bytes) -> None:
    with pytest.raises((RefusedPickleError, DamagedPickleError)) as caught:
        read_pickle(pickled)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_training_code_writes_beside_the_weights_is_passed_over(tmp_path: Path, protocol: int) -> None:
    state = collections.OrderedDict(a=torch.ones(2, 3), b=torch.nn.Parameter(torch.zeros(2)))
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    beside = {"step": 3, "lr": 1e-4, "betas": (0.9, 0.99), "names": ["x"], "seen": {1, 2}, "on": True, "none": None,
              "dtype": torch.bfloat16, "size": torch.Size([2, 3]), "z": 1j, "raw": b"ab", "device": torch.device("cpu"),
              5: "an integer as a key"}  # fmt: skip
    torch.save({"state_dict": state, **beside}, tmp_path / "a.pth", pickle_protocol=protocol)
    tensors = dict(PickleFile(tmp_path / "a.pth").read(torch.device("cpu")))
    assert tensors["a"].tolist() == torch.ones(2, 3).tolist()
    assert set(tensors) == {"a", "b"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_of_floats_reads_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    state = {"whole": base, "turned": base.T, "part": base[2:5, 1:3], "one": base[0, 0], "none": base[:0]}
    torch.save(state, tmp_path / "a.pth")
    wanted = torch.load(tmp_path / "a.pth", weights_only=True)
    read = dict(PickleFile(tmp_path / "a.pth").read(torch.device("cpu")))
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert read[name].dtype == dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)):
        torch.save({"\x1b[31m": tensor}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=r"a\.pth: \\x1b\[31m is no plain tensor \(torch\._utils\._rebuild_"):
            PickleFile(tmp_path / "a.pth")


def test_files_of_old_torch_releases(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"not a readable PyTorch file \(File is not a zip file\)"):
        PickleFile(tmp_path / "a.pth")


def test_another_byte_order(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    assert b"little" in buffer.getvalue()
    (tmp_path / "a.pth").write_bytes(buffer.getvalue().replace(b"little", b"bigger"))
    with pytest.raises(CheckpointError, match="another byte order"):
        PickleFile(tmp_path / "a.pth")


def test_more_blocks_than_the_authors_file_has_tensors(original: Path, refused: Refused) -> None:
    state = torch.load(original / PTH, weights_only=True)["model"]
    for number, reason in ((10**7, "num_layers must be a whole number from 1 to 1000"), (900, "too few for the 901")):
        name = f"double_blocks.{number}.img_mlp.net.0.proj.bias"
        rewrite(original / PTH, state | {name: torch.zeros(1)})
        assert reason in refused(original)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("img_in.weight", (64,)), ("img_in.weight", (0, 16, 1, 2, 2)), ("img_in.weight", (64, 16, 1, 0, 0)),
        ("double_blocks.0.img_attn_q_norm.weight", ()), ("double_blocks.0.img_attn_q_norm.weight", (0,)),
        ("proj_out.weight", ()), ("condition_embedder.text_embedder.linear_1.weight", (64,)),
        ("double_blocks." + "9" * 5000 + ".x", (1,)),
    ],
)  # fmt: skip
def test_shapes_that_give_no_config(original: Path, refused: Refused, name: str, shape: tuple[int, ...]) -> None:
    state = torch.load(original / PTH, weights_only=True)["model"]
    rewrite(original / PTH, state | {name: torch.zeros(shape)})
    assert "the sizes of the networks cannot be read from its tensors" in refused(original)


def test_not_a_number_as_a_weight_is_the_models_own_affair(diffusers: Path) -> None:
    from joyedit.job.run_config import RunConfig
    from joyedit.runtime.joyimage.loading import load_backend

    state = load_file(diffusers / DIT)
    save(diffusers / DIT, state | {"proj_out.bias": torch.full((64,), float("nan"))})
    backend = load_backend(RunConfig(output=Path("unused"), model=str(diffusers)))
    assert backend.dit.proj_out.bias.isnan().all()
