"""YAML files keep to SpeechBrain's style, as ``.yamllint.yaml`` states it."""

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.utils.recipes import ROOT

STYLE = YamlLintConfig(file=str(ROOT / ".yamllint.yaml"))
FILES = sorted(
    path
    for folder in ("recipes", "hparams", "speechbrain_clsp", "tests")
    for path in (ROOT / folder).rglob("*.yaml")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_yaml_file_keeps_to_the_style(path):
    problems = linter.run(path.read_text(encoding="utf-8"), STYLE)
    assert [f"line {problem.line}: {problem.desc}" for problem in problems] == []


@pytest.mark.parametrize(
    "text", ["a: yes\n", "a:\n    b: 1\n    c:\n      d: 1\n", "a: 1\na: 2\n", "a: 1 \n", "a: 1"]
)
def test_what_is_against_the_style_is_found(text):
    assert len(list(linter.run(text, STYLE))) == 1
