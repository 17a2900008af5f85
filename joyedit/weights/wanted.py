"""What a user named as the model: one name for all, and files or folders for single parts of it. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyedit.weights.defaults import local_folder

Role = Literal["dit", "encoder", "vae"]
ROLES: tuple[Role, ...] = ("dit", "encoder", "vae")
NETWORKS: dict[Role, str] = {"dit": "transformer", "encoder": "text encoder", "vae": "vae"}
"""The networks as messages name them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The values of --model, --dit, --encoder, --vae and --tokenizer; None for one that was not given.

    `encoder` may be two files with a comma between them: a text encoder in GGUF and its vision tower.
    """

    model: str | None = None
    dit: str | None = None
    encoder: str | None = None
    vae: str | None = None
    tokenizer: str | None = None

    @classmethod
    def of(cls, options: object) -> Wanted:
        """The fields of these names of a run's configuration or options."""
        return cls(**{name: getattr(options, name) for name in cls.__slots__})

    @property
    def parts(self) -> dict[Role, str]:
        """The parts that are named by themselves."""
        return {role: path for role in ROLES if (path := getattr(self, role)) is not None}

    @property
    def is_enough(self) -> bool:
        """Whether every network has a place."""
        return self.model is not None or len(self.parts) == len(ROLES)

    @property
    def label(self) -> str:
        """What records call the model: the name as it was given, or names without their folders."""
        named = [(name, getattr(self, name)) for name in (*ROLES, "tokenizer") if getattr(self, name) is not None]
        if not named:
            return self.model or ""
        words = [f"{name} {','.join(Path(one).name for one in path.split(','))}" for name, path in named]
        if self.model is None:
            return ", ".join(words)
        folder = local_folder(self.model)
        return f"{self.model if folder is None else folder.resolve().name} with {', '.join(words)}"
