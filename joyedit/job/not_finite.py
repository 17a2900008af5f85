"""Numbers that JSON does not have: NaN and the infinities. Records hold them as texts; tables hold the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NOT_FINITE = frozenset(("nan", "inf", "-inf"))
"""What stands in records for such numbers."""


def as_text(value: Any) -> Any:
    """The text in place of such a number; every other value as it is."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def with_numbers(values: Sequence[Any], *, are_numbers: bool = False) -> list[Any]:
    """The values of a column with such numbers in place of their texts, where all others are numbers.

    `are_numbers`: it is known that the column holds numbers, although these values do not show it. A value that is a
    list is looked at by itself.
    """
    found: list[Any] = [with_numbers(one) if isinstance(one, list) else one for one in values]
    odd = [isinstance(one, str) and one in NOT_FINITE for one in found]
    others = {type(one) for one, is_odd in zip(found, odd, strict=True) if not is_odd and one is not None}
    if not any(odd) or not others <= {int, float} or not (others or are_numbers):
        return found
    return [float(one) if is_odd else one for one, is_odd in zip(found, odd, strict=True)]
