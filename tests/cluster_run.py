"""A Ray cluster of two nodes on this machine, each with processes of its own; it ends with its standard input.

python tests/cluster_run.py    prints a line of JSON: its address, and the process of the second node's raylet

Its files lie in the temporary folder, TMPDIR.
"""

import json
import sys
from pathlib import Path
from tempfile import gettempdir

from ray.cluster_utils import Cluster

CORES = 2
"""Of each: one piece at a time."""


def main() -> None:
    """The command line."""
    Path(gettempdir(), "ray").mkdir(exist_ok=True)  # Ray notes an address there, and counts on the folder
    node = {"num_cpus": CORES, "num_gpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    second = cluster.add_node(**node)
    [raylet] = second.all_processes["raylet"]
    sys.stdout.write(json.dumps({"address": cluster.address, "raylet": raylet.process.pid}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
