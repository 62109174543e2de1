"""Sweeps: train an experiment in several variants with several seeds.

A run is a command line of `train.py` with its own output folder, so that it can be started
here (`runner`), on a Ray cluster (`cluster.runs`), by a scheduler or by hand. The output
folders alone tell which runs have finished.

Authors
 * The speechbrain-cffma developers 2026
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from speechbrain_cffma.data.prepared import prepared_from
from speechbrain_cffma.errors import InputError, one_line
from speechbrain_cffma.files import of_project
from speechbrain_cffma.training.experiment import (
    differing_keys,
    load_experiment,
    prepare_data,
    read_defaults,
    read_experiment,
    read_yaml,
)
from speechbrain_cffma.training.overrides import override, parse_command_line

KEYS = ("experiment", "output_folder", "seeds", "overrides", "variants", "grid")
#: The file in a run's folder with its standard output and error.
LOG = "sweep.log"


class Run(NamedTuple):
    """One training run of a sweep.

    Arguments
    ---------
    variant : str
        Name of its variant.
    seed : int
        Its seed.
    folder : Path
        Its output folder.
    arguments : list of str
        Arguments of `train.py`.
    """

    variant: str
    seed: int
    folder: Path
    arguments: list

    def command(self):
        """The command that starts the run.

        Returns
        -------
        str
            One line for a shell.
        """
        return shlex.join(["python", of_project("train.py"), *self.arguments])

    def experiment(self):
        """The experiment as `train.py` reads it.

        Returns
        -------
        str
            What `read_experiment` returns.

        Raises
        ------
        InputError
            If it can't be read, or an override is an option of SpeechBrain, which the
            experiment's text doesn't include.
        """
        path, options, overrides = parse_command_line(self.arguments)
        if given := sorted(options.overridden_args - {"param_file"}):
            raise InputError(
                f"{given[0]} is an option of SpeechBrain, which runs don't record: set it "
                "in an experiment or a variant, or use --devices for the device"
            )
        return read_experiment(path, overrides)

    def is_finished(self):
        """Whether the run has been trained and evaluated.

        Returns
        -------
        bool
            False if it has not started or not ended.

        Raises
        ------
        InputError
            If the folder holds a run with other settings.
        """
        kept = self.folder / "hyperparams.yaml"
        done = self.folder / "test" / "summary.json"
        # Before its first checkpoint a run has nothing to resume from.
        if not kept.is_file() or not (
            done.is_file() or any((self.folder / "checkpoints").glob("CKPT*"))
        ):
            return False
        *_, given = parse_command_line(self.arguments)
        kept = kept.read_text(encoding="utf-8")
        if keys := differing_keys(kept, self.experiment(), given):
            raise InputError(
                f"{self.folder} holds a run with other settings ({', '.join(keys)}): choose "
                "another output_folder, or remove this one"
            )
        return done.is_file()

    def failure(self, code):
        """The reason why the run has ended without finishing.

        Arguments
        ---------
        code : int
            The exit code of its process.

        Returns
        -------
        str
            The last line of its log and how it ended; "" if it has finished.
        """
        if code == 0 and self.is_finished():
            return ""
        log = self.folder / LOG
        text = log.read_text(encoding="utf-8", errors="replace")
        last = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()][-1]
        died = code < 0
        how = f"killed by {signal.Signals(-code).name}" if died else f"exit code {code}"
        return f"{last} ({how}; {log})"


class Sweep(NamedTuple):
    """A sweep and its runs.

    Arguments
    ---------
    folder : Path
        Folder for its runs and tables.
    variants : list of str
        Names of the variants; the others are compared with the first.
    seeds : list of int
        Seeds of each variant.
    runs : list of Run
        All runs: first all variants with the first seed.
    """

    folder: Path
    variants: list
    seeds: list
    runs: list


def read_sweep(path, overrides=None):
    """Read a sweep and determine its runs.

    Its YAML has the keys `experiment` (a path relative to the YAML), `output_folder`,
    `seeds`, `overrides` (keys of the experiment for all runs), and either `variants` (a
    list of overrides, each with a `name`) or `grid` (a list of values for some keys; each
    combination is a variant).

    Arguments
    ---------
    path : str or Path
        The YAML.
    overrides : dict or None
        Further overrides for all runs, as `parse_command_line` returns them;
        `output_folder` and `seeds` replace those of the sweep.

    Returns
    -------
    Sweep
        The runs of all variants and seeds. They share one manifest_folder.

    Raises
    ------
    InputError
        If it is missing or does not have this form.

    Example
    -------
    >>> path = getfixture("tmp_path") / "size.yaml"
    >>> _ = path.with_name("mini.yaml").write_text("dim: 4")
    >>> _ = path.write_text(
    ...     "{experiment: mini.yaml, output_folder: o, seeds: [1], grid: {dim: [8, 16]}}"
    ... )
    >>> sweep = read_sweep(path)
    >>> sweep.variants
    ['dim=8', 'dim=16']
    >>> sweep.runs[1].folder.as_posix()
    'o/dim_16/1'
    """
    tree, given = dict(read_yaml(path)), dict(overrides or {})
    if "output_folder" in given:
        tree["output_folder"] = os.path.expanduser(str(given.pop("output_folder")))
    if "seeds" in given:
        tree["seeds"] = _seeds(given.pop("seeds"))
    _check_keys(path, tree)
    experiment = os.path.normpath(Path(path).parent / tree["experiment"])
    folder = Path(str(tree["output_folder"])).expanduser()
    common = {
        "manifest_folder": (folder / "manifests").as_posix(),
        **(tree.get("overrides") or {}),
    }
    defaults = read_defaults(experiment)
    shared = _flags(common, defaults)
    shared |= {k: f"--{k}" if v is True else f"--{k}={v}" for k, v in given.items()}
    variants = _variants(path, tree)
    folders = {name: re.sub(r"[^\w.-]+", "_", name) for name in variants}
    if len({name.lower() for name in folders.values()}) < len(folders):
        raise InputError(f"{path}: two variants have the same name for a folder")

    def run(name, seed):
        run_folder = folder / folders[name] / str(seed)
        options = {
            **shared,
            **_flags(variants[name], defaults),
            **_flags({"seed": seed, "output_folder": run_folder.as_posix()}, defaults),
        }
        return Run(name, seed, run_folder, [experiment, *options.values()])

    seeds = list(tree["seeds"])
    # Seed by seed, so that all variants can be compared early.
    runs = [run(name, seed) for seed in seeds for name in variants]
    return Sweep(folder, list(variants), seeds, runs)


def _flags(values, defaults):
    return {key: override(key, value, defaults) for key, value in values.items()}


def _seeds(text):
    """The list of the option --seeds."""
    try:
        return YAML(typ="safe").load(str(text))
    except YAMLError as error:
        raise InputError(f"--seeds={text} is no YAML: {one_line(error)}") from error


def prepare(runs):
    """Prepare the data of runs one after the other, since they write the same files.

    Arguments
    ---------
    runs : list of Run
        The runs.

    Raises
    ------
    InputError
        If runs with the same manifest folder have different data.
    """
    prepared = {}  # manifest folder: its first run, and what its data were prepared from
    for run in runs:
        experiment = run.experiment()
        prepare_data(experiment)
        folder = load_experiment(experiment, only="manifest_folder")
        marker = prepared_from(folder)
        first, expected = prepared.setdefault(folder, (run, marker))
        if marker != expected:
            raise InputError(
                f"{first.folder} and {run.folder} have different data in the same "
                f"{folder}, but all runs need the same test set: set data_seed in the "
                "overrides, if the experiment has this key"
            )


def failures_of(runs, outcomes):
    """Follow runs to their end, and show how many have ended and which have failed.

    Arguments
    ---------
    runs : list of Run
        The runs, whose data have been prepared.
    outcomes : generator
        What runs them: `runner.run_here` or `cluster.runs.run_on_cluster`. It yields the
        index of each run that ends and the reason why it failed, or "".

    Returns
    -------
    dict
        Reasons of failures by the index of the run.
    """
    failures = {}
    with (
        tqdm(total=len(runs), desc="runs", dynamic_ncols=True) as progress,
        contextlib.closing(outcomes),
    ):
        for index, reason in outcomes:
            if reason:
                failures[index] = reason
                run = runs[index]
                progress.write(f"{run.variant}, seed {run.seed}: {reason}", sys.stderr)
            progress.update()
    return failures


def _check_keys(path, tree):
    for key in ("experiment", "output_folder", "seeds"):
        if not tree.get(key):
            raise InputError(f"the sweep {path} has no {key}")
    if unknown := sorted(set(tree) - set(KEYS)):
        raise InputError(
            f"the sweep {path} has an unknown key {unknown[0]!r}; the keys are "
            + ", ".join(KEYS)
        )
    if bool(tree.get("variants")) == bool(tree.get("grid")):
        raise InputError(f"the sweep {path} needs either variants or a grid")
    seeds = tree["seeds"]
    if not isinstance(seeds, list) or not all(type(s) is int for s in seeds):
        raise InputError(f"{path}: seeds must be a list of whole numbers")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{path}: a seed occurs twice")


def _variants(path, tree):
    """The overrides of each variant, by its name."""
    if grid := tree.get("grid"):
        if not all(isinstance(values, list) and values for values in grid.values()):
            raise InputError(f"{path}: each key of the grid needs a list of values")
        combinations = [
            dict(zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
        ]
        named = [
            (", ".join(f"{k}={_shown(v)}" for k, v in c.items()), c)
            for c in combinations
        ]
    else:
        named = []
        for entry in tree["variants"]:
            entry = dict(entry) if isinstance(entry, dict) else {}
            name = str(entry.pop("name", "") or "")
            if not name:
                raise InputError(f"{path}: each variant needs a name")
            named.append((name, entry))
    if len(dict(named)) < len(named):
        raise InputError(f"{path}: two variants have the same name")
    return dict(named)


def _shown(value):
    """A value as it appears in the name of a variant."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
