"""The ranks that follow, one at a time, with a test in the place of rank 0; who has which branches; and the room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.job.run_config import RunConfig
from joyedit.job.speed.settings import EXACT, Speed, StepReuse
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.runtime.joyimage.denoise import Conditioning, PartSpec
from joyedit.runtime.joyimage.encoded import Encoded
from joyedit.runtime.parallel import follow as follow_module
from joyedit.runtime.parallel.follow import EncodedHere, Facts, Follower, follow
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.links import Links
from joyedit.runtime.parallel.outcome import OK, Outcome
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.parallel.ranks import GroupRanks, RankExchange
from joyedit.runtime.parallel.room import bytes_of_share, check_room
from joyedit.runtime.protocol import BackendInfo, OutOfMemory

SPECS = {3: PartSpec(1, (2, 4), torch.bfloat16)}
EVERYWHERE = {0: PartSpec(0, (5, 4), torch.bfloat16), **SPECS}
"""What rank 0 says of the parts of all ranks."""
ENCODED = Outcome(value=EncodedHere(SPECS, 70))


@dataclass
class Share:
    """What the backend has encoded. `parts` is itself."""

    text: str

    @property
    def parts(self) -> Share:
        return self

    operations: ClassVar[int] = 70

    def specs(self, rank: int) -> dict[int, PartSpec]:
        return SPECS

    def encoded(self, specs: dict[int, PartSpec], operations: int) -> str:
        assert specs == EVERYWHERE
        return self.text


class Recorded:
    """A backend that writes down its calls."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.info = BackendInfo(model="", layout="", device="cpu", dtype="fp32", attention="sdpa", schedule="original")
        self.ranks: Any = None
        self.speed = EXACT

    def use_attention(self, name: str) -> None:
        self.calls.append(("use_attention", name))
        if name == "fa4":
            raise DeviceError("it is not installed")

    def encode_share(self, batch: str) -> Share:
        self.calls.append(("encode", batch))
        if batch == "large":
            raise OutOfMemory("no room")
        return Share(f"encoded {batch}")

    def prepare(self, batches: list[str]) -> None:
        self.calls.append(("prepare", batches))

    def ready(self) -> None:
        self.calls.append(("ready",))

    def free_memory(self) -> None:
        self.calls.append(("free_memory",))

    def denoise(self, encoded: str, on_step: Callable[[int, int], None], begin: Callable[[], None]) -> None:
        if "early" in encoded:
            raise OutOfMemory("no room")
        begin()
        on_step(1, 1)
        self.calls.append(("denoise", encoded))
        if "late" in encoded:
            raise OutOfMemory("no room")

    def close(self) -> None:
        self.calls.append(("close",))


def serve(*messages: Any) -> tuple[Recorded, Follower, list[Any]]:
    """What a follower does and says, told all of this at once."""
    ours, theirs = Pipe()
    for message in messages:
        ours.send(message)
    backend = Recorded()
    follower = Follower(backend, ranks_of(2, 1), theirs)  # type: ignore[arg-type]
    error: list[Any] = []
    try:
        follower.serve()
    except OutOfMemory:
        error.append("raised")
    theirs.close()
    said = []
    while ours.poll():
        try:
            said.append(ours.recv())
        except (EOFError, ConnectionResetError):
            break
    return backend, follower, said + error


def test_calls_that_each_rank_does_alone() -> None:
    backend, follower, said = serve(
        ("ready", None, []),
        ("prepare", ["a", "b"], []),
        ("encode", (0, "a"), []),
        ("encode", (1, "large"), []),
        ("encode", (2, "c"), [0]),
        ("free_memory", None, [5]),
        ("close", None, []),
    )
    assert [name for name, *_ in backend.calls] == ["ready", "prepare", "encode", "encode", "encode", "free_memory"]
    assert follower._encoded == {2: Share("encoded c")}
    assert said == [OK, OK, ENCODED, Outcome.of(OutOfMemory("no room")), ENCODED, OK]


def test_denoising_when_all_are_ready() -> None:
    backend, _, said = serve(("encode", (0, "a"), []), ("denoise", (0, EVERYWHERE), []), True, ("close", None, []))
    assert backend.calls[-1] == ("denoise", "encoded a")
    assert said == [ENCODED, OK, OK]


def test_denoising_that_another_rank_is_not_ready_for() -> None:
    backend, _, said = serve(("encode", (0, "a"), []), ("denoise", (0, EVERYWHERE), []), False, ("close", None, []))
    assert backend.calls == [("encode", "a")]
    assert said == [ENCODED, OK]


def test_denoising_that_it_is_not_ready_for_itself() -> None:
    _, _, said = serve(("encode", (0, "early"), []), ("denoise", (0, EVERYWHERE), []), False, ("close", None, []))
    assert said == [ENCODED, Outcome.of(OutOfMemory("no room"))]


def test_an_error_in_the_midst_ends_it() -> None:
    _, _, said = serve(("encode", (0, "late"), []), ("denoise", (0, EVERYWHERE), []), True, ("close", None, []))
    assert said == [ENCODED, OK, Outcome.of(OutOfMemory("no room")), "raised"]


class NoRanks:
    """In the place of a process group."""

    closed: ClassVar[list[bool]] = []

    def __init__(self, place: Place, device: torch.device) -> None:
        self.closed.clear()

    def close(self, lost: bool = False) -> None:
        self.closed.append(lost)


