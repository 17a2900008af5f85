"""What one line of a source asks for beside its pictures: LoRAs, settings, size, and the edits that it makes.

A matrix and turns make several edits of one line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from joyedit.errors import Problem
from joyedit.job.boxes import box_text, read_box
from joyedit.job.source.item_cells import CellEdit, cell_edits
from joyedit.job.source.item_turns import turn_edits
from joyedit.job.source.line_matrix import matrix_of_line
from joyedit.job.source.loras import LoraSet, wishes_of
from joyedit.job.source.matrix import SWEPT, Matrix
from joyedit.job.source.parameter import BOX
from joyedit.job.source.result_sizes import AskedSize, asked_size
from joyedit.job.source.schema import Line
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.spec import Sampling, Settings

_UNSAID = (None, None, None)


class LineEdits:
    """Reads lines by the options and `defaults:` of their source. `base` is the folder of relative paths.

    `values` are those of the recipe for lines that give none, `settings`, `loras` and `matrix` what holds for a line
    that says nothing itself. Each method adds what is wrong with a line to `problems`.
    """

    def __init__(self, options: SourceOptions, defaults: RunDefaults, base: str) -> None:
        self._recipe = options.recipe
        self._prompt = options.prompt
        self._default_instruction = defaults.instruction
        self.values = {**defaults.values, **options.recipe_values}
        self.loras = options.run_loras()[0] or defaults.loras or LoraSet()
        self._options, self._defaults, self._base = options, defaults.settings, base
        self._own_settings: dict[tuple[Settings, ...], tuple[Settings, Sampling]] = {}
        self.settings = options.settings(defaults.settings, self.loras.settings)
        self._sampling = self.settings.sampling()
        faults: list[Problem] = []
        size = asked_size(self.settings, faults)
        self._size = None if faults else size  # else each line is told of them
        self.matrix = options.matrix
        self._box = options.default_box

    @property
    def instruction(self) -> str | None:
        """The instruction of an item that gives neither its own nor a value of the recipe; None if there is none."""
        values = {**self.values, **self._options.matrix.first_values}
        text, problems = compose_instruction(
            self._recipe, values, own=None, prompt=self._prompt, default=self._default_instruction
        )
        return None if problems else text

    def edits(self, line: Line, values: Mapping[str, str], loras: LoraSet, problems: list[Problem]) -> list[CellEdit]:
        """One edit for each cell of the matrix; of the problems of their instructions those of the first."""
        settings, given = self.settings_with(loras)
        sampling = self._own_sampling(line, given)
        matrix = self.matrix
        if matrix or line.seeds is not None or line.sweep is not None:
            said = {key for key in SWEPT if getattr(line, key) is not None} | values.keys()
            matrix = self._with_own_axes(matrix.without(said), line, sampling.seed, said, problems)
        if line.box is not None:
            values = {**values, BOX: box_text(read_box(line.box) or (0, 0, 1, 1))}
        found: list[Problem] | None = None

        def instruct(own: str | None, swept: Mapping[str, str]) -> str:
            nonlocal found
            text, more = compose_instruction(
                self._recipe,
                {**self.values, **values, **swept} if values or swept else self.values,
                own=own,
                prompt=self._prompt,
                default=self._default_instruction,
            )
            found = more if found is None else found
            return text

        basesize = line.basesize or settings.basesize or 0
        boxed = values.get(BOX) or self.values.get(BOX)
        box = self._box if boxed is None else read_box(boxed)
        cells = matrix.cells(sampling.seed)
        edits = turn_edits(
            line.turns,
            line.instruction,
            lambda own: cell_edits(cells, sampling, basesize, partial(instruct, own), box),
        )
        problems.extend(found or ())
        if values and self._recipe is not None:
            problems.extend(self._recipe.value_problems(values))
        return edits

    def _with_own_axes(
        self, run: Matrix, line: Line, seed: int, said: Collection[str], problems: list[Problem]
    ) -> Matrix:
        """The matrix of an item, `run` without what its line says itself; that of its line is over it."""
        if line.seeds is None and line.sweep is None:
            _add(problems, run.seed_problem(seed))
            return run
        parameters = self._options.known_parameters()
        made, more = matrix_of_line(line.seeds, line.sweep, run, parameters=parameters, said=said)
        problems.extend(more)
        problem = made.seed_problem(seed)
        if not more:
            _add(problems, problem)
        return Matrix() if more or problem is not None else made

    def own_loras(self, line: Line, problems: list[Problem]) -> LoraSet:
        """The LoRAs of the line; those of the run if it names none."""
        if line.lora is None:
            return self.loras
        found, more = self._options.shelf.find(wishes_of(line.lora), self._base)
        problems.extend(more)
        return found

    def settings_with(self, loras: LoraSet) -> tuple[Settings, Sampling]:
        """The settings in force for a line with these LoRAs and without settings of its own."""
        if loras is self.loras:
            return self.settings, self._sampling
        known = self._own_settings.get(loras.recommended)
        if known is None:
            settings = self._options.settings(self._defaults, loras.settings)
            known = self._own_settings[loras.recommended] = settings, settings.sampling()
        return known

    def _own_sampling(self, line: Line, given: Sampling) -> Sampling:
        if (line.steps, line.guidance_scale, line.seed, line.negative_prompt) == (None, None, None, None):
            return given
        return Sampling(
            steps=given.steps if line.steps is None else line.steps,
            guidance_scale=given.guidance_scale if line.guidance_scale is None else line.guidance_scale,
            seed=given.seed if line.seed is None else line.seed,
            negative_prompt=given.negative_prompt if line.negative_prompt is None else line.negative_prompt,
        )

    def asked_size(self, line: Line, settings: Settings, problems: list[Problem]) -> AskedSize:
        """The size of an item. Most lines say nothing of it, and have that of the run."""
        if self._size is not None and settings is self.settings and (line.width, line.height, line.size) == _UNSAID:
            return self._size
        return asked_size(settings, problems, line)


def _add(problems: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        problems.append(problem)
