"""How requests are joined into batches."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field


class Join(enum.Enum):
    """Of which models requests are joined."""

    NONE = "none"
    MARKED = "marked"  # of those that say that their rows are independent, see Servable.independent
    ALL = "all"


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined; names and meanings are those of TF Serving's BatchingParameters."""

    join: Join = Join.MARKED
    max_batch_size: int = 1024  # examples in a batch; with Join.ALL in a single request too
    batch_timeout_micros: int = 0  # how long a batch that is not full waits for more
    max_enqueued_batches: int = 4  # full batches that may wait for a signature; more is refused
    # How many batches run at a time; a core is left for what reads and writes them.
    num_batch_threads: int = field(default_factory=lambda: max((os.cpu_count() or 1) - 1, 1))
    allowed_batch_sizes: tuple[int, ...] = ()  # batches are filled up to one of these
    pad_variable_length_inputs: bool = False  # to the longest of the batch, with their first value
    enable_large_batch_splitting: bool = False  # a request of too many examples is run in parts
    max_execution_batch_size: int = 0  # examples in such a part; 0: max_batch_size

    @property
    def part_size(self) -> int:
        """How many examples are run at once."""
        return self.max_execution_batch_size or self.max_batch_size


# What is not joined waits for nothing and is refused for nothing.
ALONE = BatchingParameters(join=Join.NONE)
