from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joyedit.job.source.names import HashTable, fold, name_fault, safe_name
from joyedit.job.source.taken_names import TakenNames


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b/c",
        "Ünïcode 天 🐦",
        ".5",
        "is it? <a|b> *",
        "a..b",
        "console",
        "com10",
        "x" * 200,
        "-",
        "%2e%2e/x",
        "{x}",
    ],
)
def test_allowed_names(name: str) -> None:
    assert name_fault(name) is None
    assert safe_name(name) == name


@pytest.mark.parametrize(
    ("name", "fault", "made"),
    [
        ("..", "has the part '..'", "picture"),
        ("a/./b", "has the part '.'", "a/b"),
        ("a/../b", "has the part '..'", "a/b"),
        ("/a", "is absolute", "a"),
        ("a/", "has an empty part", "a"),
        ("...", "has a part that ends with a dot or a space", "_"),
        ("COM1.png", "has the part 'COM1.png', which Windows reserves", "_COM1.png"),
        ("lpt² .x", "has the part 'lpt² .x', which Windows reserves", "_lpt² .x"),
        ("a\x7fb", "holds a control character", "a_b"),
        ("a\u2028b", "holds a control character", "a_b"),
        ("\udcff", "is not valid Unicode", "_"),
        ("\\\\server\\x", "holds a backslash", "__server_x"),
        ("x:y", "holds a colon", "x_y"),
        ("  ", "is empty", "_"),
        ("\xa0", "is empty", "_"),
        ("/".join(["abcdefghi"] * 101), "has more than 1000 bytes", None),
    ],
)
def test_names_that_are_refused_and_what_is_made_of_them(name: str, fault: str, made: str | None) -> None:
    assert name_fault(name) == fault
    assert made is None or safe_name(name) == made


@given(st.text(st.characters(), max_size=300))
@example("\xa0")
@settings(max_examples=100, deadline=None)
def test_whatever_is_made_is_allowed(name: str) -> None:
    made = safe_name(name)
    assert name_fault(made) is None
    assert safe_name(made) == made


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    assert safe_name("x" * 300 + "a") != safe_name("x" * 300 + "b")


def test_fold() -> None:
    assert fold("É") == fold("e\u0301") == fold("E\u0301") == fold("é")
    assert fold("A/b") == "a/b"
    assert fold("a") != fold("b")


def test_the_table_of_hashes_equals_a_dict() -> None:
    table, plain = HashTable(), {}
    names = [f"n{random.Random(n).randrange(4000)}" for n in range(9000)]
    for number, name in enumerate(names, 1):
        assert table.get(name) == plain.get(name, 0)
        table.put(name, number)
        plain[name] = number
    assert len(table) == len(plain) > 3000
    assert all(table.get(name) == number for name, number in plain.items())
    assert table.get("another") == 0


def test_a_number_that_is_there_stays() -> None:
    table = HashTable()
    assert [table.setdefault(f"n{number % 700}", number + 1) for number in range(2000)] == [
        0 if number < 700 else number % 700 + 1 for number in range(2000)
    ]
    assert len(table) == 700
    assert table.setdefault("beyond 32 bits", 2**40) == 0
    assert table.get("beyond 32 bits") == 2**32 - 1


def test_default_ids_do_not_look_through_all_that_were_given() -> None:
    claims = TakenNames(".png")
    for number in range(1, 3001):
        name = claims.default_id("a")
        assert name == ("a" if number == 1 else f"a-{number}")
        assert claims.id(name, number) is None
        assert claims.output(name + ".png", number) is None
