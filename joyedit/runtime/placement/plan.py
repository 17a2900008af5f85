"""The plan: which weights stay on the device, which pass through it, and what that takes and costs.

It is arithmetic over sizes, and it is made before a weight is read. Three placements are tried, the fastest first:
everything on the device; the DiT on the device while the text encoder's layers pass through; and some of the DiT's
blocks on the device, as many as there is room for, while the others pass through too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from joyedit.errors import DeviceError
from joyedit.job.pictures.machine_memory import SPARE as HOST_SPARE
from joyedit.job.spec import OffloadName
from joyedit.printable import gigabytes
from joyedit.runtime.placement.sizes import Sizes

SPARE_SHARE, SPARE_LEAST, SPARE_MOST = 0.09, 300_000_000, 1_500_000_000
"""What a bounded run leaves free of its budget, for kernels' workspaces and for what the allocator cannot piece
together: this share, at least and at most so many bytes."""
FEWEST_SLOTS, SLOTS = 2, 3
"""Buffers for passing layers: one computes while the next arrives. A third one smooths what a bus does to others."""
ENCODE_AHEAD = 4
"""Batches whose texts are read in one pass over the text encoder's layers, where these are not resident."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingMemory:
    """Bytes of the device beside the weights, for one edit of the largest size.

    `encode` does not count the layers that pass, `kept` is there all the time: pictures' features for later, and
    what a window of edits waits with.
    """

    encode: int
    denoise: int
    decode: int
    kept: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What lies where. `resident_blocks` of the DiT's `blocks` stay on the device; `slots` buffers serve the others.

    `weights` are bytes of the device that hold weights for the whole run, passing blocks' buffers included,
    `passing_encoder` those that the text encoder's layers take while it works. `working` is the room for everything
    else. `host` are bytes of the host's memory, `from_disk` the DiT's blocks that have no room there.
    """

    blocks: int
    resident_blocks: int
    slots: int
    encoder_streams: bool
    weights: int
    passing_encoder: int
    working: int
    predicted_peak: int
    host: int
    from_disk: int = 0
    bytes_a_step: int = 0
    bytes_an_encoding: int = 0
    first_stays: int = 0
    """So many of the first blocks are resident: step reuse runs them in every step, and no others in some."""

    @property
    def streams_blocks(self) -> bool:
        """Whether some of the DiT's blocks pass through the device."""
        return self.resident_blocks < self.blocks

    @property
    def is_resident(self) -> bool:
        """Whether all weights stay on the device."""
        return not (self.streams_blocks or self.encoder_streams)

    def streamed_blocks(self) -> list[int]:
        """Numbers of the passing blocks. They are spread evenly: each comes while resident neighbours compute."""
        count, first = self.blocks - self.resident_blocks, min(self.first_stays, self.resident_blocks)
        return [first + (2 * number + 1) * (self.blocks - first) // (2 * count) for number in range(count)]

    def blocks_from_disk(self) -> list[int]:
        """Numbers of the passing blocks that are read from the disk each time, spread evenly among them."""
        passing = self.streamed_blocks()
        return [passing[(2 * n + 1) * len(passing) // (2 * self.from_disk)] for n in range(self.from_disk)]

    def key(self) -> str:
        """Tells placements apart where the device's speed depends on them."""
        return "resident" if not self.streams_blocks else f"{self.resident_blocks}+{self.slots}"

    def text(self, budget: int, bus_rate: float | None = None, disk_rate: float | None = None) -> str:
        """The placement in words, with what it takes and what it costs.

        `budget` are the bytes of the device that joyedit may use, `bus_rate` and `disk_rate` the bytes a second that
        come to it from the host's memory, and to there from the disk.
        """
        peak = f"expected peak {gigabytes(self.predicted_peak)} of {gigabytes(budget)}"
        if self.is_resident:
            return f"all weights stay on the device; {peak}"
        if self.streams_blocks:
            count = self.blocks - self.resident_blocks
            which = f"{count} of {self.blocks}" if self.resident_blocks else f"all {count}"
            text = f"{which} DiT blocks pass through the device, {self._cost(self.bytes_a_step, bus_rate)} a step"
            text += ", behind the blocks that compute"
            if self.from_disk:
                read = self.bytes_a_step * self.from_disk // count
                text += f", {self.from_disk} of them from the disk, {self._cost(read, disk_rate)}, which may be slower"
            text += "; so do the text encoder's layers"
        else:
            text = "the DiT stays on the device; the text encoder's layers pass through it"
        return f"{text}, {self._cost(self.bytes_an_encoding, bus_rate)} for each reading of prompts; {peak}"

    @staticmethod
    def _cost(count: int, rate: float | None) -> str:
        return gigabytes(count) if rate is None else f"{gigabytes(count)} in {count / rate:.2g} s"


def spare(budget: int) -> int:
    """What a plan leaves free of a budget, in bytes."""
    return int(min(SPARE_MOST, max(SPARE_LEAST, SPARE_SHARE * budget)))


def choose(
    sizes: Sizes,
    working: WorkingMemory,
    budget: int,
    host: int | None,
    *,
    reserve: int,
    offload: OffloadName = "auto",
    may_read_later: bool = True,
    first_stays: int = 0,
) -> Placement:
    """The fastest placement within `budget` bytes of the device and `host` bytes of the host's memory.

    `host` is None where the system does not tell. `reserve` is left free if everything stays on the device.
    `offload` forces one: "none" everything resident, "encoder" the text encoder passing, "blocks" all blocks too.
    `may_read_later`: whether blocks that the host has no room for can be read from their files. `first_stays`: so many
    of the first blocks stay on the device in any case.
    Raises DeviceError that says what is needed, what there is and what helps.
    """
    if offload == "none" or (offload == "auto" and resident(sizes, working).predicted_peak + reserve <= budget):
        return resident(sizes, working)
    room = budget - spare(budget)
    candidates: list[Placement] = []
    if offload != "blocks":
        candidates.append(streamed(sizes, working, sizes.blocks.count, 0))
    if offload != "encoder":
        candidates += _with_blocks(sizes, working, room if offload == "auto" else 0, first_stays)
    fitting = [candidate for candidate in candidates if candidate.predicted_peak <= room]
    if not fitting and offload != "auto":
        fitting = candidates[-1:]  # an override is obeyed; a lack of memory is met when it comes
    if not fitting:
        raise DeviceError(_refusal(candidates[-1].predicted_peak, budget))
    return _with_host(fitting[0], sizes, host, may_read_later)


def resident(sizes: Sizes, working: WorkingMemory) -> Placement:
    """Everything on the device. Encoding and denoising overlap there."""
    room = working.kept + max(working.encode + working.denoise, working.decode)
    return Placement(
        blocks=sizes.blocks.count,
        resident_blocks=sizes.blocks.count,
        slots=0,
        encoder_streams=False,
        weights=sizes.total,
        passing_encoder=0,
        working=room,
        predicted_peak=sizes.total + room,
        host=0,
    )


def streamed(sizes: Sizes, working: WorkingMemory, resident_blocks: int, slots: int) -> Placement:
    """The encoder passing, and so many blocks resident. Encoding, denoising and decoding take turns."""
    # First all blocks of the vision tower, which are small, for all pictures of a batch; then the text's layers.
    encoder = max(sizes.vision_blocks.total, SLOTS * sizes.text_layers.nbytes)
    weights = sizes.vae + sizes.text_rest + sizes.dit_rest + (resident_blocks + slots) * sizes.blocks.nbytes
    room = working.kept + max(working.encode + encoder, working.denoise, working.decode)
    passing = (sizes.blocks.count - resident_blocks) * sizes.blocks.nbytes
    an_encoding = sizes.text_layers.total + sizes.vision_blocks.total
    return Placement(
        blocks=sizes.blocks.count,
        resident_blocks=resident_blocks,
        slots=slots,
        encoder_streams=True,
        weights=weights,
        passing_encoder=encoder,
        working=room,
        predicted_peak=weights + room,
        host=passing + an_encoding + sizes.embedding,
        bytes_a_step=passing,
        bytes_an_encoding=an_encoding,
    )


def _with_blocks(sizes: Sizes, working: WorkingMemory, room: int, first_stays: int) -> list[Placement]:
    """As many resident blocks as there is room for, and the least that works.

    First blocks pass too if nothing else fits.
    """
    least = replace(streamed(sizes, working, first_stays, FEWEST_SLOTS), first_stays=first_stays)
    free = (room - least.predicted_peak) // sizes.blocks.nbytes
    smaller = [least, streamed(sizes, working, 0, FEWEST_SLOTS)] if first_stays else [least]
    if free <= 0:
        return smaller
    slots = SLOTS
    resident_blocks = min(free - (slots - FEWEST_SLOTS) + first_stays, sizes.blocks.count - slots - 1)
    most = streamed(sizes, working, max(first_stays, resident_blocks), slots)
    return [replace(most, first_stays=first_stays), *smaller]


def _with_host(placement: Placement, sizes: Sizes, host: int | None, may_read_later: bool) -> Placement:
    """Blocks that the host has no room for are read from the disk. Raises DeviceError if that does not help."""
    if host is None or placement.host + HOST_SPARE <= host:
        return placement
    lacking = placement.host + HOST_SPARE - host
    passing = placement.blocks - placement.resident_blocks
    buffers = placement.slots
    count = min(passing, -(-lacking // sizes.blocks.nbytes) + buffers)  # the buffers lie in the host's memory too
    needed = placement.host + (min(buffers, count) - count) * sizes.blocks.nbytes
    if not may_read_later or needed + HOST_SPARE > host:
        needed = needed if may_read_later else placement.host
        raise DeviceError(
            f"the weights that wait in the host's memory take {gigabytes(needed)}, and {gigabytes(host)} are"
            f" available ({gigabytes(HOST_SPARE)} of it stay free); close other programs, or use a machine with more"
            " memory"
        )
    return replace(placement, from_disk=count, host=needed)


def _refusal(needed: int, budget: int) -> str:
    at_least = needed + spare(needed)
    return (
        f"the device has room for {gigabytes(budget)}, and this model needs {gigabytes(at_least)} at this size even if"
        " its layers pass through one by one; close other programs on the device, raise --memory, or lower --basesize"
    )
