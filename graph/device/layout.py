"""The numbers that the CPU's kernels and the CUDA sources share, exported as defines: none of them is typed twice.

A loader hands these to the compiler beside the sizes of its own (`gnn.device.net.defines`). A CUDA source that defined
one of them itself would not compile, and `tests/test_cuda_sources.py` says which it was.
"""

from collections.abc import Mapping

from graph.dag import features, ids, jumps, sampler

Defines = Mapping[str, int | str]
SUPERSEDED = 2  # in place of a change of belief: the label changes nothing, and takes no place


def store_defines(roles: int) -> dict[str, int | str]:
    """What the sources of the store are compiled with.

    Args:
        roles: Roles that the store keeps.
    """
    return {
        "ROLES": roles,
        "SUPERSEDED": SUPERSEDED,
        # Heads and jumps.
        "HEAD_MODULUS": long(ids.HEAD_MODULUS),
        "SUM_IN_TABLE": jumps.SUM_IN_TABLE,
        "LENGTH_BITS": jumps.LENGTH_BITS,
        "MAX_SUM": long(jumps.MAX_SUM),
        "MAX_INLINE_SUM": long(jumps.MAX_INLINE_SUM),
        "MAX_JUMP": long(jumps.MAX_JUMP),
        # Ties, each at its place among `EDGE_FEATURES`.
        "EDGE": len(sampler.EDGE_FEATURES),
        **{f"TIE_{name.upper()}": place for place, name in enumerate(sampler.EDGE_FEATURES)},
        "AGE_SCALE": sampler.AGE_SCALE,
        "DAY_S": double(sampler.DAY_S),
        # Features.
        "DEPTH": features.DEPTH,
        "NEVER_S": double(features.NEVER_S),
        "WINDOWS": features.WINDOWS,
        **{f"WINDOW_{name.upper()}_US": long(int(us)) for name, us in WINDOWS.items()},
        "PAYMENT_FEATURES": len(features.PAYMENT_FEATURES),
        "AT_COUNT": features.AT_COUNT,
        "AT_AMOUNT": features.AT_AMOUNT,
        "AT_FRAUD": features.AT_FRAUD,
        "AT_SETTLED": features.AT_SETTLED,
        "AT_COUNTERPARTS": features.AT_COUNTERPARTS,
        "RING_FEATURES": len(features.RING_FEATURES),
        "BANDS": features.BANDS,
        "BAND_US": long(features.BAND_US),
        "SETTLED_COUNT": features.SETTLED_COUNT,
    }


WINDOWS = dict(zip(features.WINDOW_NAMES, features.WINDOWS_US.tolist(), strict=True))


def long(value: int) -> str:
    """A whole number of 64 bits as C++ has it."""
    return f"{value}LL"


def double(value: float) -> str:
    """A number in double precision as C++ has it, exactly."""
    return repr(float(value))


def single(value: float) -> str:
    """A number in single precision as C++ has it."""
    return f"{float(value)!r}f"
