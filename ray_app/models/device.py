"""Where a process computes."""

import torch


def device_of(use_gpu: bool) -> torch.device:
    """The GPU of this process where one is wanted and there is one.

    A driver may run on a node without GPUs while its workers have them: what it does itself, it does on the CPU. That
    workers get a GPU each is for their scheduler to see to, which says so where the cluster has none.
    """
    return torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
