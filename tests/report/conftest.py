"""A run of the experiment whose results are stored, made anew."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import report_example

from diffence_jax.report import Results


class Run(NamedTuple):
  """A finished run: its workdir, its results, and what the plots of its report show."""

  workdir: Path
  results: Results
  arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def fresh_run(tmp_path_factory):
  """`configs/digits.py:audit_smoke`, run once; nothing may be written into its workdir.

  Other tests that need a whole run with shadow models can share it.
  """
  workdir = tmp_path_factory.mktemp("audit_smoke")
  return Run(workdir, *report_example.run_afresh(workdir))
