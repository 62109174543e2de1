"""Losses: nothing between equals, more for more noise, the same at any level."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch
from scipy.stats import spearmanr
from speechbrain.dataio.batch import PaddedBatch

from helpers.paths import HPARAMS
from speechbrain_cffma import audio
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.lobes import LogSpectrogram
from speechbrain_cffma.losses import (
    ContrastStretching,
    MultiResolutionLoss,
    PESQLoss,
    SISDRLoss,
    STOILoss,
    WeightedSum,
)
from speechbrain_cffma.metrics import pesq, si_sdr, stoi
from speechbrain_cffma.training.base import RunningMeans
from speechbrain_cffma.training.brain import EnhancementBrain
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

NOISES = Path(__file__).parents[1] / "recipes" / "DynamicMix" / "noise"


@pytest.fixture
def clean(speech):
    return speech.unsqueeze(0)


@pytest.fixture
def noise(clean):
    return torch.randn_like(clean) * clean.std()


class TestMultiResolutionLoss:
    def test_is_zero_between_equals(self, clean):
        assert MultiResolutionLoss()(clean, clean) < 1e-12

    def test_grows_with_the_noise(self, clean, noise):
        loss = MultiResolutionLoss()
        values = [loss(clean + gain * noise, clean) for gain in (0.01, 0.1, 1.0)]
        assert 0 < values[0] < values[1] < values[2]

    def test_may_be_shorter_than_a_window(self, clean, noise):
        clean, noise = clean[:, 8000:8400], noise[:, :400]
        loss = MultiResolutionLoss()
        assert loss(clean, clean) < 1e-12 < loss(clean + noise, clean)

    def test_does_not_depend_on_the_level(self, clean, noise):
        loss = MultiResolutionLoss()
        loud = loss(clean + noise, clean)
        soft = loss(0.01 * (clean + noise), 0.01 * clean)
        assert soft == pytest.approx(loud.item(), rel=0.02)

    def test_without_the_phase_a_change_of_sign_costs_nothing(self, clean):
        assert MultiResolutionLoss(phase_weight=0)(-clean, clean) < 1e-6

    def test_with_the_phase_it_does(self, clean):
        assert MultiResolutionLoss(phase_weight=0.3)(-clean, clean) > 0.01

    def test_lost_speech_counts_more_than_kept_noise(self, clean):
        """Of the same distance: a loss that is symmetric takes them for equal."""
        loud = 2 * clean
        even, uneven = (
            [loss(soft, of) for soft, of in ((clean, loud), (loud, clean))]
            for loss in (
                MultiResolutionLoss(phase_weight=0, asymmetry=0),
                MultiResolutionLoss(phase_weight=0, asymmetry=3),
            )
        )
        assert even[0] == pytest.approx(even[1].item(), rel=1e-4)
        assert uneven[0] == pytest.approx(4 * uneven[1].item(), rel=1e-4)

    def test_quiet_noise_counts_more_than_by_its_power(self, clean, noise):
        """As much power between the words as in them is heard more there."""
        loss = MultiResolutionLoss(phase_weight=0)
        level = torch.nn.functional.avg_pool1d(clean.abs(), 1601, 1, 800)
        loud = level > level.median()
        between, within = (noise * place * 0.1 for place in (~loud, loud))
        assert loss(clean + between, clean) > loss(clean + within, clean)


@pytest.mark.parametrize(
    "loss", [MultiResolutionLoss(), SISDRLoss(), STOILoss(), PESQLoss()]
)
class TestEveryLoss:
    @pytest.mark.parametrize("case", ["silence", "faint", "clipping", "50 ms", "equal"])
    @pytest.mark.parametrize("silent_reference", [False, True])
    def test_the_gradient_is_finite(self, loss, clean, noise, case, silent_reference):
        noisy = clean + 0.1 * noise
        enhanced = {
            "silence": torch.zeros_like(clean),
            "faint": 1e-7 * noisy,
            "clipping": (50 * noisy).clamp(-1, 1),
            "50 ms": noisy[:, :800],
            "equal": clean.clone(),
        }[case].requires_grad_()
        reference = clean[:, : enhanced.shape[1]] * (not silent_reference)
        value = loss(enhanced, reference)
        value.backward()
        assert value.isfinite()
        assert enhanced.grad.isfinite().all()

    def test_a_padded_item_counts_as_it_does_alone(self, loss, clean, noise):
        clean, noisy = clean[:, :32000], (clean + 0.2 * noise)[:, :32000]
        short = [noisy[:, :20000], 0.5 * clean[:, :20000]]
        padding = torch.full((1, 12000), 0.3)
        batch = [
            torch.cat([side, torch.cat([part, padding], 1)])
            for side, part in zip((noisy, clean), short, strict=True)
        ]
        mean = (loss(noisy, clean) + loss(*short)) / 2
        found = loss(*batch, lengths=torch.tensor([1.0, 0.625]))
        assert found.item() == pytest.approx(mean.item(), rel=1e-2)

    def test_autocast_changes_nothing(self, loss, clean, noise):
        expected = loss(clean + noise, clean)
        with torch.autocast("cpu", torch.bfloat16):
            assert loss(clean + noise, clean) == expected

    def test_each_item_counts_alike(self, loss, clean, noise):
        pairs = [(clean + noise, clean), (0.1 * (clean + 0.1 * noise), 0.1 * clean)]
        alone = [loss(*pair).item() for pair in pairs]
        batch = loss(*(torch.cat(side) for side in zip(*pairs, strict=True)))
        assert batch.item() == pytest.approx(sum(alone) / 2, rel=1e-4)


@pytest.mark.parametrize("loss", [SISDRLoss(), STOILoss(), PESQLoss()])
class TestLossesOfWhatIsHeard:
    def test_the_levels_do_not_matter(self, loss, clean, noise):
        value = loss(0.03 * (clean + 0.1 * noise), 20 * clean)
        assert value.item() == pytest.approx(
            loss(clean + 0.1 * noise, clean).item(), rel=1e-3
        )

    def test_silent_references_are_left_out(self, loss, clean, noise):
        noisy = clean + 0.1 * noise
        batch = torch.cat([noisy, noisy]), torch.cat([clean, 1e-6 * clean])
        assert loss(*batch).item() == pytest.approx(loss(noisy, clean).item(), rel=1e-5)


class TestSISDRLoss:
    @pytest.mark.parametrize("gain", [0.1, 1.0, 5.0])
    def test_is_a_tenth_of_the_negative_metric(self, clean, noise, gain):
        noisy = clean + gain * noise
        decibels = si_sdr(clean[0].numpy(), noisy[0].numpy())
        loss = SISDRLoss(cap=1e6)(noisy, clean)
        assert loss.item() == pytest.approx(-decibels / 10, abs=1e-3)

    def test_saturates_at_the_cap(self, clean, noise):
        assert SISDRLoss(cap=1000)(clean, clean).item() == pytest.approx(-3, abs=1e-3)

    def test_nothing_of_the_reference_is_finite(self):
        clean = torch.tensor([[0.1, -0.1, 0.0, 0.0]])
        assert 5 < SISDRLoss()(clean.flip(1), clean) < 7


@pytest.fixture(scope="module")
def noisy_speech(speech):
    """Real noises at -5 to 20 dB on 2 s of speech, with their PESQ and STOI."""
    clean = speech[:32000]
    mixtures = []
    for index, path in enumerate(sorted(NOISES.glob("*.opus"))):
        noise = torch.from_numpy(audio.read(path))[:32000]
        for snr in (index - 5, index + 7):
            gain = clean.norm() / noise.norm() * 10 ** (-snr / 20)
            mixtures.append(clean + gain * noise)
    scores = [
        [metric(clean.numpy(), mixture.numpy()) for mixture in mixtures]
        for metric in (pesq, stoi)
    ]
    return clean.expand(len(mixtures), -1), torch.stack(mixtures), *scores


class TestPESQLoss:
    def test_ranks_as_the_standard_does(self, noisy_speech):
        clean, noisy, scores, _ = noisy_speech
        correlation, _ = spearmanr(PESQLoss().lost(noisy, clean), scores)
        assert correlation < -0.97

    def test_loses_the_points_of_the_standard(self, noisy_speech):
        """By P.862.2's mapping of the raw score, within a tenth of a point."""
        clean, noisy, scores, _ = noisy_speech
        raw = 4.5 - PESQLoss().lost(noisy, clean)
        mapped = 0.999 + 4 / (1 + torch.exp(3.8224 - 1.3669 * raw))
        assert (mapped - torch.tensor(scores)).abs().mean() < 0.1

    def test_following_its_gradient_raises_the_score(self, noisy_speech):
        clean, noisy, scores, _ = (part[-1:] for part in noisy_speech)
        enhanced = noisy.clone().requires_grad_()
        optimizer, loss = torch.optim.Adam([enhanced], lr=1e-3), PESQLoss()
        for _ in range(20):
            optimizer.zero_grad()
            loss(enhanced, clean).backward()
            optimizer.step()
        score = pesq(clean[0].numpy(), enhanced[0].detach().numpy())
        assert score > scores[0] + 0.3

    def test_knows_nothing_of_weights(self):
        """A checkpoint, a model folder and an optimiser do not hold it."""
        assert not PESQLoss().state_dict()
        assert not list(PESQLoss().parameters())


