"""The frontier over steps and candidates, and the program of what was chosen of it."""

import json
import shutil

import jax
import numpy as np
import pytest
from cli.command import AUDIT, refused

from diffence_jax.audit.predictors import Predictor
from diffence_jax.cli import main
from diffence_jax.cli.parsing import parse
from diffence_jax.defense import POLICIES
from diffence_jax.experiment import frontier
from diffence_jax.experiment.run import open_store

NAMES = ("undefended", "scenario 3", "blend 0.4", "constant")


def few_predictors(settings, undefended):
  """In place of some twenty."""
  blend = Predictor("blend 0.4", POLICIES.choose("blend", {"weight": 0.4}))
  others = [Predictor(name.replace("_", " "), POLICIES.choose(name))
            for name in ("scenario_3", "constant")]  # fmt: skip
  return (undefended, others[0], blend, others[1])


@pytest.fixture(scope="module")
def workdir(audit_smoke, tmp_path_factory):
  """A copy: other steps are recorded there."""
  folder = tmp_path_factory.mktemp("frontier") / "workdir"
  shutil.copytree(audit_smoke.workdir, folder)
  return folder


def config_of(workdir):
  return parse(["", AUDIT, f"--workdir={workdir}"], lambda values: None, ("config",)).config


def test_a_grid_is_measured_before_the_same_shadow_models(workdir, monkeypatch):
  monkeypatch.setattr(frontier, "compared_predictors", few_predictors)
  config, store = config_of(workdir), open_store(workdir)
  experiments = frontier.plan_grid(config, (80, 160), (2, 3))
  drawings = [frontier.drawing_of(experiment) for experiment in experiments]
  # The config's own first, whose record is there.
  assert drawings == [(160, 3), (80, 2), (80, 3), (160, 2)]
  models = {frontier.shadow_audit_of(e).shadow_queries.shadow.fingerprint for e in experiments}
  records = {frontier.shadow_audit_of(e).shadow_queries.fingerprint for e in experiments}
  assert len(models) == 1 and len(records) == 2
  frontier.record_grid(experiments, store)
  rows = frontier.measure_grid(experiments, store)["target"]
  drawn = [f"{name}, T={step}, N={number}" for step, number in drawings for name in NAMES[1:3]]
  assert [row.name for row in rows if row.drawing] == drawn
  # Those that draw none are there once.
  assert [row.name for row in rows if row.drawing is None] == ["undefended", "constant"]
  (alone,) = [row for row in frontier.measure_frontier(experiments[0], store)["target"]
              if row.name == "blend 0.4"]  # fmt: skip
  by_name = {row.name: row for row in rows}
  assert by_name["blend 0.4, T=160, N=3"].once == alone.once
  assert by_name["blend 0.4, T=80, N=3"].once != alone.once
  chosen = by_name["blend 0.4, T=80, N=2"]
  finished = frontier.finish_choice(config, chosen, experiments[0], store)
  assert finished.settings["step"] == 80 and finished.settings["num_candidates"] == 2
  images = np.asarray(finished.experiment.dataset.images[:20], np.float32) / 255
  answers = finished.protect("blend")(jax.random.key(0), images)
  alone = finished.predict(None, images)
  np.testing.assert_array_equal(np.argmax(answers, axis=1), np.argmax(alone, axis=1))
  assert np.abs(np.asarray(answers) - np.asarray(alone)).max() > 1e-3


def test_another_data_set_is_asked_about_too(workdir, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(frontier, "compared_predictors", few_predictors)
  command = ["frontier", AUDIT, f"--workdir={workdir}", f"--output={tmp_path}"]
  assert main.run(["diffence", *command, "--out_of_distribution=photographs"]) == 0
  assert "told apart" in capsys.readouterr().out
  rows = json.loads((tmp_path / "frontier.json").read_text())
  assert all(0.0 <= row["out_of_distribution"] <= 1.0 for row in rows)
  stage = frontier.other_images(frontier.plan_grid(config_of(workdir))[0], "photographs")
  assert stage.load_model(open_store(workdir), 0).candidates.shape[0] == len(stage.samples)


def test_what_is_chosen_is_written_as_flags_and_as_a_program(
  workdir, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(frontier, "compared_predictors", few_predictors)
  program, output = tmp_path / "protected", tmp_path / "tune"
  command = ["tune", AUDIT, f"--workdir={workdir}", "--max_nll=100", "--candidates=2"]
  assert main.run(["diffence", *command, f"--program={program}", f"--output={output}"]) == 0
  said = capsys.readouterr().out
  chosen = json.loads((output / "tune.json").read_text())
  if chosen["known"]["drawing"]:
    assert "--config.purify.num_candidates=2" in chosen["overrides"]
  assert chosen["label_floor"]["name"] == "constant"
  assert f"{chosen['label_floor']['once']['auc']['value']:.3f}" in said
  assert "target, labels alone" in said
  assert f"{program}: " in said and chosen["known"]["policy"] in said
  loaded = jax.export.deserialize(bytearray(program.read_bytes()))
  images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
  assert loaded.call(jax.random.key_data(jax.random.key(0)), images).shape == (3, 10)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--steps=80,x"], "expected whole numbers"),
    (["--steps=5000"], "step is 5000"),
    (["--candidates=6"], "shadow.num_recorded is 5"),
    (["--out_of_distribution=digits"], "expected another data set"),
    (["--out_of_distribution=photograph"], "photographs"),
  ],
)
def test_what_is_no_grid_is_refused(workdir, arguments, message):
  assert message in refused("frontier", AUDIT, f"--workdir={workdir}", *arguments)
