"""Self-supervised pre-training: predict what is masked, from noisy speech.

The targets are the labels that a random-projection quantiser gives the clean speech
(BEST-RQ, https://arxiv.org/abs/2202.01855); the model hears the noisy mixture, as WavLM
does (https://arxiv.org/abs/2110.13900, Section III-B), and masks spans of its frames.
What is not masked is predicted too (HuBERT's alpha < 1, https://arxiv.org/abs/2106.07447,
Section II-B): few hours of speech and few steps teach a small model what it hears long
before they teach it what it does not.

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
    """An SSL model that predicts the labels of its frames, masked and heard ones.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's `WavLM`, `Wav2Vec2` or `HuBERT`.
    n_labels : int
        Size of the quantiser's codebook.
    mask_prob : float
        Share of the frames at which a mask begins.
    mask_length : int
        Frames of 20 ms that a mask covers; masks overlap.
    unmasked_weight : float
        Weight of the loss over the frames that are not masked, beside 1 for the masked.
    n_mels : int
        Bands of the log-mel features that are quantised, two frames of 10 ms at once.

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
        # SpeechBrain's wrapper switches masks off, also those that are given.
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
        """What has to be predicted.

        Arguments
        ---------
        clean : torch.Tensor
            Clean waveforms [B, S].
        n_frames : int
            Frames T of the SSL model.

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
        """Predict the frames' labels.

        Arguments
        ---------
        noisy : torch.Tensor
            What the model hears [B, S].
        clean : torch.Tensor
            What the labels are of [B, S].

        Returns
        -------
        loss : torch.Tensor
            Cross-entropy over the masked frames, and the weighted one over the others.
        predicted : torch.Tensor
            The label predicted for each masked frame [frames].
        labels : torch.Tensor
            Its label [frames].
        """
        n_frames = n_ssl_frames(self.ssl.config, noisy.shape[1])
        if self.normalize_wav:  # as SpeechBrain's wrapper does
            noisy = F.layer_norm(noisy, noisy.shape[1:])
        begins = torch.rand(len(noisy), 1, n_frames, device=noisy.device)
        begins = (begins < self.mask_prob).float()
        # Each frame is masked if a mask begins in the `mask_length` frames up to it.
        begins = F.pad(begins, (self.mask_length - 1, 0))
        masked = F.max_pool1d(begins, self.mask_length, stride=1).squeeze(1) > 0
        masked[:, 0] |= ~masked.any(1)  # never none
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

    Besides what `TrainingBrain` takes it takes from the hparams: ssl, ssl_optimizer,
    train_logger and output_folder; see hparams/pretrain.yaml.
    """

    def optimizers(self):
        """One, for all that learns."""
        trainable = [p for p in self.modules.parameters() if p.requires_grad]
        return {"ssl_optimizer": self.hparams.ssl_optimizer(trainable)}

    def compute_forward(self, batch, stage):
        """Predict the masked frames of a batch.

        Arguments
        ---------
        batch : PaddedBatch
            With noisy and clean, of one length.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        (torch.Tensor, torch.Tensor, torch.Tensor)
            What `MaskedPrediction` returns.
        """
        batch = batch.to(self.device, non_blocking=True)
        # Processes evaluate different numbers of utterances: not in step with each other.
        is_training = stage == sb.Stage.TRAIN
        predictor = self.modules.predictor if is_training else self.hparams.predictor
        return predictor(batch.noisy.data, batch.clean.data)

    def compute_objectives(self, predictions, batch, stage):
        """The loss; counts the masked frames that are right beside.

        Arguments
        ---------
        predictions : (torch.Tensor, torch.Tensor, torch.Tensor)
            What `compute_forward` returns.
        batch : PaddedBatch
            Not needed.
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
        """Count anew, and mask the same frames at each validation."""
        super().on_stage_start(stage, epoch)
        self.n_correct = 0
        self.counts = torch.zeros(self.hparams.predictor.n_labels, dtype=torch.long)
        if stage != sb.Stage.TRAIN:
            torch.manual_seed(self.hparams.seed)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log; save after validation, and write the model after the test."""
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
                f"\nmasked frames of unseen speech: {100 * stats['accuracy']:.1f} % right "
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
    """Write an SSL model in HuggingFace's form, for `load_ssl`.

    Arguments
    ---------
    ssl : torch.nn.Module
        SpeechBrain's wrapper.
    folder : Path
        Where it goes.

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
