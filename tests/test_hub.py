"""Models on the HuggingFace hub: its own client against a stand-in for the hub."""

import copy
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from helpers.errors import error_of
from helpers.hub_stand_in import HubStandIn
from speechbrain_cffma.lobes import CFFMAEnhancer

pytestmark = pytest.mark.slow

NAME = "me/my-model"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, with which the client talks, whose cache is empty."""
    with HubStandIn().running() as hub:
        settings = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # the stand-in has no such storage
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no_token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        # Waits between tries are not waited for.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        huggingface_hub.close_session()  # of another hub or other proxies
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def model(tiny_enhancer):
    """`model(value)`: an enhancer that can be told by a weight."""

    def make(value):
        enhancer = copy.deepcopy(tiny_enhancer)
        with torch.no_grad():
            enhancer.mask_estimator.output_layer.bias.fill_(value)
        return enhancer

    return make


@pytest.fixture
def files(model, tmp_path):
    """`files(value)`: the files of such a model, as bytes by their names."""

    def make(value):
        folder = model(value).save_pretrained(tmp_path / f"model_{value}")
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return make


def value_of(enhancer):
    return enhancer.mask_estimator.output_layer.bias[0].item()


def load(**options):
    return CFFMAEnhancer.from_pretrained(NAME, **options)


# --- loading


def test_a_model_is_loaded_by_its_id(hub, model, files, speech):
    hub.add(NAME, files(1.0))
    expected, loaded = model(1.0).enhance(speech), load().enhance(speech)
    assert torch.equal(loaded, expected)


def test_its_card_comes_with_it(hub, files):
    hub.add(NAME, {**files(1.0), "README.md": b"of my own"})
    assert load().card == "of my own"


def test_a_model_without_a_card_is_loaded(hub, files):
    named = files(1.0)
    del named["README.md"]
    hub.add(NAME, named)
    assert load().card is None


def test_what_could_be_executed_is_not_even_fetched(hub, files):
    hub.add(NAME, files(1.0))
    load()
    fetched = [path for path, _ in hub.downloads() if "/resolve/" in path]
    assert sorted(path.rsplit("/", 1)[1] for path in fetched) == [
        "README.md",
        "config.json",
    ]


def test_each_revision_has_its_own_weights(hub, files):
    first = hub.add(NAME, files(1.0))
    hub.repositories[NAME].refs["v1"] = first  # a tag
    hub.add(NAME, files(2.0), branch="try")
    hub.add(NAME, files(3.0))
    assert value_of(load(revision=first)) == 1.0
    assert value_of(load(revision="v1")) == 1.0
    assert value_of(load(revision="try")) == 2.0
    assert value_of(load(revision="main")) == value_of(load()) == 3.0


def test_a_revision_that_there_is_not(hub, files):
    hub.add(NAME, files(1.0))
    assert NAME in error_of(load, revision="v2")


# --- the cache


def test_a_second_load_asks_for_no_file(hub, files):
    hub.add(NAME, files(1.0))
    load()
    hub.requests.clear()
    assert value_of(load()) == 1.0
    assert hub.downloads() == []


def test_a_branch_that_has_changed_is_fetched_anew(hub, files):
    hub.add(NAME, files(1.0))
    load()
    hub.add(NAME, files(2.0))
    assert value_of(load()) == 2.0


def test_downloads_are_kept_where_they_are_asked_to_be(hub, files, tmp_path):
    hub.add(NAME, files(1.0))
    load(cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").rglob("model.safetensors"))
    assert not (tmp_path / "cache").exists()


# --- offline


def test_what_was_loaded_before_is_loaded_offline(hub, files):
    hub.add(NAME, files(1.0))
    load()
    hub.requests.clear()
    assert value_of(load(local_files_only=True)) == 1.0
    assert hub.requests == []


def test_what_was_loaded_before_is_loaded_when_the_hub_is_away(hub, files):
    hub.add(NAME, files(1.0))
    load()
    hub.go_away()
    assert value_of(load()) == 1.0


def test_what_was_not_loaded_before_can_not_be_loaded_offline(hub, files):
    hub.add(NAME, files(1.0))
    assert NAME in error_of(load, local_files_only=True)
    assert hub.requests == []


def test_what_was_not_loaded_before_can_not_be_loaded_when_the_hub_is_away(hub):
    hub.go_away()
    assert "check the name and the connection" in error_of(load)


# --- what the hub does not have


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_the_repository(hub, files, missing):
    named = files(1.0)
    del named[missing]
    hub.add(NAME, named)
    assert error_of(load).startswith(f"{NAME!r} on the hub has no {missing}")


def test_an_id_that_there_is_not(hub):
    assert f"{NAME!r} is neither a local folder nor" in error_of(load)


def test_a_private_model_needs_a_token(hub, files):
    hub.add(NAME, files(1.0), private=True)
    assert "log in with `hf auth login` or pass a token" in error_of(load)
    assert value_of(load(token="reader")) == 1.0


# --- interrupted downloads


def test_an_interrupted_download_goes_on_with_the_rest(hub, files, monkeypatch):
    # What has arrived of a chunk is lost; the client's are larger than the model.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.add(NAME, files(1.0))
    hub.cuts = [10_000]
    assert value_of(load()) == 1.0
    ranges = [r for path, r in hub.downloads() if "/storage/" in path]
    assert ranges == [None, "bytes=10000-"]


def test_after_a_download_that_failed_the_next_one_is_whole(hub, files):
    hub.add(NAME, files(1.0))
    hub.cuts = [10_000, *[0] * 20]
    assert NAME in error_of(load)
    hub.cuts = []
    assert value_of(load()) == 1.0


def test_a_download_that_failed_is_not_loaded_offline(hub, files):
    hub.add(NAME, files(1.0))
    hub.cuts = [10_000, *[0] * 20]
    error_of(load)
    assert NAME in error_of(load, local_files_only=True)


def test_weights_that_are_truncated_on_the_hub_are_not_loaded(hub, files):
    named = files(1.0)
    named["model.safetensors"] = named["model.safetensors"][:-1000]
    hub.add(NAME, named)
    assert "truncated or altered" in error_of(load)


# --- by SpeechBrain's interfaces


def test_waveform_enhancement_loads_a_model_by_its_id(hub, model, files, speech):
    from speechbrain.inference.enhancement import WaveformEnhancement

    hub.add(NAME, files(1.0))
    stock = WaveformEnhancement.from_hparams(source=NAME)
    enhanced = stock.enhance_batch(speech.unsqueeze(0))[0]
    assert torch.allclose(enhanced, model(1.0).enhance(speech), atol=1e-6)


def test_foreign_class_loads_a_model_by_its_id(hub, model, files, speech, monkeypatch):
    from speechbrain.inference.interfaces import foreign_class

    monkeypatch.setattr(sys, "path", list(sys.path))  # it adds to it
    hub.add(NAME, files(1.0))
    interface = foreign_class(source=NAME)
    assert torch.equal(interface.enhance(speech), model(1.0).enhance(speech))


# --- uploading


def test_a_model_that_was_pushed_comes_back_with_its_card(hub, model, speech):
    pushed = model(1.0)
    pushed.card = "---\nlicense: cc-by-4.0\n---\nof my own\n"
    pushed.push_to_hub(NAME, token="writer")
    loaded = load()
    assert torch.equal(loaded.enhance(speech), pushed.enhance(speech))
    assert loaded.card == pushed.card


def test_all_files_are_pushed_in_one_commit_whose_url_is_returned(hub, model, files):
    url = model(1.0).push_to_hub(
        NAME, token="writer", commit_message="Train for longer"
    )
    repository = hub.repositories[NAME]
    assert url == f"{hub.url}/{NAME}/commit/{repository.refs['main']}"
    assert repository.messages == ["initial commit", "Train for longer"]
    assert repository.files("main") == files(1.0)


def test_the_token_of_a_login_is_used(hub, model, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "writer")
    model(1.0).push_to_hub(NAME)
    assert value_of(load()) == 1.0


@pytest.mark.parametrize("private", [False, True])
def test_a_new_repository_is_private_if_asked(hub, model, private):
    model(1.0).push_to_hub(NAME, private=private, token="writer")
    assert hub.repositories[NAME].private == private


def test_pushing_to_a_repository_adds_a_commit(hub, model):
    hub.add(NAME, {"notes.txt": b"mine"})
    for value in (1.0, 2.0):
        model(value).push_to_hub(NAME, token="writer")
    repository = hub.repositories[NAME]
    assert len(repository.commits) == 4
    assert repository.files("main")["notes.txt"] == b"mine"
    assert value_of(load()) == 2.0


def test_pushing_to_a_branch_leaves_the_others(hub, model):
    model(1.0).push_to_hub(NAME, token="writer")
    for value in (2.0, 3.0):
        model(value).push_to_hub(NAME, revision="try", token="writer")
    assert value_of(load()) == 1.0
    assert value_of(load(revision="try")) == 3.0


def test_pushing_without_a_token_says_how_to_log_in(hub, model):
    message = error_of(model(1.0).push_to_hub, NAME)
    assert f"can't be uploaded to {NAME!r}" in message
    assert "log in with `hf auth login` or pass a token" in message


def test_pushing_with_a_token_that_may_only_read(hub, model):
    hub.add(NAME, {"notes.txt": b"mine"})
    message = error_of(model(1.0).push_to_hub, NAME, token="reader")
    assert "use a token that permits it" in message
    assert list(hub.repositories[NAME].files("main")) == ["notes.txt"]


def test_pushing_without_a_connection(hub, model):
    hub.go_away()
    message = error_of(model(1.0).push_to_hub, NAME, token="writer")
    assert "check the name and the connection" in message


def test_pushing_a_card_with_metadata_that_the_hub_refuses(hub, model):
    pushed = model(1.0)
    pushed.card = "---\n- a list\n---\n"
    assert "metadata" in error_of(pushed.push_to_hub, NAME, token="writer")
    assert hub.repositories[NAME].files("main") == {}
