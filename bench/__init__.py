"""Measurements of this project, beside references. Light: the command line reads the names here for its help."""

BENCHES = ("data", "env", "features", "judge", "learn", "serve", "train", "yardstick")
"""Modules of this package, each with lines(stopwatch, config, root) -> Iterator[Line]; where it has PARTS, a tuple of
names, lines takes those to measure as well; those in ON_REQUEST are measured only where they are named."""
