from __future__ import annotations

import re

import pytest

from joyedit import errors
from joyedit.errors import JoyeditError, ManifestError, Problem, first_line, os_reason
from joyedit.printable import brief


def test_the_docstring_draws_the_tree() -> None:
    """Each class below its base, with its exit code."""
    assert errors.__doc__ is not None
    drawn = re.findall(r"^( +)(\w+Error) +(\d+) {3}\S", errors.__doc__, re.MULTILINE)
    above: dict[int, str] = {}
    tree = {}
    for indent, name, code in drawn:
        above[len(indent)] = name
        tree[name] = (above.get(len(indent) - 4, "Exception"), int(code))
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, JoyeditError)]
    assert tree == {one.__name__: (one.__mro__[1].__name__, one.exit_code) for one in classes}
    assert all(one.__doc__ for one in classes)


def test_what_ends_a_run() -> None:
    assert errors.concerns_the_run(JoyeditError("x"))
    assert errors.concerns_the_run(errors.OutputError("x"))
    assert not errors.concerns_the_run(errors.ItemError("code", "x"))
    assert not errors.concerns_the_run(OSError("x"))


def test_a_problem_gets_its_place() -> None:
    problem = Problem("wrong", "mend it", key="steps")
    assert str(problem) == problem.text == "wrong (mend it)"
    assert str(problem.at("m.jsonl")) == "m.jsonl: wrong (mend it)"
    assert str(problem.at(line=3).at("m.jsonl")) == "m.jsonl:3: wrong (mend it)"
    assert problem.at("m.jsonl", 3).at("n.jsonl", 4) == Problem("wrong", "mend it", key="steps", file="n.jsonl", line=4)


def test_a_manifest_error_counts_what_it_does_not_keep() -> None:
    error = ManifestError([Problem("wrong").at("m.jsonl", 1)], total=3)
    assert (str(error), error.total) == ("m.jsonl:1: wrong\n... and 2 more", 3)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError(" \n\n  two \n"), "two"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b-ü漢", "a b-ü漢"),
        ("\x1b[31m\x07", "\\x1b[31m\\x07"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x7f\x80\x9f", "\\x7f\\x80\\x9f"),
        ("\u202e\u2066\u200f", "\\u202e\\u2066\\u200f"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\ud800\udcff", "\\ud800\\udcff"),
        ("x" * 120, "x" * 120),
        ("x" * 10**6, "x" * 117 + "..."),
        ("\x1b" * 100, ("\\x1b" * 100)[:117] + "..."),
    ],
)
def test_names_from_somebody_elses_file_are_printable(text: str, shown: str) -> None:
    assert brief(text) == shown


def test_first_lines_are_printable_and_short() -> None:
    assert first_line("\x1b[2J\u202e\nb") == "\\x1b[2J\\u202e"
    assert len(first_line("\x1b" * 1000)) == 200


def test_the_reason_of_the_system() -> None:
    assert os_reason(FileNotFoundError(2, "No such file or directory", "a.png")) == "No such file or directory"
    assert os_reason(OSError("odd")) == "odd"
