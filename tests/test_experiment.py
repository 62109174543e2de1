"""Experiments: what they include, references, overrides, and errors of one line."""

import re
from pathlib import Path

import pytest
import speechbrain
from ruamel.yaml import YAML

from speechbrain_cffma.errors import InputError
from speechbrain_cffma.training.experiment import (
    differing_keys,
    load_experiment,
    prepare_data,
    read_defaults,
    read_experiment,
)
from speechbrain_cffma.training.overrides import parse_command_line

HPARAMS = sorted((Path(__file__).parent.parent / "hparams").glob("*.yaml"))
#: All but those that only others include.
EXPERIMENTS = [p for p in HPARAMS if p.stem not in ("run", "enhancement")]


@pytest.fixture
def write(tmp_path):
    """`write("a.yaml", text)` → its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def given(overrides):
    """Overrides of lines `key: text`, or of a key alone."""
    lines = [line.partition(":") for line in overrides.splitlines()]
    return {key: text.strip() or True for key, _, text in lines}


def load(path, overrides=""):
    return load_experiment(read_experiment(path, given(overrides)))


def read_shipped(path):
    """Read an experiment, with what must be given."""
    defaults = read_defaults(path).items()
    required = [key for key, value in defaults if "!PLACEHOLDER" in repr(value)]
    return read_experiment(path, dict.fromkeys(required, "here"))


def message(path, overrides=""):
    """The error of reading an experiment, which has one line."""
    with pytest.raises(InputError) as caught:
        read_experiment(path, given(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestInclude:
    def test_own_keys_replace_those_of_what_is_included(self, write):
        write("run.yaml", "lr: 0.1\nsteps: 10")
        mine = write("mine.yaml", "include: [run.yaml]\nsteps: 20\nname: mine")
        assert load(mine) == {"lr": 0.1, "steps": 20, "name": "mine"}

    @pytest.mark.parametrize(
        ("line", "meant"), [("step: 3", "steps"), ("includes: [b.yaml]", "include")]
    )
    def test_an_own_key_that_is_nearly_another_is_an_error(self, write, line, meant):
        write("run.yaml", "steps: 10")
        path = write("a.yaml", f"include: [run.yaml]\n{line}")
        key = line.split(":")[0]
        assert message(path) == (
            f"{path} has the key {key!r}, which nothing uses: did you mean {meant!r}?"
        )

    def test_an_own_key_may_resemble_another_if_something_uses_it(self, write):
        write("run.yaml", "steps: 10")
        path = write("a.yaml", "include: [run.yaml]\nstep: 3\ndouble: !ref <step> * 2")
        assert load(path)["double"] == 6
        assert load(path, "double: 5")["double"] == 5

    def test_keys_of_a_later_file_replace_those_of_an_earlier_one(self, write):
        write("run.yaml", "a: 1\nb: 1")
        write("network/small.yaml", "b: 2")
        mine = write("mine.yaml", "include: [run.yaml, network/small.yaml]")
        assert load(mine) == {"a": 1, "b": 2}

    def test_an_object_is_replaced_as_a_whole(self, write):
        write("run.yaml", "x: !new:datetime.timedelta\n    days: 1\n    hours: 2")
        text = "include: [run.yaml]\nx: !new:collections.Counter\n    a: 3"
        assert load(write("mine.yaml", text))["x"] == {"a": 3}

    def test_a_file_that_is_included_can_include_others(self, write):
        write("run.yaml", "a: 1\nb: 1\nc: 1")
        write("middle.yaml", "include: [run.yaml]\nb: 2\nc: 2")
        mine = write("mine.yaml", "include: [middle.yaml]\nc: 3")
        assert load(mine) == {"a": 1, "b": 2, "c": 3}

    def test_of_one_file_needs_no_list(self, write):
        write("run.yaml", "a: 1")
        assert load(write("mine.yaml", "include: run.yaml")) == {"a": 1}

    def test_a_path_is_relative_to_the_file_that_names_it(self, write):
        write("shared/run.yaml", "a: 1")
        write("shared/middle.yaml", "include: [run.yaml]")
        mine = write("mine/mine.yaml", "include: [../shared/middle.yaml]")
        assert load(mine) == {"a": 1}

    def test_a_path_may_start_at_the_home_folder(self, write, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        write("run.yaml", "a: 1")
        assert load(write("mine/mine.yaml", "include: [~/run.yaml]")) == {"a": 1}

    def test_the_same_file_may_be_included_twice(self, write):
        write("run.yaml", "a: 1")
        write("other.yaml", "include: [run.yaml]\nb: 2")
        mine = write("mine.yaml", "include: [run.yaml, other.yaml]")
        assert load(mine) == {"a": 1, "b": 2}

    def test_a_file_that_includes_itself_is_an_error(self, write):
        write("a.yaml", "include: [b.yaml]")
        assert "includes itself" in message(write("b.yaml", "include: [a.yaml]"))

    @pytest.mark.parametrize("included", ["none.yaml", "[.]", "{a: 1}"])
    def test_what_is_no_file_is_an_error_that_names_both(self, write, included):
        text = message(write("a.yaml", f"include: {included}"))
        assert re.search(r"a\.yaml includes .*, which is not a file", text)

    @pytest.mark.parametrize(
        ("former", "now"),
        [
            ("base: vbd_wavlm.yaml", "[vbd_wavlm.yaml]"),
            ("base: /p/mini.yaml", "[/p/mini.yaml]"),
            ("base: base.yaml", "[run.yaml, enhancement.yaml, network/cffma.yaml]"),
            ("base: /p/base.yaml", "[/p/run.yaml, /p/enhancement.yaml, /p/network/"),
            ("base: [x/b.yaml, c.yaml]", "[x/b.yaml, c.yaml]"),
        ],
    )
    def test_the_former_key_base_is_answered_by_what_to_write(self, write, former, now):
        path = write("mine.yaml", f"{former}\nlr: 1")
        assert f"instead of `base:` write `include: {now}" in message(path)

    def test_so_is_the_former_key_without(self, write):
        path = write("mine.yaml", "include: []\nwithout: [lr]")
        assert "instead of `without:` give `include:` a list" in message(path)

    def test_the_seed_is_set_first_whatever_the_order_of_the_files(self, write):
        write("run.yaml", "seed: 3\n__set_seed: !apply:random.seed [!ref <seed>]")
        write("network/a.yaml", "x: !apply:random.random []")
        first = write("a.yaml", "include: [run.yaml, network/a.yaml]")
        last = write("b.yaml", "include: [network/a.yaml, run.yaml]")
        assert load(first)["x"] == load(last)["x"]


class TestReferences:
    def test_of_a_file_follow_the_keys_of_what_includes_it(self, write):
        write("run.yaml", "lr: 1\ndouble: !ref <lr> * 2")
        assert load(write("mine.yaml", "include: [run.yaml]\nlr: 5"))["double"] == 10

    def test_find_the_keys_of_what_is_included(self, write):
        write("run.yaml", "lr: 3")
        mine = write("mine.yaml", "include: [run.yaml]\ndouble: !ref <lr> * 2")
        assert load(mine)["double"] == 6

    def test_of_a_replaced_key_find_a_key_of_the_file_alone(self, write):
        write("run.yaml", "lr: 3\ndouble: !ref <lr> * 2")
        mine = write("mine.yaml", "include: [run.yaml]\nlr: !ref <mine>\nmine: 7")
        assert load(mine)["double"] == 14

    def test_follow_an_override(self, write):
        path = write("a.yaml", "lr: 3\ndouble: !ref <lr> * 2")
        assert load(path, "lr: 4")["double"] == 8

    def test_find_keys_inside_of_a_key(self, write):
        path = write("a.yaml", "got: !ref <box[inner]>\nbox:\n  inner: !ref <z>\nz: 1")
        assert load(path)["got"] == 1

    def test_are_made_by_tags_only(self, write):
        path = write("a.yaml", "a: {b: no <a> here}  # nor <a> here\nc: 1")
        assert load(path)["a"] == {"b": "no <a> here"}

    def test_to_an_object_share_it(self, write):
        text = "x: !new:collections.Counter\ny: [!ref <x>]\nz: {k: !ref <x>}"
        loaded = load(write("a.yaml", text))
        assert loaded["y"][0] is loaded["x"] is loaded["z"]["k"]

    @pytest.mark.parametrize("name", ["box", "boxes[first]"])
    def test_find_an_object_that_comes_after_them(self, write, name):
        text = f"""
            width: !apply:getattr [!ref "<{name}>", size]
            box: !new:types.SimpleNamespace
                size: !ref <three>
            boxes:
                first: !new:types.SimpleNamespace
                    size: !ref <three>
            three: 3
        """
        assert load(write("a.yaml", text))["width"] == 3

    def test_in_a_circle_are_an_error(self, write):
        path = write("a.yaml", "a: !ref <b>\nb: !ref <c>\nc: !ref <a>")
        assert "a -> b -> c -> a" in message(path)

    def test_to_nothing_are_an_error(self, write):
        text = message(write("a.yaml", "a: !ref <nothing>"))
        assert "'a' refers to 'nothing', which is no key" in text

    def test_a_placeholder_must_be_given(self, write):
        path = write("a.yaml", "folder: !PLACEHOLDER")
        assert "'folder' is a !PLACEHOLDER: give --folder=..." in message(path)
        assert load(path, "folder: here") == {"folder": "here"}


class TestOverrides:
    @pytest.fixture
    def path(self, write):
        return write("a.yaml", "lr: 0.1\ndownload: False\nfolder: null\ngain: [1, 2]")

    @pytest.mark.parametrize(
        ("override", "value"),
        [
            ("lr: 1e-4", 0.0001),
            ("gain: [3, 4]", [3, 4]),
            ("gain: []", []),
            ("folder: my data", "my data"),
            ("lr: null", None),
        ],
    )
    def test_replace_a_value(self, path, override, value):
        assert load(path, override)[override.split(":")[0]] == value

    def test_leave_the_other_keys(self, path):
        assert load(path, "lr: 1") == {**load(path), "lr": 1}

    def test_a_bare_flag_switches_a_boolean_on(self, path):
        assert load(path, "download:")["download"] is True

    def test_a_bare_flag_of_any_other_key_is_an_error(self, path):
        assert "--gain needs a value" in message(path, "gain:")

    def test_a_value_can_be_null(self, path):
        assert load(path, "gain: null")["gain"] is None

    def test_a_name_that_can_not_be_imported_is_an_error_of_one_line(self):
        with pytest.raises(InputError, match="can't be imported: .*no.such.Class"):
            load_experiment("a: !new:no.such.Class")

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("raise KeyboardInterrupt", KeyboardInterrupt),
            ("import no_such_package", ModuleNotFoundError),
            ("1 / 0", InputError),
        ],
    )
    def test_what_ends_an_import_is_told_as_it_is(
        self, text, kind, tmp_path, monkeypatch
    ):
        (tmp_path / "of_mine.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(kind):
            load_experiment("a: !new:of_mine.Class")

    def test_replace_an_object_by_a_value(self, write):
        path = write("a.yaml", "x: !new:no.such.Class")
        assert load(path, "x: 1") == {"x": 1}

    def test_of_no_key_are_an_error_that_names_a_similar_one(self, path):
        text = message(path, "downlaod: True")
        assert "'downlaod'" in text
        assert "did you mean --download?" in text

    def test_unlike_any_key_are_an_error(self, path):
        assert "'zzz'" in message(path, "zzz: 1")

    @pytest.mark.parametrize("text", ["[1,", "a: b: c", "{"])
    def test_that_are_no_yaml_are_an_error(self, path, text):
        assert f"--gain={text} is not valid YAML" in message(path, f"gain: {text}")

    @pytest.mark.parametrize("name", ["caf\udce9", "red\x1b[31m"])
    def test_that_yaml_can_t_hold_are_an_error(self, path, name):
        with pytest.raises(InputError, match="--folder=.* YAML can't hold"):
            read_experiment(path, {"folder": name})

    def test_may_be_the_yaml_that_speechbrain_makes_of_them(self, path):
        argv = [str(path), "--gain=[1, 2]", "--download"]
        _, _, overrides = speechbrain.parse_arguments(argv)
        kept = load_experiment(read_experiment(path, overrides))
        assert (kept["gain"], kept["download"]) == ([1, 2], True)

    @pytest.mark.parametrize("text", ["- 1", "lr: [", "7"])
    def test_of_another_form_are_an_error(self, path, text):
        with pytest.raises(InputError, match="the overrides are not"):
            read_experiment(path, text)

    def test_of_a_boolean_are_true_or_false(self, path):
        assert load(path, "download: true")["download"] is True
        assert "--download must be true or false, not no" in message(
            path, "download: no"
        )

    @pytest.mark.parametrize("text", ["two", "true", "[1, 2]", "1,5"])
    def test_of_a_number_are_numbers(self, path, text):
        assert f"--lr must be a number, not {text}" in message(path, f"lr: {text}")

    @pytest.mark.parametrize("text", ["-1", "1.5"])
    def test_of_a_seed_are_whole_numbers_from_0_on(self, write, text):
        path = write("a.yaml", "data_seed: 0")
        assert "--data_seed must be a whole number" in message(
            path, f"data_seed: {text}"
        )

    def test_of_a_list_of_numbers_are_lists(self, path):
        assert "--gain must be a list such as [1, 2], not 3" in message(path, "gain: 3")

    def test_of_a_list_of_names_may_be_one_name(self, write):
        path = write("a.yaml", "speakers: [en, ru]")
        assert load(path, "speakers: ru")["speakers"] == "ru"

    def test_of_a_list_of_folders_may_be_one_folder(self, write):
        path = write("a.yaml", "speech_folder: [a, b]")
        assert load(path, "speech_folder: 007")["speech_folder"] == "007"

    def test_of_a_number_may_refer_to_others(self, write):
        path = write("a.yaml", "a: 2\nb: 1")
        assert load(path, "b: !ref <a> * 3")["b"] == 6

    def test_without_a_value_are_an_error(self, path):
        with pytest.raises(InputError, match="--folder= needs a value"):
            read_experiment(path, {"folder": ""})


#: Text that YAML, SpeechBrain or HyperPyYAML would make something else of.
TEXTS = [
    "lr=0.001", "take #1", "2024", "007", "true", "yes", "1e-3", "2024-01-01", "12:30",
    r"(s\d+)", r"s(?=\d)\d+", r"[a-z]\d+", "(1, 2)", "<b>", "a<lr>b", "a: b", "- a", "*a",
    "{a}", "!ref <lr>", "'a'", '"', "%", "@", " a ", "null ", "~", "µ/€", "",
]  # fmt: skip


class TestTexts:
    """What a key holds that holds text or a path."""

    #: By its default, whatever that is made of, or by its name.
    KEYS = {
        "name": "x",
        "output": "!ref results/<name>/<lr>",
        "same": "!ref <name>",
        "noise_folder": "null",
        "train_manifest": "null",
        "ssl_source": "!PLACEHOLDER",
        "experiment": "!PLACEHOLDER",
        "corpus": "null",
        "license": "!apply:os.path.join [x]",
        "training_data": "null",
        "test_data": "null",
        "pair_by": "null",
    }

    @pytest.fixture
    def path(self, write):
        return write(
            "a.yaml",
            "lr: 0.1\nexperiment: x\nssl_source: x\nn: !ref <lr> * 2\nlevel: null\n"
            + "\n".join(f"{k}: {v}" for k, v in self.KEYS.items() if v[:2] != "!P"),
        )

    @pytest.mark.parametrize("text", TEXTS[:-1])
    def test_stand_as_they_are(self, path, text):
        kept = read_experiment(path, {"name": text})
        assert load_experiment(kept)["name"] == text
        assert load_experiment(kept)["output"] == f"results/{text}/0.1"
        assert load_experiment(kept)["same"] == text
        assert load_experiment(kept, only="same") == text

    @pytest.mark.parametrize("key", KEYS)
    def test_are_told_by_the_default_or_by_the_name(self, path, key):
        kept = read_experiment(path, {key: "007"})
        assert load_experiment(kept, only=key) == "007"

    @pytest.mark.parametrize("key", KEYS)
    def test_are_unset_by_null(self, path, key):
        assert load_experiment(read_experiment(path, {key: "null"}), only=key) is None

    @pytest.mark.parametrize("key", ["lr", "n", "level"])
    def test_are_told_from_other_values(self, path, key):
        assert load_experiment(read_experiment(path, {key: "007"}), only=key) == 7

    def test_of_paths_begin_at_home_after_a_tilde(self, path, monkeypatch):
        monkeypatch.setenv("HOME", "/home/anna")
        texts = dict.fromkeys(["noise_folder", "corpus", "name"], "~/x")
        loaded = load_experiment(read_experiment(path, texts))
        assert loaded["noise_folder"] == loaded["corpus"] == "/home/anna/x"
        assert loaded["name"] == "~/x"

    def test_of_paths_in_a_yaml_too(self, write, monkeypatch):
        monkeypatch.setenv("HOME", "/home/anna")
        path = write("a.yaml", "corpus: ~/x\nnoise_folder: !ref <corpus>/noise")
        assert load(path)["noise_folder"] == "/home/anna/x/noise"

    def test_of_folders_may_be_a_list_unless_one_has_that_name(
        self, path, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        text = "[2024, a b/c=1]"
        kept = read_experiment(path, {"noise_folder": text, "pair_by": text})
        loaded = load_experiment(kept)
        assert loaded["noise_folder"] == ["2024", "a b/c=1"]
        assert loaded["pair_by"] == text
        (tmp_path / "[1, 2]").mkdir()
        kept = read_experiment(path, {"noise_folder": "[1, 2]"})
        assert load_experiment(kept, only="noise_folder") == "[1, 2]"


class TestCommandLine:
    @pytest.mark.parametrize("text", TEXTS)
    def test_a_value_is_what_is_behind_the_first_equals_sign(self, text):
        argv = ["a.yaml", "--device=cpu", f"--name={text}", "--noprogressbar"]
        path, options, overrides = parse_command_line(argv)
        assert (path, options.device, overrides) == ("a.yaml", "cpu", {"name": text})
        assert options.noprogressbar

    def test_a_value_may_follow_its_key_and_a_flag_has_none(self):
        argv = ["--lr=1", "--new", "a.yaml", "--dim", "8", "--download", "--gain", "-5"]
        _, _, overrides = parse_command_line(argv)
        expected = {"lr": "1", "new": True, "dim": "8", "download": True, "gain": "-5"}
        assert overrides == expected

    def test_anything_else_is_an_error(self):
        with pytest.raises(InputError, match="the form --key=value, unlike lr"):
            parse_command_line(["a.yaml", "lr=1"])


def test_bundled_recordings_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = read_shipped(HPARAMS[0].with_name("mini.yaml"))
    for key in ("speech_folder", "test_noise_folder"):
        assert Path(load_experiment(experiment, only=key)).is_dir()


class TestVariants:
    @pytest.fixture
    def path(self, write):
        write("variants/small.yaml", "# Small.\ndim: 8")
        write("variants/slow.yaml", "lr: 0.01\nhalf: !ref <dim> // 2")
        write("variants/tiny.yaml", "dim: 1\nlr: 1")
        return write(
            "a.yaml",
            "experiment: mine\nvariant: null\ndim: 64\nlr: 0.1\n"
            "folder: !ref results/<experiment>\nhalf: 0",
        )

    def test_none_changes_nothing(self, path):
        expected = {"experiment": "mine", "dim": 64, "lr": 0.1, "half": 0}
        expected["folder"] = "results/mine"
        for override in ("", "variant: null", "variant: []"):
            assert load(path, override) == expected

    def test_replaces_keys_of_the_experiment(self, path):
        loaded = load(path, "variant: small")
        assert (loaded["dim"], loaded["lr"]) == (8, 0.1)

    def test_refers_to_keys_of_the_experiment(self, path):
        assert load(path, "variant: slow")["half"] == 32

    def test_is_overridden_by_the_command_line(self, path):
        assert load(path, "dim: 4\nvariant: small")["dim"] == 4

    def test_can_be_several_that_replace_different_keys(self, path):
        loaded = load(path, "variant: [small, slow]")
        assert (loaded["dim"], loaded["lr"], loaded["half"]) == (8, 0.01, 4)

    def test_that_replace_the_same_key_are_an_error(self, path):
        text = message(path, "variant: [small, tiny]")
        expected = "--variant=tiny can't be combined with --variant=small: both replace"
        assert expected in text

    def test_has_a_folder_of_its_own(self, path):
        assert load(path, "variant: small")["folder"] == "results/mine-small"
        both = load(path, "variant: [small, slow]\nexperiment: other")
        assert both["folder"] == "results/other-small-slow"

    @pytest.mark.parametrize("name", ["!ref <x>", "!ref my_<x>", "3"])
    def test_is_part_of_the_name_whatever_that_is_made_of(self, write, name):
        write("variants/small.yaml", "dim: 8")
        path = write("a.yaml", f"x: 3\ndim: 1\nexperiment: {name}\nvariant: small")
        assert load(path)["experiment"].endswith("3-small")

    def test_leaves_a_placeholder_to_be_given(self, write):
        write("variants/small.yaml", "dim: 8")
        path = write("a.yaml", "dim: 1\nexperiment: !PLACEHOLDER\nvariant: small")
        assert "'experiment' is a !PLACEHOLDER" in message(path)

    def test_can_be_chosen_by_the_experiment(self, path, write):
        mine = write("mine.yaml", "include: [a.yaml]\nvariant: small")
        assert load(mine)["dim"] == 8
        assert load(mine, "variant: null")["dim"] == 64

    def test_is_found_beside_a_file_that_an_experiment_elsewhere_includes(
        self, path, write
    ):
        mine = write("mine/mine.yaml", "include: [../a.yaml]")
        assert load(mine, "variant: small")["dim"] == 8

    def test_beside_the_experiment_comes_before_others_of_its_name(self, path, write):
        mine = write("mine/mine.yaml", "include: [../a.yaml]")
        write("mine/variants/small.yaml", "dim: 5")
        assert load(mine, "variant: small")["dim"] == 5

    def test_can_include_a_file(self, path, write):
        write("variants/smaller.yaml", "include: [slow.yaml]\ndim: 2")
        loaded = load(path, "variant: smaller")
        assert (loaded["dim"], loaded["lr"]) == (2, 0.01)

    def test_the_text_that_is_kept_gives_the_same_without_the_files(self, path, write):
        kept = write(
            "kept/a.yaml", read_experiment(path, {"variant": "small", "lr": "7"})
        )
        assert load(kept) == load(path, "variant: small\nlr: 7")

    @pytest.mark.parametrize("name", ["smal", "3", "''", "../a", "{small: 1}"])
    def test_of_no_file_is_an_error_that_lists_what_there_is(self, path, name):
        text = message(path, f"variant: {name}")
        assert "has no variant" in text
        assert "there are slow, small, tiny" in text

    def test_without_a_name_is_an_error(self, path):
        assert "--variant needs a value" in message(path, "variant:")

    def test_of_an_experiment_that_has_none_is_an_error(self, write):
        path = write("a.yaml", "variant: null")
        assert "there are none" in message(path, "variant: small")

    def test_that_replaces_no_key_is_an_error(self, path, write):
        write("variants/refined.yaml", "refiner: 1")
        text = message(path, "variant: refined")
        assert "has no key that --variant=refined replaces: refiner" in text

    def test_of_the_name_of_a_key_is_an_error_that_names_the_option(self, path):
        assert "did you mean --half=...?" in message(path, "variant: half")


def test_a_key_of_0_1_0_that_was_replaced_names_the_new_ones(write):
    path = write("a.yaml", "speech_folder: a\nnoise_folder: b")
    assert "give --speech_folder=CORPUS/speech" in message(path, "corpus: x")


class TestPretrained:
    """A trained model, whose network replaces that of the experiment."""

    @pytest.fixture
    def path(self, write):
        write("run.yaml", "experiment: mine\nvariant: null\nlr: 0.1")
        write("enhancement.yaml", "pretrained: null\nfine_tune: partial")
        write("network/small.yaml", "dim: 8\nhalf: !ref <dim> // 2\nenhancer: null")
        write("variants/tiny.yaml", "dim: 1")
        write("variants/slow.yaml", "lr: 0.01")
        files = "[run.yaml, enhancement.yaml, network/small.yaml]"
        return write("a.yaml", f"include: {files}\nhalf: 3")

    def keys(self, path, overrides):
        return YAML().load(read_experiment(path, given(overrides)))

    def test_takes_the_place_of_all_keys_of_the_network(self, path):
        kept = self.keys(path, "pretrained: 007")
        names = {"experiment", "lr", "pretrained", "fine_tune", "enhancer", "refiner"}
        assert set(kept) == names
        parts = {"source": "007", "fine_tune": "partial", "refiner": None}
        assert kept["enhancer"] == parts
        assert kept["experiment"] == "mine-pretrained"

    def test_can_be_chosen_by_the_experiment(self, path, write):
        path = write("b.yaml", "include: [a.yaml]\npretrained: model")
        assert "dim" not in self.keys(path, "")
        assert load(path, "pretrained: null")["dim"] == 8

    def test_goes_with_variants_of_other_keys(self, path):
        kept = self.keys(path, "pretrained: model\nvariant: slow")
        assert (kept["experiment"], kept["lr"]) == ("mine-slow-pretrained", 0.01)

    def test_goes_with_a_refiner_of_ones_own(self, path, write):
        write("network/small.yaml", "dim: 8\nrefiner: null\nenhancer: null")
        write("variants/fine.yaml", "refiner: !name:builtins.dict")
        kept = self.keys(path, "pretrained: model\nvariant: fine")
        assert kept["enhancer"]["refiner"].tag.value == "!name:builtins.dict"

    def test_with_a_variant_of_the_network_is_an_error(self, path):
        text = message(path, "pretrained: model\nvariant: tiny")
        expected = (
            "--variant=tiny can't be combined with --pretrained: both replace 'dim'"
        )
        assert expected in text

    @pytest.mark.parametrize("key", ["dim", "half", "enhancer"])
    def test_with_a_key_of_the_network_is_an_error(self, path, key):
        text = message(path, f"pretrained: model\n{key}: 3")
        assert f"--{key} can't be combined with --pretrained, which replaces" in text

    def test_without_a_network_to_replace_is_an_error(self, write):
        path = write("a.yaml", "dim: 8\npretrained: null")
        text = message(path, "pretrained: model")
        assert "includes no file of a folder network/" in text


class TestFiles:
    def test_a_missing_one_is_an_error(self, tmp_path):
        assert "none.yaml" in message(tmp_path / "none.yaml")

    @pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "a:\n\tb: 1", "- 1", ""])
    def test_a_broken_one_is_an_error(self, write, text):
        assert "broken.yaml" in message(write("broken.yaml", text))


class TestOnly:
    def test_gives_one_object(self):
        assert (
            load_experiment("a: 1\nb: !new:collections.Counter\n    k: 2", "b")["k"]
            == 2
        )

    def test_builds_nothing_else(self, tmp_path):
        text = f"a: 1\nb: !apply:os.mkdir [{tmp_path / 'made'}]"
        assert load_experiment(text, only="a") == 1
        assert not (tmp_path / "made").exists()

    def test_builds_what_it_needs_once(self, write):
        text = "x: !new:collections.Counter\ny: {k: !ref <x>, l: !ref <x>}"
        made = load_experiment(read_experiment(write("a.yaml", text)), only="y")
        assert made["k"] is made["l"]

    def test_of_no_key_is_an_error(self):
        with pytest.raises(InputError, match="no key 'b'"):
            load_experiment("a: 1", only="b")


class TestPreparation:
    @pytest.mark.parametrize("steps", ["{}", "[{}, {}]"])
    def test_is_a_step_or_a_list_of_steps(self, steps, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        made = iter("ab")
        step = "!name:os.mkdir [{}]"
        text = re.sub("{}", lambda _: step.format(next(made)), steps)
        prepare_data(f"prepare: {text}")
        assert len(list(tmp_path.iterdir())) == steps.count("{}")


class TestComparison:
    def test_what_has_moved_since_0_1_0_is_the_same(self):
        old, now = "brain.EnhancementBrain", "training.brain.EnhancementBrain"
        texts = [f"brain: !name:speechbrain_cffma.{name}" for name in (old, now)]
        assert differing_keys(*texts) == []

    def test_a_function_of_0_1_0_is_the_same_as_several_steps(self):
        old = "prepare: !name:recipes.DynamicMix.prepare.prepare_mini\nsnr: 1"
        now = "prepare: [!name:a.prepare_mix {}, !name:a.make_small {}]\nsnr: 2"
        assert differing_keys(old, now) == ["snr"]

    def test_other_steps_differ(self):
        assert differing_keys("prepare: !name:a.b", "prepare: !name:a.c") == ["prepare"]


class TestHparams:
    @pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
    def test_each_experiment_can_be_read(self, path):
        text = read_shipped(path)
        assert "!ref" not in text
        assert load_experiment(text, only="crop_samples") > 0

    def test_no_two_experiments_write_to_the_same_folder(self):
        folders = [
            load_experiment(read_shipped(path), only="output_folder")
            for path in EXPERIMENTS
        ]
        assert len(set(folders)) == len(folders) > 0
