"""The Brain that trains and evaluates enhancers.

Authors
 * The speechbrain-cffma developers 2026
"""

import json
import logging
import os
import shutil

import joblib
import numpy as np
import speechbrain as sb
import torch
import yaml
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from speechbrain_cffma import audio
from speechbrain_cffma.data.datasets import evaluation_loader
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.evaluation import tables
from speechbrain_cffma.evaluation.report import write_report
from speechbrain_cffma.evaluation.scores import (
    failures,
    score_pairs,
    scoring_settings,
)
from speechbrain_cffma.files import atomic_write, fitting
from speechbrain_cffma.hub.card import model_card
from speechbrain_cffma.hub.folder import CARD_FILE
from speechbrain_cffma.losses import WeightedSum
from speechbrain_cffma.metric_table import BASIC, DEFAULT, PACKAGES, TABLE
from speechbrain_cffma.metrics import available_metrics, mean_scores, score_each
from speechbrain_cffma.metrics.scoring import as_given
from speechbrain_cffma.training import plots
from speechbrain_cffma.training.base import RunningMeans, TrainingBrain, gather
from speechbrain_cffma.training.provenance import describe_results, describe_training

logger = logging.getLogger(__name__)


@register_checkpoint_hooks
class EnhancementBrain(TrainingBrain):
    """Trains a `CFFMAEnhancer`, or any module with the same interface, and scores it.

    The module is `modules.enhancer`. In addition to those of `TrainingBrain`, the Brain
    uses these hparams: enhancer, pretrained, head_optimizer, ssl_optimizer, loss,
    waveform_loss, loss_weights, target_transform, best_metric, metric_workers,
    valid_manifest, train_logger, tensorboard, output_folder and n_examples, and those of
    `describe_training` for the model card; see hparams/enhancement.yaml.

    Raises
    ------
    InputError
        If validation does not compute `best_metric`, if there is no loss, if `loss_weights`
        does not fit the terms of the loss, or if `target_transform` can't be called.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.metrics = available_metrics()
        self.best_metric = self.hparams.best_metric
        if self.best_metric not in BASIC:
            raise InputError(
                f"best_metric must be one of {', '.join(BASIC)}, not {self.best_metric}"
            )
        self.loss = WeightedSum(
            self.hparams.loss, self.hparams.waveform_loss, self.hparams.loss_weights
        )
        transform = self.hparams.target_transform
        if not (transform is None or callable(transform)):
            raise InputError(
                f"target_transform is {transform!r}, which can't be called: give a function "
                "or a module by !name: or !new: in a YAML file"
            )
        for part in (*self.loss.terms.values(), transform):
            if isinstance(part, torch.nn.Module):
                part.to(self.device)
        self.terms = RunningMeans()

    # --- one batch ---

    def compute_forward(self, batch, stage):
        """Enhance a batch.

        Arguments
        ---------
        batch : PaddedBatch
            Batch with noisy and clean.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        enhanced : torch.Tensor or None
            Waveforms [B, S]; None in training if no term of the loss needs them.
        log_magnitude : torch.Tensor
            Enhanced log1p magnitude [B, T, F].
        """
        # Equal lengths need no mask, which is faster. Checked on the CPU, since a check
        # on the GPU would wait for it.
        padded = bool((batch.noisy.lengths < 1).any())
        batch = batch.to(self.device, non_blocking=True)
        noisy, lengths = batch.noisy
        self.lengths = lengths if padded else None
        if stage != sb.Stage.TRAIN:
            # Not by the DDP wrapper: processes evaluate different numbers of utterances.
            return self.hparams.enhancer(noisy, self.lengths)
        waveform = self.loss.needs_waveform
        return self.modules.enhancer(noisy, self.lengths, waveform=waveform)

    def compute_objectives(self, predictions, batch, stage):
        """The weighted sum of the terms of the loss.

        Arguments
        ---------
        predictions : (torch.Tensor, torch.Tensor)
            The outputs of `compute_forward`.
        batch : PaddedBatch
            Batch with noisy and clean.
        stage : speechbrain.Stage
            The stage.

        Returns
        -------
        torch.Tensor
            The loss, a scalar.
        """
        enhanced, log_magnitude = predictions
        clean = batch.clean.data
        if self.hparams.target_transform is not None:
            padded = {} if self.lengths is None else {"lengths": self.lengths}
            clean = self.hparams.target_transform(clean, **padded)
        target, _ = self.hparams.enhancer.spectrogram(clean, self.lengths)
        if stage == sb.Stage.VALID:
            self.validation_pairs += self._pairs(batch, enhanced)
        elif stage == sb.Stage.TEST:
            ((_, samples),) = self._pairs(batch, enhanced)
            (name,) = batch.id
            self.tested.append(name)
            audio.write(self._test_paths(self.test_rows[name])["enhanced"], samples)
        loss, values = self.loss(
            (enhanced, clean), (log_magnitude, target), self.lengths
        )
        self.terms.add(values)
        return loss

    def optimizers(self):
        """One optimiser for the head, and one for the trained part of the SSL model."""
        embedding = self.hparams.enhancer.embedding
        ssl = set(embedding.ssl_parameters())
        head = [
            p for p in self.modules.parameters() if p.requires_grad and p not in ssl
        ]
        # Unused parameters, which are not trained, stay in: runs of 0.1.0 have them too.
        ssl -= set(embedding.frozen_part().parameters())
        ssl = [p for p in self.modules.parameters() if p in ssl]
        optimizers = {"head_optimizer": self.hparams.head_optimizer(head)}
        if ssl:
            optimizers["ssl_optimizer"] = self.hparams.ssl_optimizer(ssl)
        return optimizers

    # --- checkpoints ---

    @mark_as_saver
    def _save(self, path):
        """Save the means of the terms with SpeechBrain's mean of the loss."""
        super()._save(path)
        with open(path, "a", encoding="utf-8") as file:
            yaml.safe_dump({"terms": self.terms.state()}, file)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        super()._recover(path, end_of_epoch)
        with open(path, encoding="utf-8") as file:
            # Checkpoints of 0.1.0 have no terms.
            self.terms = RunningMeans(**yaml.safe_load(file).get("terms", {}))

    # --- stages ---

    def fit(self, *args):
        """Store the facts for the model card, and train."""
        if if_main_process():
            self._note_training()
        super().fit(*args)

    def on_fit_start(self):
        """Score the checkpoints that lack the metric, then resume."""
        self.best_metric = self._usable_metric()
        self._score_checkpoints()
        super().on_fit_start()
        best = self.checkpointer.find_checkpoint(max_key=self.best_metric)
        if best is not None:
            # A checkpoint is saved before its score is known, or with that of another
            # metric. The counter in it is therefore outdated.
            counter = self.hparams.epoch_counter
            counter.best_score = best.meta[self.best_metric]
            counter.best_limit = best.meta["epoch"]
            n_worse = counter.current - counter.best_limit
            counter.should_stop = n_worse >= counter.limit_to_stop

    def on_stage_start(self, stage, epoch=None):
        """Begin to collect the terms and the pairs to score."""
        super().on_stage_start(stage, epoch)
        if self.step == 0:  # else the terms of a checkpoint within the epoch continue
            self.terms = RunningMeans()
        self.validation_pairs = []
        self.tested = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Score, log and save at the end of a stage."""
        terms = self.terms.read()
        # All processes need the same names, also one that had no batch.
        means = {"loss": stage_loss}
        means |= {f"loss_{name}": terms.get(name, 0.0) for name in self.loss.terms}
        losses = {k: self.mean_over_processes(stage, v) for k, v in means.items()}
        if stage == sb.Stage.TRAIN:
            self.train_losses = losses
        elif stage == sb.Stage.VALID:
            self._end_validation(losses, epoch)
        else:
            tested = {name for share in gather(self.tested) for name in share}
            self.test_rows = {k: v for k, v in self.test_rows.items() if k in tested}
            if if_main_process():
                self._end_test()
            self.hparams.train_logger.log_stats({"epoch": "best"}, test_stats=losses)

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the best checkpoint, and write it as a model folder.

        Without a checkpoint, the pretrained model is evaluated.

        Raises
        ------
        InputError
            If there is neither a checkpoint nor a pretrained model.
        """
        self.step = 0
        self.best_metric = self._usable_metric()
        self._score_checkpoints()
        self.evaluated = self.hparams.pretrained
        self.best = self.checkpointer.recover_if_possible(max_key=self.best_metric)
        if self.best is not None:
            self.evaluated = self.output_folder / "model"
            if if_main_process():
                self.hparams.enhancer.save_pretrained(self.evaluated, self._card())
                # The log also helps those who get only the model folder.
                shutil.copy(self.hparams.train_logger.save_file, self.evaluated)
        elif self.evaluated is None:
            raise InputError(
                f"there is no checkpoint in {self.checkpointer.checkpoints_dir} to "
                "evaluate: train first, or name the output_folder of a trained run, or "
                "a trained model by --pretrained=FOLDER"
            )
        logger.info("evaluating the model %s", self.evaluated)

    def _usable_metric(self):
        """The metric that chooses the best checkpoint: SI-SDR if the package of
        `best_metric` is missing and no checkpoint has its score."""
        metric = self.hparams.best_metric
        if metric in self.metrics or self.checkpointer.find_checkpoint(max_key=metric):
            return metric
        logger.warning(
            "the package %s is not installed: validation computes %s, and SI-SDR chooses "
            "the best checkpoint",
            PACKAGES[metric],
            " and ".join(["the loss", *self.metrics]),
        )
        return "si_sdr"

    @torch.no_grad()
    def _score_checkpoints(self):
        """Score the checkpoints that lack the metric, because the run was stopped before
        scoring or the metric's package was not installed."""
        if self.best_metric not in self.metrics:
            return
        unscored = self.checkpointer.find_checkpoints(
            ckpt_predicate=lambda c: "loss" in c.meta and self.best_metric not in c.meta
        )
        for checkpoint in unscored:
            self.checkpointer.load_checkpoint(checkpoint)
            self.hparams.enhancer.eval()
            self.on_stage_start(sb.Stage.VALID)
            world_size = len(gather(None))
            for batch in evaluation_loader(
                self.hparams.valid_manifest, self._rank(), world_size, self.device
            ):
                outputs = self.compute_forward(batch, sb.Stage.VALID)
                self.compute_objectives(outputs, batch, sb.Stage.VALID)
            scores = self._score_validation()
            self._note_scores(checkpoint, scores)
            self.hparams.train_logger.log_stats(
                {"epoch": checkpoint.meta["epoch"]}, valid_stats=_known(scores)
            )

    def _score_validation(self):
        """Mean scores of the validation pairs of all processes.

        Raises
        ------
        InputError
            If no utterance has a score of the metric that chooses the best checkpoint.
        """
        seconds = [len(clean) / audio.SAMPLE_RATE for clean, _ in self.validation_pairs]
        scored = score_each(
            as_given,
            self.validation_pairs,
            self.metrics,
            seconds,
            self._metric_workers(),
        )
        progress = tqdm(
            scored,
            total=len(seconds),
            desc="scoring",
            leave=False,
            # None: shown in a terminal only
            disable=self.noprogressbar or not if_main_process() or None,
        )
        rows = [row for _, row, _ in sorted(progress, key=lambda one: one.index)]
        rows = [row for share in gather(rows) for row in share]
        failed = [row["failed"] for row in rows if row["failed"]]
        if failed:
            logger.warning(
                "%d of %d validation utterances lack a score and are left out of the "
                "means: %s",
                len(failed),
                len(rows),
                ", ".join(sorted(set(failed))),
            )
        means = mean_scores(rows, self.metrics)
        if means[self.best_metric] is None:
            raise InputError(
                f"no validation utterance has a {self.best_metric} score "
                f"({', '.join(sorted(set(failed)))}): repair these files, or choose another "
                "metric by --best_metric=..."
            )
        return means

    def _note_scores(self, checkpoint, scores):
        """Store mean scores in their checkpoint."""
        if if_main_process():
            self.checkpointer.note(checkpoint, _known(scores))
        gather(None)  # The other processes wait until the scores are written.

    def _end_validation(self, losses, epoch):
        # Saved first, so that the epoch is not lost if scoring fails.
        meta = {name: float(value) for name, value in losses.items()}
        saved = self.checkpointer.save_checkpoint({"epoch": epoch, **meta})
        means = self._score_validation()
        self._note_scores(saved, means)
        self.checkpointer.delete_checkpoints(max_keys=[self.best_metric])
        self.hparams.epoch_counter.update_metric(means[self.best_metric])
        rates = {
            f"lr_{name.removesuffix('_schedule')}": schedule.get_last_lr()[0]
            for name, schedule in self.schedulers.items()
        }
        stats = {
            "train": self.train_losses,
            "valid": {**losses, **_known(means)},
        }
        # Called by all processes; SpeechBrain's logger writes in the main one only.
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "step": self.optimizer_step, **rates},
            train_stats=stats["train"],
            valid_stats=stats["valid"],
        )
        if if_main_process():
            self._log_to_tensorboard(stats, rates)

    def _metric_workers(self):
        """Number of scoring processes; those of all training processes share the cores."""
        if self.hparams.metric_workers != -1 or not self.distributed_launch:
            return self.hparams.metric_workers
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return max(1, joblib.cpu_count() // n_local)

    def _end_test(self):
        folder = self._test_folder()
        pairs = [
            {
                "ID": row["ID"],
                "system": system,
                "path": self._test_paths(row)[system],
                "clean": row["clean_wav"],
                "snr": row["snr"],
                "noise": row["noise"],
            }
            for system in ("noisy", "enhanced")
            for row in self.test_rows.values()
        ]
        settings = scoring_settings(available_metrics(DEFAULT))
        n_jobs = self.hparams.metric_workers
        rows = score_pairs(pairs, folder, settings, n_jobs, overwrite=True)
        summary = write_report(folder, rows, settings)
        if self.best is not None:
            results = describe_results(
                summary, settings, self.hparams.test_data, self.test_rows.values()
            )
            with atomic_write(self.evaluated / CARD_FILE) as partial:
                partial.write_text(self._card(results), encoding="utf-8")
        self._draw_examples(folder / "examples")
        embedding = self.hparams.enhancer.embedding
        plots.plot_layer_weights(
            folder / "ssl_layer_weights.png",
            embedding.layer_weights().cpu().numpy(),
            embedding.first_layer,
        )
        table = tables.text(summary, settings["metrics"])
        notes = [
            *failures(rows),
            f"model: {self.evaluated}",
            f"report: {folder / 'report.html'}",
        ]
        print(f"\nTest set\n\n{table}\n\n" + "\n".join(notes))

    def _note_training(self):
        """Store the facts of the training for the model card: a later test may use other
        data."""
        facts = describe_training(self.hparams, self.command)
        with atomic_write(self._training_note()) as partial:
            partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def _training_note(self):
        return self.output_folder / "training.json"

    def _card(self, results=None):
        """The model card of the best checkpoint."""
        if not self._training_note().is_file():
            self._note_training()
        run = {
            **json.loads(self._training_note().read_text(encoding="utf-8")),
            "steps": self.optimizer_step,
            "epoch": self.best.meta["epoch"],
            "metric": TABLE[self.best_metric].heading,
            "score": self.best.meta[self.best_metric],
        }
        return model_card(self.hparams.enhancer, run, results)

    def evaluate(self, test_loader):
        """Evaluate the best checkpoint and write the report; see `speechbrain.Brain.evaluate`.

        Arguments
        ---------
        test_loader : torch.utils.data.DataLoader
            Loader from `datasets.evaluation_loader`.
        """
        self.test_rows = {row["ID"]: row for row in test_loader.dataset.rows}
        return super().evaluate(test_loader)

    @staticmethod
    def _pairs(batch, enhanced):
        """Clean and enhanced samples of each utterance, without padding."""
        lengths = (batch.clean.lengths * enhanced.shape[1]).round().int().tolist()
        return [
            (clean[:length].cpu().numpy(), output[:length].float().cpu().numpy())
            for clean, output, length in zip(
                batch.clean.data, enhanced, lengths, strict=True
            )
        ]

    def _test_folder(self):
        return self.output_folder / "test"

    def _test_paths(self, row):
        enhanced = self._test_folder() / "enhanced" / f"{row['ID']}.wav"
        return {"noisy": row["noisy_wav"], "enhanced": enhanced}

    def _draw_examples(self, folder):
        """Draw the spectrograms and the masks of some test files."""
        spectrogram = self.hparams.enhancer.spectrogram
        rows = list(self.test_rows.values())
        n_examples = min(self.hparams.n_examples, len(rows))
        for index in np.linspace(0, len(rows) - 1, n_examples).round().astype(int):
            row = rows[index]
            details = [
                row["noise"],
                f"{row['snr']:g} dB" if row["snr"] is not None else "",
            ]
            plots.plot_enhancement(
                folder / fitting(f"{row['ID'].replace('/', '-')}.png"),
                title=", ".join(filter(None, [row["ID"], *details])),
                frame_shift=spectrogram.hop_length / audio.SAMPLE_RATE,
                **self._spectrograms(row),
            )

    @torch.no_grad()
    def _spectrograms(self, row):
        """Log magnitudes and the mask of a file, as arguments of `plots.plot_enhancement`."""
        paths = {**self._test_paths(row), "clean": row["clean_wav"]}
        wavs = {
            system: torch.from_numpy(audio.read(path)).unsqueeze(0).to(self.device)
            for system, path in paths.items()
        }
        spectrogram = self.hparams.enhancer.spectrogram
        drawn = {system: spectrogram(wav)[0] for system, wav in wavs.items()}
        _, log_magnitude = self.hparams.enhancer(wavs["noisy"])
        drawn["mask"] = log_magnitude / drawn["noisy"]
        return {name: value[0].cpu().numpy() for name, value in drawn.items()}

    def _log_to_tensorboard(self, stats, rates):
        for stage, values in stats.items():
            for name, value in values.items():
                self.hparams.tensorboard.add_scalar(
                    f"{stage}/{name}", value, self.optimizer_step
                )
        for name, value in rates.items():
            self.hparams.tensorboard.add_scalar(name, value, self.optimizer_step)
        self.hparams.tensorboard.flush()


def _known(scores):
    """Mean scores, without metrics for which no utterance has a score."""
    return {name: float(mean) for name, mean in scores.items() if mean is not None}
