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
    """SpeechBrain's inference interface, with the methods of `InferenceMixin`.

    A model folder's custom.py names this class, so one call loads the model:

        foreign_class(source="FOLDER_OR_HUB_ID", run_opts={"device": "cuda:0"})

    Arguments
    ---------
    modules : dict
        `enhance_model` is a `CFFMAEnhancer`.
    hparams : dict
        Content of the folder's hyperparams.yaml.
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
    # Set by SpeechBrain, which has no type hints.
    mods: Any
    device: Any

    @property
    def spectrogram(self):
        """The model's spectrogram transform, which `InferenceMixin` needs."""
        return self.mods.enhance_model.spectrogram

    def enhance_batch(
        self, noisy: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Enhance a padded batch; each utterance is enhanced as if it were alone.

        SpeechBrain's own `WaveformEnhancement.enhance_batch` takes `lengths` too, but
        ignores them.

        Arguments
        ---------
        noisy : torch.Tensor
            Noisy waveforms [B, S] at 16 kHz.
        lengths : torch.Tensor or None
            Relative lengths [B].

        Returns
        -------
        torch.Tensor
            Enhanced waveforms [B, S]; the padding is 0.

        Raises
        ------
        InputError
            If the waveforms can't be enhanced, or a length is not between 0 and 1.

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
                    f"lengths must be relative, from 0 to 1, not {lengths.tolist()}"
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
            Maximum attenuation in dB; None for the network's own, `math.inf` for none.

        Returns
        -------
        enhanced : torch.Tensor
            Enhanced waveforms [B, S].
        log_magnitude : torch.Tensor
            Enhanced log1p magnitude [B, T, F].
        """
        return self.mods.enhance_model(noisy, lengths, suppression)
