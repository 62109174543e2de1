"""Installation: `pip install .` gives the lobes, `pip install ".[train]"` what training needs."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
ABOUT = {}
for line in (
    (HERE / "speechbrain_cffma" / "__init__.py")
    .read_text(encoding="utf-8")
    .splitlines()
):
    if line.startswith("__version__"):
        exec(line, ABOUT)

TRAIN = [
    "matplotlib>=3.9",
    "pesq>=0.0.4",
    "pillow>=10",
    "pyroomacoustics>=0.8",
    "pystoi>=0.4",
    "tensorboard>=2.15",
]
# speechmos holds the networks (MIT), and does not name what it imports.
DNSMOS = ["librosa>=0.10,<1", "onnxruntime>=1.16", "requests", "speechmos>=0.0.1.1"]
VIDEO = ["av>=14"]
# Phones record .m4a, which PyAV reads.
APP = ["gradio>=6.31,<7", "matplotlib>=3.9", *VIDEO]
ONNX = ["onnx>=1.18", "onnxruntime>=1.18", "onnxscript>=0.7", "torch>=2.11"]
DEV = [
    *(TRAIN + DNSMOS + APP + ONNX),
    "hypothesis>=6.100",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.15",
    "selenium>=4.20",
]

setup(
    name="speechbrain-cffma",
    version=ABOUT["__version__"],
    description="SSL-based speech enhancement (BSS-CFFMA) as a SpeechBrain recipe extension",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["speechbrain_cffma", "speechbrain_cffma.*"]),
    package_data={
        "speechbrain_cffma": ["model_card.md"],
        "speechbrain_cffma.pretrained": ["default/*"],
        "speechbrain_cffma.report": ["page.html"],
    },
    python_requires=">=3.10",
    install_requires=[
        "click>=8.1",
        "huggingface_hub>=1.0",
        "hyperpyyaml>=1.2.3",
        "jinja2>=3.1",
        "joblib>=1.3",
        "numpy>=1.26",
        "packaging",
        "pyyaml>=6",
        "ruamel.yaml>=0.18",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "soundfile>=0.12.1",
        "speechbrain>=1.1,<1.2",
        # torchaudio 2.11 is its last release and needs the torch of the same release.
        "torch>=2.9,<2.12",
        "torchaudio>=2.9,<2.12",
        "tqdm>=4.64",
        # Older ones give a large model's last hidden state behind its final layer norm.
        "transformers>=5.20,<6",
    ],
    extras_require={
        "train": TRAIN,
        "dnsmos": DNSMOS,
        "video": VIDEO,
        "app": APP,
        "onnx": ONNX,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["cffma = speechbrain_cffma.cli:main"]},
)
