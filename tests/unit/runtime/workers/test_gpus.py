"""What `--gpus` asks for, what is there, and the places that come of it."""

from __future__ import annotations

import pytest

from joyedit.errors import DeviceError, UsageError
from joyedit.runtime.doctor import nvidia
from joyedit.runtime.workers import gpus
from joyedit.runtime.workers.gpus import places_of, visible_gpus
from joyedit.runtime.workers.place import Place


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "_asked", lambda: nvidia.Nvidia(gpus=("NVIDIA H200",) * 4, driver="580.1"))


def devices(text: str, device: str = "auto") -> list[tuple[str, ...]]:
    return [place.devices for place in places_of(text, device)]


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all", ["0", "1", "2", "3"]),
        ("4", ["0", "1", "2", "3"]),
        ("3", ["0", "1", "2"]),
        ("1", []),
        ("0,2", ["0", "2"]),
        ("3, 1", ["3", "1"]),
    ],
)
def test_places(text: str, found: list[str]) -> None:
    assert devices(text) == devices(text, "cuda") == [(one,) for one in found]


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("5", DeviceError, "--gpus 5: 4 GPUs are here; --gpus all takes what there is"),
        ("0,4", DeviceError, "there is no GPU 4; 4 GPUs are here (indices count from 0 to 3)"),
        ("1,1", UsageError, "GPU 1 is named twice"),
        ("0", UsageError, "a number of GPUs from 1 to 256, not 0"),
        ("257", UsageError, "from 1 to 256, not 257"),
        ("two", UsageError, "takes all, a number of GPUs, or indices such as 0,2, not 'two'"),
        ("1,", UsageError, "not '1,'"),
        ("-1", UsageError, "not '-1'"),
        ("", UsageError, "not ''"),
    ],
)
def test_what_cannot_be(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        places_of(text, "auto")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_the_cpu_takes_a_number_and_divides_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "cores", lambda: 7)
    assert [place.threads for place in places_of("3", "cpu")] == [2, 2, 2]
    assert [place.threads for place in places_of("9", "auto", is_fake=True)] == [1] * 9
    assert places_of("1", "cpu") == ()
    for text in ("all", "0,1"):
        with pytest.raises(UsageError, match="on the CPU it takes a number of processes"):
            places_of(text, "cpu")
    with pytest.raises(UsageError, match="a Mac has one GPU"):
        places_of("2", "mps")


def test_one_gpu_is_a_run_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "_asked", lambda: nvidia.Nvidia(gpus=("NVIDIA H200",)))
    assert places_of("all", "auto") == ()
    with pytest.raises(DeviceError, match="--gpus 2: 1 GPU is here"):
        places_of("2", "auto")


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("named", "visible"),
    [
        ("2,3", ["2", "3"]),
        ("GPU-5a, GPU-7b", ["GPU-5a", "GPU-7b"]),
        ("MIG-1", ["MIG-1"]),
        ("1,9,2", ["1"]),
        ("0,-1,1", ["0"]),
        ("", []),
    ],
)
def test_only_gpus_that_are_shown_count(monkeypatch: pytest.MonkeyPatch, named: str, visible: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == visible


@pytest.mark.usefixtures("four")
def test_indices_count_within_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5a,1")
    assert devices("0,2") == [("3",), ("1",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="no GPU that CUDA can use is here"):
        places_of("all", "auto")


def test_without_nvidia_smi_torch_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "_asked", lambda: None)
    asked = []

    def ask(purpose: str) -> int:
        asked.append(purpose)
        return 2

    monkeypatch.setattr(gpus, "ask_worker", ask)
    assert devices("all") == [("0",), ("1",)]
    assert asked == ["count"]


def test_a_place_makes_its_environment() -> None:
    gpu = Place(number=1, devices=("GPU-5a",), threads=3)
    made = gpu.environment({"PATH": "x", "CUDA_VISIBLE_DEVICES": "0,1"})
    assert made == {"PATH": "x", "CUDA_VISIBLE_DEVICES": "GPU-5a", "JOYEDIT_WORKER": "1", "OMP_NUM_THREADS": "3"}
    assert gpu.name == "worker 1 (GPU GPU-5a)"
    cpu = Place(number=0, threads=3)
    made = cpu.environment({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "5"})
    assert made == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "5", "JOYEDIT_WORKER": "0"}
    assert cpu.name == "worker 0"
