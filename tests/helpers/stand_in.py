"""A stand-in for the model in tests of the cluster: no torch, and rows that kill."""

import os
import signal
import time

import soundfile

from speechbrain_cffma.cluster.rows import Enhance
from speechbrain_cffma.files import atomic_write


class StandIn(Enhance):
    """Halves the samples, so that workers start at once.

    What the noisy file's first sample says happens to its worker: 0.25 a segmentation
    fault, 0.5 all memory is used, 0.75 it is killed once (if the file `once` exists).

    Arguments
    ---------
    once : Path or None
        A file that the first worker that is killed removes.
    seconds : float
        How long each file takes.
    """

    def __init__(self, once=None, seconds=0.0):
        super().__init__(device="cpu", precision="fp32")
        self.once, self.seconds = once and str(once), seconds

    def load(self):
        """There is nothing to load."""

    def _local_file(self, source, target):
        info = soundfile.info(source)
        samples, rate = soundfile.read(source, dtype="float32")
        time.sleep(self.seconds)
        if samples[0] == 0.25:
            os.kill(os.getpid(), signal.SIGSEGV)
        if samples[0] == 0.5:
            held = []
            while True:
                held.append(bytearray(os.urandom(1)) * (50 << 20))
                time.sleep(0.02)
        if samples[0] == 0.75 and self.once and os.path.exists(self.once):
            os.remove(self.once)
            os.kill(os.getpid(), signal.SIGKILL)
        with atomic_write(target) as partial:
            form = {"format": info.format, "subtype": info.subtype}
            soundfile.write(partial, samples / 2, rate, **form)
        return len(samples) / rate, 0.0
