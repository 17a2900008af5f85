"""What a person asks for becomes a checked request. The command line and the Python interface both go through here.

Every fault of the options is told at once, before anything is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from joyedit.errors import UsageError, refuse_other_encoding
from joyedit.job.results.journal import has_records
from joyedit.job.results.shard_run import as_shard
from joyedit.job.source.columns import ALL, Columns
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.loras import LoraSet, LoraShelf, wishes_of
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.matrix_reader import flag_matrix
from joyedit.job.source.name_template import FIELDS, UNIQUE, NameTemplate, read_template
from joyedit.job.source.names import EXTENSIONS, SAME
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.job.source.problems import Record, shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.source_options import RunDefaults
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.source.typed_texts import without_file_marks
from joyedit.job.spec import BASE_SIZES, MAX_PIXELS, READ_TIMEOUT, EditItem, Lora, RunConfig, Settings
from joyedit.options import DoctorOptions, RunOptions, faults_of, names_of, option_of
from joyedit.quantities import memory_bytes, seconds_of
from joyedit.replay import open_replay, with_replay
from joyedit.runtime.model import (
    DescribeModel,
    LoadModel,
    backend_loader,
    describe_without_loading,
    fetch,
    model_settings,
    no_model,
)
from joyedit.runtime.one_picture import OnePicture
from joyedit.runtime.page_of_run import with_page
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.run import RunOutcome, run
from joyedit.weights.lora_facts import lora_facts
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from joyedit.runtime.workers.place import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One run as it was asked for: where items come from, what is in force, and who said so."""

    source: Source
    config: RunConfig
    flags: Settings
    recipe: Recipe | None
    checkpoint: Settings
    picture: OnePicture | None = None
    """The file that the run is to make, where the user names one in place of an output folder."""
    notes: tuple[str, ...] = ()
    """What the user should know before the run."""
    page: bool = False
    """Whether the run ends with a page of the output folder. That of a shard does not: the merge makes one."""
    places: tuple[Place, ...] = ()
    """Where worker processes edit, for one device each; none where this process does."""


def run_request(request: Request, progress: Progress | None = None) -> RunOutcome:
    """Do what was asked for. Errors as in `runtime.run.run`."""

    load: LoadModel = backend_loader(Wanted.of(request.config))
    describe: DescribeModel = describe_without_loading
    if request.places:
        from joyedit.runtime.workers.load import describer, fleet_loader

        load = fleet_loader(request.places, one_by_one=request.source.kind == "stdin")
        describe = describer(request.places)

    def start() -> RunOutcome:
        return run(
            request.source,
            request.config,
            load_backend=load,
            describe=describe,
            fetch=None if progress is None else fetch,  # without progress, huggingface_hub shows its own
            progress=progress,
        )

    if request.picture is not None:
        return request.picture.run(start)
    return with_page(start(), request.config.output, progress) if request.page else start()


def build_request(options: RunOptions) -> Request:
    """Raises `UsageError` for options that cannot work, `ManifestError` for a faulty recipe."""
    refuse_other_encoding()
    options, replay = with_replay(options)
    _refuse(options)
    options = _with_home(options)
    picture = _one_picture(options)
    if picture is not None:
        # Nothing but this picture is ever in its folder, so nothing there is to be kept.
        format: Any = _format_of(picture.path)
        options = replace(options, output=picture.folder, format=format, update=not options.overwrite)
        picture.refuse([Path(one) for one in (options.source[0], options.mask) if one is not None])
    given = Settings(**_named_as(Settings, options))
    config = RunConfig(**_named_as(RunConfig, options) | _converted(options))
    config, shard = as_shard(config, options.shard, options.source, makes_file=picture is not None)
    config, places = _with_places(config, options)
    recipe = None if options.recipe is None else load_recipe(options.recipe)
    checkpoint = model_settings(Wanted.of(options))
    values = _recipe_values(options.values)
    columns = Columns.of(options.map, options.ignore_columns, options.keep_columns)
    matrix = flag_matrix(options.seeds, options.sweep, recipe, given, values)
    template = _template(options, config.format, recipe, columns, matrix)
    if picture is not None and (matrix or template is not None):
        raise UsageError(_one_name(picture.path, matrix))
    source_options = SourceOptions(
        prompt=without_file_marks(options.prompt),
        flags=given,
        recipe=recipe,
        recipe_values=values,
        checkpoint=checkpoint,
        format=config.format,
        output=options.output,
        file_name=None if picture is None else picture.path.name,
        limit=options.limit,
        exclude=options.exclude,
        shard=shard,
        look=not (has_records(config.output) or has_records(options.output)),
        skip_missing=options.skip_missing,
        text_to_image=options.text_to_image,
        columns=columns,
        matrix=matrix,
        template=template,
        lora=options.lora,
        mask=options.mask,
        shelf=LoraShelf(lora_facts),
    )
    return Request(
        source=_source(options.source, source_options) if replay is None else open_replay(replay, source_options),
        config=config,
        flags=given,
        recipe=recipe,
        checkpoint=checkpoint,
        picture=picture,
        notes=() if replay is None else replay.notes,
        page=picture is None and shard is None and not options.no_page,
        places=places,
    )


