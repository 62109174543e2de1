"""Small sweeps, with stand-ins for the experiment and for train.py."""

import json
from pathlib import Path

from speechbrain_cffma.training.sweep import read_sweep

#: Its prepare step notes what the data were made from, and makes none.
EXPERIMENT = """\
seed: 0
data_seed: !ref <seed>
output_folder: results
manifest_folder: !ref <output_folder>/manifests
prepare: !name:speechbrain_cffma.data.prepared.mark_prepared
    save_folder: !ref <manifest_folder>
    arguments: {data_seed: !ref <data_seed>}
dim: 8
rate: 0.1
name: null
precision: fp32
what: finish
"""

#: In the place of train.py, does what the key `what` says.
TRAIN = """\
import os, pathlib, sys, time
options = dict(a[2:].split("=", 1) for a in sys.argv[2:] if "=" in a)
folder = pathlib.Path(options["output_folder"])
what = options.get("what", "finish")
(folder / "started").write_text(str(os.getpid()))
(folder / "environment").write_text(
    f"{options.get('device')} {os.environ['OMP_NUM_THREADS']}"
)
(folder / "gpus").write_text(str(os.environ.get("CUDA_VISIBLE_DEVICES")))
print("training")
while what == "wait":
    time.sleep(0.05)
while what == "hold" and not os.path.exists("go"):
    time.sleep(0.05)
if what == "meet":  # until both runs have started
    while len(list(folder.parents[1].glob("*/*/started"))) < 2:
        time.sleep(0.05)
if what == "fail":
    sys.exit("error: the disk is full")
if what == "lose" and not (folder / "lost").exists():  # the process that started it
    (folder / "lost").write_text(str(os.getpid()))
    os.kill(os.getppid(), 9)
    time.sleep(60)
if what == "die":
    os.kill(os.getpid(), 9)
(folder / "test").mkdir(exist_ok=True)
(folder / "test" / "summary.json").write_text("{}")
"""


def write_project(folder):
    """Write the experiment and the `train.py` above, for a folder to work in."""
    (folder / "hparams" / "sweeps").mkdir(parents=True)
    (folder / "hparams" / "small.yaml").write_text(EXPERIMENT)
    (folder / "train.py").write_text(TRAIN)
    (folder / "out" / "manifests").mkdir(parents=True)


def write(**keys):
    """A sweep's YAML of these keys and defaults; None leaves one out."""
    tree = {
        "experiment": "../small.yaml",
        "output_folder": "out",
        "seeds": [1],
        "variants": [{"name": "base"}, {"name": "new", "dim": 16}],
        **keys,
    }
    path = Path("hparams/sweeps/test.yaml")
    tree = {key: value for key, value in tree.items() if value is not None}
    path.write_text(json.dumps(tree))
    return path


def sweep_of(options=None, **keys):
    """The sweep of `write`, with the options of a command line."""
    return read_sweep(write(**keys), options)


def begin(run, settings=None):
    """What train.py writes before it trains."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "hyperparams.yaml").write_text(settings or run.experiment())


def finish(run):
    """What train.py leaves when it has finished."""
    begin(run)
    (run.folder / "test").mkdir()
    (run.folder / "test" / "summary.json").write_text("{}")
