"""Devices, cores and memory of this machine."""

import subprocess
import sys
import threading

import pytest
import torch

from chrep_model.device import choose_device, each_core
from chrep_model.errors import PredictionError

PROGRAM = """
import numpy as np
from chrep_model.device import hand_back_freed_memory, keep_freed_memory

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


def test_devices():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(PredictionError, match="abacus"):
        choose_device("abacus")
    with pytest.raises(PredictionError, match="cuda:99"):
        choose_device("cuda:99")


@pytest.fixture
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_three_threads")
def test_every_thread_computes_on_one_core_and_nobody_else_does():
    meet = threading.Barrier(3)

    def work():
        meet.wait(10)  # all three at a time
        return threading.get_ident(), torch.get_num_threads()

    with each_core() as cores:
        found = [job.result() for job in [cores.submit(work) for _ in range(3)]]
        elsewhere = []
        other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert len({ident for ident, _ in found}) == 3
    assert [threads for _, threads in found] == [1, 1, 1]
    assert elsewhere == [3]
    assert torch.get_num_threads() == 3
    assert not [t for t in threading.enumerate() if t.name.startswith("chrep-core")]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_handed_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept_back, handed_back, _ = map(float, done.stdout.split())
    assert abs(kept_back) < 10
    assert handed_back > 250  # of 336 MB
