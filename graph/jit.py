"""One typed way to compile a kernel, so that the rest of the code stays under strict typing."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def jit(*, parallel: bool = False, inline: bool = False) -> Callable[[F], F]:
    """Compile a function with Numba: no Python objects, no GIL, machine code cached beside the source.

    No `fastmath`: the order of summation is part of a score, which must not depend on the batch it came in.

    Args:
        parallel: Run `numba.prange` loops on all threads.
        inline: Copy the body into its callers (for helpers inside hot loops).
    """

    def compile_(function: F) -> F:
        return numba.njit(
            cache=True,
            nogil=True,
            parallel=parallel,
            inline="always" if inline else "never",
            error_model="numpy",
        )(function)

    return compile_
