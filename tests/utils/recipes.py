"""The recipes that tests/recipes/*.csv lists, in SpeechBrain's columns, and what they promise."""

import csv
import operator
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LISTS = sorted((ROOT / "tests" / "recipes").glob("*.csv"))
COLUMNS = (
    *("Task", "Dataset", "Script_file", "Hparam_file", "Data_prep_file", "Readme_file"),
    *("Result_url", "HF_repo", "test_debug_flags", "test_debug_checks", "performance"),
)
COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


def read_recipes() -> list[dict[str, str]]:
    """Return the rows of all lists."""
    rows = []
    for path in LISTS:
        with open(path, encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    return rows


def find_recipe(name: str) -> dict[str, str]:
    """Return the row whose YAML file has this name, without suffix."""
    (row,) = (row for row in read_recipes() if Path(row["Hparam_file"]).stem == name)
    return row


def recipe_command(recipe: dict[str, str], *flags: str) -> list[str]:
    """Return a recipe's command line; ``flags`` override the recipe's own for debugging."""
    given = {flag.split("=")[0] for flag in flags}
    own = [f for f in shlex.split(recipe["test_debug_flags"]) if f.split("=")[0] not in given]
    script = Path(recipe["Script_file"]).name
    return [sys.executable, script, str(ROOT / recipe["Hparam_file"]), *own, *flags]


def recipe_folder(recipe: dict[str, str]) -> Path:
    """Return the folder that users start a recipe in."""
    return (ROOT / recipe["Script_file"]).parent


def check_outputs(recipe: dict[str, str], output: Path) -> None:
    """Check a row's promises: ``file_exists=[...]`` and ``performance_check=[...]``.

    The latter, as in SpeechBrain, is a log file, a metric, a bound and, optionally, the beginning
    of the line that counts: ``[train_log.txt, train loss, <3.5, epoch: 10]``.
    """
    checks = recipe["test_debug_checks"]
    for names in re.findall(r"file_exists=\[(.*?)\]", checks):
        for name in names.split(","):
            assert (output / name.strip()).is_file(), name
    for check in re.findall(r"performance_check=\[(.*?)\]", checks):
        name, metric, bound, *beginning = (part.strip() for part in check.split(","))
        sign, limit = re.fullmatch(r"([<>]=?)\s*([-+.\de]+)", bound).groups()
        lines = (output / name).read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if re.match("".join(rf"{b}\b" for b in beginning), line))
        value = float(re.search(rf"\b{re.escape(metric)}: ([-+.\de]+)", line)[1])
        assert COMPARISONS[sign](value, float(limit)), f"{metric} is {value}, not {bound}"
