"""How many threads learn at once: one, so that none waits for a core that another program has taken.

The threads of OpenMP, which PyTorch and scikit-learn use, share every small step and spin until the last of them is
done. On a machine with other work one of them often has no core, and a training takes twenty times as long. A step of
256 payments is too small to be shared in any case (docs/decisions/2026-11-28-one-thread-learns.md). The graph's own
kernels use threads that take what is left and wait without spinning (`data.jit.chunked`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it, PyTorch, scikit-learn and the matrix libraries of this process compute on the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
