"""What a person asks for becomes a checked request. The command line and the Python interface both go through here.

Every fault of the options is told at once, before anything is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from joyedit.errors import UsageError, refuse_other_encoding
from joyedit.job.results.journal import has_records
from joyedit.job.results.objects.reading import was_used
from joyedit.job.results.shard_run import as_shard
from joyedit.job.run_config import RunConfig
from joyedit.job.source.columns import Columns
from joyedit.job.source.layouts.choice import DatasetChoice
from joyedit.job.source.loras import LoraShelf
from joyedit.job.source.matrix_reader import flag_matrix
from joyedit.job.source.python.given import Given
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.replay import Replay
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.source.typed_texts import without_file_marks
from joyedit.job.spec import Settings
from joyedit.options import RunOptions
from joyedit.replay import open_replay, with_replay
from joyedit.request.checks import name_template, one_name, refuse, with_home
from joyedit.request.cluster import ray_engine
from joyedit.request.objects import open_objects, with_objects
from joyedit.request.picture import format_of, one_picture
from joyedit.request.values import converted, named_as
from joyedit.request.writing import refuse_source, refuse_writing, tree_of, with_writing
from joyedit.runtime.model import (
    DescribeModel,
    LoadModel,
    backend_loader,
    describe_without_loading,
    fetch,
    fetch_what_fits,
    model_settings,
    most_references,
)
from joyedit.runtime.one_picture import OnePicture
from joyedit.runtime.page_of_run import with_page
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.run import RunOutcome, run
from joyedit.weights.lora_facts import lora_facts
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from joyedit.runtime.ray_engine.engine import RayEngine
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
    ray: RayEngine | None = None
    """The cluster where machines edit; None where this one does."""
    places: tuple[Place, ...] = ()
    """Where worker processes edit, for one device each; none where this process does."""


def run_request(
    request: Request, progress: Progress | None = None, page_stopped: Callable[[], bool] = bool
) -> RunOutcome:
    """Do what was asked for. Errors as in `runtime.run.run`. `page_stopped`: whether no page is wanted any more."""

    load: LoadModel = backend_loader(Wanted.of(request.config))
    describe: DescribeModel = describe_without_loading
    if request.places:
        from joyedit.runtime.workers.load import describer, fleet_loader

        load = fleet_loader(request.places, one_by_one=request.source.kind == "stdin")
        describe = describer(request.places)
    if request.ray is not None:
        load, describe = request.ray.load, request.ray.describe

    get = fetch if request.places else fetch_what_fits

    def start() -> RunOutcome:
        return run(
            request.source,
            request.config,
            load_backend=load,
            describe=describe,
            # Without progress, huggingface_hub shows its own; machines of a cluster download what they need.
            fetch=None if progress is None or request.ray is not None else get,
            progress=progress,
        )

    if request.ray is not None:
        config = request.config
        with closing(request.ray), open_objects(config.objects, config.output, request.ray, progress):
            outcome = start()
        return with_page(outcome, request.config.output, progress, page_stopped) if request.page else outcome
    if request.picture is not None:
        return request.picture.run(start)
    return with_page(start(), request.config.output, progress, page_stopped) if request.page else start()


def build_request(options: RunOptions, objects: Given | None = None) -> Request:
    """`objects` take the place of names of files. Raises UsageError, and ManifestError for a faulty recipe."""
    refuse_other_encoding()
    options, replay = with_replay(options)
    refuse(options)
    options = with_writing(with_home(options))
    options, store = with_objects(options)
    options, picture = (options, None) if store is not None else _with_picture(options)
    given = Settings(**named_as(Settings, options))
    config = RunConfig(**named_as(RunConfig, options) | converted(options) | {"objects": store})
    config, shard = as_shard(config, options.shard, options.source, makes_file=picture is not None)
    ray = ray_engine(options, makes_file=picture is not None)
    config, places = (config, ()) if ray is not None else _with_places(config, options)
    recipe = None if options.recipe is None else load_recipe(options.recipe)
    checkpoint = model_settings(Wanted.of(options))
    values = _recipe_values(options.values)
    columns = Columns.of(options.map, options.ignore_columns, options.keep_columns)
    matrix = flag_matrix(options.seeds, options.sweep, recipe, given, values)
    refuse_writing(config, matrix, makes_file=picture is not None)
    template = name_template(options, config.format, recipe, columns, matrix)
    one_name(picture, matrix, template)
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
        look=not (has_records(config.output) or has_records(options.output) or (store and was_used(store))),
        skip_missing=options.skip_missing,
        text_to_image=options.text_to_image,
        most_references=most_references(Wanted.of(options)),
        columns=columns,
        matrix=matrix,
        template=template,
        tree=tree_of(config),
        keeps_row=config.write != "folder",
        lora=options.lora,
        mask=options.mask,
        dataset=_dataset(options),
        shelf=LoraShelf(lora_facts),
    )
    return Request(
        source=_source(options.source, source_options, replay, objects),
        config=config,
        flags=given,
        recipe=recipe,
        checkpoint=checkpoint,
        picture=picture,
        notes=() if replay is None else replay.notes,
        page=picture is None and shard is None and store is None and not options.no_page,
        ray=ray,
        places=places,
    )


def _dataset(options: RunOptions) -> DatasetChoice:
    """What the flags say about a dataset. Raises UsageError."""
    return DatasetChoice.of(
        options.layout, options.split, options.where, options.image_root, chains_turns=options.chain_turns
    )


def _with_picture(options: RunOptions) -> tuple[RunOptions, OnePicture | None]:
    """The options with the folder of the one picture that is to be made, where the output is one. Raises UsageError."""
    picture = one_picture(options)
    if picture is None:
        return options, None
    # Nothing but this picture is ever in its folder, so nothing there is to be kept.
    format: Any = format_of(picture.path)
    picture.refuse([Path(one) for one in (options.source[0], options.mask) if one is not None])
    return replace(options, output=picture.folder, format=format, update=not options.overwrite), picture


def _source(names: tuple[str, ...], options: SourceOptions, replay: Replay | None, objects: Given | None) -> Source:
    if replay is not None:
        return open_replay(replay, options)
    if objects is not None:
        source: Source = objects.open(options)
    else:
        source = open_source(names, options, _stdin() if names == ("-",) else None)
    refuse_source(source, options.tree)
    return source


def _with_places(config: RunConfig, options: RunOptions) -> tuple[RunConfig, tuple[Place, ...]]:
    """The places of the workers, where `--gpus` asks for several. Raises UsageError and DeviceError."""
    if options.gpus is None and config.parallel in ("auto", "data"):
        return config, ()
    from joyedit.runtime.workers.grouping import with_places

    return with_places(config, options.gpus)


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
