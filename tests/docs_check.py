"""Run every command of the README and of the documentation: `make docs-check`.

    python tests/docs_check.py                    # all pages, and the tutorial
    python tests/docs_check.py docs/use.md        # some pages
    python tests/docs_check.py --store            # the tutorial; stores its outputs

The commands are the lines of fenced blocks. They run in a scratch folder with small
stand-ins for the data sets and for the SSL models, and train for a few steps. What can't
run here is printed with its reason. `test_docs.py` checks the same pages without running
anything.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

# The helpers import train.py and the recipes, which are no package.
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import voicebank, whamr
from helpers.own_data import write_pairs
from helpers.paths import ROOT, SPEECH

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
BUNDLED_MODEL = ROOT / "speechbrain_cffma" / "pretrained" / "default"
#: In this order: a page may use what commands of earlier ones have written.
PAGES = [ROOT / "README.md", ROOT / "docs" / "training.md"]
PAGES += sorted((ROOT / "recipes").glob("*/README.md"))
PAGES += sorted(set((ROOT / "docs").glob("*.md")) - set(PAGES))
PAGES += [ROOT / "hparams" / "variants" / "README.md", ROOT / "CONTRIBUTING.md"]

#: What does not run, by the first pattern that is found in a command.
NOT_RUN = [
    (r"kokoro", "downloads packages and synthesises for 22 minutes"),
    (
        r"^pip install",
        "changes the environment; tests/test_wheel.py installs the wheel",
    ),
    (r"^(git|hf) ", "needs a network"),
    (r"^make ", "the gate runs it"),
    (r"--download|download_voicebank", "downloads 5.3 GB; see tests/test_download.py"),
    (r"push_to_hub", "needs an account on the hub; see tests/test_hub.py"),
    (r"--nnodes|^ray start|--address", "needs several machines"),
    (r"^torchrun (?!.*--device=cpu)", "needs several GPUs"),
    (r"--device[ =]cuda", "needs a GPU"),
    (r"cluster\.py memory", "enhances 11,000 files"),
    (r"benchmarks/speed", "measures for half an hour, with 12 GB of memory"),
    (r"benchmarks/startup", "measures for minutes"),
]
#: Stand-ins for what a reader has, and fewer steps, as (pattern, replacement).
STAND_INS = [
    (r"--(test_)?(noisy|clean)_folder=DIR", r"--\1\2_folder=\2"),
    (r"--speech_folder([= ])DIR", r"--speech_folder\1CORPUS/speech"),
    (r"--noise_folder([= ])DIR", r"--noise_folder\1CORPUS/noise"),
    (r"--rir_folder=DIR", "--rir_folder=CORPUS/rir"),
    (r"(vbd_\w+\.yaml.*|size\.yaml.*|ssl\.yaml.*)=FOLDER", r"\1=VBD"),
    (r"(whamr_\w+\.yaml.*)=FOLDER", r"\1=WHAMR --allow_subset"),
    (r"=MODEL\b", "=default"),
    (r"(cffma enhance .*--model .*)", r"\1 --overwrite"),
    (r"=facebook/wav2vec2-base", "=WAVLM"),
    (r"--number_of_epochs=\d+", ""),
    (r"talk\.mp4", "noisy.wav"),
    (r" --devices cuda:0,cuda:1", " --print-commands"),
    (r"(cluster\.py speed) --minutes 30", r"\1 --minutes 0.1 --repeats 1"),
    (r"(pesq_loss\.py.*)", r"\1 --n_pairs 3"),
]
#: Those that hparams/default.yaml names, and others.
NOISES = ["city", "storm", "supermarket", "train", "washing-machine", "cafe"]
NOISES += ["construction-site", "dryer", "highway", "subway-station", "inside-a-train"]
NOISES += ["train-2", "bus", "car"]
SHORT = "--number_of_epochs=1 --steps_per_epoch=1 --batch_size=2 --num_workers=0"
SCORED = "--metric_workers=1 --n_examples=1"
MIXED = "--n_valid=2 --n_test=4"


class Command(NamedTuple):
    """A command of a page: a line of a shell, or a block of Python or YAML."""

    page: Path
    language: str
    text: str


def blocks(page):
    """The fenced blocks of a page, as (language, text)."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page):
    """What the fenced blocks of a page tell a reader to run."""
    for language, text in blocks(page):
        if language in ("python", "yaml"):
            yield Command(page, language, text)
        elif language == "bash":
            text = text.replace("\\\n", " ")
            text = re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE)
            is_script = re.search(r"^(for|cd|if) |&& cd", text, re.MULTILINE)
            for line in [text] if is_script else text.splitlines():
                if line.strip():
                    yield Command(page, language, re.sub(r" +", " ", line.strip()))


