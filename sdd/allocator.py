"""How the C library hands out memory, which a run on CPUs feels."""

import ctypes

# mallopt's parameters (malloc.h of glibc) and the values that suit large arrays, made and freed every step.
_KEEP = {
    -4: 0,  # M_MMAP_MAX: no region of its own for a large array, which would go back to the system at once
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: freed memory stays with the process
    -8: 1,  # M_ARENA_MAX: one heap, so that what one thread frees another can have
    -2: 2**28,  # M_TOP_PAD: grow in large steps
}


def keep_freed_memory() -> bool:
    """Asks the C library to keep freed memory for the next array; whether it could be asked.

    XLA allocates the temporaries of a program anew at every call. By default glibc gets each large one from
    the system and gives it back, and every page of it costs a fault, which a training step on a CPU feels.
    Resident memory then stays at its peak. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all([mallopt(parameter, value) for parameter, value in _KEEP.items()])