def _source(names: tuple[str, ...], options: SourceOptions) -> Source:
    return open_source(names, options, _stdin() if names == ("-",) else None)


def _with_places(config: RunConfig, options: RunOptions) -> tuple[RunConfig, tuple[Place, ...]]:
    """The places of the workers, where `--gpus` asks for several. Raises UsageError and DeviceError."""
    if options.gpus is None and config.parallel in ("auto", "data"):
        return config, ()
    from joyedit.runtime.workers.grouping import with_places

    return with_places(config, options.gpus)


def _template(
    options: RunOptions, format: str, recipe: Recipe | None, columns: Columns, matrix: Matrix
) -> NameTemplate | None:
    """What `--name` says, if it is given. Raises UsageError, also where all edits of an item would get one name."""
    if options.name is None:
        return None
    parameters = None if recipe is None else recipe.parameters
    template = read_template(options.name, format=format, recipe=parameters, columns=columns.kept - {ALL})
    lacking = sorted(matrix.keys - template.fields) if not template.fields & UNIQUE else []
    several = [axis for key in lacking if (axis := matrix.axis(key)) is not None and len(axis) > 1]
    if several:
        known = {*FIELDS, *(parameters or ())}
        fields = "".join(f"{{{axis.key}}}, " for axis in several if axis.key in known)
        raise UsageError(
            f"--name {shown(options.name)} gives several edits of an item one name, because each item is edited with "
            f"{matrix.text} (add {fields}{{id}} or {{index}})"
        )
    return template


def _one_name(path: Path, matrix: Matrix) -> str:
    if matrix:
        return f"-o {path} names one picture, and each item is edited with {matrix.text} (name a folder)"
    return f"-o {path} and --name both name the picture (leave one of them out)"


def _with_home(options: RunOptions) -> RunOptions:
    """The options with `~` expanded: a shell leaves it as it is in `--output=~/out`. Raises UsageError."""
    output = _home_path("--output", os.fspath(options.output))
    source = tuple([one if os.path.lexists(one) else _home_path("SOURCE", one) for one in options.source])
    recipe = None if options.recipe is None else _home_path("--recipe", options.recipe)
    mask = None if options.mask is None else _home_path("--mask", options.mask)
    return replace(options, output=Path(output), source=source, recipe=recipe, mask=mask)


def _home_path(flag: str, path: str) -> str:
    expanded = os.path.expanduser(path)
    if path[:1] == "~" and expanded == path:
        raise UsageError(f"{flag} {path}: there is no home folder of this name (a folder here of this name: ./{path})")
    return expanded


def loading_config(model: str | None, options: Mapping[str, Any]) -> RunConfig:
    """The checked options of loading a model, for a caller that edits without a run. Raises UsageError."""
    wanted = RunOptions(source=(), model=model, **options)
    faults = faults_of(wanted)
    if faults:
        raise UsageError("\n".join(faults))
    return RunConfig(**_named_as(RunConfig, wanted) | _converted(wanted), merged_loras=loaded_loras(wanted.lora).loras)


def loaded_loras(given: tuple[str, ...]) -> LoraSet:
    """The LoRAs of a model that is loaded with `--lora`. Raises UsageError."""
    found, problems = LoraShelf(lora_facts).find(wishes_of(given), "")
    if problems:
        raise UsageError("\n".join(f"--lora: {problem.text}" for problem in problems))
    return found


def doctor_request(options: DoctorOptions) -> tuple[RunConfig, Settings]:
    """The configuration of a run that is not to be made, and the settings of its items. Raises UsageError."""
    faults = faults_of(options)
    if options.basesize is not None and options.basesize not in BASE_SIZES:
        faults.append(f"--basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {options.basesize}")
    if faults:
        raise UsageError("\n".join(faults))
    named = set(names_of(DoctorOptions)) & {one.name for one in fields(RunConfig)}
    given = {name: getattr(options, name) for name in named}
    output = Path(_home_path("--output", os.fspath(options.output)))
    config = RunConfig(**given | {"memory": memory_bytes(options.memory), "output": output})
    return config, Settings(basesize=options.basesize)


def build_item(
    pictures: int, instruction: str, settings: Mapping[str, Any], checkpoint: Settings, loras: tuple[Lora, ...] = ()
) -> EditItem:
    """One edit of `pictures` references, checked as a line of a manifest is. Raises UsageError.

    `checkpoint` are the settings that the checkpoint brings, `loras` those that the model is loaded with.
    """
    options = SourceOptions(checkpoint=checkpoint, output=None)
    builder = ItemBuilder(file="edit", base="", options=options, defaults=RunDefaults(), look=False)
    line = {key: value for key, value in settings.items() if value is not None}
    line |= {"id": "edit", "instruction": instruction}
    if pictures:
        line["images"] = [f"picture {number}" for number in range(1, pictures + 1)]
    items, problems = builder.build(Record(0, line))
    item = items[0] if items else None
    if not isinstance(item, EditItem):
        message = (one.message + (f" ({one.remedy})" if one.remedy else "") for one in problems)
        raise UsageError("\n".join(message))
    return replace(item, loras=loras)


