"""The command as a program: what it imports, its streams, and how it takes signals and closed pipes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_command import Command, program_environment
from PIL import Image

from support.png import chunk, with_chunks

HEAVY = ("torch", "transformers", "PIL", "yaml", "pydantic", "rich", "tqdm", "numpy")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from joyedit.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0, end\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=program_environment(), check=True
    )
    assert "Usage: joyedit" in done.stdout
    loaded = json.loads(done.stderr.replace("'", '"'))
    assert "typer" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_a_run_on_the_fake_and_a_dry_run_load_no_torch(pictures: Path) -> None:
    for argv in (["run", "pictures", "-p", "x", "-n"], ["run", "pictures", "-p", "x", "-m", "fake", "-q"]):
        code = (
            "import sys\n"
            "from joyedit.cli.main import main\n"
            f"try:\n    main({argv!r})\nexcept SystemExit as end:\n    assert end.code == 0, end\n"
            "assert 'PIL' in sys.modules\n"
            "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], env=program_environment(), check=True, capture_output=True)


def test_an_environment_without_utf_8_is_refused(program: Command, pictures: Path) -> None:
    (pictures / "a.png").rename(pictures / "\u00e9.png")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = program("run", "pictures", "-p", "x", "-m", "fake", env=ascii_only)
    assert ended.code == 2
    assert "makes Python read file names as ascii, and joyedit needs UTF-8 (set PYTHONUTF8=1" in ended.err
    assert not (pictures.parent / "edited").exists()
    assert program("--help", env=ascii_only).code == 0


def test_a_plain_c_locale_takes_every_name(program: Command, pictures: Path) -> None:
    (pictures / "a.png").rename(pictures / "\u00e9.png")
    ended = program("run", "pictures", "-p", "\u00e9", "-m", "fake", "-q", env={"LC_ALL": "C"})
    assert ended.code == 0, ended.err
    assert (pictures.parent / "edited" / "\u00e9.png").exists()


def test_version_and_recipes(program: Command) -> None:
    ended = program("--version")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("joyedit ")
    ended = program("recipes")
    assert (ended.code, ended.err) == (0, "")
    names = [line.split(":")[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert {"camera", "draft", "object-rotate"} < set(names)
    assert names == sorted(names)


def test_results_on_stdout_and_messages_on_stderr(program: Command, pictures: Path) -> None:
    ended = program("run", "pictures", "-m", "fake", "-p", "x", "--basesize", "256", "--json")
    assert ended.code == 0
    assert [json.loads(line)["status"] for line in ended.out.splitlines()] == ["ok"] * 3
    assert ended.err.startswith("loading fake\nmodel: fake (fake layout)\n")
    assert "\r" not in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("again", [False, True])
def test_the_records_of_one_run_are_the_source_of_the_next(program: Command, pictures: Path, again: bool) -> None:
    """A chain of three commands: run, something that makes lines of records, run."""
    chain = (
        'joyedit() { "$PYTHON" -m joyedit "$@" --basesize 256 -m fake -q; }\n'
        'joyedit run pictures -p x --json=all | "$PYTHON" -c "$MAKE_LINES" | joyedit run - -o second --json=all\n'
    )
    make_lines = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    record = json.loads(line)\n"
        "    print(json.dumps({'image': record['output_path'], 'instruction': 'y', 'id': record['id']}))\n"
    )
    env = program_environment() | {"PYTHON": sys.executable, "MAKE_LINES": make_lines}
    for _ in range(1 + again):
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", chain],
            env=env,
            cwd=pictures.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["id"] for record in records} == {"a", "b", "deep/c"}
    assert {record["inputs"][0] for record in records} == {
        str(pictures.parent / "edited" / name) for name in ("a.png", "b.png", "deep/c.png")
    }


def test_a_refusal_as_a_program(program: Command) -> None:
    ended = program("run", "gone", "-m", "fake")
    assert (ended.code, ended.out, ended.err) == (2, "", "joyedit: error: gone: no such file or folder\n")


def test_standard_input_as_a_program(program: Command, pictures: Path) -> None:
    ended = program("run", "-", "-m", "fake", "-p", "x", "--basesize", "256", stdin="pictures/a.png\npictures/b.jpg\n")
    assert ended.code == 0, ended.err
    assert "2 items" in ended.err or "items            2" in ended.out


def test_a_closed_stdout_ends_a_dry_run_quietly(tmp_path: Path) -> None:
    lines = "".join(f'{{"instruction": "cat {number}"}}\n' for number in range(5000))
    (tmp_path / "m.jsonl").write_text(lines)
    program = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", "m.jsonl", "-n", "--batch-size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=program_environment(),
    )
    assert program.stdout is not None
    assert program.stderr is not None
    assert program.stdout.readline().startswith(b"batch 0: ")
    program.stdout.close()
    message = program.stderr.read()
    program.stderr.close()
    assert program.wait(timeout=60) == 0
    assert b"Error" not in message
    assert b"error" not in message


def test_a_closed_stdout_does_not_stop_a_run(tmp_path: Path, pictures: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "joyedit", "run", "pictures", "-m", "fake", "-p", "x", "--json", "-q"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=program_environment(),
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len((tmp_path / "edited" / "results.jsonl").read_text().splitlines()) == 3


def test_ctrl_c_while_it_waits_for_standard_input(tmp_path: Path, pictures: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", "-", "-m", "fake", "-p", "x", "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=program_environment(),
    )
    assert program.stdin is not None
    program.stdin.write(b"pictures/a.png\n")
    program.stdin.flush()
    deadline = time.monotonic() + 30
    while not (tmp_path / "edited" / "pictures" / "a.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    program.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 30
    while program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # its standard input stays open: it must end all the same
    code = program.poll()
    message = program.communicate()[1].decode()
    assert code == 130, message
    assert "interrupted" in message
    assert "Traceback" not in message
    assert "Fatal" not in message
    assert json.loads((tmp_path / "edited" / "report.json").read_text())["ok"] == 1


def test_a_terminal_gets_a_bar(tmp_path: Path, pictures: Path) -> None:
    own, other = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", "pictures", "-m", "fake", "-p", "x", "--basesize", "256"],
        stdout=subprocess.DEVNULL,
        stderr=other,
        cwd=tmp_path,
        env=program_environment() | {"NO_COLOR": "1", "TERM": "xterm"},
    )
    os.close(other)
    message = b""
    while True:
        try:
            part = os.read(own, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        message += part
    os.close(own)
    assert done.wait(timeout=60) == 0
    assert b"3/3" in message
    assert b"\r" in message
    assert b"\x1b[3" not in message  # no colour


def test_warnings_of_a_decoder_stand_in_the_record_and_not_on_stderr(program: Command, tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "red")
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        side = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x05"), chunk(b"tEXt", b"k\0v", intact=False)
        (tmp_path / "in" / name).write_bytes(with_chunks(picture, *side))
    ended = program("run", "in", "-p", "x", "-m", "fake", "-o", "out", "-q", env={"JOYEDIT_FAKE": "1"})
    assert (ended.code, ended.err) == (0, "")
    records = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    warned = "the decoder warns: Corrupt EXIF data. Expecting to read 12 bytes but only got 0"
    notes = [record["notes"] for record in records if record.get("status") == "ok"]
    assert notes == [["a damaged tEXt chunk left out", warned, "EXIF left out: a table is damaged"]] * 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-16"])
def test_results_are_utf8_whatever_the_streams_are_said_to_be(program: Command, tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / "b\u00e4ume"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "\u5929.png")
    env = {"PYTHONIOENCODING": encoding}
    argv = ("run", folder.name, "-p", "gr\u00fcn", "-m", "fake", "--basesize", "256", "--steps", "1", "-q")
    ended = program(*argv, "--json", env=env)
    assert ended.code == 0
    record = json.loads(ended.out)
    assert (record["id"], record["instruction"]) == ("\u5929", "gr\u00fcn")
    assert Path(record["output_path"]).exists()
    planned = program(*argv, "-o", "other", "--dry-run", "--json", env=env).out.splitlines()
    assert next(json.loads(line).get("items") for line in planned) == ["\u5929"]
    found = program("verify", "edited", "--source", folder.name, "--json", env=env)
    assert json.loads(found.out.splitlines()[-1])["summary"]["ok"] == 1


def test_python_refuses_the_same_surroundings(tmp_path: Path) -> None:
    code = "import joyedit\ntry: joyedit.run('x', model='nano')\nexcept joyedit.UsageError as error: print(error)"
    env = program_environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "this environment makes Python read file names as ascii, and joyedit needs UTF-8" in done.stdout
