"""The page report.html in a browser: it renders, sorts, plays, and suits phones and the dark."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import cli
from speechbrain_cffma.audio import find_audio, read
from speechbrain_cffma.data.mixing import add_noise

SPEECH = Path(__file__).parents[2] / "recipes" / "DynamicMix" / "speech" / "ru"
SYSTEMS = ["noisy", "better", "a system with quite a long name"]
N_FILES = 6


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Address of a report of three systems and 6 files, one silent in the last system."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    paths = [path for path in find_audio(SPEECH) if soundfile.info(path).duration > 2]
    for i, path in enumerate(paths[:N_FILES]):
        clean = read(path)
        noise = rng.standard_normal(len(clean))
        snr = (0, 5, 15)[i % 3]
        signals = [add_noise(clean, noise, snr + gain) for gain in (0, 5, 10)]
        signals[2] *= i > 0
        for system, samples in zip(["clean", *SYSTEMS], [clean, *signals], strict=True):
            (folder / system).mkdir(exist_ok=True)
            name = f"p{i}/speech-{i}_white_{snr}dB".replace("/", "_")
            soundfile.write(folder / system / f"{name}.wav", samples, 16000)
    command = ["evaluate", "--clean", folder / "clean", "--noisy", folder / "noisy"]
    command += ["--enhanced", *(f"{name}={folder / name}" for name in SYSTEMS[1:])]
    command += ["--metrics", "pesq,stoi,si_sdr,wss", "-o", folder / "report"]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in command])
    assert not stop.value.code
    return (folder / "report" / "report.html").as_uri()


@pytest.fixture
def page(browser, report):
    """The report, opened at the width of a desktop."""
    browser.open(report)
    yield browser
    assert browser.messages() == []


def column(page, table, index):
    """The texts of a table's column, from the top to the bottom."""
    return page.run(
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')]"
        ".filter(row => !row.hidden).map(row => row.cells[arguments[1]].innerText)",
        table,
        index,
    )


def sort(page, table, index):
    button = page.find(f"{table} thead button")[index]
    page.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    button.click()


