"""The tensors of one part of a checkpoint, whatever kind of files holds them."""

from __future__ import annotations

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.files import SafetensorsFiles, TensorFiles
from joyedit.weights.float8 import Float8Files, is_quantised
from joyedit.weights.gguf_file import GgufFiles
from joyedit.weights.joined import JoinedFiles
from joyedit.weights.part import Part
from joyedit.weights.pickle_file import PickleFile
from joyedit.weights.shards import weight_map


def open_part(part: Part) -> TensorFiles:
    """Open a part whose files are all there. Raises CheckpointError for files that cannot be read."""
    paths = list(part.files)
    if part.kind == "pickle":
        return PickleFile(paths[0])
    if part.kind == "gguf":
        files = GgufFiles(paths)
        return JoinedFiles(files, GgufFiles(list(part.vision))) if part.vision else files
    if part.vision:
        raise CheckpointError(
            f"{brief(str(part.files[0]), 1000)}: a vision tower in GGUF goes with a text encoder in GGUF"
        )
    opened = SafetensorsFiles(paths, None if part.index is None else weight_map(part.index))
    return Float8Files(opened) if is_quantised(opened) else opened
