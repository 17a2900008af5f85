"""The values of a configuration from somebody else's file: each of the right kind and within limits, or a ConfigError.

JSON allows NaN, Infinity and numbers without end. A network of ten million layers would fill the memory before its
first weight is compared, so limits are checked before anything is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

WIDEST = 65536
"""The most channels of one layer."""
MOST_LAYERS = 1000
"""The most layers of one kind in one network."""
_SHOWN = 60
_MOST_ENTRIES = 256


class ConfigError(ValueError):
    """A configuration that these networks cannot express."""


class _Required:
    """Stands for no default: the key must be there."""


REQUIRED: Final = _Required()


class Values:
    """The keys of one JSON object. `place` is told before each key: `text_config.` for a nested object.

    A key whose value is null counts as absent. Every method raises ConfigError with the key, the value and the rule.
    """

    def __init__(self, raw: Mapping[str, Any], place: str = "") -> None:
        self._raw = raw
        self._place = place

    def __contains__(self, key: str) -> bool:
        return self._raw.get(key) is not None

    def whole(self, key: str, least: int, most: int, default: int | _Required = REQUIRED) -> int:
        """A whole number. True and 16.0 are none."""
        value = self._get(key, default)
        if not _is_whole(value) or not least <= value <= most:
            raise self._wrong(key, _rule("a whole number", least, most), value)
        return value  # type: ignore[no-any-return]

    def number(self, key: str, least: float, most: float, default: float | _Required = REQUIRED) -> float:
        """A finite number."""
        value = self._get(key, default)
        if not _is_number(value) or not least <= value <= most:
            raise self._wrong(key, _rule("a number", least, most), value)
        return float(value)

    def wholes(
        self, key: str, least: int, most: int, default: tuple[int, ...] | _Required = REQUIRED, count: int | None = None
    ) -> tuple[int, ...]:
        """A list of whole numbers, `count` of them if that is given."""
        values = self._list(key, default, count, f"whole numbers from {least} to {most}")
        for value in values:
            if not _is_whole(value) or not least <= value <= most:
                raise self._wrong(key, f"a list of whole numbers from {least} to {most}", value, within=True)
        return tuple(values)

    def numbers(
        self,
        key: str,
        least: float,
        most: float,
        default: tuple[float, ...] | _Required = REQUIRED,
        count: int | None = None,
    ) -> tuple[float, ...]:
        """A list of finite numbers, `count` of them if that is given."""
        values = self._list(key, default, count, f"numbers from {least:g} to {most:g}")
        for value in values:
            if not _is_number(value) or not least <= value <= most:
                raise self._wrong(key, f"a list of numbers from {least:g} to {most:g}", value, within=True)
        return tuple(float(value) for value in values)

    def truths(self, key: str, default: tuple[bool, ...] | _Required = REQUIRED) -> tuple[bool, ...]:
        """A list of true and false."""
        values = self._list(key, default, None, "true and false")
        for value in values:
            if not isinstance(value, bool):
                raise self._wrong(key, "a list of true and false", value, within=True)
        return tuple(values)

    def truth(self, key: str, default: bool | _Required = REQUIRED) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str, default: str | _Required = REQUIRED, most: int = 1000) -> str:
        """Text of at most `most` characters that UTF-8 can hold, without NUL."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "text", value)
        if len(value) > most:
            raise ConfigError(f"{self._place}{key} is {len(value)} characters long, {most} are allowed")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise self._wrong(key, "text without NUL and lone surrogates", value)
        return value

    def table(self, key: str, default: dict[str, Any] | _Required = REQUIRED) -> Values:
        """A nested object."""
        value = self._get(key, default)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Values(value, f"{self._place}{key}.")

    def _get(self, key: str, default: object) -> Any:
        value = self._raw.get(key)
        if value is not None:
            return value
        if default is REQUIRED:
            raise ConfigError(f"key '{self._place}{key}' is missing")
        return default

    def _list(self, key: str, default: object, count: int | None, what: str) -> list[Any]:
        value = self._get(key, default)
        most = _MOST_ENTRIES if count is None else count
        if not isinstance(value, (list, tuple)) or len(value) > most or (count is not None and len(value) != count):
            rule = f"a list of {f'at most {most}' if count is None else count} {what}"
            size = f"one of {len(value)}" if isinstance(value, (list, tuple)) else None
            raise self._wrong(key, rule, value, size=size)
        return list(value)

    def _wrong(self, key: str, rule: str, value: object, within: bool = False, size: str | None = None) -> ConfigError:
        found = shown(value) if size is None else size
        return ConfigError(f"{self._place}{key} must be {rule}, not {found}" + (" in the list" if within else ""))


def shown(value: object) -> str:
    """A JSON value as messages show it: short and on one line, without characters that a terminal obeys."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a huge number"
    # repr writes as escapes what is not printable: control and bidirectional characters, lone surrogates.
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _rule(what: str, least: float, most: float) -> str:
    first, last = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (least, most))
    return first if least == most else f"{what} from {first} to {last}"


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
