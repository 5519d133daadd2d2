"""Check what a release would hold: build it, install it as users do, and run it.

Builds the sdist of the last commit, and the wheel from the sdist, and compares their files with
git's. Then each Python gets a new environment outside of this tree: the wheel with what it requires
(``--help``, scores, a training, a fine-tuning), all extras but ``dev`` (the examples in
docstrings), and the sdist. An environment is deleted after use; pip takes its usual settings, such
as an index with smaller builds of torch.

> python -m tests.consistency.release --pythons python3.10 python3.13 --output dist
"""

import argparse
import email
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from speechbrain_clsp import __version__
from tests.utils.small import CAPTIONS, model_folder, tone, write

ROOT = Path(__file__).parents[2]
PACKAGE = "speechbrain_clsp"
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")
SHORT = ("--epochs", "1", "--set", "epoch_clips=8", "num_threads=1")


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Run a command without this tree on its path; returns what it prints, ends if it fails."""
    command = list(map(str, words))
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outside |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=outside)
    if done.returncode != 0:
        printed = f"{done.stdout}\n{done.stderr}".strip()
        raise SystemExit(f"{shlex.join(command)} failed:\n{printed[-6000:]}")
    return done.stdout


def tracked(root: Path = ROOT) -> set[str]:
    """Return the paths of the files that git tracks."""
    return set(run("git", "ls-files", "-z", cwd=root).strip("\0").split("\0"))


def build(source: Path, output: Path, *options: str) -> tuple[Path, Path]:
    """Build the sdist of a tree, and the wheel from the sdist; returns both paths."""
    run(sys.executable, "-m", "build", *options, "--outdir", output, source, cwd=source)
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return sdist, wheel


def contents(path: Path) -> set[str]:
    """Return the paths of the files in a wheel, or below the one folder of an sdist."""
    if path.suffix == ".whl":
        return {name for name in zipfile.ZipFile(path).namelist() if not name.endswith("/")}
    with tarfile.open(path) as archive:
        return {m.name.partition("/")[2] for m in archive.getmembers() if not m.isdir()}


def check_contents(sdist: Path, wheel: Path, files: set[str]) -> None:
    """Check that the wheel holds the package as git tracks it, and the sdist all but CI's files."""
    package = {name for name in files if name.startswith(f"{PACKAGE}/")}
    inside = {name for name in contents(wheel) if ".dist-info/" not in name}
    if inside != package:
        raise SystemExit(
            f"{wheel.name} lacks {sorted(package - inside)}; git lacks {sorted(inside - package)}"
        )
    wanted = {name for name in files if not name.startswith(NOT_IN_SDIST)}
    if missing := wanted - contents(sdist):
        raise SystemExit(f"{sdist.name} lacks {sorted(missing)}: see MANIFEST.in")


