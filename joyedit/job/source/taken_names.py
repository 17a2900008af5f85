"""Which ids and output names are taken: no two items of a run share one, and none overwrites an input."""

from __future__ import annotations

from joyedit.job.source.names import HashTable, fold
from joyedit.job.source.problems import Fault, shown

_OWN_NAMES = "give each item an id or output of its own; names that differ only in case count as one"


class TakenNames:
    """The names given out so far, as hashes. Numbers are lines (or, in a folder, a running count), from 1.

    `extension` is the ending of outputs that are made from ids. `where` names a number: "line 3".
    """

    def __init__(self, extension: str) -> None:
        self._extension = extension
        self._ids = HashTable()
        self._outputs = HashTable()
        self._inputs = HashTable()
        self._folders = HashTable()
        self._counts = HashTable()

    def default_id(self, *wishes: str, with_output: bool = False) -> str:
        """The first of `wishes` that is free, else the last one with "-2", "-3", ... behind it.

        Its default output is free as well, unless the item has an output of its own (`with_output`).
        """
        for wish in wishes:
            if self._is_free(wish, with_output):
                return wish
        last = wishes[-1]
        number = max(self._counts.get(last), 1)
        while True:
            number += 1
            made = f"{last}-{number}"
            if self._is_free(made, with_output):
                self._counts.put(last, number)
                return made

    def _is_free(self, wish: str, with_output: bool) -> bool:
        if self._ids.get(wish):
            return False
        return with_output or self._output_fault(wish + self._extension) is None

    def id(self, name: str, number: int) -> Fault | None:
        """Takes the id `name`, or tells who has it."""
        taken = self._ids.setdefault(name, number)
        if taken:
            return Fault(f"the id {shown(name)} is taken by line {taken}", "give each item an id of its own", "id")
        return None

    def output(self, name: str, number: int) -> Fault | None:
        """Takes the output `name`, or tells why it cannot be had."""
        folded = fold(name)
        parents = self._picture_folders(folded)
        fault = self._place_fault(name, folded, parents)
        if fault is not None:
            return fault
        taken = self._outputs.setdefault(folded, number)
        if taken:
            return _taken(name, taken)
        for parent in parents:
            self._folders.put(parent, number)
        return None

    def _output_fault(self, name: str) -> Fault | None:
        folded = fold(name)
        taken = self._outputs.get(folded)
        return _taken(name, taken) if taken else self._place_fault(name, folded, self._picture_folders(folded))

    def _place_fault(self, name: str, folded: str, parents: list[str]) -> Fault | None:
        """Why the output stands in the way of something that is no output of the same name."""
        if self._inputs and self._inputs.get(folded):
            message = f"the output {shown(name)} would overwrite an input picture"
            return Fault(message, "choose another output folder, or give an id", "output")
        if self._folders and self._folders.get(folded):
            message = f"the output {shown(name)} is a folder for line {self._folders.get(folded)}"
            return Fault(message, _OWN_NAMES, "output")
        for parent in parents:
            if self._outputs.get(parent):
                message = f"the output {shown(name)} lies in a folder that is the output of"
                return Fault(f"{message} line {self._outputs.get(parent)}", _OWN_NAMES, "output")
        return None

    @staticmethod
    def _picture_folders(folded: str) -> list[str]:
        """The folders of an output that look like a picture; no other folder can be an output too."""
        if "." not in folded[: max(folded.rfind("/"), 0)]:
            return []
        parts = folded.split("/")
        return ["/".join(parts[:n]) for n in range(1, len(parts)) if "." in parts[n - 1]]

    def input(self, name: str, number: int) -> Fault | None:
        """Notes an input picture that lies in the output folder, as `name` below it."""
        folded = fold(name)
        self._inputs.put(folded, number)
        taken = self._outputs.get(folded)
        if taken:
            message = f"the picture {shown(name)} in the output folder would be overwritten by line {taken}"
            return Fault(message, "choose another output folder, or give an id")
        return None


def _taken(name: str, line: int) -> Fault:
    return Fault(f"the output {shown(name)} is taken by line {line}", _OWN_NAMES, "output")
