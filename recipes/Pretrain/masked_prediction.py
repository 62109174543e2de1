"""Self-supervised pre-training: predict masked frames of clean speech from noisy speech.

The targets are labels of the clean speech from a random-projection quantiser (BEST-RQ,
https://arxiv.org/abs/2202.01855). The input is the noisy mixture, as for WavLM
(https://arxiv.org/abs/2110.13900, Section III-B), with masked spans of frames. The loss
includes unmasked frames (HuBERT's alpha < 1, https://arxiv.org/abs/2106.07447, Section
II-B): with little data and few steps a small model learns to label what it receives long
before it learns to predict what is masked.

Authors
 * The speechbrain-cffma developers 2026
"""

import speechbrain as sb
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.nnet.quantisers import RandomProjectionQuantizer
from speechbrain.utils.distributed import if_main_process
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes.ssl import n_ssl_frames
from speechbrain_cffma.training.base import TrainingBrain, gather


class MaskedPrediction(nn.Module):
    """An SSL model that predicts the labels of its frames, masked and unmasked.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's `WavLM`, `Wav2Vec2` or `HuBERT`.
    n_labels : int
        Size of the quantiser's codebook.
    mask_prob : float
        Share of the frames at which a mask starts.
    mask_length : int
        Length of a mask in frames of 20 ms; masks can overlap.
    unmasked_weight : float
        Weight of the loss of unmasked frames; that of masked frames is 1.
    n_mels : int
        Number of log-mel bands; two frames of 10 ms are quantised at once.

    Example
    -------
    >>> model = MaskedPrediction(getfixture("tiny_wavlm"), n_labels=8)
    >>> loss, predicted, labels = model(torch.randn(2, 20480), torch.randn(2, 20480))
    >>> loss.shape, predicted.shape == labels.shape
    (torch.Size([]), True)
    """

    def __init__(
        self,
        ssl,
        n_labels=1024,
        mask_prob=0.065,
        mask_length=10,
        unmasked_weight=1.0,
        n_mels=80,
    ):
        super().__init__()
        self.ssl = ssl.model
        self.normalize_wav = bool(ssl.normalize_wav)
        # SpeechBrain's wrapper switches masking off, even for masks passed as arguments.
        self.ssl.config.apply_spec_augment = True
        self.ssl.config.layerdrop = 0.0
        self.n_labels = n_labels
        self.mask_prob = mask_prob
        self.mask_length = mask_length
        self.unmasked_weight = unmasked_weight
        self.features = Fbank(n_mels=n_mels)
        self.quantizer = RandomProjectionQuantizer(2 * n_mels, 16, n_labels)
        self.output = nn.Linear(self.ssl.config.hidden_size, n_labels)

    def labels(self, clean, n_frames):
        """Compute the labels to predict.

        Arguments
        ---------
        clean : torch.Tensor
            Clean waveforms [B, S].
        n_frames : int
            Number of frames T of the SSL model.

        Returns
        -------
        torch.Tensor
            Labels [B, T].
        """
        with torch.no_grad(), torch.autocast(clean.device.type, enabled=False):
            features = self.features(clean.float())[:, : 2 * n_frames]  # [B, 2T, mels]
            features = features - features.mean(1, keepdim=True)
            features = features / (features.std(1, keepdim=True) + 1e-3)
            return self.quantizer(features.unflatten(1, (n_frames, 2)).flatten(2))

    def forward(self, noisy, clean):
        """Predict the labels of the frames.

        Arguments
        ---------
        noisy : torch.Tensor
            Input waveforms [B, S].
        clean : torch.Tensor
            Clean waveforms [B, S], from which the labels are computed.

        Returns
        -------
        loss : torch.Tensor
            Cross-entropy of the masked frames, plus the weighted one of the others.
        predicted : torch.Tensor
            Predicted label of each masked frame [frames].
        labels : torch.Tensor
            True label of each masked frame [frames].
        """
        n_frames = n_ssl_frames(self.ssl.config, noisy.shape[1])
        if self.normalize_wav:  # as SpeechBrain's wrapper does
            noisy = F.layer_norm(noisy, noisy.shape[1:])
        begins = torch.rand(len(noisy), 1, n_frames, device=noisy.device)
        begins = (begins < self.mask_prob).float()
        # Each frame is masked if a mask begins in the `mask_length` frames up to it.
        begins = F.pad(begins, (self.mask_length - 1, 0))
        masked = F.max_pool1d(begins, self.mask_length, stride=1).squeeze(1) > 0
        masked[:, 0] |= ~masked.any(1)  # at least one per item
        hidden = self.ssl(noisy, mask_time_indices=masked).last_hidden_state
        scores = self.output(hidden).float()
        labels = self.labels(clean, n_frames)
        loss = F.cross_entropy(scores[masked], labels[masked])
        if not masked.all():
            heard = F.cross_entropy(scores[~masked], labels[~masked])
            loss = loss + self.unmasked_weight * heard
        return loss, scores[masked].argmax(1), labels[masked]