def reason_not_to_run(command):
    """Why it does not run here; None if it does."""
    for pattern, reason in NOT_RUN:
        if re.search(pattern, command.text, re.MULTILINE):
            return reason
    if command.text.startswith("ffmpeg") and not shutil.which("ffmpeg"):
        return "ffmpeg is not installed here"
    return None


def shortened(line):
    """A line of a shell with stand-ins for the data, and few steps."""
    for pattern, replacement in STAND_INS:
        line = re.sub(pattern, replacement, line)
    if "train.py" in line:
        line += f" {_short_run(line)}"
    elif "sweep.py" in line and "--print-commands" not in line:
        line += f" --seeds='[1]' {SHORT} {SCORED} {MIXED} --simulated_rooms=0"
    return line


def _short_run(line):
    experiment = re.search(r"hparams/(\w+)\.yaml", line)[1]
    options = [SHORT]
    if experiment != "pretrain":
        options.append(SCORED)
    if experiment in ("own_mix", "default", "pretrain") or "mini" in experiment:
        options.append(MIXED)
    if experiment in ("mini_dereverb", "mini_joint", "default", "pretrain"):
        options.append("--simulated_rooms=4")
    is_published = experiment.startswith(("vbd", "whamr", "own"))
    if is_published and not re.search("--(ssl_source|pretrained)=", line):
        options.append("--ssl_source=WAVLM")
    return " ".join(options)


# --- What a reader has


def make_scratch(folder):
    """The files that the commands name: recordings, data sets, and an SSL model."""
    for name in ("train.py", "sweep.py", "recipes", "examples", "benchmarks", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "hparams", folder / "hparams")
    _shorten_sweep(folder / "hparams" / "sweeps" / "ablation.yaml")
    # Until the experiment mini has run, and also where only some pages are checked.
    shutil.copytree(BUNDLED_MODEL, folder / "results" / "mini" / "1234" / "model")
    voicebank.write_tree(folder / "VBD")
    whamr.write_tree(folder / "WHAMR")
    _write_pairs(folder)
    _write_corpora(folder)
    _write_ssl_model(folder / "WAVLM")


def _shorten_sweep(path, n_variants=3):
    """Keep the first variants of a sweep."""
    text = path.read_text(encoding="utf-8")
    variants = re.findall(r"^ +- \{name: .*\n", text, re.MULTILINE)
    for variant in variants[n_variants:]:
        text = text.replace(variant, "")
    path.write_text(text, encoding="utf-8")


def _write_pairs(folder):
    names = [f"{i}_cafe_5dB.wav" for i in range(12)]
    write_pairs(folder, names)
    for system in ("mine", "other", "mild", "hard"):
        shutil.copytree(folder / "noisy", folder / system)
    ids = range(3)
    write_pairs(
        folder / "DNS" / "test_set" / "synthetic" / "no_reverb",
        [f"book_{i}_snr5_fileid_{i}.wav" for i in ids],
        [f"clean_fileid_{i}.wav" for i in ids],
    )
    write_pairs(folder / "CORPUS" / "vbd_pairs", ["p287_001.wav", "p287_002.wav"])
    samples, rate = soundfile.read(folder / "noisy" / names[0])
    for name in ("noisy.wav", "noisy.mp3", "interview.mp3"):
        soundfile.write(folder / name, samples, rate)


def _write_corpora(folder):
    """CORPUS and OPEN: speech of five speakers each, and of `ru`, noises, and rooms."""
    rng = np.random.default_rng(0)
    (folder / "CORPUS_open").symlink_to("OPEN")  # where benchmarks/packages.py looks
    paths = sorted((SPEECH / "en").glob("*.opus"), key=lambda path: path.stat().st_size)
    utterances = paths[60:64]  # of about two seconds
    for corpus in (folder / "CORPUS", folder / "OPEN"):
        for part in ("speech", "valid/speech", "test/speech"):
            speakers = [f"{corpus.name}-{part[:5]}-{i}" for i in range(5)]
            if corpus.name == "CORPUS" and part == "speech":
                speakers.append("ru")
            for speaker in speakers:
                (corpus / part / speaker).mkdir(parents=True)
                for utterance in utterances:
                    shutil.copy(utterance, corpus / part / speaker)
        for name in NOISES if corpus.name == "CORPUS" else ("fan", "river"):
            noise = 0.1 * rng.standard_normal(32000)
            _write(corpus / "noise" / f"{name}.wav", noise)
        for i in range(3):
            tail = 0.1 * rng.standard_normal(4000) * np.exp(-np.arange(4000) / 600)
            _write(corpus / "rir" / f"{i}.wav", np.r_[0.9, tail])


def _write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000)


