"""`joyedit bench` at its smallest size: every stage is there, and its numbers hang together."""

from __future__ import annotations

import json

import pytest

from joyedit.cli.main import main

STAGES = [
    "conditioning, 1 instruction", "conditioning, 4 instructions", "VAE encode", "denoise step", "VAE decode",
    "decode to pictures", "edit, 2 steps",
]  # fmt: skip


def bench(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--size", "tiny", "--device", "cpu", "--steps", "2", "--rounds", "1", *flags])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_the_json_tells_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(bench(capsys, "--json", "--batch-size", "2", "--edits", "2"))
    assert [stage["name"] for stage in report["stages"]] == STAGES
    for stage in report["stages"]:
        assert stage["seconds"] > 0
        if stage["tflop"] is not None:
            assert stage["tflops"] == pytest.approx(stage["tflop"] / stage["seconds"])
            assert stage["share_of_matmul"] == pytest.approx(stage["tflops"] / report["matmul_tflops"])
    assert report["seconds_an_image"] == pytest.approx(report["stages"][-1]["seconds"] / 2)
    assert len(report["text_tokens"]) == 4
    assert report["attention"] == "sdpa"
    assert report["attention_rates"] == {}
    assert (report["compiled"], report["finite"]) == (False, True)
    assert report["matmul_sustained"] > 0


def test_the_table_has_a_row_for_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    labels = [line.split("  ")[0] for line in bench(capsys, "--references", "0").splitlines()]
    assert [label for label in labels if label in STAGES] == [s for s in STAGES if s != "VAE encode"]


def test_an_impossible_base_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--basesize", "300"])
    assert caught.value.code == 2
    assert "--basesize must be one of 256, 512, 768, 1024, not 300" in capsys.readouterr().err


def test_a_level_of_speed_is_timed_beside_the_exact_edit(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(bench(capsys, "--json", "--steps", "10", "--speed", "max", "--references", "0"))
    seconds = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    gain = report["gain"]
    assert gain["level"] == "max"
    assert gain["gain"] == pytest.approx(seconds["edit, 10 steps"] / seconds["edit, 10 steps, --speed max"])
    assert 0.2 < gain["computed"] < 0.7
