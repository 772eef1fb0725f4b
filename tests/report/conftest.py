"""A run of the experiment whose results are stored, made anew."""

import subprocess
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
def fresh_run(audit_smoke, tmp_path_factory):
  """`configs/digits.py:audit_smoke`, finished; nothing may be written into its workdir."""
  workdir = tmp_path_factory.mktemp("fresh") / "workdir"
  subprocess.run(["cp", "-rp", audit_smoke.workdir, workdir], check=True)
  return Run(workdir, *report_example.run_afresh(workdir))