def as_rank_0(folder: Path, act: Callable[[Links], None]) -> threading.Thread:
    def first() -> None:
        links = Links.to_all(Place(rank=0, layout=Layout(guidance=2), folder=folder))
        act(links)
        links.close()

    thread = threading.Thread(target=first)
    thread.start()
    return thread


def followed(folder: Path, act: Callable[[Links], None], load: Callable[[RunConfig], Any]) -> None:
    thread = as_rank_0(folder, act)
    try:
        follow(RunConfig(output=folder), Place(rank=1, layout=Layout(guidance=2), folder=folder, device=0), load)
    finally:
        thread.join()


def test_from_loading_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "GroupRanks", NoRanks)
    backend, heard = Recorded(), []

    def act(links: Links) -> None:
        heard.extend(links.hear())
        links.tell("sdpa")
        heard.extend(links.hear())
        links.tell(("close", None, []))

    followed(tmp_path, act, lambda config: backend)
    assert heard == [Facts.of(backend), OK]  # type: ignore[arg-type]
    assert backend.calls == [("use_attention", "sdpa"), ("close",)]
    assert NoRanks.closed == [False]


@pytest.mark.parametrize("told", [[], ["sdpa"]])
def test_rank_0_goes_away(told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it loads, or later: it ends without an error."""
    monkeypatch.setattr(follow_module, "GroupRanks", NoRanks)
    backend = Recorded()

    def act(links: Links) -> None:
        links.hear()
        for word in told:
            links.tell(word)
            links.hear()

    followed(tmp_path, act, lambda config: backend)
    assert backend.calls[-1] == ("close",)
    if told:
        assert NoRanks.closed == [True]


def test_another_kernel_that_does_not_serve(tmp_path: Path) -> None:
    backend, heard = Recorded(), []

    def act(links: Links) -> None:
        links.hear()
        links.tell("fa4")
        heard.extend(links.hear())

    with pytest.raises(DeviceError):
        followed(tmp_path, act, lambda config: backend)
    assert heard == [Outcome.of(DeviceError("it is not installed"))]
    assert backend.calls[-1] == ("close",)


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    heard: list[Any] = []

    def load(config: RunConfig) -> Any:
        raise DeviceError("no device")

    with pytest.raises(DeviceError):
        followed(tmp_path, lambda links: heard.extend(links.hear()), load)
    assert heard == [Outcome.of(DeviceError("no device"))]


def ranks_of(guidance: int, rank: int, sequence: int = 1) -> GroupRanks:
    """Ranks that never meet."""
    found = object.__new__(GroupRanks)
    found.rank, found.world = rank * sequence, guidance * sequence
    found.guidance = RankExchange(None, range(guidance), rank) if guidance > 1 else None
    found.sequence = RankExchange(None, range(sequence), 0) if sequence > 1 else None
    return found


@pytest.mark.parametrize(
    ("branches", "size", "expected"),
    [(2, 1, [[0, 1]]), (2, 2, [[0], [1]]), (1, 2, [[], [0]]), (3, 2, [[0], [1, 2]]), (4, 2, [[0, 1], [2, 3]])],
)
def test_branches_are_divided_evenly(branches: int, size: int, expected: list[list[int]]) -> None:
    assert [list(ranks_of(size, rank).own(branches)) for rank in range(size)] == expected


def test_the_room_of_a_share() -> None:
    """Half of the branches take half of the room, and so do half of the tokens; modulations are for all."""
    cfg = DiTConfig(hidden_size=64, num_heads=2, num_layers=2, text_dim=16, rope_dims=(4, 14, 14))
    backend = Recorded()
    backend.dit = DiT(cfg)  # type: ignore[attr-defined]
    latent, text = torch.zeros(1, 16, 8, 12), torch.zeros(6, 16)
    given = Conditioning(noise=latent, references=(latent,), positive=(text,), negative=(text,), scales=(4.0,))
    encoded = Encoded(conditioning=given, steps=1)
    shares = {
        layout: bytes_of_share(backend, encoded, ranks_of(*layout))  # type: ignore[arg-type]
        for layout in ((1, 0, 1), (2, 0, 1), (1, 0, 2), (2, 1, 2))
    }
    fixed = 2 * shares[2, 0, 1] - shares[1, 0, 1]
    assert shares[1, 0, 2] == shares[2, 0, 1] > fixed > 0
    assert shares[2, 1, 2] - fixed == (shares[1, 0, 1] - fixed) / 4
    theirs, own = PartSpec(0, (10,), torch.float32), PartSpec(1, (7,), torch.bfloat16)
    exchanged = replace(encoded, specs=(theirs, own))
    more = bytes_of_share(backend, exchanged, ranks_of(2, 1)) - shares[2, 0, 1]  # type: ignore[arg-type]
    assert more == 40 + 14 + 3 * 14  # what all have sent, and what is sent to each of two
    backend.speed = Speed(reuse=StepReuse(threshold=0.1, order=1))
    kept = bytes_of_share(backend, encoded, ranks_of(2, 0)) - shares[2, 0, 1]  # type: ignore[arg-type]
    assert kept == (4 * 24 + 54) * 64 * 4  # four residuals of 24 target tokens, and the stream of all 54
    check_room(backend, encoded, ranks_of(1, 0))  # type: ignore[arg-type]  # a CPU is not asked
