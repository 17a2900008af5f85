"""A Ray cluster of two nodes on this machine, in a process of its own: `python ray_cluster.py NODES`.

It prints its address and the number of the raylet of each node but the first one, as one line of JSON, and ends when
its standard input ends. Ray's own helper for tests makes it (`ray.cluster_utils.Cluster`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
STORE = 100 << 20
"""Bytes of the object store of a node."""


class RayCluster(NamedTuple):
    """A cluster that runs. `raylets` are processes whose death is the death of a node."""

    address: str
    raylets: list[int]


@contextmanager
def ray_cluster(folder: Path, nodes: int = 2) -> Iterator[RayCluster]:
    """Start one; all of it is gone at the end of the block. Ray's files are in `folder`."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "JOYEDIT_FAKE": "1",
    }
    env.pop("RAY_ADDRESS", None)
    with (folder / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = next((line for line in process.stdout if line.startswith("{")), None)
            assert told is not None, (folder / "cluster.log").read_text()
            yield RayCluster(**json.loads(told))
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """The process."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    others = [cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(int(sys.argv[1]) - 1)]
    raylets = [one.all_processes["raylet"][0].process.pid for one in others]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
