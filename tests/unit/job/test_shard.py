"""Which shard an item is in, and which shard a process is."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from joyedit.errors import UsageError
from joyedit.job.shard import Shard, missing_text, number_of, numbers_text
from joyedit.job.shard_choice import chosen_shard

IDS = [f"photos/{number:06}" for number in range(20_000)]


@pytest.mark.parametrize("of", [1, 2, 3, 16, 64])
def test_each_id_is_in_one_shard_and_shards_are_even(of: int) -> None:
    shards = [Shard(of, number) for number in range(1, of + 1)]
    assert all(sum(shard.holds(name) for shard in shards) == 1 for name in IDS[:500])
    counts = Counter(number_of(name, of) for name in IDS)
    even = len(IDS) / of
    assert set(counts) == set(range(1, of + 1))
    assert max(counts.values()) < even + 5 * even**0.5
    assert min(counts.values()) > even - 5 * even**0.5


def test_the_assignment_stays_for_ever() -> None:
    """Half-finished runs of an older joyedit go on with a newer one, on machines of any kind."""
    assert [number_of(name, 16) for name in ("a", "b", "photos/x", "déjà", "\udcff", "")] == [5, 14, 10, 5, 2, 7]


def test_the_assignment_is_not_that_of_the_process() -> None:
    command = "from joyedit.job.shard import number_of; print([number_of(str(n), 7) for n in range(50)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", command],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "3/0", "a/b", "-1/3", "1/2/3", "1/ 3", "", "1/100001", "٣/٤"])
def test_what_is_no_shard(text: str) -> None:
    assert Shard.read(text) is None
    with pytest.raises(UsageError, match="--shard takes I/N"):
        chosen_shard(text, {})


@pytest.mark.parametrize("name", ["3-of-16x", "16-of-3", "0-of-3", "03-of-16", "3of16", "3-of-"])
def test_other_folders_are_none_of_shards(name: str) -> None:
    assert Shard.of_folder(name) is None


def test_spellings() -> None:
    shard = Shard(16, 3)
    assert (shard.flag, shard.folder, str(shard)) == ("3/16", "3-of-16", "3 of 16")
    assert Shard.read(shard.flag) == Shard.of_folder(shard.folder) == shard
    assert numbers_text([1, 2, 4, 7, 8, 9]) == "1, 2, 4, 7 to 9"
    assert missing_text([2], 3) == "1 of 3 shards has not begun: 2"
    assert missing_text([2, 3], 3) == "2 of 3 shards have not begun: 2, 3"


def array(task: int, first: int, count: int, step: int | None = None, last: int | None = None) -> dict[str, str]:
    """The variables of a task of an array."""
    made = {"ID": task, "MIN": first, "COUNT": count, "STEP": step, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in made.items() if value is not None}


RANKS = {"RANK": "5", "WORLD_SIZE": "8"}
ALONE = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (array(1, 1, 16), "1/16"),
        (array(0, 0, 16, 1, 15), "1/16"),
        (array(15, 0, 16, 1, 15), "16/16"),
        (array(14, 10, 4, 2, 16), "3/4"),
        (array(3, 1, 16) | ALONE, "3/16"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, "3/4"),
        (RANKS, "6/8"),
        (RANKS | ALONE, "6/8"),
        (RANKS | {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "6/8"),
        (RANKS | {"SLURM_PROCID": "", "SLURM_NTASKS": "2"}, "6/8"),
        (ALONE, "1/1"),
        (array(2, 1, 4) | {"RANK": "1", "WORLD_SIZE": "4"}, "2/4"),
    ],
)
def test_what_a_cluster_says(environment: dict[str, str], shard: str) -> None:
    assert chosen_shard("auto", environment).flag == shard


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "none of these variables is set"),
        ({"RANK": "1"}, "RANK is set, and WORLD_SIZE is not"),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS is set, and SLURM_PROCID is not"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK=8 and WORLD_SIZE=8 name no shard"),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, "RANK must be a whole number, not '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "name no shard"),
        ({"RANK": "0", "WORLD_SIZE": "1e3"}, "WORLD_SIZE must be a whole number"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_MIN is not set"),
        (array(3, 1, 16, 1, 20), "no array of equal steps"),
        (array(4, 1, 4, 2, 7), "no array of equal steps"),
        (array(7, 1, 3, 1, 7), "no array of equal steps"),
        (array(9, 1, 4, 1), "no array of equal steps"),
        (array(1, 1, 4, 0), "no array of equal steps"),
        (array(1, 1, 0), "no array of equal steps"),
        (array(3, 1, 16) | RANKS, "says shard 3 of 16, and RANK says shard 6 of 8"),
        (array(3, 1, 16) | {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "SLURM_PROCID says shard 2 of 4"),
        (RANKS | {"SLURM_PROCID": "1", "SLURM_NTASKS": "16"}, "SLURM_PROCID says shard 2 of 16"),
    ],
)
def test_what_a_cluster_cannot_mean(environment: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_shard("auto", environment)
    assert told in str(caught.value)
    assert "--shard 3/16" in str(caught.value)
    assert caught.value.exit_code == 2
