"""How often a serving process looks for garbage that only a search can find: it was a tenth of a request's CPU time."""

import gc

OBJECTS = 10_000
"""So many new ones before the youngest are searched; a request makes hundreds, all of which die by themselves."""


def search_seldom() -> None:
    """From now on in this process. What it imported is for good, and is not searched again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS)
