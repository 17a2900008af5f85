"""The ids of items that have none of their own: from the path of the first picture, else from the line's content.

They depend on no order. So a first pass over the source finds which pictures several lines use, and which pictures
would get one id; these have longer ids. Where there is no first pass (standard input), the first line has the short id.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from joyedit.job.source.data_uris import DataUriError, is_data, picture_of
from joyedit.job.source.loras import wishes_of
from joyedit.job.source.names import earlier_name, earlier_problem, fold, safe_name
from joyedit.job.source.schema import DEFAULTS_KEYS, INPUT_KEYS, Line, Schema
from joyedit.job.source.written_paths import (
    folder_as_written,
    has_written_folder,
    is_plain,
    other_spellings,
    system_path,
)
from joyedit.job.spec import Owns
from joyedit.job.turns import has_turns, named_path

_MARK = 10
_SAID = sorted((*DEFAULTS_KEYS, "box", "mask"))
_ADDRESS = re.compile("data:[a-z/]*;sha256=([0-9a-f]{64})")
_BROKEN_DATA = 100
_SHORT_DATA = len("data-") + 12


class OtherIds:
    """Ids that are made when somebody asks for them: few items are ever looked for under another id."""

    def __init__(self, own: str, make: Callable[[], Iterable[str]]) -> None:
        self._own = own
        self._make = make

    def __iter__(self) -> Iterator[str]:
        return (name for name in dict.fromkeys(self._make()) if name != self._own and earlier_problem(name) is None)


class DefaultId(NamedTuple):
    """An id, and those that the item would have beside other lines: its picture may be finished under one of them.

    `short` is the id that it would have alone, where that is another one. `owns` is that of `EditItem`.
    """

    id: str
    others: Iterable[str] = ()
    short: str | None = None
    owns: Owns = "none"


class PictureIds:
    """The ids that pictures would have on their own: their paths below `base`, without the ending and with it.

    The path of any other picture begins with the name of its folder and a hash of the folder's path. With `base` None,
    paths count as they are written, so that the ids do not depend on the current folder.
    """

    def __init__(self, base: str | None) -> None:
        self._base = None if base is None else os.path.abspath(base)
        self._prefix = "" if self._base is None else os.path.join(self._base, "")

    def absolute(self, image: str) -> str:
        """The same path for one picture, however it is written; of a picture in a line its address."""
        if not is_plain(image):
            if is_data(image):
                return image
            image = system_path(image, self._base or "")
        return os.path.normpath(self._prefix + image if image[:1] != "/" else image)

    def short(self, image: str, path: str) -> str:
        """The id without the ending; `path` is the absolute path of `image`."""
        name = data_name(image)
        return safe_name(self._stem(image, path)) if name is None else name[:_SHORT_DATA]

    def long(self, image: str, path: str) -> str:
        """The id with the ending; of a picture in a line, with its whole hash."""
        return data_name(image) or safe_name(self._name(image, path))

    def names(self, image: str, path: str) -> Iterator[tuple[str, str]]:
        """`short` and `long` of a picture, in each way in which its path may have been written, now and when ids had
        more characters.
        """
        yield self.short(image, path), self.long(image, path)
        if data_name(image) is not None:
            return
        yield self._earlier(image, path)
        if self._base is not None or path[:1] == "/":
            for other in other_spellings(path, self._base):
                yield self.short(other, path), self.long(other, path)
                yield self._earlier(other, path)

    def _earlier(self, image: str, path: str) -> tuple[str, str]:
        return earlier_name(self._stem(image, path)), earlier_name(self._name(image, path))

    def _stem(self, image: str, path: str) -> str:
        return os.path.splitext(self._name(image, path))[0]

    def _name(self, image: str, path: str) -> str:
        is_written = not is_plain(image) and has_written_folder(image, self._base or "")
        if not is_written and self._base is not None:
            if path.startswith(self._prefix):
                return path[len(self._prefix) :]
        elif not is_written and not path.startswith(("/", "../")) and path != os.pardir:
            return path
        folder, name = os.path.split(os.path.normpath(image if is_plain(image) else folder_as_written(image)))
        last = os.path.basename(folder)
        if is_written:  # no shell must take the name for something else
            last = "home" if last[:1] == "~" else last.replace("$", "")
        last = "parent" if last == os.pardir else last or "root"
        return f"{last}-{_hash(folder.encode('utf-8', 'surrogatepass'))}/{name}"


def data_name(image: str) -> str | None:
    """`data-` and the hash in the address of a picture in a line; None for a path."""
    address = None if is_plain(image) else _ADDRESS.fullmatch(image)
    return None if address is None else f"data-{address[1]}"


def _is_broken(image: str) -> bool:
    """Whether this is what remains of a picture in a line that could not be read."""
    return not is_plain(image) and is_data(image) and _ADDRESS.fullmatch(image) is None


def folder_id(path: str, same_stem: int, same_name: int) -> DefaultId:
    """The id of a picture in a folder of pictures; `path` is its path from there.

    So many pictures of its own folder have its name without case: without the ending (`same_stem`), and with it.
    """
    short = safe_name(os.path.splitext(path)[0])
    long = safe_name(path)
    made = short if same_stem == 1 else _marked(long, path) if same_name > 1 else long

    def others() -> Iterator[str]:
        yield from _all_ids(short, long, path)
        yield from _all_ids(earlier_name(os.path.splitext(path)[0]), earlier_name(path), path)

    return DefaultId(made, OtherIds(made, others), None if made == short else short, owns="same pictures")


def _all_ids(short: str, long: str, path: str) -> tuple[str, str, str]:
    """The ids that a picture may have beside others."""
    return short, long, _marked(long, path)


def _marked(name: str, path: str) -> str:
    """For pictures whose names differ only in case, or in what no file of an edited picture may hold."""
    return f"{name}-{_hash(os.path.basename(path).encode('utf-8', 'surrogatepass'))}"


class Uses:
    """What the lines of a source have in common. `note` gets each line once, before `seal`; then it answers."""

    def __init__(self, pictures: PictureIds, schema: Schema) -> None:
        self.given_ids: set[str] = set()
        self.given_outputs: set[str] = set()
        self._pictures = pictures
        self._schema = schema
        self._first: dict[str, tuple[str, int]] = {}  # by folded short id: picture and content of the first line
        self._alike: dict[str, dict[str, int]] = {}  # by folded short id, of several pictures: path and content
        self._several: set[str] = set()  # the paths of pictures that lines of different content begin with
        self._has_default = False
        self.has_turns = False
        """Whether an item may begin with the result of another one."""

    def note(self, data: object) -> None:
        """One line as it was read. What is wrong with it will be told elsewhere; None for one that cannot be read."""
        if not isinstance(data, dict):
            self._has_default = True
            return
        line = {key: value for name, value in data.items() if value is not None and (key := self._schema.key(name))}
        for key in INPUT_KEYS:
            if key in line:
                line[key] = _without_data(line[key])
        self.has_turns = self.has_turns or has_turns(line)
        output = line.get("output")
        if isinstance(output, str):
            self.given_outputs.add(output)
        if isinstance(line.get("id"), str):
            self.given_ids.add(line["id"])
            return
        self._has_default = True
        images = line.get("images")
        image = line.get("image", images[0] if isinstance(images, list) and images else None)
        image = named_path(image) if isinstance(image, str) else image
        if isinstance(image, str) and "\0" not in image and not _is_broken(image):
            self._note_picture(image, hash(repr(sorted(line.items()))))

    def _note_picture(self, image: str, content: int) -> None:
        path = self._pictures.absolute(image)
        stem = fold(self._pictures.short(image, path))
        first = self._first.get(stem)
        if first is None:
            self._first[stem] = image, content
            return
        first_path = self._pictures.absolute(first[0])
        if first_path == path:
            before = first[1]
        else:
            before = self._alike.setdefault(stem, {first_path: first[1]}).setdefault(path, content)
        if before != content:
            self._several.add(path)

    def seal(self) -> None:
        """Everything was noted: keep what the questions need."""
        self._first = {}
        if not self._has_default:
            self.given_ids, self.given_outputs = set(), set()

    def is_used_differently(self, path: str) -> bool:
        """Whether several lines of different content begin with this picture."""
        return path in self._several

    def name(self, short: str, image: str, path: str) -> str:
        """The id of a picture: `short`, which has no ending, unless another picture would have the same one."""
        alike = self._alike.get(fold(short)) if self._alike else None
        if alike is None:
            return short
        long = self._pictures.long(image, path)
        names = Counter(fold(os.path.basename(other)) for other in alike)
        is_alone = names[fold(os.path.basename(path))] == 1 and long.endswith(os.path.basename(path))
        return long if is_alone else _marked(long, path)


class DefaultIds:
    """Gives the default ids of one pass. `uses` are what a first pass found; None if there was none."""

    def __init__(self, pictures: PictureIds, uses: Uses | None) -> None:
        self._pictures = pictures
        self._uses = uses
        self._first_uses: dict[str, int] = {}  # by default id: the hash of the content of the first line

    def of(self, line: Line, values: Mapping[str, str]) -> DefaultId:
        """The id of a line. Lines of the same content have the same one."""
        content = _content(line, values)
        images = tuple(map(named_path, content[0]))
        mark = f"-{_mark(content)}"
        if not images or _is_broken(images[0]):
            return DefaultId(f"item{mark}")
        path = self._pictures.absolute(images[0])
        short = self._pictures.short(images[0], path)
        made = self._made(short, images[0], path, content)

        def others() -> Iterator[str]:
            mark, pairs = f"-{_mark(content)}", self._pictures.names(images[0], path)
            names = (name + end for short, long in pairs for name in _all_ids(short, long, path) for end in ("", mark))
            return (name for name in names if self._uses is None or name not in self._uses.given_ids)

        owns: Owns = "none"  # where nobody knows the lines to come
        if self._uses is not None:
            owns = "same line" if self._uses.is_used_differently(path) else "same pictures"
        return DefaultId(made, OtherIds(made, others), None if made == short else short, owns)

    def _made(self, short: str, image: str, path: str, content: tuple[object, ...]) -> str:
        if self._uses is None:
            first = self._first_uses.setdefault(short, hash(content))
            return short if first == hash(content) else f"{short}-{_mark(content)}"
        name = self._uses.name(short, image, path)
        return f"{name}-{_mark(content)}" if self._uses.is_used_differently(path) else name


def _without_data(value: Any) -> Any:
    """The value with the addresses of pictures in place of their data."""
    if isinstance(value, list):
        return [_without_data(one) for one in value]
    if not isinstance(value, str) or is_plain(value) or not is_data(value):
        return value
    try:
        return picture_of(value).address
    except DataUriError:  # the line is no item
        return value[:_BROKEN_DATA]


def _content(line: Line, values: Mapping[str, str]) -> tuple[tuple[str, ...], object, object, str | None]:
    """What a line says: everything but its id, as it is written."""
    images = (line.image,) if line.image is not None else tuple(line.images or ())
    given = ((key, getattr(line, key)) for key in _SAID)
    settings = tuple([(key, _hashable(key, value)) for key, value in given if value is not None])
    if line.turns is not None:
        settings += (("turns", tuple(line.turns)),)
    if line.seeds is not None or line.sweep is not None:
        settings += (("matrix", json.dumps([line.seeds, line.sweep], sort_keys=True)),)
    return images, settings, tuple(sorted(values.items())) if values else (), line.output


def _hashable(key: str, value: Any) -> object:
    if key == "lora":
        return tuple(wishes_of(value))
    return tuple(value) if isinstance(value, list) else value


def _mark(content: tuple[object, ...]) -> str:
    *others, output = content
    return _hash(json.dumps(others if output is None else [*others, output]).encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_MARK]
