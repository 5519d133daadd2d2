"""Package definition of speechbrain-clsp."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "annotate": ["openai>=1.60"],
    "mini": ["espeakng-loader>=0.2.4"],
    "dev": [
        "openai>=1.60",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.5",
        "hypothesis>=6.100",
        "ruff>=0.12,<0.16",
    ],
}

setup(
    name="speechbrain-clsp",
    version="0.1.0",
    description="Contrastive language-speech pre-training (CLSP) as a plugin of SpeechBrain",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_data={
        "speechbrain_clsp.annotation": ["templates/*.json", "templates/*.txt"],
        "speechbrain_clsp.captions": ["swaps/*.json"],
        "speechbrain_clsp.evaluation": ["prompts/*.json", "published/*.json"],
        "speechbrain_clsp.ratings": ["*.html", "*.json"],
    },
    packages=find_packages(include=["speechbrain_clsp", "speechbrain_clsp.*"]),
    install_requires=[
        "speechbrain>=1.1.2,<1.2",
        # torchaudio's last wheels are CUDA 13.0 builds: a newer torch is built for another CUDA
        # and SpeechBrain then dies at import.
        "torch>=2.10,<2.12",
        "torchaudio>=2.10,<2.12",
        "numpy>=1.26",
        "scipy>=1.11",
        "hyperpyyaml>=1.2.2",
        "sentencepiece>=0.2",
        "safetensors>=0.4.3",
        "huggingface-hub>=0.30",
        "transformers>=4.53,<6",
        "tokenizers>=0.20",
        "soundfile>=0.12",
        "pandas>=2",
        "pyarrow>=15",
        "pyyaml>=6",
        "rapidfuzz>=3",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["clsp = speechbrain_clsp.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
)