class TestSTOILoss:
    def test_is_1_minus_the_metric(self, noisy_speech):
        clean, noisy, _, scores = noisy_speech
        found = 1 - STOILoss().lost(noisy, clean)
        assert (found - torch.tensor(scores)).abs().mean() < 0.02
        assert spearmanr(found, scores)[0] > 0.95

    def test_following_its_gradient_raises_the_score(self, noisy_speech):
        clean, noisy, _, scores = (part[:1] for part in noisy_speech)
        enhanced = noisy.clone().requires_grad_()
        optimizer, loss = torch.optim.Adam([enhanced], lr=1e-3), STOILoss()
        for _ in range(20):
            optimizer.zero_grad()
            loss(enhanced, clean).backward()
            optimizer.step()
        score = stoi(clean[0].numpy(), enhanced[0].detach().numpy())
        assert score > scores[0] + 0.03

    def test_less_than_a_segment_is_left_out(self, clean, noise):
        assert STOILoss()(noise[:, :6000], clean[:, :6000]) == 0

    def test_so_it_is_beside_others(self, clean, noise):
        noisy, lengths = clean + noise, torch.tensor([1.0, 0.1])
        batch = torch.cat([noisy, noisy]), torch.cat([clean, clean])
        alone = STOILoss()(noisy, clean).item()
        assert STOILoss()(*batch, lengths).item() == pytest.approx(alone, rel=1e-5)


