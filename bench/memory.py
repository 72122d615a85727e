"""Peak memory of building a market's features, in a process of its own: python -m bench.memory BARS."""

import resource
import sys
from pathlib import Path

from bench.markets import random_walk
from btcai.features.pipeline import build_market

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Most memory this process has held so far.

    Linux's ru_maxrss would begin with what the parent held when it started this process, so VmHWM is read there.
    """
    if _STATUS.is_file():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(n_bars: int) -> None:
    """Print the peak in bytes once the market is built."""
    build_market(random_walk(n_bars))
    sys.stdout.write(str(peak_bytes()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
