"""Run `train.py`, but die as by `kill -9` at the n-th optimiser step or file of a checkpoint.

python tests/kill_training.py {step|save} N ARGUMENTS OF train.py
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def dying(function, n):
    """The function, dying half-way through its n-th call."""
    calls = 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        if calls == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return counted


if __name__ == "__main__":
    what, n, *argv = sys.argv[1:]
    import torch

    import train
    from speechbrain_cffma.brain import EnhancementBrain

    if what == "step":
        steps = dying(EnhancementBrain.optimizers_step, int(n))
        EnhancementBrain.optimizers_step = steps
    else:
        torch.save = dying(torch.save, int(n))
    train.main(argv)
