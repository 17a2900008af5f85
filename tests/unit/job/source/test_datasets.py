"""Datasets as sources: what is recognised, which items come out, and what is told of what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import ItemError, ManifestError, UsageError
from joyedit.job.contained import Cell, ContainedPicture
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.source.columns import Columns
from joyedit.job.source.dataset_source import DatasetSource
from joyedit.job.source.layouts.choice import DatasetChoice
from joyedit.job.source.layouts.find import split_of
from joyedit.job.source.sources import Source, SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem
from support import datasets

BLUE = "Make the square blue."


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(name: str | list[str] = "d", **given: Any) -> Source:
    choice = {key: given.pop(key) for key in ("layout", "split", "where", "image_root", "chains_turns") if key in given}
    wanted = DatasetChoice.of(
        choice.get("layout", "auto"),
        choice.get("split"),
        choice.get("where", ()),
        choice.get("image_root"),
        chains_turns=choice.get("chains_turns", False),
    )
    return open_source(name, SourceOptions(**{"output": Path("out"), "dataset": wanted, **given}))


def edits(opened: Source) -> list[EditItem]:
    """All items, which the check counted, and which a second source has the ids of."""
    summary = opened.check()
    got = list(opened.items())
    assert summary.items == len(got)
    assert all(isinstance(item, EditItem) for item in got), got
    again = reopen(json.loads(json.dumps(opened.asked())), Path("out"))
    assert [item.id for item in again.items()] == [item.id for item in got]
    return [item for item in got if isinstance(item, EditItem)]


def told(opened: Source) -> list[tuple[str, str]]:
    return [(item.id, item.instruction) for item in edits(opened)]


def refused(opened: Source) -> str:
    with pytest.raises(ManifestError) as error:
        opened.check()
    return str(error.value)


def bytes_of(item: EditItem) -> bytes:
    [picture] = item.images
    assert isinstance(picture, ContainedPicture)
    found = contained_at(picture.address)
    assert found == picture, "the address leads back to the picture"
    assert read_contained(found) == read_contained(picture)
    return read_contained(picture)


# ---- the published tables ----


def test_gedit_bench() -> None:
    datasets.write_parquet(Path("d/data/train-00000-of-00001.parquet"), datasets.gedit_rows(), group=3)
    opened = source(where=["instruction_language=en"])
    first, second = edits(opened)
    assert (first.id, second.id) == ("color_alter/en/k0", "subject-remove/en/k1")
    assert bytes_of(second) == datasets.encoded(1)
    assert second.columns == {
        "task_type": "subject-remove",
        "key": "k1",
        "instruction_language": "en",
        "Intersection_exist": False,
    }
    assert str(second.images[0]).endswith("d/data/train-00000-of-00001.parquet#row=2.input_image")
    assert second.origin.file == "d/data/train-00000-of-00001.parquet#row=2"
    assert isinstance(opened, DatasetSource)
    assert opened.told == "gedit-bench, Parquet, 1 file, split train, instruction_language=en"
    raw = source(where=["instruction_language=cn"], columns=Columns.of(["image=input_image_raw"], [], []))
    assert [header_size(item.images[0]) for item in edits(raw)] == [(128, 192), (128, 192)]


@pytest.mark.parametrize(
    ("rows", "layout", "item", "column"),
    [
        (datasets.omniedit_rows, "omniedit", "task_obj_swap_1", "src_img"),
        (datasets.hq_edit_rows, "hq-edit", "a-000000", "input_image"),
        (datasets.instructpix2pix_rows, "instructpix2pix", "a-000000", "original_image"),
    ],
)
def test_other_tables(rows: Any, layout: str, item: str, column: str) -> None:
    datasets.write_parquet(Path("d/a.parquet"), rows())
    for name, asked in (("d", "auto"), ("d/a.parquet", layout)):
        opened = source(name, layout=asked)
        [found] = edits(opened)
        assert (found.id, found.instruction) == (item, BLUE)
        assert str(found.images[0]).endswith(f"d/a.parquet#row=0.{column}")
        assert isinstance(opened, DatasetSource)
        assert opened.told.startswith(f"{layout}, Parquet, 1 file")


def test_a_layout_that_is_another_one_is_told() -> None:
    datasets.write_parquet(Path("d/a.parquet"), datasets.hq_edit_rows())
    assert "this is not gedit-bench: it has no column" in refused(source(layout="gedit-bench"))


def test_magicbrush_in_splits_and_from_the_disk() -> None:
    for split in ("train", "dev"):
        datasets.write_parquet(Path(f"d/data/{split}-00000.parquet"), datasets.magicbrush_rows())
    with pytest.raises(UsageError, match=r"several splits: .*--split NAME, or all"):
        source()
    assert told(source(split="validation")) == [("242679/1", BLUE), ("242679/2", BLUE)]
    assert "is taken by" in refused(source(split="all"))
    with pytest.raises(UsageError, match="no split test"):
        source(split="test")
    datasets.write_saved(Path("saved"), datasets.magicbrush_rows(), ["source_img", "mask_img", "target_img"])
    one, two = edits(source("saved"))
    assert (one.id, bytes_of(two)) == ("242679/1", datasets.encoded(2))
    assert str(two.images[0]).endswith("saved/data-00000-of-00001.arrow#row=1.source_img")


def test_turns_of_magicbrush_are_chained() -> None:
    rows = datasets.magicbrush_rows()
    rows = [*rows, rows[1] | {"turn_index": 3}, rows[0] | {"img_id": "7"}]
    datasets.write_parquet(Path("d/a.parquet"), rows)
    opened = source(chains_turns=True)
    assert opened.check().items == 4
    one, two, three, other = edits(opened)
    assert [item.earlier for item in (one, two, three, other)] == [(), ("242679/1",), ("242679/2",), ()]
    assert (bytes_of(one), bytes_of(other)) == (datasets.encoded(1), datasets.encoded(1))
    assert isinstance(opened, DatasetSource)
    assert opened.told.endswith("each row edits the result of the turn before")
    assert opened.asked() != source().asked()


def test_turns_that_cannot_be_chained_are_told() -> None:
    first, second = datasets.magicbrush_rows()
    datasets.write_parquet(Path("d/a.parquet"), [second | {"img_id": "1"}, first | {"img_id": "2"}])
    assert "'@1/1' is the result of no item" in refused(source(chains_turns=True))
    datasets.write_parquet(Path("e/a.parquet"), [first, second | {"turn_index": 0}])
    failed = list(source("e", chains_turns=True).items())[1]
    assert isinstance(failed, FailedItem)
    assert "turn_index counts the turns from 1, and this row has 0" in failed.message
    datasets.write_parquet(Path("f/a.parquet"), datasets.hq_edit_rows())
    with pytest.raises(UsageError, match="no turns in rows"):
        source("f", chains_turns=True).check()
    with pytest.raises(UsageError, match="--map gives the rows other ids"):
        source("e", chains_turns=True, columns=Columns.of(["id=img_id"], [], [])).check()


def test_splits_are_known_by_names() -> None:
    names = ("data/train-0.parquet", "dev.tar", "test/a.parquet", "latest.parquet", "val/x-train.tar")
    assert [split_of(name) for name in names] == ["train", "validation", "test", "", "train"]


# ---- plain Parquet ----


def test_columns_of_any_table() -> None:
    pictures = [datasets.struct(number, f"{number}.jpg", format="JPEG") for number in (0, 1)]
    rows = [
        {"photo": pictures[0], "text": "a", "width": 640, "seed": 7, "sub": {"x": [1.5]}},
        {"photo": pictures[1], "text": "b", "width": 480, "seed": 8, "sub": None},
    ]
    datasets.write_parquet(Path("d/a.parquet"), rows)
    first, second = edits(source(format="same"))
    assert (first.id, first.instruction, first.sampling.seed, first.size) == ("a-000000", "a", 7, None)
    assert (first.columns, second.columns) == ({"width": 640, "sub": {"x": [1.5]}}, {"width": 480, "sub": None})
    assert first.output == "a-000000.jpg", "the table tells the ending"
    both = edits(source(prompt="x"))
    assert [(item.instruction, item.columns and item.columns["text"]) for item in both] == [("x", "a"), ("x", "b")]
    mapped = Columns.of(["image=photo", "instruction=text"], [], ["width"])
    assert edits(source(prompt="x", columns=mapped))[1].columns == {"width": 480}
    assert edits(source(prompt="x", columns=mapped))[1].instruction == "b"
    wrong = source(columns=Columns.of(["instruction=nothing"], [], []))
    assert "no row has the column 'nothing'" in refused(wrong)


def test_pictures_as_bytes_lists_and_paths() -> None:
    datasets.save(Path("d/img/0.png"), 0)
    plain = [{"image": datasets.encoded(n), "prompt": "a", "id": n} for n in range(3)]
    datasets.write_parquet(Path("d/plain.parquet"), plain)
    assert [bytes_of(item) for item in edits(source("d/plain.parquet"))] == [datasets.encoded(n) for n in range(3)]
    lists = [
        {"images": [datasets.struct(0), datasets.struct(1)], "prompt": "a"},
        {"images": [datasets.struct(2)], "prompt": "b"},
    ]
    datasets.write_parquet(Path("d/lists.parquet"), lists)
    two, one = edits(source("d/lists.parquet"))
    assert [str(picture).rpartition("#")[2] for picture in two.images] == ["row=0.images.0", "row=0.images.1"]
    assert isinstance(two.images[1], ContainedPicture)
    assert read_contained(two.images[1]) == datasets.encoded(1)
    assert contained_at(two.images[1].address) == two.images[1]
    assert bytes_of(one) == datasets.encoded(2)
    paths = [
        {"image": {"bytes": None, "path": "img/0.png"}, "prompt": "a"},
        {"image": datasets.struct(1), "prompt": "b"},
    ]
    datasets.write_parquet(Path("d/paths.parquet"), paths)
    file, held = edits(source("d/paths.parquet"))
    assert file.images == (Path("d/img/0.png"),)
    assert bytes_of(held) == datasets.encoded(1)
    datasets.write_parquet(Path("d/text.parquet"), [{"image": "img/0.png", "prompt": "a"}])
    assert edits(source("d/text.parquet"))[0].images == (Path("d/img/0.png"),)


def test_rows_that_are_wrong_fail_alone() -> None:
    rows: list[dict[str, Any]] = [
        {"image": datasets.struct(0), "prompt": "a"},
        {"image": datasets.struct(1), "prompt": None},
        {"image": None, "prompt": "c"},
        {"image": {"bytes": b"", "path": None}, "prompt": "d"},
    ]
    datasets.write_parquet(Path("d/a.parquet"), rows)
    opened = source()
    assert opened.check().items == 4
    good, no_text, no_picture, empty = opened.items()
    assert isinstance(good, EditItem)
    assert isinstance(no_text, FailedItem)
    assert (no_text.id, no_text.code) == ("a-000001", "bad_line")
    assert no_text.message.startswith("d/a.parquet#row=1: no instruction")
    assert isinstance(no_picture, FailedItem)
    assert no_picture.message.startswith("d/a.parquet#row=2: ")
    assert isinstance(empty, EditItem)
    with pytest.raises(ItemError, match="there are no bytes"):
        load_picture(empty.images[0])
    assert isinstance(opened, DatasetSource)
    assert "2 rows are no items and will fail" in opened.told


def test_what_is_wrong_with_all_rows_is_told_before_a_model_loads() -> None:
    datasets.write_parquet(Path("d/a.parquet"), [{"image": datasets.struct(0), "x": 1}])
    assert "d/a.parquet#row=0: no instruction" in refused(source())
    two = [{"one": datasets.struct(0), "two": datasets.struct(1), "prompt": "a"}]
    datasets.write_parquet(Path("d/a.parquet"), two)
    assert refused(source()) == (
        "d: this dataset has several columns of pictures: one, two (name it: --map image=COLUMN)"
    )
    datasets.write_parquet(Path("d/a.parquet"), [{"image": datasets.struct(0), "id": "x", "prompt": "a"}] * 2)
    assert "the id 'x' is taken by" in refused(source())
    ids = [item.id for item in edits(source(columns=Columns.of(["id=__place__"], [], [])))]
    assert ids == ["a-000000", "a-000001"]
    whole = Path("d/a.parquet").read_bytes()
    Path("d/a.parquet").write_bytes(whole[:-20])
    message = refused(source())
    assert message.startswith("d/a.parquet: this Parquet file cannot be read: ")
    assert message.endswith("or leave it out with --exclude)")


def test_a_file_that_changes_fails_its_pictures() -> None:
    datasets.write_parquet(Path("d/a.parquet"), [{"image": datasets.struct(0), "prompt": "a"}])
    [item] = edits(source())
    datasets.write_parquet(Path("d/a.parquet"), [{"image": datasets.struct(1), "prompt": "a", "more": "x"}])
    with pytest.raises(ItemError, match="has changed since it was listed") as error:
        load_picture(item.images[0])
    assert error.value.code == "picture_changed"


def test_cells_are_read_in_any_order() -> None:
    rows = [{"image": datasets.encoded(n % 7, size=(32, 16 + n % 7)), "prompt": "a"} for n in range(60)]
    datasets.write_parquet(Path("d/a.parquet"), rows, group=25)
    items = edits(source())
    for number in (59, 3, 40, 41, 2, 24, 25, 0, 58):
        picture = items[number].images[0]
        assert isinstance(picture, ContainedPicture)
        assert picture.at == Cell(number // 25, number % 25, "image")
        assert read_contained(picture) == rows[number]["image"]


def test_memory_is_flat_over_many_rows() -> None:
    big = datasets.encoded(0, "BMP", size=(256, 128))  # 100 kB each, 60 MB in all
    datasets.write_parquet(
        Path("d/a.parquet"), [{"image": big, "prompt": f"p{n}"} for n in range(600)], group=100, compression="none"
    )
    opened = source()
    opened.check()  # what is imported for it does not count
    tracemalloc.start()
    try:
        assert opened.check().items == 600
        assert sum(1 for _ in opened.items()) == 600
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---- WebDataset ----


def sample(key: str, number: int, **more: Any) -> list[tuple[str, Any]]:
    files: dict[str, Any] = {"jpg": datasets.encoded(number, "JPEG"), "txt": f"text {number}\n", **more}
    return [(f"{key}.{ending.replace('_', '.')}", content) for ending, content in files.items()]


def test_webdataset_shards() -> None:
    for shard in range(2):
        members = [one for n in range(3) for one in sample(f"{shard}{n:04d}", n, json={"width": 96, "caption": "c"})]
        datasets.write_tar(Path(f"d/x-{shard:06d}.tar"), members)
    found = edits(source())
    assert [(item.id, item.instruction) for item in found[:2]] == [("00000", "text 0"), ("00001", "text 1")]
    assert found[4].columns == {"width": 96, "caption": "c"}
    assert str(found[4].images[0]).endswith("d/x-000001.tar#10001.jpg")
    assert bytes_of(found[4]) == datasets.encoded(1, "JPEG")
    assert edits(source(["d/x-000001.tar", "d/x-000000.tar"]))[0].id == "10000"
    assert len(edits(source(exclude=("x-000001.tar",)))) == 3
    assert edits(source(prompt="all"))[0].instruction == "all", "a caption is no instruction then"


def test_webdataset_with_several_pictures_and_json() -> None:
    members = [
        ("a/1.input.png", datasets.encoded(0)),
        ("a/1.edited.png", datasets.encoded(1)),
        ("a/1.json", {"instruction": BLUE, "seed": 5}),
    ]
    datasets.write_tar(Path("d/x.tar"), members)
    [item] = edits(source())
    assert (item.id, item.instruction, item.sampling.seed) == ("a/1", BLUE, 5)
    assert bytes_of(item) == datasets.encoded(0)


def test_what_an_archive_must_not_do() -> None:
    with tarfile.open("x.tar", "w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("../c.jpg", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO())
        for name, content in sample("good", 1):
            member = tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else content.encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    opened = source("x.tar")
    assert opened.check().items == 4
    *bad, good = opened.items()
    assert isinstance(good, EditItem)
    assert [one.message.partition(": ")[2] for one in bad if isinstance(one, FailedItem)] == [
        "a.jpg: a link in an archive is not followed",
        "b.jpg: a link in an archive is not followed",
        "../c.jpg: its name leaves the archive",
    ]
    assert contained_at("x.tar#a.jpg") is None
    assert contained_at("x.tar#../c.jpg") is None


def test_torn_archives() -> None:
    path = datasets.write_tar(Path("x.tar"), [one for n in range(3) for one in sample(f"{n}", n)])
    whole = path.read_bytes()
    for torn in (whole[:1200], whole[:2048], whole[: whole.rindex(b"\0" * 512 + b"2.txt"[:0]) // 1024 * 512], b""):
        path.write_bytes(torn)
        assert refused(source("x.tar")).startswith("x.tar: this tar archive: ")
    path.write_bytes(gzip.compress(whole))
    assert "it is compressed with gzip" in refused(source("x.tar"))


# ---- image folders ----


def test_an_image_folder_with_several_pictures_of_a_row() -> None:
    for number in range(3):
        datasets.save(Path(f"d/img/{number}.png"), number)
    rows = [
        {"original_image_file_name": "img/0.png", "edit_prompt": BLUE, "edited_image_file_name": "img/1.png", "n": 3},
        {"original_image_file_name": "img/2.png", "edit_prompt": "b", "edited_image_file_name": "img/1.png", "n": 4},
    ]
    Path("d/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = edits(source())
    assert (first.id, first.instruction, first.columns) == ("img/0", BLUE, {"edited_image": "img/1.png", "n": 3})
    assert second.images == (Path("d/img/2.png"),)
    Path("d/metadata.jsonl").unlink()
    datasets.write_parquet(Path("d/metadata.parquet"), [{"file_names": ["img/0.png", "img/1.png"], "text": "x"}])
    [both] = edits(source())
    assert both.images == (Path("d/img/0.png"), Path("d/img/1.png"))
    assert open_source("d", SourceOptions(output=Path("out"), prompt="x")).kind == "folder", "as it was"


def test_a_list_must_not_lead_out_of_its_folder() -> None:
    datasets.save(Path("d/0.png"))
    names = ("../x.png", "/etc/x.png", "~/x.png", "0.png", "gone.png")
    Path("d/metadata.jsonl").write_text("".join(json.dumps({"file_name": one, "text": "x"}) + "\n" for one in names))
    opened = source()
    opened.check()
    *out, good, gone = opened.items()
    assert all("leads out of the folder of its list" in one.message for one in out if isinstance(one, FailedItem))
    assert len(out) == 3
    assert isinstance(good, EditItem)
    assert isinstance(gone, EditItem), "whoever reads it tells that it is missing"


# ---- JSON of benchmarks ----


def test_imgedit() -> None:
    datasets.save(Path("d/animal/0.png"), 0)
    Path("d/basic.json").write_text(json.dumps({"1": {"id": "animal/0.png", "prompt": BLUE, "edit_type": "adjust"}}))
    [item] = edits(source("d/basic.json"))
    assert (item.id, item.instruction, item.images) == ("1", BLUE, (Path("d/animal/0.png"),))
    assert item.columns == {"id": "animal/0.png", "edit_type": "adjust"}
    Path("other").mkdir()
    Path("d/basic.json").rename("other/basic.json")
    assert edits(source("other/basic.json", image_root="d"))[0].images == (Path("d/animal/0.png"),)
    turns = [{"id": "animal/0.png", "turn1": "a", "turn2": "b", "turn3": "c"}]
    Path("d/turns.json").write_text(json.dumps(turns))
    first, second, third = edits(source("d/turns.json"))
    assert (first.id, second.id, third.id) == ("0-turn1", "0-turn2", "0-turn3")
    assert (first.earlier, third.earlier) == ((), ("0-turn2",))
    assert (second.instruction, third.instruction) == ("b", "c")


def test_kris_bench() -> None:
    datasets.save(Path("d/KRIS_Bench/color_change/1.png"), 1)
    datasets.save(Path("d/KRIS_Bench/color_change/2.png"), 2)
    entries = {
        "1": {"ori_img": "1.png", "instruction": BLUE, "explain": "e", "gt_img": "g.png"},
        "2": {"ori_img": ["1.png", "2.png"], "instruction": "b", "explain": "e", "gt_img": ""},
    }
    Path("d/KRIS_Bench/color_change/annotation.json").write_text(json.dumps(entries))
    for name in ("d/KRIS_Bench", "d/KRIS_Bench/color_change"):
        one, two = edits(source(name))
        assert (one.id, two.id) == ("color_change/1", "color_change/2")
        assert [path.name for path in two.images] == ["1.png", "2.png"]


def test_spatialedit_bench() -> None:
    datasets.save(Path("d/img/0.png"))
    entry = {
        "image_path": "img/0.png", "image_id": "im0", "edit_id": "e1", "type": "move", "prompt": BLUE,
        "object": "square", "bbox_gt": "[0, 0, 1, 1]",
    }  # fmt: skip
    Path("d/s.json").write_text(json.dumps([entry]))
    [item] = edits(source("d/s.json"))
    assert (item.id, item.instruction, item.images) == ("move/im0/e1", BLUE, (Path("d/img/0.png"),))
    assert item.columns is not None
    assert item.columns["bbox_gt"] == "[0, 0, 1, 1]"
    Path("d/m.json").write_text(json.dumps([{"image": "img/0.png", "instruction": "x"}]))
    assert open_source("d/m.json", SourceOptions(output=Path("out"))).kind == "json"


# ---- remote files and compressed manifests ----


def test_remote_files_stay_where_they_are() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for number in range(2):
        path = datasets.write_parquet(Path("a.parquet"), datasets.gedit_rows()[number * 2 : number * 2 + 2])
        files.pipe(f"/hub/data/train-{number}.parquet", path.read_bytes())
    files.pipe("/tars/x.tar", datasets.write_tar(Path("x.tar"), sample("1", 1)).read_bytes())
    files.pipe("/folder/0.png", datasets.encoded(0))
    files.pipe("/folder/metadata.jsonl", b'{"file_name": "0.png", "text": "x"}\n')
    found = edits(source("memory://hub", where=["instruction_language=en"]))
    assert [item.id for item in found] == ["color_alter/en/k0", "subject-remove/en/k1"]
    assert str(found[1].images[0]) == "memory://hub/data/train-1.parquet#row=0.input_image"
    assert [bytes_of(item) for item in found] == [datasets.encoded(0), datasets.encoded(1)]
    assert bytes_of(edits(source("memory://tars/x.tar"))[0]) == datasets.encoded(1, "JPEG")
    [loose] = edits(source("memory://folder"))
    assert load_picture(loose.images[0]).image.size == (96, 64)
    with pytest.raises(UsageError, match="nothing://x"):
        source("nothing://x/y.parquet")


def test_an_address_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def isdir(path: str) -> bool:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(fsspec.filesystem("memory"), "isdir", isdir)
    told = r"^memory://hub: cannot be read \(nobody answers\); check the address and the network$"
    with pytest.raises(UsageError, match=told):
        source("memory://hub")


@pytest.mark.parametrize("name", ["https://example.org/a/x.JPG", "http://example.org/x.png?size=2"])
def test_a_picture_in_the_web_is_not_fetched(name: str) -> None:
    for names in (name, ["d/0.png", name]):
        with pytest.raises(UsageError, match=r"joyedit fetches no picture from the web \(download it"):
            source(names)


def test_compressed_manifests() -> None:
    datasets.save(Path("d/0.png"))
    text = "".join(f'{{"image": "0.png", "instruction": "{BLUE}", "id": "{n}"}}\n' for n in range(500))
    Path("d/m.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    opened = open_source("d/m.jsonl.gz", SourceOptions(output=Path("out")))
    assert (opened.kind, opened.check().items) == ("jsonl", 500)
    Path("d/m.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-9])
    assert refused(open_source("d/m.jsonl.gz", SourceOptions(output=Path("out")))).startswith(
        "d/m.jsonl.gz: this compressed manifest is damaged or cut off"
    )


def test_flags_for_datasets_alone() -> None:
    datasets.save(Path("d/0.png"))
    with pytest.raises(UsageError, match=r"--split: d is no dataset"):
        source(prompt="x", split="train")
    with pytest.raises(UsageError, match="--where takes COLUMN=VALUE"):
        source(where=["x"])
    with pytest.raises(UsageError, match="no file of the layout parquet is there"):
        source(layout="parquet")
    datasets.write_parquet(Path("p/a.parquet"), datasets.gedit_rows())
    assert "no row has the column 'nothing'" in refused(source("p", where=["nothing=1"]))
    assert "no row has task_type=x" in refused(source("p", where=["task_type=x"]))