class TestRendering:
    def test_all_systems_are_in_the_table(self, page):
        assert column(page, "#means", 0) == SYSTEMS
        assert column(page, "#means", 2) == ["0", "0", "1"]

    def test_all_figures_are_drawn(self, page):
        sizes = page.run(
            "return [...document.querySelectorAll('figure svg')]"
            ".map(svg => [svg.getBoundingClientRect().height, svg.querySelectorAll('path').length])"
        )
        assert len(sizes) == 8  # four metrics, their boxes and curves
        assert all(height > 50 and n_paths > 10 for height, n_paths in sizes)

    def test_all_spectrograms_are_decoded(self, page):
        widths = page.run("return [...document.images].map(i => i.naturalWidth)")
        assert len(widths) >= 3 * 4
        assert min(widths) > 100

    def test_nothing_is_fetched(self, page):
        names = page.run(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(name.startswith("data:") for name in names)


class TestSorting:
    def test_by_a_metric_begins_with_the_best(self, page):
        sort(page, "#means", 3)
        values = [float(text.split()[0]) for text in column(page, "#means", 3)]
        assert values == sorted(values, reverse=True) != sorted(values)

    def test_by_a_distance_begins_with_the_lowest(self, page):
        sort(page, "#means", 6)
        values = [float(text.split()[0]) for text in column(page, "#means", 6)]
        assert values == sorted(values)

    def test_again_is_the_other_way_round(self, page):
        sort(page, "#means", 3)
        first = column(page, "#means", 0)
        sort(page, "#means", 3)
        assert column(page, "#means", 0) == first[::-1]
        head = page.find("#means thead th")[3]
        assert head.get_attribute("aria-sort") == "ascending"

    def test_leaves_what_has_no_score_at_the_end(self, page):
        for _ in range(2):
            sort(page, "#files", 4)
            texts = column(page, "#files", 4)
            assert texts[-1] == "–"
            assert "–" not in texts[:-1]

    def test_by_a_name(self, page):
        sort(page, "#files", 1)
        names = column(page, "#files", 1)
        assert names == sorted(names)
        assert len(names) == 3 * N_FILES

    def test_finding_leaves_the_rows_with_all_words(self, page):
        page.find("#filter")[0].send_keys("SPEECH-1 better")
        assert column(page, "#files", 1) == ["better"]


class TestPlayers:
    @pytest.fixture
    def players(self, page):
        """The players of the first file, when they know how long it is."""
        players = page.find("article")[0].find_elements("css selector", "audio")
        for player in players:
            page.wait("return arguments[0].readyState > 0", player)
        return players

    @staticmethod
    def play(page, player):
        page.run("arguments[0].play()", player)
        page.wait("return arguments[0].currentTime > 0.3", player)

    def test_there_is_one_a_system_and_one_of_the_clean_signal(self, page, players):
        labels = [player.get_attribute("aria-label") for player in players]
        assert labels == [*SYSTEMS, "clean"]

    def test_hold_the_whole_file(self, page, players):
        durations = {page.run("return arguments[0].duration", p) for p in players}
        assert len(durations) == 1
        assert durations.pop() > 2

    def test_show_where_they_are(self, page, players):
        self.play(page, players[0])
        assert page.wait(
            "const signal = arguments[0].closest('.signal');"
            "return parseFloat(signal.querySelector('.head').style.left) > 3",
            players[0],
        )
        page.run("arguments[0].pause()", players[0])

    def test_go_on_where_another_one_was(self, page, players):
        self.play(page, players[0])
        page.run("arguments[0].play()", players[1])
        page.wait("return arguments[0].currentTime > 0.25", players[1], seconds=2)
        assert page.run("return arguments[0].paused", players[0])
        page.run("arguments[0].pause()", players[1])

    def test_begin_where_the_spectrogram_is_clicked(self, page, players):
        view = page.find("article .spectrogram")[0]
        page.run("arguments[0].scrollIntoView({block: 'center'})", view)
        view.click()  # in its middle
        half = page.run("return arguments[0].duration", players[0]) / 2
        page.wait("return !arguments[0].paused", players[0])
        time = page.run("return arguments[0].currentTime", players[0])
        assert half - 0.1 < time < half + 1
        page.run("arguments[0].pause()", players[0])


class TestPhone:
    @pytest.fixture
    def phone(self, browser, report):
        browser.open(report, width=360)
        yield browser
        assert browser.messages() == []

    def test_the_page_is_no_wider_than_the_screen(self, phone):
        for each in phone.find("details"):
            each.click()
        assert phone.run("return document.documentElement.scrollWidth") <= 360

    def test_text_is_large_enough_to_read(self, phone):
        sizes = phone.run(
            "return [...document.querySelectorAll('p, td, th, h3, figcaption, small')]"
            ".map(e => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 11

    def test_names_of_systems_stay_in_view(self, phone):
        phone.run("document.querySelector('#means').parentElement.scrollLeft = 300")
        left, width = phone.run(
            "const box = document.querySelector('#means tbody th').getBoundingClientRect();"
            "return [box.left, box.width]"
        )
        assert 0 <= left < 40
        assert 80 < width < 180

    def test_charts_fit(self, phone):
        boxes = phone.run(
            "return [...document.querySelectorAll('figure svg')]"
            ".map(svg => svg.getBoundingClientRect().right)"
        )
        assert max(boxes) <= 360


class TestColours:
    # Contrast after WCAG 2.1, 1.4.3.
    CONTRAST = """
        const luminance = color => {
          const channels = color.match(/[\\d.]+/g).slice(0, 3).map(c => {
            c /= 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
        };
        const back = luminance(getComputedStyle(document.body).backgroundColor);
        const contrasts = [...document.querySelectorAll('p, td, h1, small, .bad, figure svg text')].map(e => {
          const style = getComputedStyle(e);
          const front = luminance(e.closest('svg') ? style.fill : style.color);
          return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
        });
        return [back, Math.min(...contrasts)];
    """

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_stands_out(self, browser, report, scheme):
        browser.open(report, scheme=scheme)
        back, contrast = browser.run(self.CONTRAST)
        assert (back < 0.1) == (scheme == "dark")
        assert contrast >= 4.5
