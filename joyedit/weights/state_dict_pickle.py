"""The pickle inside a `.pth` file, read as data: what each tensor's name, type, shape and place in the archive are.

Nothing in the pickle is ever called, so it can run no code. `pickletools` takes the opcodes apart; here they build
dictionaries, lists and descriptions of tensors, and anything else is refused. Number and size of what
is built are bounded by the length of the pickle.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from joyedit.errors import first_line
from joyedit.printable import brief

MOST_OPCODES = 1 << 20
"""The most steps of one pickle. A tensor takes about 25, and the published transformer has 1,100 tensors."""
MOST_DIMENSIONS = 8
MOST_ELEMENTS = 1 << 48


class RefusedPickleError(ValueError):
    """The pickle holds more than a state dict. The message names what."""


class DamagedPickleError(ValueError):
    """The pickle describes nothing, or no tensor that there can be."""


@dataclass(frozen=True, slots=True)
class Named:
    """A class or a function that the pickle names, `torch.FloatStorage`. It is not looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The elements that tensors share: `key` names the record of the archive. `kind` is the class, `FloatStorage`."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where the elements of a tensor lie in its storage. `dtype` is None where the storage's class says it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def end(self) -> int:
        """The first element of the storage behind this tensor."""
        if not self.elements:
            return self.offset
        steps = (step * (side - 1) for step, side in zip(self.stride, self.shape, strict=True))
        return self.offset + sum(steps) + 1


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is neither a plain tensor nor a number, a text or a container: a sparse tensor, a dtype."""

    name: str


def read_pickle(data: bytes) -> object:
    """The value that the pickle describes. Raises RefusedPickleError or DamagedPickleError."""
    reader = _Reader()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MOST_OPCODES:
                raise DamagedPickleError(f"its pickle has more than {MOST_OPCODES} steps")
            step = _STEPS.get(opcode.name)
            if step is None:
                raise RefusedPickleError(f"opcode {opcode.name}")
            step(reader, argument)
        return reader.stack.pop()
    except (RefusedPickleError, DamagedPickleError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DamagedPickleError(f"a damaged pickle ({first_line(error)})") from error


class _Reader:
    """The stack machine of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def above_mark(self) -> list[Any]:
        mark = self.marks.pop()
        if mark > len(self.stack):
            raise ValueError("a mark above the stack")
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def take(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack) - (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, argument: Any) -> None:
        self.push(_named(str(argument).replace(" ", ".")))

    def name_on_stack(self, _: Any) -> None:
        module, name = self.take(2)
        self.push(_named(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"))

    def call(self, _: Any) -> None:
        function, arguments = self.take(2)
        if not isinstance(function, Named) or not isinstance(arguments, tuple):
            raise ValueError("a call of something else than a function")
        self.push(_described(function.name, arguments))

    def build(self, _: Any) -> None:
        """Attributes of an object: those of an OrderedDict say which version its modules had."""
        self.take(1)

    def storage(self, _: Any) -> None:
        (found,) = self.take(1)
        tag, kind, key, _place, _count = found
        if tag != "storage" or not isinstance(kind, Named) or not isinstance(key, str):
            raise RefusedPickleError("a reference to something else than a storage")
        self.push(Storage(kind.name.rpartition(".")[2], key))

    def add_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if len(values) % 2:
            raise ValueError("a key without a value")
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise ValueError("items of something else than a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, (str, int, float, bytes, type(None))):  # hashing a nested tuple has no bound
                raise RefusedPickleError("a dictionary whose keys are neither texts nor numbers")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise ValueError("entries of something else than a list")

    def remember(self, number: int) -> None:
        self.memo[number] = self.stack[-1]


def _named(name: str) -> Named:
    name = name.replace("__builtin__.", "builtins.")
    if name not in _FUNCTIONS and name not in _HARMLESS and not name.startswith("torch."):
        raise RefusedPickleError(brief(name))
    return Named(name)


def _described(name: str, arguments: tuple[Any, ...]) -> object:
    describe = _FUNCTIONS.get(name)
    return Opaque(name) if describe is None else describe(*arguments)


def _ordered(pairs: list[Any] | None = None) -> object:
    if not pairs:
        return {}
    if all(isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        return dict(pairs)
    return Opaque("collections.OrderedDict")


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    for values in ((offset,), shape, stride):
        if not isinstance(values, tuple) or len(values) > MOST_DIMENSIONS:
            raise ValueError("a tensor of a strange shape")
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_ELEMENTS:
                raise ValueError("a tensor of a strange shape")
    if len(shape) != len(stride):
        raise ValueError("a tensor of a strange shape")
    return StoredTensor(storage, offset, shape, stride)


def _tensor_with_dtype(*arguments: Any) -> StoredTensor:
    """Arguments as for `_tensor`, then whether it has a gradient, its hooks and its dtype."""
    plain, dtype = _tensor(*arguments[:4]), arguments[6]
    name = dtype.name if isinstance(dtype, Named) else "?"
    return replace(plain, dtype=name.removeprefix("torch."))


def _parameter(data: Any, *_: Any) -> object:
    return data


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered,
    "builtins.dict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
}
"""Functions whose results a state dict consists of, and what stands for their results here."""

_HARMLESS = frozenset(
    ("builtins.bytearray", "builtins.complex", "builtins.set", "_codecs.encode", "collections.Counter")
)
"""Names that training code writes beside the weights, as it does names of torch. Their values stay closed."""

_Step = Callable[[_Reader, Any], None]


def _constant(value: Callable[[], Any]) -> _Step:
    return lambda reader, _: reader.push(value())


def _tuple_of(count: int) -> _Step:
    return lambda reader, _: reader.push(reader.take(count))


def _nothing(_reader: _Reader, _argument: Any) -> None:
    """Protocol and frames carry nothing; STOP ends the opcodes by itself."""


_ARGUMENT = (
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT",
    "LONG", "BINFLOAT", "FLOAT", "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING",
)  # fmt: skip
"""Opcodes that push their argument."""

_STEPS: dict[str, _Step] = {
    **{name: _Reader.push for name in _ARGUMENT},
    **{name: _nothing for name in ("PROTO", "FRAME", "STOP")},
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_SET": _constant(lambda: Opaque("builtins.set")),
    "MARK": lambda reader, _: reader.marks.append(len(reader.stack)),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda reader, _: reader.push(tuple(reader.above_mark())),
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name_on_stack,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.storage,
    "SETITEM": lambda reader, _: reader.add_items(list(reader.take(2))),
    "SETITEMS": lambda reader, _: reader.add_items(reader.above_mark()),
    "APPEND": lambda reader, _: reader.append(list(reader.take(1))),
    "APPENDS": lambda reader, _: reader.append(reader.above_mark()),
    "ADDITEMS": lambda reader, _: reader.append(reader.above_mark()),
    "BINPUT": _Reader.remember,
    "LONG_BINPUT": _Reader.remember,
    "MEMOIZE": lambda reader, _: reader.remember(len(reader.memo)),
    "BINGET": lambda reader, number: reader.push(reader.memo[number]),
    "LONG_BINGET": lambda reader, number: reader.push(reader.memo[number]),
}
