"""The card of a model: README.md in its folder, in the form of the HuggingFace hub.

Its text is in model_card.md; here are the facts that fill it. None of them names a
path of the machine.

Authors
 * The speechbrain-cffma developers 2026
"""

import os
import re
import shlex
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.complexity import count_parameters
from speechbrain_cffma.manifest import read_manifest
from speechbrain_cffma.metric_table import TABLE
from speechbrain_cffma.report import tables

TEMPLATE = Path(__file__).with_name("model_card.md")
TAGS = ["speech-enhancement", "BSS-CFFMA", "speechbrain-cffma"]


def model_card(enhancer, run=None, results=None):
    """Write the card of a model.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The model.
    run : dict or None
        What `describe_training` returns, and of the checkpoint steps, epoch and score,
        with the metric it is of; None says nothing of a training.
    results : dict or None
        Of the test: the summary that `report.write_report` returns, its settings, and
        data and extent as for training; None says that there was none.

    Returns
    -------
    str
        Metadata in YAML, and text in Markdown.

    Example
    -------
    >>> card = ModelCard(model_card(getfixture("tiny_enhancer")))
    >>> card.data.pipeline_tag, card.data.license
    ('audio-to-audio', None)
    >>> "## Results" in card.text
    False
    """
    facts = {"network": _network(enhancer), "run": run, "test": results}
    metadata = {
        "library_name": "speechbrain",
        "pipeline_tag": "audio-to-audio",
        "tags": [*TAGS, *filter(None, [facts["network"]["ssl_type"]])],
    }
    if run:
        metadata["license"] = run["license"]
        metadata["base_model"] = run["base_model"]
    if results:
        summary, settings = results["summary"], results["settings"]
        facts["table"] = tables.by_metric(summary, settings["metrics"])
        facts["note"] = tables.note(settings)
        dataset = str(results["data"] or run["experiment"])
        metadata["model_name"] = str(run["experiment"])
        metadata["eval_results"] = scores = _eval_results(summary, dataset)
        metadata["metrics"] = [score.metric_type for score in scores]
    card_data = ModelCardData(**metadata)
    return f"{ModelCard.from_template(card_data, template_path=TEMPLATE, **facts)}\n"


def describe_training(hparams, command):
    """What the card says of the training, whatever comes of it.

    Arguments
    ---------
    hparams : SimpleNamespace
        The experiment, with the keys of hparams/base.yaml.
    command : str
        What was run, from `shareable_command`.

    Returns
    -------
    dict
        Facts for `model_card`, in what JSON can hold.
    """
    base = _base(hparams)
    ssl_source = None
    if base is None and hasattr(hparams.enhancer.embedding, "ssl"):
        ssl_source = _hub_id(hparams.ssl_source)
    describe = getattr(hparams.pairs, "describe", lambda: None)
    return {
        "experiment": hparams.experiment,
        "data": hparams.training_data,
        "extent": extent(read_manifest(hparams.train_manifest)),
        "valid_extent": extent(read_manifest(hparams.valid_manifest)),
        "pairs": describe(),
        "data_license": hparams.license,
        "license": _license(hparams.license, base),
        "base": base,
        "base_model": base["hub_id"] if base else ssl_source,
        "ssl_source": ssl_source,
        "fine_tune": hparams.fine_tune,
        "batch_size": hparams.batch_size,
        "seconds": hparams.crop_samples / SAMPLE_RATE,
        "lr": hparams.lr,
        "lr_ssl": hparams.lr_ssl,
        "lr_schedule": hparams.lr_schedule,
        "seed": hparams.seed,
        "command": command,
    }


def extent(rows):
    """How much data a manifest lists.

    Arguments
    ---------
    rows : iterable of dict
        Rows of a manifest.

    Returns
    -------
    str
        Number and length of the files, and what else is known of them.

    Example
    -------
    >>> row = {"duration": 60.0, "speaker": "anna", "noise": "", "snr": 5.0}
    >>> extent([row, {**row, "speaker": "ben", "snr": 10.0}])
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


def read_card(card):
    """Read a card that anyone may have written, or that there is not.

    Arguments
    ---------
    card : str or None
        Its text.

    Returns
    -------
    text : str
        Without the metadata.
    data : dict
        The metadata, as `ModelCardData`; nothing where it can't be read.

    Example
    -------
    >>> text, data = read_card("---\\nlicense: cc-by-4.0\\n---\\n# A model")
    >>> text, data.get("license")
    ('# A model', 'cc-by-4.0')
    """
    if card is None:
        return "", {}
    try:
        parsed = ModelCard(card, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError):
        return card.strip(), {}
    return parsed.text.strip(), parsed.data


def shareable_command(arguments):
    """The command of a run, with `PATH` for whatever lies on this machine alone.

    Arguments
    ---------
    arguments : list of str
        Of `train.py`.

    Returns
    -------
    str
        A line for a shell. It trains, also where the arguments only test.

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
    """A source, if it is an id of the hub and no folder; else None."""
    is_id = re.fullmatch(r"[\w.-]*\w/\w[\w.-]*", str(source))
    return str(source) if is_id and not os.path.exists(source) else None


def _base(hparams):
    """The model that the run started from; None if from none."""
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
    """The licence of weights that learnt from data of one licence, and maybe from a model."""
    if own is None or base is None or base["license"] in (None, own):
        return own
    return "other"


def _network(enhancer):
    """The parts of the network and their sizes."""
    parameters = count_parameters(enhancer)
    ssl = getattr(enhancer.embedding, "ssl", None)
    config = ssl.model.config if ssl is not None else None
    return {
        "ssl": ssl
        and f"{type(ssl).__name__}, {config.num_hidden_layers} layers of "
        f"{config.hidden_size} channels",
        "ssl_type": config and config.model_type,
        "fusion": type(enhancer.mask_estimator.fusion).__name__,
        "enhancer": type(enhancer.mask_estimator.enhancer).__name__,
        "n_parameters": parameters["all"],
        "n_head": parameters["head"],
    }


def _eval_results(summary, dataset):
    """The mean scores of the enhanced test files, in the hub's form."""
    return [
        EvalResult(
            task_type="audio-to-audio",
            task_name="Speech Enhancement",
            dataset_type=re.sub(r"[^\w.-]+", "-", dataset),
            dataset_name=dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=TABLE[metric].heading,
            metric_value=round(score["mean"], TABLE[metric].digits),
        )
        for metric, score in summary["overall"]["enhanced"]["scores"].items()
        if score["mean"] is not None
    ]
