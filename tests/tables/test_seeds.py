"""Means over seeds, their intervals, and the command that makes them."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from report.page_reader import Page
from report.report_example import with_aucs
from tables.runs_example import real, write_run

from diffence_jax import metrics
from diffence_jax.cli.main import run as command
from diffence_jax.experiment import seeds
from diffence_jax.experiment.config import base_config
from diffence_jax.experiment.reports import report_folder
from diffence_jax.tables.runs import read_run
from diffence_jax.tables.seeds import averages, cautions, format_seeds, write_seeds

_AUCS = (
  (0.74, 0.58, 0.62, 0.61, 0.63),
  (0.76, 0.56, 0.6, 0.6, 0.6),
  (0.72, 0.6, 0.62, 0.6, 0.6),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp("seeds")
  made = []
  for seed, aucs in enumerate(_AUCS):
    results = dataclasses.replace(with_aucs(aucs, results=real()), seed=seed)
    made.append(read_run(write_run(folder / str(seed), results), f"seed {seed}"))
  return made


def test_the_t_interval_is_scipys():
  values = [0.3, 0.5, 0.45, 0.7]
  expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
  estimate = metrics.t_interval(values)
  assert estimate == pytest.approx((np.mean(values), expected.low, expected.high))
  with pytest.raises(ValueError, match="at least two"):
    metrics.t_interval([0.3])


def test_the_t_interval_covers_at_its_level():
  draws = np.random.default_rng(0).normal(0.6, 0.05, (2000, 3))
  estimates = [metrics.t_interval(draw) for draw in draws]
  covered = sum(e.low <= 0.6 <= e.high for e in estimates)
  low, high = scipy.stats.binom.interval(0.9999, 2000, 0.95)
  assert low <= covered <= high


def test_means_are_of_the_seeds_and_changes_are_paired(runs):
  undefended, first, *_ = averages(runs)
  assert undefended.each["highest_auc"] == (0.74, 0.76, 0.72)
  assert undefended.figures["highest_auc"] == pytest.approx(
    metrics.t_interval([0.74, 0.76, 0.72])
  )
  assert "change" not in undefended.figures
  assert first.figures["change"] == pytest.approx(metrics.t_interval([-0.16, -0.2, -0.12]))
  for row in averages(runs):
    for name in ("test_accuracy", "highest_auc", "highest_tpr_at_fpr_0.001"):
      assert (
        0.0 <= row.figures[name].low <= row.figures[name].value <= row.figures[name].high <= 1
      )


def test_text_and_files_have_means_and_single_seeds(runs, tmp_path):
  text = format_seeds(runs, 400)
  assert "t-interval of the mean over 3 seeds" in text and "wide" in text
  (line,) = (one for one in text.splitlines() if one.startswith("undefended"))
  # All seeds have the same accuracy: their spread says nothing.
  assert "0.740" in line and "%]" not in text
  for seed in range(3):
    assert f"seed {seed}: scenario 1" in text
  write_seeds(runs, tmp_path)
  page = Page((tmp_path / "seeds.html").read_text())
  assert "Means over seeds" in page.text and "Single seeds" in page.text
  content = json.loads((tmp_path / "seeds.json").read_text())
  assert content["seeds"] == [0, 1, 2] and len(content["averages"]) == 5
  with open(tmp_path / "seeds.csv", newline="") as handle:
    lines = list(csv.DictReader(handle))
  chosen = [
    line for line in lines
    if line["predictor"] == "scenario 1" and line["metric"] == "highest_auc"
  ]  # fmt: skip
  assert [line["seed"] for line in chosen] == ["0", "1", "2", "mean"]
  assert float(chosen[-1]["value"]) == pytest.approx(0.58)


def test_a_smoke_run_says_so(runs):
  smoke = [
    dataclasses.replace(run, results=dataclasses.replace(run.results, variant="smoke"))
    for run in runs
  ]
  assert cautions(runs) == [] and len(cautions(smoke)) == 1
  assert format_seeds(smoke).startswith("SMOKE RUN")


@pytest.mark.parametrize("given", ["", "0", "0,", "0,x", "1,1", "-1,2"])
def test_seeds_that_are_none_are_refused(given, tmp_path, capsys):
  arguments = ["diffence", "--config=digits:smoke", f"--workdir={tmp_path}", f"--seeds={given}"]
  assert command([*arguments, "--dry_run"]) == 2
  assert capsys.readouterr().err.count("\n") == 1


def test_a_seed_beside_seeds_is_refused(tmp_path, capsys):
  arguments = [f"--workdir={tmp_path}", "--seeds=0,1", "--config.seed=4", "--dry_run"]
  assert command(["diffence", "--config=digits:smoke", *arguments]) == 2
  assert "--seeds and --config.seed were both given" in capsys.readouterr().err


def test_reports_of_seeds_stand_beside_each_other(tmp_path, monkeypatch):
  config = base_config()
  config.name = "mine"
  experiments = seeds.plan_seeds(config, (0, 1))
  assert experiments[0].dataset is experiments[1].dataset
  assert len({experiment.stages["split"].fingerprint for experiment in experiments}) == 2

  def carry_out(experiment, workdir, share):
    results = real(seed=experiment.settings.seed)
    write_run(report_folder(experiment, workdir), results)
    return results

  monkeypatch.setattr(seeds, "carry_out", carry_out)
  made, folder = seeds.run_seeds(experiments, tmp_path)
  assert [run.label for run in made] == ["seed 0", "seed 1"]
  assert [run.results.seed for run in made] == [0, 1] and all(run.curves for run in made)
  assert {path.name for path in folder.iterdir()} == {"seeds.html", "seeds.csv", "seeds.json"}
  assert folder.parent == tmp_path / "reports" and folder.name.startswith("mine-seeds-")
  assert len(list(folder.parent.iterdir())) == 3
