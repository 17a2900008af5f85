"""`run` and `stream`: what the command `joyedit run` does, for a program and its objects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyedit.api.arguments import path_of, refuse_unknown, run_options
from joyedit.api.display import display_for
from joyedit.api.folder import ResultFolder
from joyedit.api.keywords import PathLike, RunKeywords
from joyedit.api.outcome import Outcome
from joyedit.api.running import RunningRun
from joyedit.api.signature import shows
from joyedit.api.spelling import spelled_for_python
from joyedit.api.stream import Stream
from joyedit.api.watch import RunWatch
from joyedit.errors import UsageError
from joyedit.job.source.python.given import Given, given_objects
from joyedit.request import build_request

if TYPE_CHECKING:
    from typing_extensions import Unpack

_KNOWN = tuple(RunKeywords.__annotations__)


@shows(RunKeywords)
def run(
    source: Any,
    *,
    model: PathLike | None = None,
    output: PathLike | None = "edited",
    recipe_values: Mapping[str, Any] | None = None,
    page: bool = True,
    progress: bool | None = None,
    **options: Unpack[RunKeywords],
) -> Outcome:
    """Edit all items of `source`, as `joyedit run` does: batches, resume, records, report and page.

    `source` is a path or a list of paths; a list of dicts with the keys of a line of a manifest, in which pictures of
    Pillow may stand; an iterator of such dicts, which is read as the run goes on; a list of pictures with `prompt`; a
    DataFrame of pandas, a table of Arrow, or a dataset of Hugging Face. `output` is the folder; None makes a temporary
    one that lives as long as the outcome. `page`: whether the run ends with a page. `progress` False shows nothing.
    `recipe_values` are parameters of the recipe.

    The outcome is a sequence of results. Raises what the command refuses before it writes anything, and RunInterrupted
    after Ctrl-C, when the batch in work is finished.
    """
    own = {"model": model, "output": output, "recipe_values": recipe_values, "page": page, "progress": progress}
    with spelled_for_python():
        running = _prepared(source, own, options, with_results=False)
        try:
            running.start()
            running.wait()
        except BaseException:
            running.stop()
            raise
        return running.outcome()


@shows(RunKeywords)
def stream(
    source: Any,
    *,
    model: PathLike | None = None,
    output: PathLike | None = "edited",
    recipe_values: Mapping[str, Any] | None = None,
    page: bool = True,
    progress: bool | None = None,
    **options: Unpack[RunKeywords],
) -> Stream:
    """The same as `run`, with each result as soon as it is finished: `for result in joyedit.stream(...)`.

    The run begins with the first result that is asked for. What is raised is raised there.
    """
    own = {"model": model, "output": output, "recipe_values": recipe_values, "page": page, "progress": progress}
    with spelled_for_python():
        return Stream(_prepared(source, own, options, with_results=True))


def _prepared(source: Any, own: Mapping[str, Any], options: Mapping[str, Any], *, with_results: bool) -> RunningRun:
    """The checked run, which has not begun. `own` are the keywords that are no flags. Raises UsageError."""
    refuse_unknown(options, (*_KNOWN, *own))
    objects = given_objects(source, options.get("split"))
    if objects is not None and options.get("engine") == "ray" and objects.feed is not None:
        raise UsageError("--engine ray reads the source by itself, and an iterator is of this program (give a list)")
    values = own["recipe_values"] or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"recipe_values must be a dict, not {type(values).__name__}")
    output, model = (None if own[name] is None else path_of(name, own[name]) for name in ("output", "model"))
    folder = ResultFolder.temporary() if output is None else ResultFolder(Path(output))
    given = {**options} | {
        "model": model,
        "values": tuple(f"{name}={value}" for name, value in values.items()),
        "no_page": not own["page"],
    }
    request = build_request(run_options(_names(source, objects), folder.path, given), objects)
    folder.path = request.config.output.absolute()
    feed = None if objects is None else objects.feed
    return RunningRun(request, feed, RunWatch(with_results=with_results), display_for(own["progress"]), folder)


def _names(source: Any, objects: Given | None) -> tuple[str, ...]:
    """The names of files and folders; none where `source` are objects."""
    if objects is not None:
        return ()
    several = [source] if isinstance(source, (str, os.PathLike)) else source
    return tuple(os.fspath(one) for one in several)