def _write_ssl_model(folder):
    """A WavLM of the base shape but for its depth, with random weights."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    WavLMModel(WavLMConfig(num_hidden_layers=1)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)


# --- Running


def run(command, scratch):
    """Run a command in the scratch folder; return what went wrong, or None."""
    if command.language == "bash":
        return _run_line(shortened(command.text), scratch)
    code = PYTHON_BEFORE + command.text
    if command.language == "yaml":
        code = f"text = {command.text!r}\n{_yaml_check(command.text)}"
    code = code.replace("microsoft/wavlm-base-plus", "WAVLM").replace("cuda:0", "cpu")
    return _run([sys.executable, "-c", code], scratch)


#: What the Python of the pages takes as given.
PYTHON_BEFORE = """
import numpy as np
from speechbrain_cffma.inference import Windows
from speechbrain_cffma.lobes import CFFMAEnhancer
noisy, sample_rate = np.random.default_rng(0).standard_normal(16000) / 20, 16000
blocks, play = np.split(noisy, 8), len
enhancer = CFFMAEnhancer.from_pretrained()
"""


def _yaml_check(text):
    """Python that reads `text` as its kind of YAML is read."""
    if "include:" in text:
        return (
            "from pathlib import Path\n"
            "from speechbrain_cffma.training.experiment import read_experiment\n"
            "path = Path('hparams/of_a_page.yaml')\n"
            "path.write_text(text)\n"
            "read_experiment(path)\n"
        )
    if "seeds:" in text:
        return (
            "from pathlib import Path\n"
            "from speechbrain_cffma.training.sweep import read_sweep\n"
            "path = Path('hparams/sweeps/of_a_page.yaml')\n"
            "path.write_text(text)\n"
            "assert read_sweep(path, {}).runs\n"
        )
    return (
        "import torch\n"
        "from hyperpyyaml import load_hyperpyyaml\n"
        "made = load_hyperpyyaml(text)\n"
        "if 'enhancer' in made:\n"
        "    made['enhancer'](torch.randn(1, 16000))\n"
    )


def _run_line(line, scratch):
    if line.startswith("cffma app"):
        return _serve(line, scratch)
    return _run(["bash", "-c", f"set -eo pipefail; {line}"], scratch)


def _run(argv, scratch):
    done = subprocess.run(
        argv,
        cwd=scratch,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,
    )
    if done.returncode:
        return done.stdout.decode(errors="replace")[-3000:]
    return None


def _serve(line, scratch, port=7999):
    """Start the page, fetch it, and stop it."""
    line = f"exec {line.replace(' --open', '')} --port {port}"
    process = subprocess.Popen(["bash", "-c", line], cwd=scratch, env=_environment())
    try:
        for _ in range(120):
            time.sleep(1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}") as page:
                    return None if page.status == 200 else f"status {page.status}"
            except OSError:
                if process.poll() is not None:
                    return f"it ended with exit code {process.returncode}"
        return "the page did not answer within 2 minutes"
    finally:
        process.terminate()
        process.wait()


def _environment():
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    python_path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        "HF_HUB_OFFLINE": "1",
    }


def run_tutorial(scratch, store=False):
    """Execute the notebook; return what went wrong, or None."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    os.environ.update(_environment())
    notebook = nbformat.read(TUTORIAL, as_version=4)
    where = {"metadata": {"path": str(scratch)}}
    try:
        NotebookClient(
            notebook, timeout=900, resources=where, coalesce_streams=True
        ).execute()
    except CellExecutionError as error:
        return str(error)[-3000:]
    if store:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times, which differ each time
        nbformat.write(notebook, TUTORIAL)
    return None


def main(names):
    """Run the commands of some pages, or of all; print what ran and what did not."""
    store = names == ["--store"]
    pages = [TUTORIAL] if store else [Path(name).resolve() for name in names]
    pages = pages or [*PAGES, TUTORIAL]
    failed, not_run, seen = [], [], set()
    with tempfile.TemporaryDirectory() as scratch:
        make_scratch(Path(scratch))
        for page in pages:
            print(f"\n{page.relative_to(ROOT)}")
            if page == TUTORIAL:
                found = [Command(page, "notebook", "all cells")]
            else:
                found = list(commands(page))
            for command in found:
                title = command.text.strip().splitlines()[0]
                if command.text in seen:
                    print(f"  before       {title}")
                    continue
                seen.add(command.text)
                if reason := reason_not_to_run(command):
                    not_run.append(command)
                    print(f"  NOT RUN      {title}\n               {reason}")
                    continue
                began = time.monotonic()
                if command.language == "notebook":
                    error = run_tutorial(Path(scratch), store)
                else:
                    error = run(command, Path(scratch))
                seconds = time.monotonic() - began
                print(f"  {'FAILED' if error else 'ok':6} {seconds:3.0f} s {title}")
                if error:
                    failed.append(command)
                    print(error)
                sys.stdout.flush()
    n_run = len(seen) - len(not_run)
    print(f"\n{n_run} run, {len(failed)} of them failed, {len(not_run)} not run")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
