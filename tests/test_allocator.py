"""Freed memory: kept between batches, handed back when asked."""

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from chrep_model.allocator import hand_back_freed_memory, keep_freed_memory

def resident_mb():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1000

keep_freed_memory()
pieces = [np.ones(2**20) for _ in range(40)]
behind = np.ones(2**10)
full = resident_mb()
del pieces
kept = resident_mb()
hand_back_freed_memory()
print(full - kept, kept - resident_mb(), behind.sum())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_handed_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept_back, handed_back, _ = map(float, done.stdout.split())
    assert abs(kept_back) < 10
    assert handed_back > 250  # of 336 MB
