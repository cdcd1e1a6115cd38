"""A process that serves searches for garbage seldom, and still finds it."""

import subprocess
import sys

SCENE = """
import gc, weakref
from ray_app.serving.garbage import OBJECTS, search_seldom

class Circle:
    def __init__(self):
        self.own = self

search_seldom()
assert gc.get_freeze_count() > 1000, "what was imported is not searched"
lost = weakref.ref(Circle())
kept = [[] for _ in range(OBJECTS // 2)]
assert lost() is not None
kept += [[] for _ in range(OBJECTS)]
assert lost() is None
"""


def test_garbage_is_searched_for_after_many_objects_only():
    subprocess.run([sys.executable, "-c", SCENE], check=True)
