"""Load the weights of a model folder for SpeechBrain's `from_hparams`.

A module of its own, since it is slow to import: it needs all of SpeechBrain.

Authors
 * The speechbrain-cffma developers 2026
"""

import functools

from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_cffma.hub.weights import WEIGHTS_FILE, load_weights


class WeightsPretrainer(Pretrainer):
    """Loads the weights next to hyperparams.yaml, for SpeechBrain's `from_hparams`.

    SpeechBrain's own `Pretrainer` loads `<key>.ckpt` from there or a path relative to the
    working directory, and silently ignores weights that don't fit.

    Arguments
    ---------
    model : torch.nn.Module
        The model to load into.
    sha256 : str or None
        The checksum that the file must have.
    """

    def __init__(self, model, sha256=None):
        super().__init__(
            loadables={"enhance_model": model},
            custom_hooks={
                "enhance_model": functools.partial(load_weights, sha256=sha256)
            },
        )

    def collect_files(self, default_source=None, **options):
        """Fetch the weights from the folder or hub id given to `from_hparams`."""
        self.add_paths({"enhance_model": f"{default_source}/{WEIGHTS_FILE}"})
        return super().collect_files(default_source, **options)
