"""What `--engine ray` refuses before anything is read or connected to."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import JoyeditError, UsageError
from joyedit.options import RunOptions
from joyedit.request.cluster import ray_engine
from joyedit.runtime.ray_engine.cluster import _refuse_silent_address, cpus_of_each, why
from joyedit.runtime.ray_engine.engine import MOST_ITEMS, RayModel, read_wish


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def refusal(makes_file: bool = False, **options: Any) -> str:
    given = {"source": ("m.jsonl",), "engine": "ray"} | options
    with pytest.raises(UsageError) as caught:
        ray_engine(RunOptions(**given), makes_file=makes_file)
    return str(caught.value)


def test_what_cannot_be_is_told_at_once() -> None:
    told = refusal(source=("-",), shard="1/2", parallel="guidance", device="mps").splitlines()
    assert len(told) == 4
    assert all(line.startswith("--engine ray: ") for line in told)
    assert "name a folder" in refusal(makes_file=True, output=Path("one.png"))


def test_an_address_of_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert "without ray://" in refusal()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal() == '--engine ray: Ray is not installed: pip install "joyedit[ray]"'


@pytest.mark.parametrize("gpus", ["0,2", "0", "-1", "many", "257", ""])
def test_gpus_of_a_cluster_have_no_indices(gpus: str) -> None:
    assert "takes all, or a number" in refusal(gpus=gpus)


def test_what_gpus_mean() -> None:
    assert (read_wish(None), read_wish("all"), read_wish("16")) == ("all", "all", 16)


def test_the_local_engine_is_the_default() -> None:
    assert ray_engine(RunOptions(source=("-",), shard="1/2"), makes_file=True) is None


@pytest.mark.parametrize(("expected", "actors", "items"), [(None, 2, MOST_ITEMS), (100, 2, 8), (5, 2, 3), (1, 4, 1)])
def test_few_items_are_shared_by_all_actors(expected: int | None, actors: int, items: int) -> None:
    from joyedit.job.run_config import RunConfig
    from joyedit.runtime.protocol import BackendInfo
    from joyedit.runtime.ray_engine.cluster import Actors

    config = RunConfig(output=Path("out"), expected_items=expected)
    info = BackendInfo(model="", layout="", device="", dtype="", attention="", schedule="")
    model = RayModel(None, Actors(count=actors, is_gpu=False), config, info)  # type: ignore[arg-type]
    assert model.auto_batch_size((256, 256)) == items


@pytest.mark.parametrize(
    ("machines", "count", "cpus"),
    [
        ([4], 1, 3),
        ([8], 2, 3),
        ([2], 2, 1),
        ([1], 1, 1),
        ([2, 2], 1, 2),  # the half of all is more than any machine has
        ([4, 4, 4], 2, 4),
        ([0, 2, 2], 2, 1),
        ([3, 3], 5, 1),
        ([5, 1], 2, 2),
        ([2, 2], 5, 0),
        ([0], 1, 0),
    ],
)
def test_each_actor_has_a_place_on_one_machine(machines: list[int], count: int, cpus: int) -> None:
    assert cpus_of_each(machines, count) == cpus


_TASK = """\x1b[36mray::MapBatches(read)()\x1b[39m (pid=1, ip=10.0.0.1)
  File "read_stage.py", line 9, in read
    raise RuntimeError("the reason")
          ^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: the reason
more of it
"""
_AROUND = """
The above exception was the direct cause of the following exception:

\x1b[36mray::MapBatches(read)()\x1b[39m (pid=1, ip=10.0.0.1)
ray.exceptions.UserCodeException: UDF failed to process a data block.
To change retry attempts, configure `ray.data.DataContext.get_current()`.
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (_TASK, "RuntimeError: the reason"),
        (_TASK + _AROUND, "RuntimeError: the reason"),
        ("The worker died.\nCheck its log.", "Check its log."),
        ("", "RuntimeError"),
    ],
)
def test_what_went_wrong_on_another_machine(text: str, told: str) -> None:
    assert why(RuntimeError(text)) == told


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "no such machine"])
def test_an_address_where_nobody_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{host}:1")
    with pytest.raises(JoyeditError, match=r"no connection to a Ray cluster: .*:1 does not answer: .*RAY_ADDRESS"):
        _refuse_silent_address()


def test_an_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        _refuse_silent_address()
    for address in ("auto", "local", ""):
        monkeypatch.setenv("RAY_ADDRESS", address)
        _refuse_silent_address()
