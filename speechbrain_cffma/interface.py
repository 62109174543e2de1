"""The interface that SpeechBrain's `foreign_class` gives to a model folder.

Authors
 * The speechbrain-cffma developers 2026
"""

from typing import Any

import torch
from speechbrain.inference.interfaces import Pretrained

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.inference.device import for_inference
from speechbrain_cffma.inference.mixin import InferenceMixin


class EnhancerInterface(InferenceMixin, Pretrained):
    """`enhance`, `enhance_batch`, `enhance_stream` and `enhance_file` where SpeechBrain's
    run_opts put the model.

    custom.py of a model folder names it, so that this is all it takes:

        foreign_class(source="FOLDER_OR_HUB_ID", run_opts={"device": "cuda:0"})

    Arguments
    ---------
    modules : dict
        With enhance_model, a `CFFMAEnhancer`.
    hparams : dict
        Of the folder's hyperparams.yaml.
    **options
        `run_opts` and `freeze_params`, see `speechbrain.inference.interfaces.Pretrained`.

    Example
    -------
    >>> import torch
    >>> modules = {"enhance_model": getfixture("tiny_enhancer")}
    >>> interface = EnhancerInterface(modules, {}, run_opts={"device": "cpu"})
    >>> interface.enhance(torch.randn(16000)).shape
    torch.Size([16000])
    """

    MODULES_NEEDED = ["enhance_model"]
    # SpeechBrain's, which has no type hints.
    mods: Any
    device: Any

    @property
    def spectrogram(self):
        """The model's transform, which `InferenceMixin` needs."""
        return self.mods.enhance_model.spectrogram

    def enhance_batch(
        self, noisy: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Enhance a padded batch, each utterance as it would be alone.

        SpeechBrain's own `WaveformEnhancement.enhance_batch` takes `lengths`, too, but
        does not hand them on.

        Arguments
        ---------
        noisy : torch.Tensor
            Noisy waveforms [B, S] at 16 kHz.
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Enhanced waveforms [B, S], 0 where they are padded.

        Raises
        ------
        InputError
            If the waveforms can't be enhanced, or lengths are not relative.

        Example
        -------
        >>> import torch
        >>> modules = {"enhance_model": getfixture("tiny_enhancer")}
        >>> interface = EnhancerInterface(modules, {}, run_opts={"device": "cpu"})
        >>> lengths = torch.tensor([1.0, 0.5])
        >>> enhanced = interface.enhance_batch(torch.randn(2, 16000), lengths)
        >>> enhanced.shape, enhanced[1, 8000:].abs().max().item()
        (torch.Size([2, 16000]), 0.0)
        """
        noisy = noisy.to(self.device)
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=self.device)
            if not ((lengths >= 0) & (lengths <= 1)).all():
                raise InputError(
                    "lengths are relative, from 0 to 1, not " + str(lengths.tolist())
                )
        with for_inference(self):
            enhanced, _ = self(noisy, lengths)
        return enhanced

    def forward(
        self,
        noisy: torch.Tensor,
        lengths: torch.Tensor | None = None,
        suppression: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Enhance a batch, as `CFFMAEnhancer` does.

        Arguments
        ---------
        noisy : torch.Tensor
            Noisy waveforms [B, S] at 16 kHz.
        lengths : torch.Tensor or None
            Relative lengths [B].
        suppression : float or None
            Another bound in dB than the network's own; `math.inf` for none.

        Returns
        -------
        enhanced : torch.Tensor
            Enhanced waveforms [B, S].
        log_magnitude : torch.Tensor
            Enhanced log1p magnitude [B, T, F].
        """
        return self.mods.enhance_model(noisy, lengths, suppression)
