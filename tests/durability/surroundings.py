"""Random surroundings of the command, made from a seed: inputs, the state of the output folder, and some commands.

The same seed always makes the same case, and `str(case)` tells all of it on one line.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, fields

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
"""Whether other users can be tried."""

GROUP = 40_000
USERS = (40_001, 40_002, 40_003)
"""Ids that no table of users knows; the third one owns what the others may not write."""

HOSTILE = (
    "new\nline",
    "esc\x1b[31m\x07",
    "c1\x9b31m",
    "bidi\u202egnp",
    "l" * 200,
    "-p",
    " lead",
    "\u00fcn\u00ef",
    "not\udcff\udcfeutf8",
    "%s{0}$(touch x)",
)
POINTS = (
    "lock", "journal.open", "journal.append", "journal.half", "journal.appended", "journal.fsync", "journal.synced",
    "file.create", "file.half", "file.fsync", "file.synced", "file.rename", "file.renamed", "file.folder", "file.done",
    "read", "header",
)  # fmt: skip
SIGNALS = ("int", "term", "hup", "kill", "two ints", "int and term", "stop", "stop and term")
MEDDLES = (
    "journal removed", "journal replaced", "journal cut", "journal appended to", "output moved", "output made anew",
    "output linked", "sub-folder linked", "input removed", "input a fifo", "sources removed", "foreign output",
)  # fmt: skip
OWN = ("report.json", "joyedit.log", "results.jsonl", ".joyedit.lock", ".joyedit.unfinished", "failed.jsonl")
KINDS = ("text", "link", "dangling link", "hard link", "fifo", "folder")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input: its id in a manifest (None: by the name), the picture's name, and what is wrong with that."""

    id: str | None
    name: str
    fault: str | None
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Flags that change pictures."""

    prompt: str = "one"
    seed: int | None = None
    format: str = "png"

    def flags(self) -> list[str]:
        seed = [] if self.seed is None else ["--seed", str(self.seed)]
        return ["-p", self.prompt, *seed, "--format", self.format]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command and what is around it. `point` is a failpoint; `happens` happens there."""

    kind: str = "run"
    variant: Variant = Variant()
    flags: tuple[str, ...] = ()
    user: int | None = None
    umask: int = 0o022
    streams: tuple[str, str, str] = ("open", "open", "open")
    reads: float | None = None
    home: str = "there"
    cache: str = "unset"
    no_tmpdir: bool = False
    limits: tuple[tuple[str, int], ...] = ()
    point: str | None = None
    happens: str | None = None
    after: tuple[float, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """See the top of the file. `base` is the run before, `twist` what was done to the output folder after it."""

    seed: int
    source: str
    items: tuple[Item, ...]
    base: str
    base_variant: Variant
    base_point: str
    foreign_output: tuple[int, str] | None
    twist: str
    own: tuple[str, str] | None
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        return f"JOYEDIT_SEED={self.seed}: {_short(self)}"


def _short(value: object) -> str:
    """The repr, but without what is as usual."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    if not isinstance(value, Case | Command | Variant | Item):
        return ascii(value)
    usual = {one.name: one.default for one in fields(value)}
    known = [(name, getattr(value, name)) for name in usual]
    told = ", ".join(f"{name}={_short(one)}" for name, one in known if one != usual[name] and one is not None)
    return f"{type(value).__name__}({told})"


def make_case(seed: int) -> Case:
    dice = random.Random(f"surroundings {seed}")
    source = dice.choice(("folder", "folder", "jsonl", "yaml", "csv", "stdin"))
    items = tuple(_item(dice, source, number) for number in range(dice.randint(2, 8)))
    user = dice.choice((None, *USERS[:2])) if AS_ROOT else None
    base = dice.choice(("new", "new", "complete", "complete", "killed"))
    twist = dice.choice(("none",) * 5 + ("own file",) * 3 + ("read-only", "of another", "of the group"))
    own = (dice.choice(OWN), dice.choice(KINDS)) if twist == "own file" else None
    foreign = (dice.randrange(len(items)), dice.choice(KINDS)) if dice.random() < 0.25 else None
    first = _variant(dice)
    if twist == "of the group" and AS_ROOT:
        user = USERS[0]
    commands = []
    for number in range(dice.choice((1, 1, 2, 2, 3))):
        commands.append(_command(dice, source, first, user, len(items), is_first=not number))
        if user is not None and dice.random() < 0.5:
            user = dice.choice(USERS[:2])
    return Case(
        seed=seed,
        source=source,
        items=items,
        base=base,
        base_variant=first if dice.random() < 0.7 else _variant(dice),
        base_point=f"any:{dice.randint(3, 60)}",
        foreign_output=foreign,
        twist=twist,
        own=own,
        commands=tuple(commands),
    )


def _variant(dice: random.Random) -> Variant:
    if dice.random() < 0.6:
        return Variant()
    return Variant(
        prompt=dice.choice(("one", "two")), seed=dice.choice((None, 7)), format=dice.choice(("png", "png", "jpg"))
    )


def _item(dice: random.Random, source: str, number: int) -> Item:
    name = f"in{number}"
    if dice.random() < 0.2:
        hostile = dice.choice(HOSTILE)
        if source == "folder" or hostile.isprintable():
            name = f"{hostile}{number}"
    sub = "sub/" if dice.random() < 0.35 else ""
    fault = None
    if dice.random() < 0.15:
        fault = "broken"  # a manifest that names a missing one is refused
    own_id = None
    if source != "folder":
        own_id = dice.choice((f"item{number}", f"deep/{number}/x", f"sub/item{number}"))
    text = f"paint \x1b[2J\u202e {number}" if dice.random() < 0.1 else f"paint {number}"
    if source == "folder" or dice.random() < 0.5:
        text = ""
    return Item(id=own_id, name=f"{sub}{name}.png", fault=fault, instruction=text)


def _command(
    dice: random.Random, source: str, first: Variant, user: int | None, count: int, *, is_first: bool
) -> Command:
    kind = "run" if is_first else dice.choice(("run",) * 5 + ("dry run", "verify", "status"))
    outs = ("open",) * 7 + ("closed", "full", "gone")
    streams = [dice.choice(("open", "open", "closed", "silent")), dice.choice(outs), dice.choice(outs)]
    if source == "stdin" and kind in ("run", "dry run"):
        streams[0] = "source"
    reads, after, flags = None, None, _flags(dice, count)
    if dice.random() < 0.04:
        streams[dice.choice((1, 2))] = "unread"
        reads = 0.3
        if kind == "run" and dice.random() < 0.5:
            reads, after = None, (0.25, 15)
    elif dice.random() < 0.06:
        after = (round(dice.uniform(0, 0.08), 3), dice.choice((2, 15, 1, 9)))
    point = happens = None
    if kind == "run" and dice.random() < 0.5:
        point = f"any:{dice.randint(1, 60)}" if dice.random() < 0.4 else f"{dice.choice(POINTS)}:{dice.randint(1, 4)}"
        happens = dice.choice(SIGNALS if dice.random() < 0.4 else MEDDLES)
    limits: list[tuple[str, int]] = []
    if dice.random() < 0.15:
        name = dice.choice(("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NPROC"))
        least, most = {
            "RLIMIT_NOFILE": (12, 40),
            "RLIMIT_FSIZE": (0, 6000),
            "RLIMIT_AS": (1 << 20, 400 << 20),
            "RLIMIT_NPROC": (1, 14),
        }[name]
        limits.append((name, dice.randint(least, most)))
    return Command(
        kind=kind,
        variant=first if dice.random() < 0.75 else _variant(dice),
        flags=flags if kind == "run" else tuple(flag for flag in flags if flag == "--json"),
        user=user,
        umask=dice.choice((0o022, 0o022, 0o000, 0o077, 0o002)),
        streams=(streams[0], streams[1], streams[2]),
        reads=reads,
        home=dice.choice(("there", "there", "unset", "missing", "read-only")),
        cache=dice.choice(("unset", "unset", "unset", "a file", "of another")),
        no_tmpdir=dice.random() < 0.15,
        limits=tuple(limits),
        point=point,
        happens=happens,
        after=after,
    )


def _flags(dice: random.Random, count: int) -> tuple[str, ...]:
    flags: list[str] = []
    flags += dice.choice(([],) * 6 + (["--update"], ["--overwrite"], ["--retry-failed"]))
    if dice.random() < 0.1:
        flags += ["--limit", str(dice.randint(1, count))]
    flags += dice.choice(([], [], [], ["--json"], ["-v"], ["-q"], ["--json", "-v"]))
    if dice.random() < 0.15:
        flags.append("--trust-journal")
    if dice.random() < 0.08:
        flags += ["--max-duration", "1s"]
    if dice.random() < 0.4:
        flags += ["--batch-size", str(dice.randint(1, 3))]
    return tuple(flags)