def constant(value):
    """A term that gives the same value for anything."""
    return lambda enhanced, clean, **_: torch.tensor(value, requires_grad=True)


def never(*args, **kwargs):
    raise AssertionError("a term of weight 0 is computed")


class TestWeightedSum:
    PAIR = (torch.zeros(1, 8), torch.zeros(1, 8))

    @pytest.mark.parametrize(
        ("waveform", "weights", "expected"),
        [
            (None, None, 2.0),
            ({"a": constant(3.0), "b": None}, {"log1p": 1.0, "a": 1.0}, 5.0),
            (constant(3.0), None, 5.0),  # the keys of 0.1.0
            ({"a": constant(3.0), "b": constant(5.0)}, None, 10.0),
            (constant(3.0), {"log1p": 0.5, "waveform": 2}, 7.0),
            ({"a": constant(3.0), "b": never}, {"log1p": 1, "a": 0.1, "b": 0}, 2.3),
        ],
    )
    def test_is_the_sum_of_terms_by_their_weights(self, waveform, weights, expected):
        loss = WeightedSum(constant(2.0), waveform, weights)
        total, values = loss(self.PAIR, self.PAIR)
        assert total.item() == pytest.approx(expected)
        assert values["log1p"] == 2
        assert not values["log1p"].requires_grad

    def test_magnitudes_alone_need_no_waveform(self):
        terms = {"a": constant(1.0)}
        assert not WeightedSum(constant(1.0)).needs_waveform
        assert not WeightedSum(
            constant(1.0), terms, {"log1p": 1, "a": 0}
        ).needs_waveform
        assert WeightedSum(constant(1.0), terms).needs_waveform

    def test_lengths_are_given_where_items_are_padded(self):
        """A term of 0.1.0, of two arguments, does without them."""
        seen = []

        def term(enhanced, clean, **lengths):
            seen.append(lengths)
            return torch.tensor(0.0)

        loss = WeightedSum(constant(1.0), term)
        loss(self.PAIR, self.PAIR)
        lengths = torch.ones(1)
        loss(self.PAIR, self.PAIR, lengths)
        assert seen == [{}, {"lengths": lengths}]

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"log1p": 1}, "a weight to each of log1p, pesq and to nothing else"),
            ({"log1p": 1, "pesq": 1, "stoi": 1}, "and to nothing else"),
            (0.5, "a weight to each of log1p, pesq"),
            ({"log1p": 1, "pesq": -1}, "pesq is -1, but must be a number"),
            ({"log1p": 1, "pesq": "1e-1"}, "pesq is '1e-1', but must be a number"),
            ({"log1p": 1, "pesq": float("nan")}, "pesq is nan, but must be a number"),
            ({"log1p": 0, "pesq": 0}, "no term has a weight above 0"),
        ],
    )
    def test_weights_that_do_not_fit_are_one_line(self, weights, message):
        with pytest.raises(InputError, match=message):
            WeightedSum(constant(1.0), {"pesq": constant(1.0)}, weights)

    def test_what_can_not_be_called_is_one_line(self):
        with pytest.raises(InputError, match="loss pesq is 'x', which can't be called"):
            WeightedSum(constant(1.0), {"pesq": "x"})

    def test_it_needs_a_term(self):
        with pytest.raises(InputError, match="loss and waveform_loss are both null"):
            WeightedSum(None)

    def test_the_name_log1p_is_taken(self):
        with pytest.raises(InputError, match="a term 'log1p', the name of the term"):
            WeightedSum(constant(1.0), {"log1p": constant(1.0)})


