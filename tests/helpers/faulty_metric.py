"""Run `cffma` with a slow SI-SDR that kills its process if a file equals its clean reference.

python tests/helpers/faulty_metric.py ARGUMENTS OF cffma
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from speechbrain_cffma.cli import main
from speechbrain_cffma.metrics import intrusive, si_sdr


def faulty(clean, enhanced, sample_rate):
    time.sleep(0.2)
    if (clean == enhanced).all():
        os.kill(os.getpid(), signal.SIGKILL)
    return si_sdr(clean, enhanced, sample_rate)


# Worker processes import this file too, as __mp_main__. Other imports, such as a search
# for doctests, must not change the metrics.
if __name__ in ("__main__", "__mp_main__"):
    intrusive.si_sdr = faulty

if __name__ == "__main__":
    main()
