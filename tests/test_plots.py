"""The figures of a training run."""

import matplotlib.image
import numpy as np
import pytest

from speechbrain_cffma.training import plots

pytestmark = pytest.mark.slow


class TestPlots:
    @staticmethod
    def read(path):
        """The picture [height, width, RGB]."""
        return matplotlib.image.imread(path)[..., :3]

    def test_every_panel_of_an_utterance_shows_its_signal(self, tmp_path):
        one = np.abs(np.random.default_rng(0).normal(size=(40, 201)))
        other = one[::-1]
        signals = {  # noisy, enhanced, clean, mask
            "first": (one, one, one, one),
            "other noisy": (other, one, one, one),
            "other enhanced": (one, 0.1 * one, one, one),
            "other clean": (one, one, other, one),
            "other mask": (one, one, one, other),
        }
        pictures = {}
        for name, arguments in signals.items():
            path = tmp_path / "new" / f"{name}.png"
            plots.plot_enhancement(path, *arguments, title="an utterance")
            pictures[name] = self.read(path)
        first = pictures.pop("first")
        assert first.std() > 0.1
        for picture in pictures.values():
            assert np.abs(picture - first).mean() > 0.01

    def test_a_silent_utterance_can_be_drawn(self, tmp_path):
        silence = np.zeros((50, 201))
        plots.plot_enhancement(tmp_path / "a.png", *[silence] * 4)
        assert self.read(tmp_path / "a.png").std() > 0.05

    def test_a_title_is_shown_as_it_stands(self, tmp_path, monkeypatch):
        """No formula, no escape code, and no error for bytes that are not UTF-8."""
        shown, save_figure = [], plots.save_figure

        def noted(figure, path):
            shown.append(figure.get_suptitle())
            save_figure(figure, path)

        monkeypatch.setattr(plots, "save_figure", noted)
        silence = np.zeros((50, 201))
        for title in (r"a$\b$", "a\x1b[31m\udce9"):
            plots.plot_enhancement(tmp_path / "a.png", *[silence] * 4, title=title)
        formula, escaped = shown
        assert formula == r"a$\b$"
        assert escaped.isprintable()

    def test_layer_weights_show_the_weights(self, tmp_path):
        weights = np.full(13, 0.02)
        weights[4] = 0.76
        pictures = []
        for i, values in enumerate((weights, weights[::-1])):
            plots.plot_layer_weights(tmp_path / f"{i}.png", values, first_layer=0)
            pictures.append(self.read(tmp_path / f"{i}.png"))
        assert pictures[0].std() > 0.05
        assert np.abs(pictures[0] - pictures[1]).mean() > 0.01