class TestContrastStretching:
    @pytest.fixture
    def stretch(self):
        return ContrastStretching(LogSpectrogram())

    @pytest.mark.parametrize("experiment", ["vbd_wavlm_pesq", "demo"])
    def test_the_variant_takes_the_transform_of_the_network(
        self, experiment, tiny_wavlm, monkeypatch
    ):
        monkeypatch.setattr("speechbrain_cffma.lobes.load_ssl", lambda **_: tiny_wavlm)
        path, given = HPARAMS / f"{experiment}.yaml", {"variant": "contrast_stretching"}
        if experiment == "vbd_wavlm_pesq":
            given["data_folder"] = "none"
        text = read_experiment(path, given)
        transform = load_experiment(text, only="target_transform")
        assert transform.spectrogram.n_fft == 400

    def test_keeps_the_level(self, stretch, clean):
        assert stretch(clean).norm() == pytest.approx(clean.norm().item(), rel=1e-4)

    @pytest.mark.parametrize("gain", [0.01, 20.0])
    def test_stretches_at_any_level_alike(self, stretch, clean, gain):
        found = stretch(gain * clean) / gain
        torch.testing.assert_close(found, stretch(clean), rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize(
        ("hertz", "factor"),
        [(50, 1.0), (250, 1.18), (1000, 1.4), (5000, 1.32), (7900, 1.08)],
    )
    def test_stretches_as_published(self, stretch, hertz, factor):
        """Differences of the log1p magnitude grow by the factor of the frequency."""
        place = round(hertz / 40)
        assert stretch.factor[place].item() == pytest.approx(factor, abs=0.006)

    def test_the_standard_hears_hardly_a_difference(self, stretch, clean):
        assert pesq(clean[0].numpy(), stretch(clean)[0].numpy()) > 4.3

    def test_noise_that_is_left_becomes_softer(self, stretch, noisy_speech):
        """So that PESQ rises, which is why scores with it are listed apart."""
        clean, noisy, scores, _ = (part[-1:] for part in noisy_speech)
        assert pesq(clean[0].numpy(), stretch(noisy)[0].numpy()) > scores[0] + 0.05

    def test_padding_changes_nothing(self, stretch, clean):
        padded = torch.cat([clean[:, :20000], torch.full((1, 12000), 0.3)], 1)
        found = stretch(padded, torch.tensor([0.625]))
        torch.testing.assert_close(found[:, :20000], stretch(clean[:, :20000]))
        assert not found[:, 20000:].any()

    @pytest.mark.parametrize("transform", ["stretch", torch.neg])
    def test_training_compares_with_it_and_scores_with_the_clean(
        self, stretch, clean, tiny_enhancer, transform
    ):
        """Any function of the waveforms will do, if none is padded."""
        if transform == "stretch":
            transform = stretch
        target = transform(clean)
        brain = SimpleNamespace(
            hparams=SimpleNamespace(enhancer=tiny_enhancer, target_transform=transform),
            lengths=None,
            loss=WeightedSum(sb.nnet.losses.l1_loss, MultiResolutionLoss()),
            terms=RunningMeans(),
            validation_pairs=[],
            _pairs=EnhancementBrain._pairs,
        )
        batch = PaddedBatch([{"clean": clean[0]}])
        outputs = target, tiny_enhancer.spectrogram(target)[0]
        loss = EnhancementBrain.compute_objectives(
            brain, outputs, batch, sb.Stage.VALID
        )
        assert loss < 1e-6
        ((reference, _),) = brain.validation_pairs
        assert torch.equal(torch.from_numpy(reference), clean[0])

    def test_silence_stays_silent(self, stretch):
        assert stretch(torch.zeros(1, 8000)).abs().max() < 1e-6
