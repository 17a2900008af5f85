"""What an examination has found: facts for people and for programs, and problems with their remedies. No torch here."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from joyedit.errors import JoyeditError, first_line, os_reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong, or could be better. `stops`: a run with these options would not start.

    `about` is the label of the fact that it belongs to.
    """

    about: str
    message: str
    remedy: str
    stops: bool

    def lines(self) -> list[str]:
        """The finding as text. A remedy of several lines holds a command."""
        return [f"{self.about}: {self.message}", *(f"  {line}" for line in self.remedy.splitlines())]


@dataclass(kw_only=True, slots=True)
class Examination:
    """Grows while parts of the machine are looked at. `facts` has the values of each row by their names."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    """Tracebacks of errors that are no fault of a user."""

    def tell(self, label: str, text: str, /, **values: Any) -> None:
        """A row of the table, and the same for a program."""
        self.rows.append((label, text))
        self.facts[label.lower().replace(" ", "_")] = {"text": text, **values}

    def add(self, about: str, message: str, remedy: str, *, stops: bool) -> None:
        """Something that is wrong, or could be better."""
        self.findings.append(Finding(about=about, message=message, remedy=remedy, stops=stops))

    @contextmanager
    def part(self, label: str, *, stops: bool = True) -> Iterator[None]:
        """Look at one part: whatever this raises becomes a finding, and the others are still looked at."""
        try:
            yield
        except JoyeditError as error:
            message, *rest = str(error).splitlines()
            self.add(label, message, "\n".join(rest), stops=stops)
        except OSError as error:
            self.add(label, f"it cannot be examined ({os_reason(error)})", "", stops=stops)
        except Exception as error:  # a broken package raises whatever it likes, and this is where that is told
            self.traces.append(traceback.format_exc().rstrip())
            self.add(label, f"it cannot be examined ({type(error).__name__}: {first_line(error)})", "", stops=stops)

    @property
    def problems(self) -> list[Finding]:
        """What would stop a run."""
        return [one for one in self.findings if one.stops]

    @property
    def advice(self) -> list[Finding]:
        """What would not."""
        return [one for one in self.findings if not one.stops]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `can_start`, the facts, the problems and the advice."""
        return {
            "can_start": not self.problems,
            "facts": self.facts,
            "problems": [asdict(one) for one in self.problems],
            "advice": [asdict(one) for one in self.advice],
        }
