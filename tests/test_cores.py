"""Each core on something of its own."""

import threading

import pytest
import torch
from chrep_model.cores import each_core


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


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
