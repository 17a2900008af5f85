"""An S3 server on this machine, in a process of its own: `python object_server.py PORT_FILE`.

It keeps objects in memory, and ends when its standard input ends. moto makes it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NEEDS = ("s3fs", "moto", "flask", "flask_cors")
BUCKET = "pictures"


class ObjectServer(NamedTuple):
    """A server that runs. `variables` are those with which a process reaches it."""

    process: subprocess.Popen[bytes]
    variables: dict[str, str]


def missing() -> list[str]:
    """The packages that such a server needs, and that are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


@contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    """Start one, with an empty bucket. It is gone at the end of the block."""
    told = folder / "port"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(told)], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
        assert process.stdin is not None
        try:
            end = time.monotonic() + 120
            while not told.exists():
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < end, "the server did not begin"
                time.sleep(0.05)
            yield ObjectServer(
                process,
                {
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{told.read_text()}",
                    "AWS_ACCESS_KEY_ID": "testing",
                    "AWS_SECRET_ACCESS_KEY": "testing",
                    "AWS_DEFAULT_REGION": "us-east-1",
                },
            )
        finally:
            process.stdin.close()
            process.kill()
            process.wait()


def main() -> None:
    """The process."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    place = Path(sys.argv[1])
    part = place.with_suffix(".new")
    part.write_text(str(port))
    part.replace(place)
    sys.stdin.read()


if __name__ == "__main__":
    main()
