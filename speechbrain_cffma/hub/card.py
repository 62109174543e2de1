"""The model card: README.md in the model's folder, in the HuggingFace hub's format.

The text is in card.md; this module computes the facts that fill it. No fact contains a
path of this computer.

Authors
 * The speechbrain-cffma developers 2026
"""

import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from speechbrain_cffma.hub.complexity import count_parameters

TEMPLATE = Path(__file__).with_name("card.md")
#: The names of the families of SSL models, by their `model_type`.
SSL_FAMILIES = {"wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "hubert": "HuBERT"}
TAGS = ["speech-enhancement", "BSS-CFFMA", "speechbrain-cffma"]


def model_card(enhancer, run=None, results=None):
    """Write the card of a model.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The model.
    run : dict or None
        The facts that `describe_training` returns, with the checkpoint's steps, epoch,
        metric and score. With None the card does not mention training.
    results : dict or None
        The facts that `describe_results` returns; None if the model was not tested.

    Returns
    -------
    str
        The card: metadata in YAML and text in Markdown.

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
        dataset = str(results["data"] or run["experiment"])
        metadata["model_name"] = str(run["experiment"])
        metadata["eval_results"] = scores = _eval_results(results, dataset)
        metadata["metrics"] = [score.metric_type for score in scores]
    card_data = ModelCardData(**metadata)
    return f"{ModelCard.from_template(card_data, template_path=TEMPLATE, **facts)}\n"


def read_card(card):
    """Split a card into text and metadata. The card may be missing or malformed.

    Arguments
    ---------
    card : str or None
        The card; None if there is none.

    Returns
    -------
    text : str
        The text without the metadata.
    data : ModelCardData or dict
        The metadata; empty if it can't be read.

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


def _network(enhancer):
    """The parts of the network and their sizes."""
    parameters = count_parameters(enhancer)
    ssl = getattr(enhancer.embedding, "ssl", None)
    config = ssl.model.config if ssl is not None else None
    refiner = enhancer.refiner
    return {
        "ssl": ssl
        and f"{SSL_FAMILIES[config.model_type]}, {config.num_hidden_layers} layers with "
        f"{config.hidden_size} channels",
        "ssl_type": config and config.model_type,
        "fusion": type(enhancer.mask_estimator.fusion).__name__,
        "enhancer": type(enhancer.mask_estimator.enhancer).__name__,
        "refiner": refiner
        and f"{' and '.join(map(str, refiner.channels))} channels, a filter over "
        f"{refiner.n_taps} frames",
        "n_parameters": parameters["all"],
        "n_head": parameters["head"],
    }


def _eval_results(results, dataset):
    """The mean scores of the enhanced test files, in the hub's format."""
    return [
        EvalResult(
            task_type="audio-to-audio",
            task_name="Speech Enhancement",
            dataset_type=re.sub(r"[^\w.-]+", "-", dataset),
            dataset_name=dataset,
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=value,
        )
        for metric, (name, value) in results["scores"].items()
    ]
