"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import diffence_jax

PACKAGE = Path(diffence_jax.__file__).parent
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if ">>> " in file.read_text()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_examples_run(file):
  module = ".".join(("diffence_jax", *file.relative_to(PACKAGE).with_suffix("").parts))
  ran = doctest.testmod(importlib.import_module(module))
  assert ran.failed == 0 and ran.attempted > 0


def test_there_are_examples():
  assert {"protect", "select", "roc"} <= {file.stem for file in FILES}


def test_all_public_names_are_in_the_reference():
  pages = "\n".join(file.read_text() for file in (PACKAGE.parent / "docs/api").glob("*.md"))
  shown = set(re.findall(r":: (?:diffence_jax\.)?(\w+)", pages))
  assert set(diffence_jax.__all__) <= shown
