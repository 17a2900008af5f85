"""The report: its figures, its two faces, and the sums that must hold."""

from __future__ import annotations

import dataclasses
import json

import pytest

from joyedit.job.results.report import Report, StageWork, joyedit_version, seconds_text, version_of
from joyedit.job.results.run_counts import Tally, percentile
from joyedit.job.spec import ItemResult
from support.reports import report


def counted(*, batches: int = 3) -> Tally:
    tally = Tally()
    for number in range(batches):
        tally.batch(2, seconds=20.0 if number == 0 else 4.0 * number, ended=100.0 + 10.0 * number)
    for error in (None, None, {"code": "x", "message": ""}, {"code": "x", "message": ""}, None):
        state = "failed" if error else "ok"
        tally.result(ItemResult(id="i", status=state, instruction="", inputs=(), output=None, bucket=None, error=error))
    return tally


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert percentile(list(range(101)), 0.95) == 95


def test_the_first_batch_is_the_warm_up_and_stays_out_of_the_steady_figures() -> None:
    tally = counted()
    assert tally.warm_up() == {"images": 2, "seconds": 20.0}
    assert tally.steady() == {
        "images": 4,
        "seconds": 20.0,
        "images_per_second": 0.2,
        "seconds_an_image": {"median": 3.0, "p95": 4.0},
    }


def test_without_a_ceiling_no_share_is_told() -> None:
    work = StageWork.of(3 * 10**12, 2.0, None)
    assert (work.tflops, work.share) == (1.5, None)
    assert StageWork.of(0, 0.0, 5.0).tflops is None
    rows = dict(report(counted(), device_work={"denoise": work}, matmul_tflops=None, device_idle=None).rows())
    assert rows["denoise"] == "1 min 15 s, 1.5 TFLOP/s"
    assert not {"matmul ceiling", "device idle"} & set(rows)


def test_seconds_of_threads_that_exceed_the_run_say_so() -> None:
    rows = dict(report(counted(), stages={"read": 1.0, "denoise": 2.0, "write": 39.2}, seconds=10.8).rows())
    assert (rows["read"], rows["write"]) == ("1.0 s", "39.2 s (all threads together)")


def test_predicted_and_measured_memory_stand_together() -> None:
    memory = {"device": 5 * 2**30, "host": 2**29}
    rows = dict(report(counted(), peak_memory=memory, predicted_peak=6 * 2**30).rows())
    assert rows["peak memory"] == "device 5.00 GiB, host 512 MiB (device predicted 6.00 GiB)"


def test_one_batch_gives_no_steady_figure() -> None:
    assert counted(batches=0).warm_up() is None
    tally = counted(batches=1)
    assert tally.steady() is None
    assert ("steady", "no figure: there was only the warm-up batch") in report(tally).rows()


def test_the_table_and_the_json_tell_the_same() -> None:
    made = report(counted(), passed_over=2)
    message = json.loads(made.to_json())
    assert message["items"] == message["ok"] + message["failed"] == 5
    assert message["failed_by_code"] == {"x": 2}
    assert message["settings"]["steps"] == 4
    assert message["peak_memory"] == {"device": None, "host": 3 * 2**30}
    assert set(message) == {field.name for field in dataclasses.fields(Report)}
    rows = dict(made.rows())
    assert rows["items"] == "5: 3 ok, 2 failed (x 2)"
    assert rows["passed over"] == "2 files and folders (-v names them)"
    assert rows["denoise"] == "1 min 15 s, 2 TFLOP/s (50% of the ceiling)"
    assert rows["load"] == "1.0 s"
    assert rows["matmul ceiling"] == "4 TFLOP/s"
    assert rows["device idle"] == "5.0% (4.0 s of 1 min 20 s after loading)"
    assert message["device_work"] == {"denoise": {"tflop": 150.0, "seconds": 75.0, "tflops": 2.0, "share": 0.5}}
    assert message["device_idle"] == {"seconds": 4.0, "of_seconds": 80.0, "share": 0.05}
    assert rows["device waited"] == "0.500 s for read, 0.000 s for write"
    assert rows["steady"] == "0.2 images a second; 3.0 s an image (median), 4.0 s (p95)"
    assert rows["peak memory"] == "host 3.00 GiB"
    assert rows["device"] == "cpu, fp32, attention sdpa"


@pytest.mark.parametrize("changes", [{"items": 6}, {"ok": 4}, {"failed_by_code": {"x": 1}}])
def test_counts_that_do_not_add_up_are_no_report(changes: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="add up"):
        report(counted(), **changes)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.0124, "0.012 s"), (3.24, "3.2 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_are_told_in_fitting_units(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_versions_of_what_is_not_installed() -> None:
    assert version_of("no-such-package-here") is None
    assert joyedit_version()


def test_with_several_devices_each_warms_up_and_steady_is_what_all_do_together() -> None:
    tally = Tally()
    tally.batch(2, 5.0, 10.0, warms_up=True)
    tally.batch(2, 4.0, 14.0)
    tally.batch(2, 6.0, 13.0, warms_up=True)
    assert tally.warm_up() == {"images": 6, "seconds": 6.0}
    assert tally.steady() is None
    tally.batch(2, 4.0, 18.0)
    steady = tally.steady()
    assert steady is not None
    assert (steady["images"], steady["seconds"], tally.batches) == (2, 4.0, 4)
