"""What a run or a dry run says about the files that it passes over."""

from __future__ import annotations

from joyedit.cli import console
from joyedit.job.source.passed_over import PassedOver
from joyedit.printable import printable


def tell_passed_over(passed: PassedOver, *, by_name: bool) -> None:
    """How many files and folders, and what they are; `by_name` names them."""
    if not passed.count:
        return
    if by_name:
        for path, kind in passed.names:
            console.message(f"passed over: {printable(path)}: {kind}", "passed_over", path=path, reason=kind)
        more = passed.count - len(passed.names)
        if more > 0:
            console.message(f"passed over: {more} more", "passed_over", count=more)
        return
    counted = ", ".join(f"{count} x {kind}" for kind, count in passed.kinds.most_common())
    told = f"passed over: {passed.count} files and folders: {counted} (-v names them)"
    console.message(told, "passed_over", count=passed.count)
