"""Builds a case of surroundings.py in a folder, runs its commands, and checks what must hold after each of them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from durability.harness import Done, Forks
from durability.surroundings import AS_ROOT, GROUP, MEDDLES, USERS, Case, Command, Item, Variant
from joyedit.job.own_files import OWN_NAMES
from joyedit.job.results.output_folder import is_temporary
from joyedit.job.results.records import final_records, parse

LIMIT = 60.0
"""Seconds after which a command counts as hung."""
CODES = {0, 1, 2, 3, 10, 130}
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
TAKEN = ("output_taken", "output_name", "output_outside")
"""What a record of a good picture says where a limit of the process is the reason."""
MINE = "mine\n"
_FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "--read-timeout", "2s")
Entry = tuple[Any, ...]


def entry_of(path: Path) -> Entry:
    """What must not change about a file: its number, mode, owner, time and content."""
    status = os.lstat(path)
    common = (status.st_ino, status.st_mode, status.st_uid, status.st_gid)
    if stat.S_ISREG(status.st_mode):
        return (*common, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    if stat.S_ISLNK(status.st_mode):
        return (*common, status.st_mtime_ns, os.readlink(path))
    return common


def tree(root: Path, without: tuple[str, ...] = ()) -> dict[str, Entry]:
    """All files and folders below `root`, but for some at its top."""
    found = {}
    for parent, folders, files in os.walk(root):
        if Path(parent) == root:
            folders[:] = [name for name in folders if name not in without]
        for name in folders + files:
            path = Path(parent, name)
            if Path(parent) != root or name not in without:
                found[str(path.relative_to(root))] = entry_of(path)
    return found


class Stage:
    """One case in the folder `root`. `scratch` is a folder for undisturbed runs."""

    def __init__(self, case: Case, root: Path, scratch: Path, forks: Forks) -> None:
        self.case = case
        self.root = root
        self.out = root / "out"
        self.forks = forks
        self._scratch = scratch
        self._wholes: dict[Variant, dict[str, dict[str, Any]]] = {}
        self.foreign: dict[str, Entry] = {}
        """Files of somebody else in the output folder."""
        self.tampered = False
        """Whether records may be lost by no fault of joyedit."""
        self.tried: Counter[str] = Counter()

    # The folder.

    def build(self) -> None:
        case, root = self.case, self.root
        if AS_ROOT:
            os.chown(root, USERS[0], GROUP)
        root.chmod(0o2775 if AS_ROOT else 0o755)
        for name in ("photos/sub", "home", "tmp", "aside", "foreign", "cache", "closed-home"):
            (root / name).mkdir(parents=True)
            (root / name).chmod(0o777 if name in ("home", "tmp", "cache") else 0o755)
        (root / "closed-home").chmod(0o555)
        (root / "precious.txt").write_text("precious\n")
        (root / "foreign" / "in0.png").write_text(MINE)
        (root / "no-cache").write_text("a file\n")
        for number, item in enumerate(case.items):
            path = root / "photos" / item.name
            if item.fault == "broken":
                path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
            elif item.fault is None:
                shape = ((24, 24), (36, 20))[number % 2]
                Image.new("RGB", shape, (number * 29 % 256, 80, 200)).save(path)
        self._write_manifest()
        self.place_foreign_output()
        if case.base != "new":
            command = Command(variant=case.base_variant, user=case.commands[0].user)
            self._sane(command, fault=case.base_point if case.base == "killed" else None)
        self.twist()

    def _write_manifest(self) -> None:
        items = [self._line(item) for item in self.case.items]
        text = "".join(json.dumps(item) + "\n" for item in items)
        if self.case.source in ("jsonl", "stdin"):
            (self.root / "m.jsonl").write_text(text)
        elif self.case.source == "yaml":
            (self.root / "m.yaml").write_text("items:\n" + "".join(f"  - {json.dumps(item)}\n" for item in items))
        elif self.case.source == "csv":
            with (self.root / "m.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["id", "image", "instruction"])
                writer.writeheader()
                writer.writerows(items)

    def _line(self, item: Item) -> dict[str, str]:
        line = {"id": item.id or "", "image": f"photos/{item.name}"}
        return line | ({"instruction": item.instruction} if item.instruction else {})

    def place_foreign_output(self) -> None:
        """A file of somebody else where a picture would go."""
        if self.case.foreign_output is None:
            return
        number, kind = self.case.foreign_output
        known = sorted(self.whole(self.case.commands[0].variant).values(), key=lambda one: str(one["output"]))
        output = known[number]["output"]
        if output is not None:
            self._put(output, kind)
            self.foreign[output] = entry_of(self.out / output)

    def _put(self, name: str, kind: str) -> None:
        path = self.out / name
        user = self.case.commands[0].user
        for folder in [*reversed(path.relative_to(self.root).parents)][1:]:
            if not (self.root / folder).exists():
                (self.root / folder).mkdir()
                if user is not None:
                    os.chown(self.root / folder, user, GROUP)
        if kind == "text":
            path.write_text(MINE)
        elif kind == "link":
            path.symlink_to(self.root / "precious.txt")
        elif kind == "dangling link":
            path.symlink_to(self.root / "gone.txt")
        elif kind == "hard link":
            os.link(self.root / "precious.txt", path)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()

    def twist(self) -> None:
        """What was done to the output folder before the commands."""
        case, out = self.case, self.out
        if case.own is not None:
            name, kind = case.own
            was_there = (out / "results.jsonl").exists()
            (out / name).unlink(missing_ok=True)
            self.tampered |= name in ("results.jsonl", ".joyedit.unfinished")
            self._put(name, kind)
            replaceable = name in ("report.json", "failed.jsonl") and was_there
            if not replaceable and not (kind == "text" and name.startswith((".", "joyedit.log"))):
                self.foreign[name] = entry_of(out / name)
        elif case.twist != "none":
            out.mkdir(exist_ok=True)
            if case.twist == "read-only":
                out.chmod(0o555)
            elif AS_ROOT:
                os.chown(out, USERS[2] if case.twist == "of another" else USERS[0], GROUP)
                out.chmod(0o755 if case.twist == "of another" else 0o2775)

    # Commands.

    def _argv(self, command: Command, *more: str, out: Path | None = None) -> list[str | Path]:
        source = {"folder": "photos", "stdin": "-"}.get(self.case.source, f"m.{self.case.source}")
        return ["run", source, *_FAKE, "-o", out or "out", *command.variant.flags(), *more]

    def _sane(self, command: Command, *more: str, out: Path | None = None, fault: str | None = None) -> Done:
        around: dict[str, Any] = {"timeout": LIMIT}
        if self.case.source == "stdin":
            around["streams"] = {"0": "file m.jsonl"}
        if command.user is not None:
            around |= {"uid": command.user, "gid": GROUP}
        env = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        return self.forks(*self._argv(command, *more, out=out), cwd=self.root, fault=fault, around=around, **env)

    def whole(self, variant: Variant) -> dict[str, dict[str, Any]]:
        """What an undisturbed run makes of each item: its output, the picture's bytes, the code of its error."""
        if variant not in self._wholes:
            out = self._scratch / f"whole{len(self._wholes)}"
            ended = self._sane(Command(variant=variant), out=out)
            assert ended.code in (0, 3), f"undisturbed: {ended}"
            found = {}
            for record in final_records(out / "results.jsonl"):
                picture = None if record["output"] is None else (out / record["output"]).read_bytes()
                output = record["output"] or record["planned_output"]
                found[record["id"]] = {"output": output, "bytes": picture, "code": (record["error"] or {}).get("code")}
            self._wholes[variant] = found
            assert len(found) == len(self.case.items), "undisturbed: each item has a record"
        return self._wholes[variant]

    def command(self, command: Command) -> None:
        """Run it in its surroundings, and check."""
        self.tried[command.kind] += 1
        before = tree(self.root, ("out", "out.moved", "aside"))
        inside = tree(self.out) if self.out.exists() else {}
        journal = _journal_lines(self.out)
        report = _report(self.out)
        kept = self._to_keep(command)
        taken_id = self._output_to_take(command)
        events = self._events(command, taken_id)
        around = self._around(command, events)
        env, argv = self._environment(command, around), self._command_line(command)
        done = self.forks(
            *argv, cwd=self.root, around=around, fault=f"{command.point}:stop" if command.point else None, **env
        )
        self._count(command, done)
        where = self._undo(command, done)
        if taken_id is not None and done.done:
            self.foreign[taken_id] = entry_of(self.out / taken_id)
        told = f"{command}\nexit code {done.code}, done {done.done}: {done.message[-3000:]}"
        self._check_end(command, done, told)
        self._check_untouched(before, told)
        if command.kind != "run":
            assert inside == (tree(self.out) if self.out.exists() else {}), f"a command that looks has changed:\n{told}"
        else:
            for name, data in kept.items():
                places = [base / name for base in (self.out, self.root / "out.moved")]
                moved = [*(self.root / "aside").rglob(Path(name).name)]
                assert any(_has(path, data) for path in (*places, *moved)), f"{name} was replaced:\n{told}"
            if done.code >= 0:
                self._check_report(where, done, report, journal, told)
            if done.code == 0:
                self._check_complete(command, where, done, told)
        self._restore_journal()

    def _command_line(self, command: Command) -> list[str | Path]:
        if command.kind in ("verify", "status"):
            return [command.kind, "out", *command.flags]
        more = ("--dry-run",) if command.kind == "dry run" else ()
        return self._argv(command, *command.flags, *more)

    def _around(self, command: Command, events: list[list[Any]]) -> dict[str, Any]:
        kinds = {str(number): kind for number, kind in enumerate(command.streams)}
        if kinds["0"] == "source":
            kinds["0"] = "file m.jsonl"
        around: dict[str, Any] = {
            "timeout": LIMIT,
            "umask": command.umask,
            "streams": kinds,
            "limits": dict(command.limits),
            "events": events,
            "unset": ["HOME"] if command.home == "unset" else [],
            "reads": command.reads,
            "after": command.after,
        }
        if command.user is not None:
            around |= {"uid": command.user, "gid": GROUP}
        return around

    def _environment(self, command: Command, around: dict[str, Any]) -> dict[str, str]:
        root = self.root
        home = {"missing": "gone-home", "read-only": "closed-home"}.get(command.home, "home")
        env = {"HOME": str(root / home), "TMPDIR": str(root / ("gone-tmp" if command.no_tmpdir else "tmp"))}
        if command.cache != "unset":
            env["JOYEDIT_CACHE"] = str(root / ("no-cache" if command.cache == "a file" else "cache"))
        return env

    # What happens in the middle.

    def _item_path(self) -> str:
        for item in self.case.items:
            if item.fault is None:
                return f"photos/{item.name}"
        return f"photos/{self.case.items[0].name}"

    def _sub(self) -> str:
        return "deep" if (self.out / "deep").is_dir() else "sub"

    def _output_to_take(self, command: Command) -> str | None:
        if command.happens != "foreign output":
            return None
        outputs = [one["output"] for one in self.whole(command.variant).values() if one["output"] is not None]
        free = [name for name in outputs if not os.path.lexists(self.out / name) and "/" not in name]
        return free[-1] if free else None

    def _events(self, command: Command, taken: str | None) -> list[list[Any]]:
        aside = "aside"
        journal, sub, picture = "out/results.jsonl", self._sub(), self._item_path()
        foreign = str(self.root / "foreign")
        away = [["rename", f"out/{sub}", f"{aside}/out-{sub}"]] if (self.out / sub).is_dir() else []
        known: dict[str | None, list[list[Any]]] = {
            None: [],
            "int": [["signal", 2]],
            "term": [["signal", 15]],
            "hup": [["signal", 1]],
            "kill": [["signal", 9]],
            "two ints": [["signal", 2], ["signal", 18], ["sleep", 0.05], ["signal", 2]],
            "int and term": [["signal", 2], ["signal", 15]],
            "stop": [["sleep", 0.3]],
            "stop and term": [["sleep", 0.3], ["signal", 15]],
            "journal removed": [["remove", journal]],
            "journal replaced": [["again", journal]],
            "journal cut": [["cut", journal]],
            "journal appended to": [["append", journal, "a line of somebody\n"]],
            "output moved": [["rename", "out", "out.moved"]],
            "output made anew": [["rename", "out", "out.moved"], ["mkdir", "out"]],
            "output linked": [["rename", "out", "out.moved"], ["link", foreign, "out"]],
            "sub-folder linked": [*away, ["link", foreign, f"out/{sub}"]],
            "input removed": [["rename", picture, f"{aside}/input"]],
            "input a fifo": [["rename", picture, f"{aside}/input"], ["fifo", picture]],
            "sources removed": [["rename", "photos/sub", f"{aside}/sources"]],
            "foreign output": [["new", f"out/{taken}", MINE]] if taken is not None else [],
        }
        if command.happens in MEDDLES[:4] and self.case.own is not None and self.case.own[0] == "results.jsonl":
            return []  # it would be the case itself that touches a foreign file
        here = str(self.root)
        return [
            [kind, *(os.path.join(here, one) if number < paths else one for number, one in enumerate(rest))]
            for kind, *rest in known[command.happens]
            for paths in [{"rename": 2, "signal": 0, "sleep": 0}.get(kind, 1 if kind != "link" else 2)]
        ]

    def _undo(self, command: Command, done: Done) -> Path:
        """Take back what was done outside of the output folder. Gives the folder that the command wrote to."""
        happens, root = command.happens, self.root
        where = root / "out.moved" if done.done and (happens or "").startswith("output ") else self.out
        if not done.done:
            return where
        if happens == "output linked" and self.out.is_symlink():
            self.out.unlink()
        if happens == "sub-folder linked":
            for name in ("sub", "deep"):
                if (self.out / name).is_symlink():
                    (self.out / name).unlink()
        if happens in ("input removed", "input a fifo"):
            (root / self._item_path()).unlink(missing_ok=True)
            (root / "aside" / "input").rename(root / self._item_path())
        if happens == "sources removed":
            (root / "aside" / "sources").rename(root / "photos" / "sub")
        if happens in MEDDLES[:4]:
            self.tampered = True
        return where

    def _restore_journal(self) -> None:
        """What the message of joyedit says: put the rescued records in their place."""
        for folder in (self.out, self.root / "tmp"):
            rescued = folder / "results.rescued.jsonl"
            if rescued.exists() and self.out.is_dir():
                shutil.move(rescued, self.out / "results.jsonl")

    # What must hold.

    def _count(self, command: Command, done: Done) -> None:
        self.tried["commands"] += 1
        if done.done:
            self.tried[f"{command.happens}"] += 1
        for name, _ in command.limits:
            self.tried[name] += 1
        if command.user is not None:
            self.tried["as another user"] += 1
        for kind in command.streams[1:]:
            if kind != "open":
                self.tried[f"stream {kind}"] += 1

    def _check_end(self, command: Command, done: Done, told: str) -> None:
        sent = {-event[1] for event in self._events(command, None) if event[0] == "signal"} if done.done else set()
        if done.sent and command.after is not None:
            sent.add(-command.after[1])
        assert not done.hung, f"hangs:\n{told}"
        assert done.code in CODES | sent, f"exit code:\n{told}"
        assert done.code != 10 or "--max-duration" in command.flags, f"out of time:\n{told}"
        assert "unexpected error" not in done.message, told
        assert "-v" in command.flags or "Traceback" not in done.message, told
        assert "Exception ignored" not in done.message, told
        assert "ResourceWarning" not in done.message, told
        assert not RAW.search(done.message), f"raw characters:\n{told!r}"
        for folder in (self.out, self.root / "out.moved"):
            log = folder / "joyedit.log"
            if log.is_file() and not log.is_symlink():
                text = log.read_bytes().decode(errors="surrogateescape")
                assert not RAW.search(text), f"raw characters in the log:\n{text!r}"
                own = self.case.own
                if own == ("joyedit.log", "text") and folder == self.out:
                    assert text.startswith(MINE)

    def _check_untouched(self, before: dict[str, Entry], told: str) -> None:
        after = tree(self.root, ("out", "out.moved", "aside"))
        after.pop("tmp/results.rescued.jsonl", None)
        before.pop("tmp/results.rescued.jsonl", None)
        changed = sorted(name for name in before | after if before.get(name) != after.get(name))
        assert changed == [], f"outside of the output folder these changed: {changed}:\n{told}"
        for name, entry in self.foreign.items():
            places = [self.out / name, self.root / "out.moved" / name]
            for sub in ("sub", "deep"):
                places.append(self.root / "aside" / f"out-{sub}" / Path(name).relative_to(Path(name).parts[0]))
            found = [entry_of(path) for path in places if os.path.lexists(path)]
            assert entry in found, f"the foreign {name} was {entry}, is {found}:\n{told}"

    def _to_keep(self, command: Command) -> dict[str, bytes]:
        """The finished pictures of other flags, which stay unless it is asked for."""
        if command.kind != "run" or {"--update", "--overwrite"} & set(command.flags):
            return {}
        kept = {}
        mine = {one["bytes"] for one in self.whole(command.variant).values()}
        for record in _final(self.out).values():
            path = self.out / str(record.get("output"))
            if record["status"] == "ok" and path.is_file():
                data = path.read_bytes()
                if data not in mine and hashlib.sha256(data).hexdigest() == record["output_sha256"]:
                    kept[record["output"]] = data
        return kept

    def _check_report(
        self, where: Path, done: Done, report: dict[str, Any] | None, journal: list[bytes], told: str
    ) -> None:
        found = _report(where)
        lines = _journal_lines(where)
        new = [parse(line) for line in lines[len(journal) :]] if lines[: len(journal)] == journal else []
        ids = Counter(record["id"] for record in new if record is not None)
        assert set(ids.values()) <= {1}, f"more than one record of an item: {ids}:\n{told}"
        limited = "RLIMIT_FSIZE" in told
        if new and not limited and not self.tampered and self.case.own is None:
            assert found is not None, f"no report although there are records:\n{told}"
            assert found != report, f"the report is that of an earlier run:\n{told}"
        if found is None or found == report or limited:
            return
        assert found["state"] != "running", f"the report says running:\n{told}"
        assert found["exit_code"] == done.code or found["state"] in ("interrupted", "stopped"), told
        assert found["items"] == found["ok"] + found["failed"], told
        if found["left"] is not None and "--limit" not in told:
            known = found["items"] + found["left"] + found["missing"]
            assert known == len(self.case.items), f"{known} items are accounted for, of {len(self.case.items)}:\n{told}"

    def _check_complete(self, command: Command, where: Path, done: Done, told: str) -> None:
        """Exit code 0: every item has its picture."""
        whole = self.whole(command.variant)
        expected = len(whole)
        if "--limit" in command.flags:
            expected = min(expected, int(command.flags[command.flags.index("--limit") + 1]))
        found = _final(where)
        if self.tampered and done.done and command.happens in MEDDLES[:4]:
            early = (command.point or "").split(":")[0]
            if early.startswith(("file.", "any", "lock", "journal.open")):
                return
        if command.happens == "sub-folder linked" and done.done:
            return  # the pictures that were in the sub-folder went away with it
        good = [name for name, one in whole.items() if _is_good(where, found.get(name), one)]
        assert len(good) >= expected, f"exit code 0, but {set(whole) - set(good)}:\n{told}"

    def finish(self) -> None:
        """The same command in sane surroundings comes to a good end."""
        run = [command for command in self.case.commands if command.kind == "run"][-1]
        self._make_usable()
        command = Command(variant=run.variant)
        whole = self.whole(run.variant)
        own = self.case.own
        if own is not None and own[0] not in self.foreign and (self.out / own[0]).is_dir():
            (self.out / own[0]).rmdir()  # a folder in the place of report.json or failed.jsonl; the messages name it
        for _ in range(2):
            ended = self._sane_run(command)
            told = ended.message.partition("joyedit: error:")[2]  # a note on the records is no refusal
            refused = [name for name in OWN_NAMES if name in told and os.path.lexists(self.out / name)]
            if ended.code not in (1, 2) or not refused or not (self.case.own or self.tampered):
                break
            for name in refused:  # as the message says
                path = self.out / name
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
                self.foreign.pop(name, None)
        ended = self._sane_run(command)
        if ended.code == 2 or self.case.source == "stdin":
            assert "would replace" in ended.message or self.case.source == "stdin", ended
            ended = self._sane_run(command, "--update")
        assert ended.code in (0, 3), f"in the end: {ended}"
        if any((record.get("error") or {}).get("code") == "killed_the_run" for record in _final(self.out).values()):
            ended = self._sane_run(command, "--retry-failed")
        self._check_good_end(whole, f"in the end: {ended}")

    def _sane_run(self, command: Command, *more: str) -> Done:
        before = tree(self.root, ("out", "out.moved", "aside"))
        ended = self._sane(command, *more)
        self._check_end(command, ended, f"in the end: {ended}")
        self._check_untouched(before, f"in the end: {ended}")
        return ended

    def _check_good_end(self, whole: dict[str, dict[str, Any]], told: str) -> None:
        found = _final(self.out)
        missing = set(whole) - set(found)
        assert not missing, f"items without a record: {missing}: {told}"
        for name, one in whole.items():
            code = (found[name].get("error") or {}).get("code")
            if _is_good(self.out, found[name], one) or (code is not None and code == one["code"]):
                continue
            is_taken = code in TAKEN and os.path.lexists(self.out / one["output"])
            allowed = self.tampered or any(
                one["output"] == name or one["output"].startswith(f"{name}/") for name in self.foreign
            )
            assert is_taken, f"{name}: {found[name]}: {told}"
            assert allowed, f"{name}: {found[name]}: {told}"
        left = [str(path) for path in self.out.rglob("*") if is_temporary(path.name) or path.name in (".joyedit.lock",)]
        assert [path for path in left if Path(path).name not in self.foreign] == [], told
        if not self.tampered and self.case.foreign_output is None and not any("/" not in x for x in self.foreign):
            outputs = {one["output"] for one in whole.values() if one["bytes"] is not None}
            names = {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file()}
            more = {name for name in names - outputs - set(self.foreign) if name.partition("/")[0] not in OWN_NAMES}
            assert not more, f"more than one picture of an item: {more}: {told}"

    def _make_usable(self) -> None:
        if self.out.is_dir():
            for path in [self.out, *self.out.rglob("*")]:
                if path.is_dir() and not path.is_symlink() and not os.access(path, os.W_OK):
                    path.chmod(0o755)


def _is_good(out: Path, record: dict[str, Any] | None, whole: dict[str, Any]) -> bool:
    if record is None or record["status"] != "ok" or whole["bytes"] is None:
        return False
    return record["output"] == whole["output"] and _has(out / record["output"], whole["bytes"])


def _has(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _final(out: Path) -> dict[str, dict[str, Any]]:
    path = out / "results.jsonl"
    if not path.is_file():
        return {}
    return {record["id"]: record for record in final_records(path)}


def _journal_lines(out: Path) -> list[bytes]:
    path = out / "results.jsonl"
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _report(out: Path) -> dict[str, Any] | None:
    path = out / "report.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) and "state" in found else None


assert signal.SIGKILL == 9
