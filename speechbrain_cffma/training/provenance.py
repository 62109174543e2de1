"""Facts about a training run for the model card: command, data, base model, licence.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
import re
import shlex
from pathlib import Path

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.evaluation import tables
from speechbrain_cffma.hub.card import read_card
from speechbrain_cffma.losses import WeightedSum
from speechbrain_cffma.metric_table import TABLE


def describe_training(hparams, command):
    """Describe a training run before it starts.

    Arguments
    ---------
    hparams : SimpleNamespace
        The experiment, with the keys of hparams/run.yaml and enhancement.yaml.
    command : str
        The command of the run, from `shareable_command`.

    Returns
    -------
    dict
        Facts for `model_card`, which can be stored as JSON.
    """
    base = _base(hparams)
    ssl_source = None
    if base is None and hasattr(hparams.enhancer.embedding, "ssl"):
        ssl_source = _hub_id(hparams.ssl_source)
    describe = getattr(hparams.pairs, "describe", lambda: None)
    loss = WeightedSum(hparams.loss, hparams.waveform_loss, hparams.loss_weights)
    transform = hparams.target_transform
    return {
        "experiment": hparams.experiment,
        "data": hparams.training_data,
        "extent": describe_data(read_manifest(hparams.train_manifest)),
        "valid_extent": describe_data(read_manifest(hparams.valid_manifest)),
        "pairs": describe(),
        "data_license": hparams.license,
        "license": _license(hparams.license, base),
        "base": base,
        "base_model": base["hub_id"] if base else ssl_source,
        "ssl_source": ssl_source,
        "fine_tune": hparams.fine_tune,
        "batch_size": hparams.batch_size,
        "seconds": hparams.crop_samples / SAMPLE_RATE,
        "loss_weights": loss.weights,
        # The name of a function, or of the class of a module.
        "targets": getattr(transform, "__name__", type(transform).__name__)
        if transform
        else None,
        "lr": hparams.lr,
        "lr_ssl": hparams.lr_ssl,
        "lr_schedule": hparams.lr_schedule,
        "seed": hparams.seed,
        "command": command,
    }


def describe_results(summary, settings, data, rows):
    """Describe the test results of a run.

    Arguments
    ---------
    summary : dict
        Summary from `write_report` for the systems "noisy" and "enhanced".
    settings : dict
        Settings of the evaluation.
    data : str or None
        Description of the test data.
    rows : iterable of dict
        Rows of the test manifest.

    Returns
    -------
    dict
        Facts for `model_card`.
    """
    scores = summary["overall"]["enhanced"]["scores"]
    return {
        "table": tables.by_metric(summary, settings["metrics"]),
        "note": tables.note(settings),
        "scores": {
            metric: (TABLE[metric].heading, round(score["mean"], TABLE[metric].digits))
            for metric, score in scores.items()
            if score["mean"] is not None
        },
        "data": data,
        "extent": describe_data(rows),
    }


def describe_data(rows):
    """Describe how much data a manifest lists.

    Arguments
    ---------
    rows : iterable of dict
        Rows of a manifest.

    Returns
    -------
    str
        Number and total length of the files, and their speakers, noises and SNRs if known.

    Example
    -------
    >>> row = {"duration": 60.0, "speaker": "anna", "noise": "", "snr": 5.0}
    >>> describe_data([row, {**row, "speaker": "ben", "snr": 10.0}])
    '2 files, 2.0 min, 2 speakers, SNR 5 to 10 dB'
    """
    rows = list(rows)
    minutes = sum(row["duration"] for row in rows) / 60
    facts = [
        f"{len(rows):,} file{'s' if len(rows) != 1 else ''}",
        f"{minutes / 60:.1f} h" if minutes >= 60 else f"{minutes:.1f} min",
    ]
    for key, name in (("speaker", "speakers"), ("noise", "kinds of noise")):
        count = len({row[key] for row in rows} - {""})
        if count > 1:
            facts.append(f"{count} {name}")
    snrs = {row["snr"] for row in rows} - {None}
    if snrs:
        facts.append(f"SNR {min(snrs):g} to {max(snrs):g} dB")
    return ", ".join(facts)


def shareable_command(arguments):
    """The command of a run for sharing: `PATH` replaces the paths of this machine.

    Arguments
    ---------
    arguments : list of str
        Arguments of `train.py`.

    Returns
    -------
    str
        A shell command that trains the model, without `--test_only`.

    Example
    -------
    >>> shareable_command(["/home/me/hparams/mini.yaml", "--lr=0.1", "--noise_folder=/data/n=1"])
    'python train.py hparams/mini.yaml --lr=0.1 --noise_folder=PATH'
    """
    kept = [_shareable(text) for text in arguments if text != "--test_only"]
    return shlex.join(["python", "train.py", *kept])


def _shareable(argument):
    flag, equals, value = "", "", argument
    if argument.startswith("--"):
        flag, equals, value = argument.partition("=")
    if not flag and Path(value).suffix == ".yaml":
        return f"hparams/{Path(value).name}"
    is_path = "/" in value or os.sep in value or os.path.exists(value)
    return f"{flag}{equals}{'PATH' if is_path and not _hub_id(value) else value}"


def _hub_id(source):
    """The source if it is a hub id and not a folder, else None."""
    is_id = re.fullmatch(r"[\w.-]*\w/\w[\w.-]*", str(source))
    return str(source) if is_id and not os.path.exists(source) else None


def _base(hparams):
    """The model from which the run started; None if there is none."""
    if hparams.pretrained is None:
        return None
    text, data = read_card(hparams.enhancer.card)
    hub_id = _hub_id(hparams.pretrained)
    return {
        "hub_id": hub_id,
        "name": hub_id or data.get("model_name"),
        "license": data.get("license"),
        "text": text,
    }


def _license(own, base):
    """The licence of the weights, from the licences of the data and of the base model."""
    if own is None or base is None or base["license"] in (None, own):
        return own
    return "other"