def _named_as(kind: type, options: RunOptions) -> dict[str, Any]:
    """The values of the options that a class has a field of the same name for."""
    both = {one.name for one in fields(kind)} & set(names_of(RunOptions))
    return {name: getattr(options, name) for name in both}


def _converted(options: RunOptions) -> dict[str, Any]:
    """What a run needs in another form than a person gives it."""
    return {
        "batch_size": None if options.batch_size == "auto" else int(options.batch_size),
        "redo": "all" if options.overwrite else "failed" if options.retry_failed else "changed",
        "format": options.format or "png",
        "memory": memory_bytes(options.memory),
        "max_duration": seconds_of("--max-duration", options.max_duration),
        "max_pixels": options.max_pixels or MAX_PIXELS,
        "read_timeout": seconds_of("--read-timeout", options.read_timeout) or READ_TIMEOUT,
    }


def _refuse(options: RunOptions) -> None:
    """Raises UsageError with every fault of the options that are no settings of an item; `open_source` tells those."""
    settings = {option_of(RunOptions, name).name for name in _named_as(Settings, options)}
    faults = [fault for fault in faults_of(options) if fault.split(" ", 1)[0] not in settings]
    wanted = Wanted.of(options)
    if not wanted.is_enough and (wanted.parts or not options.dry_run):
        faults.append(f"{no_model(wanted)}; --dry-run needs none" if not wanted.parts else no_model(wanted))
    if isinstance(options.batch_size, str) and options.batch_size != "auto" and not _is_number(options.batch_size):
        faults.append(f"--batch-size must be auto or a number from 1, not {options.batch_size!r}")
    if options.values and options.recipe is None:
        faults.append("--set gives a parameter of a recipe, but no recipe is given: name one with --recipe")
    faults += [f"--set takes name=value, not {value!r}" for value in options.values if not _is_pair(value)]
    if options.mask is not None and not _is_file(options.mask):
        faults.append(f"--mask {shown(options.mask)}: there is no such picture (give the path of a file)")
    for one, other in (("overwrite", "retry_failed"), ("overwrite", "update"), ("quiet", "verbose")):
        if getattr(options, one) and getattr(options, other):
            first, second = (option_of(RunOptions, name).name for name in (one, other))
            faults.append(f"{first} and {second} exclude each other")
    if faults:
        raise UsageError("\n".join(faults))


def _one_picture(options: RunOptions) -> OnePicture | None:
    """The file that --output names; None if it names a folder. Raises UsageError for a file that cannot be."""
    ending = options.output.suffix.lower()
    if ending not in PICTURE_SUFFIXES or os.path.isdir(options.output):
        return None
    source = options.source[0] if len(options.source) == 1 else ""
    is_one_name = not (source.startswith("@") or set("*?[").intersection(source))
    if source not in ("", "-") and is_one_name and not os.path.exists(source):
        return None  # told with its reason when the source is opened
    if Path(source).suffix.lower() not in PICTURE_SUFFIXES or not os.path.isfile(source):
        raise UsageError(
            f"-o {options.output} names one picture, and SOURCE may be many (name a folder for the edited pictures)"
        )
    format = _format_of(options.output)
    if format is None or options.format not in (None, format, SAME):
        if format is not None:
            raise UsageError(f"-o {options.output} does not fit --format {options.format}")
        raise UsageError(f"-o {options.output}: joyedit writes {', '.join(EXTENSIONS)}, and no {ending[1:]}")
    return OnePicture(path=options.output, may_replace=options.overwrite or options.update)


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(path))
    except ValueError:  # a NUL in the name
        return False


def _format_of(path: Path) -> str | None:
    """The format that the ending of a picture's name stands for; None if joyedit does not write it."""
    return next((format for format, endings in EXTENSIONS.items() if path.suffix.lower() in endings), None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _is_pair(value: str) -> bool:
    return bool(value.partition("=")[0].strip()) and "=" in value


def _recipe_values(pairs: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name.strip() in values:
            raise UsageError(f"--set {name.strip()} is given twice")
        values[name.strip()] = value
    return values


def _stdin() -> BinaryIO:
    """Standard input for a thread that may still wait in it when the program ends.

    sys.stdin's own buffer would then be locked, and the interpreter dies over that at its exit.
    """
    if sys.stdin is None:
        raise UsageError("SOURCE is -, but there is no standard input")
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # no real file: a test's
        return sys.stdin.buffer