class PretrainingBrain(TrainingBrain):
    """Trains a `MaskedPrediction`, `modules.predictor`, and writes its SSL model.

    In addition to the keys that `TrainingBrain` reads from the hparams, it reads: ssl,
    ssl_optimizer, train_logger and output_folder; see hparams/pretrain.yaml.
    """

    def optimizers(self):
        """One optimiser for all trainable parameters."""
        trainable = [p for p in self.modules.parameters() if p.requires_grad]
        return {"ssl_optimizer": self.hparams.ssl_optimizer(trainable)}

    def compute_forward(self, batch, stage):
        """Predict the masked frames of a batch.

        Arguments
        ---------
        batch : PaddedBatch
            With noisy and clean, of equal length.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        (torch.Tensor, torch.Tensor, torch.Tensor)
            What `MaskedPrediction` returns.
        """
        batch = batch.to(self.device, non_blocking=True)
        # In evaluation processes have different numbers of utterances, so that they can't
        # synchronise: the module without DDP.
        is_training = stage == sb.Stage.TRAIN
        predictor = self.modules.predictor if is_training else self.hparams.predictor
        return predictor(batch.noisy.data, batch.clean.data)

    def compute_objectives(self, predictions, batch, stage):
        """Return the loss, and count correctly predicted masked frames.

        Arguments
        ---------
        predictions : (torch.Tensor, torch.Tensor, torch.Tensor)
            What `compute_forward` returns.
        batch : PaddedBatch
            Not used.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        torch.Tensor
            The loss, a scalar.
        """
        loss, predicted, labels = predictions
        if stage != sb.Stage.TRAIN:
            self.n_correct += int((predicted == labels).sum())
            self.counts += torch.bincount(labels.cpu(), minlength=len(self.counts))
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Reset the counts; seed evaluation, so that it always masks the same frames."""
        super().on_stage_start(stage, epoch)
        self.n_correct = 0
        self.counts = torch.zeros(self.hparams.predictor.n_labels, dtype=torch.long)
        if stage != sb.Stage.TRAIN:
            torch.manual_seed(self.hparams.seed)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log; save a checkpoint after validation, and the model after the test."""
        stage_loss = self.mean_over_processes(stage, stage_loss)
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
            return
        self.n_correct = sum(gather(self.n_correct))
        self.counts = sum(gather(self.counts))
        n_masked = int(self.counts.sum())
        stats = {"loss": stage_loss, "accuracy": self.n_correct / n_masked}
        if stage == sb.Stage.VALID:
            self.hparams.epoch_counter.update_metric(stats["accuracy"])
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "step": self.optimizer_step},
                train_stats={"loss": self.train_loss},
                valid_stats=stats,
            )
            self.checkpointer.save_and_keep_only(
                meta={"epoch": epoch, **stats}, max_keys=["accuracy"]
            )
            return
        self.hparams.train_logger.log_stats({"epoch": "best"}, test_stats=stats)
        if if_main_process():
            folder = self.output_folder / "ssl"
            write_ssl(self.hparams.ssl, folder)
            print(
                f"\nmasked frames of unseen speech: {100 * stats['accuracy']:.1f} % correct "
                f"({100 * int(self.counts.max()) / n_masked:.1f} % have the most frequent "
                f"label)\nmodel: {folder}"
            )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the best checkpoint.

        Raises
        ------
        InputError
            If there is none.
        """
        self.step = 0
        if self.checkpointer.recover_if_possible(max_key="accuracy") is None:
            raise InputError(
                f"there is no checkpoint in {self.checkpointer.checkpoints_dir}: train first"
            )


def write_ssl(ssl, folder):
    """Write an SSL model in Hugging Face's format, for `load_ssl`.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's wrapper.
    folder : Path
        Its folder.

    Example
    -------
    >>> from speechbrain_cffma.lobes import load_ssl
    >>> folder = getfixture("tmp_path")
    >>> write_ssl(getfixture("tiny_wavlm"), folder)
    >>> load_ssl(folder).model.config.model_type
    'wavlm'
    """
    ssl.model.save_pretrained(folder)
    preprocessor = Wav2Vec2FeatureExtractor(do_normalize=bool(ssl.normalize_wav))
    preprocessor.save_pretrained(folder)