def extras_of(wheel: Path) -> list[str]:
    """Return the names of a wheel's extras for users."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return sorted(set(metadata.get_all("Provides-Extra", [])) - {"dev"})


def check_version(sdist: Path, wheel: Path) -> None:
    """Check that file names and the newest entry of the changelog have the package's version."""
    for path in (sdist, wheel):
        if path.name.split("-")[1].removesuffix(".tar.gz") != __version__:
            raise SystemExit(f"{path.name} is not of version {__version__}")
    newest = re.search(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    if newest is None or newest[1] != __version__:
        raise SystemExit(f"CHANGELOG.md has no section of {__version__} above all others")


def write_clips(folder: Path) -> None:
    """Write a recording, and a table of 16 short ones with captions to train on."""
    write(folder / "a.wav", tone(2.0))
    lines = ["wav,caption,speaker,gender"]
    for i in range(16):
        write(folder / f"{i}.wav", tone(0.4, 8000, 90 + 15 * i), 8000)
        who, gender = ("A man", "A woman")[i % 2], ("male", "female")[i % 2]
        lines.append(f"{i}.wav,{who} hums.,s{i % 8},{gender}")
    (folder / "clips.csv").write_text("\n".join(lines), encoding="utf-8")


def scores(*command: object, model: str, cwd: Path, **environment: str) -> list[float]:
    """Return the scores of the recording with some captions by a ``clsp``."""
    words = (*command, "score", "a.wav", *CAPTIONS, "--model", model, "--json")
    answer = json.loads(run(*words, cwd=cwd, **environment))
    return [answer[caption] for caption in CAPTIONS]


@dataclass
class Environment:
    """An environment of a Python in a folder with what :func:`write_clips` writes.

    Arguments
    ---------
    folder : Path
        Where commands run, and where the environment lies.
    python : str
        The Python that it is made by.
    model : str
        The folder of the model that gives scores.
    """

    folder: Path
    python: str
    model: str

    def run(self, name: str, *words: object) -> str:
        """Run a command of the environment; returns what it prints."""
        return run(self.folder / "environment" / "bin" / name, *words, cwd=self.folder)

    def say(self, text: str) -> None:
        """Print what was done."""
        print(f"{Path(self.python).name}: {text}", flush=True)

    def make(self) -> None:
        """Make the environment, with pip alone."""
        run(self.python, "-m", "venv", self.folder / "environment", cwd=self.folder)

    def pip(self, *words: object) -> None:
        """Run pip."""
        self.run("python", "-m", "pip", "--quiet", *words)

    def check_command(self, form: Path) -> None:
        """Install a wheel or an sdist; check ``--version``, ``--help`` and scores."""
        self.pip("install", form)
        version = self.run("clsp", "--version").strip()
        if version != f"clsp {__version__}":
            raise SystemExit(f"clsp --version prints {version}, not clsp {__version__}")
        self.run("clsp", "--help")
        of_tree = (sys.executable, "-m", "speechbrain_clsp.cli")
        wanted = scores(*of_tree, model=self.model, cwd=self.folder, PYTHONPATH=str(ROOT))
        installed = self.folder / "environment" / "bin" / "clsp"
        found = scores(installed, model=self.model, cwd=self.folder)
        if any(abs(a - b) > 1e-4 for a, b in zip(found, wanted, strict=True)):
            raise SystemExit(f"scores are {found}, and {wanted} in this tree")
        self.say(f"{form.name}: --version, --help, and scores {found} as in this tree")

    def check_training(self) -> None:
        """Train a model on the table, fine-tune it, and score with what came of it."""
        self.run("clsp", "train", "clips.csv", "--output", "trained", *SHORT, "n_negatives=1")
        base = ("--base", "trained/model")
        self.run("clsp", "finetune", "clips.csv", *base, "--output", "tuned", *SHORT)
        self.run("clsp", "score", "a.wav", "A man hums.", "--model", "tuned/model")
        self.say("train, finetune, and a score by the result")

    def check_examples(self, wheel: Path) -> None:
        """Run all examples in docstrings of the installed package, with all extras for users."""
        extras = ",".join(extras_of(wheel))
        self.pip("install", f"{wheel}[{extras}]", "pytest")
        path = self.run("python", "-c", f"import {PACKAGE}; print({PACKAGE}.__path__[0])").strip()
        options = ("--doctest-modules", "--import-mode=importlib", "-p", "no:cacheprovider")
        printed = self.run("python", "-m", "pytest", *options, "--quiet", path)
        self.say(f"examples in docstrings, with {extras}: {printed.splitlines()[-1]}")


def check_python(environment: Environment, sdist: Path, wheel: Path) -> None:
    """Install the built files, one after the other, and run them."""
    environment.make()
    environment.check_command(wheel)
    environment.check_training()
    environment.check_examples(wheel)
    environment.pip("uninstall", "--yes", "speechbrain-clsp")
    environment.check_command(sdist)


def main() -> None:
    """Build, compare, install and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="+", required=True, help="interpreters to install for")
    parser.add_argument("--model", type=Path, help="a model folder; default: a small random one")
    parser.add_argument("--output", type=Path, help="where to put sdist and wheel in the end")
    options = parser.parse_args()
    for python in options.pythons:
        if shutil.which(python) is None:
            parser.error(f"there is no {python}: install it, or name others")
    if changed := run("git", "status", "--porcelain", "--untracked-files=no", cwd=ROOT):
        parser.error(f"commit these first:\n{changed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tree").mkdir()
        run("git", "archive", "--output", folder / "tree.tar", "HEAD", cwd=ROOT)
        with tarfile.open(folder / "tree.tar") as archive:
            archive.extractall(folder / "tree", filter="data")
        sdist, wheel = build(folder / "tree", folder / "dist")
        check_version(sdist, wheel)
        check_contents(sdist, wheel, tracked())
        print(f"{sdist.name} and {wheel.name} hold what git tracks", flush=True)
        for number, python in enumerate(options.pythons):
            inner = folder / str(number)
            inner.mkdir()
            write_clips(inner)
            model = options.model.absolute() if options.model else model_folder(inner)
            check_python(Environment(inner, python, str(model)), sdist, wheel)
            shutil.rmtree(inner)
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                print(shutil.copy(path, options.output))


if __name__ == "__main__":
    main()
