"""Other defenses in a run: in the config by name, under Diffence, and in the shadow models."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffence_jax.audit import record
from diffence_jax.cli import main
from diffence_jax.defense import scaled_logit
from diffence_jax.experiment.collect import results_of
from diffence_jax.experiment.plan import plan
from diffence_jax.experiment.run import compute, open_store, run
from diffence_jax.experiment.stages.queries import record_together
from diffence_jax.experiment.store import Store
from diffence_jax.tables.defense_rows import COLUMNS

ROOT = Path(__file__).parents[2]

OWN = """
import numpy as np
from diffence_jax.training import with_loss
from diffence_jax.training.recipe import cross_entropy

def smaller_logits(module, settings, *, weight=0.01):
  def loss(logits, examples):
    return cross_entropy(logits, examples) + weight * (logits**2).mean()
  return with_loss(module, settings, loss)

def round_off(key, member_logits, nonmember_logits, *, decimals=0):
  return lambda logits: np.round(np.asarray(logits), decimals)
"""

OWN_CONFIG = """
import sys
sys.path.insert(0, {configs!r})
import digits

def get_config():
  config = digits.get_config("smoke")
  config.defenses.round_off = dict(decimals=1)
  config.audit.attacks = ("correctness", "confidence", "modified_entropy")
  return config
"""


def config(variant, **changes):
  path = ROOT / "configs" / "digits.py"
  spec = importlib.util.spec_from_file_location("digits_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  found = module.get_config(variant)
  # Less of what is tested elsewhere.
  found.shadow.near_duplicates, found.audit.num_label_only = False, 0
  left_out = ("quantile_regression", "nn", "loss", "entropy")
  found.audit.attacks = tuple(name for name in found.audit.attacks if name not in left_out)
  for name, value in changes.items():
    section, key = name.split("__")
    found[section][key] = value
  return found


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
  """SELENA, then Diffence, then MemGuard; audited with shadow models."""
  workdir = tmp_path_factory.mktemp("stacked")
  chosen = {"classifier__defense": "selena", "output__defense": "memguard"}
  return workdir, run(config("audit_smoke", **chosen), workdir)


def test_a_stack_of_defenses_keeps_the_labels_and_says_what_it_is(stacked):
  workdir, results = stacked
  names = [row.name for row in results.predictors]
  assert names == ["alone", "scenario 1", "scenario 2", "scenario 3", "average"]
  assert [row.label_changes for row in results.predictors[:4]] == [0, 0, 0, 0]
  assert results.defense.training == "selena"
  assert results.defense.options["selena"] == {"num_left_out": 2, "num_teachers": 4}
  page = (workdir / "report.html").read_text()
  assert "selena (num_teachers 4, num_left_out 2)" in page and "memguard" in page
  assert "undefended" not in page
  in_turn = {row.predictor for row in results.shadow.samples}
  assert in_turn == set(names)


def test_shadow_models_go_through_all_of_it(stacked):
  """What LiRA read of the shadow models is what MemGuard left, not what they answered."""
  workdir, _ = stacked
  undone = config("audit_smoke", classifier__defense="selena")
  experiments = [
    plan(undone),
    plan(config("audit_smoke", classifier__defense="selena", output__defense="memguard")),
  ]
  # Only the audits differ: the same classifiers, re-generations and answers stand behind both.
  same = ("classifier", "diffusion", "queries", "shadow", "shadow_queries")
  for name in same:
    first, second = (own.stages[name].fingerprint for own in experiments)
    assert first == second
  store = open_store(workdir)
  compute(experiments[0], store)
  before, after = (results_of(e, store).shadow for e in experiments)
  values = [[row.auc.value for row in part.samples] for part in (before, after)]
  assert values[0] != values[1]


def test_a_users_own_defenses_run_by_where_they_are_imported_from(tmp_path, monkeypatch):
  (tmp_path / "own_defenses.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  chosen = config(
    "smoke",
    classifier__defense="own_defenses:smaller_logits",
    output__defense="own_defenses:round_off",
  )
  chosen.defenses.round_off = {"decimals": 1}
  results = run(chosen, tmp_path / "run")
  assert results.predictors[0].name == "alone"
  experiment = plan(chosen)
  audit = tmp_path / "run" / "audit" / experiment.stages["audit"].fingerprint
  with np.load(audit / "arrays.npz") as arrays:
    phi = arrays["alone/phi_members"]
  pool = experiment.audit.pool
  raw = experiment.queries.load(open_store(tmp_path / "run")).raw[
    pool.is_member & ~pool.is_known
  ]
  np.testing.assert_allclose(phi, scaled_logit(np.round(raw, 1)), rtol=1e-5)
  # Another text of the function is another defense.
  before = experiment.stages["classifier"].fingerprint
  (tmp_path / "own_defenses.py").write_text(OWN.replace("0.01", "0.02"))
  assert plan(chosen).stages["classifier"].fingerprint != before


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"classifier__defense": "salena"}, "did you mean 'selena'"),
    ({"output__defense": "memgard"}, "no output defense 'memgard'; did you mean 'memguard'"),
    ({"classifier__defense": "nowhere:to_be_found"}, "cannot be imported"),
    (
      {"defenses__hamp": {"gama": 1.0}, "classifier__defense": "hamp"},
      "no option 'gama'; did you mean 'gamma'",
    ),
    (
      {"defenses__memguard": {"steps": 1}, "output__defense": "memguard"},
      "no option 'steps'; did you mean 'step_size'",
    ),
    ({"defenses__hamp": 3}, "expected a section of options"),
    (
      {"data__num_reference": 0, "classifier__defense": "advreg"},
      "advreg trains with the reference samples",
    ),
  ],
)
def test_what_is_not_right_is_said_before_anything_runs(changes, message):
  given = config("smoke").to_dict()
  for name, value in changes.items():
    section, key = name.split("__")
    given[section][key] = value
  with pytest.raises(ValueError, match=message):
    plan(given)


def together(experiments, store):
  queries = [experiment.queries for experiment in experiments]
  record_together(queries, store, experiments[0].settings.compute)


def test_recording_together_takes_only_what_fits_together(tmp_path):
  seeds = []
  for seed in (0, 1):
    own = config("smoke")
    own.seed = seed
    seeds.append(plan(own))
  with pytest.raises(ValueError, match="differ in more than their classifiers"):
    together(seeds, open_store(tmp_path))


def test_recording_together_is_what_each_records_alone(tmp_path, monkeypatch):
  experiments = [
    plan(config("smoke", classifier__defense=name)) for name in ("undefended", "hamp")
  ]
  stores = [open_store(tmp_path / name) for name in ("together", "alone")]
  for store in stores:
    for experiment in experiments:
      compute(experiment, store, ("split", "classifier", "diffusion"))
  # Killed while the records are handed out, it does not record again.
  commit = Store.compute

  def dying(store, stage, write):
    if stage is experiments[1].queries:
      raise KeyboardInterrupt
    return commit(store, stage, write)

  with monkeypatch.context() as patch:
    patch.setattr(Store, "compute", dying)
    with pytest.raises(KeyboardInterrupt):
      together(experiments, stores[0])
  assert stores[0].is_done(experiments[0].queries)
  with monkeypatch.context() as patch:
    patch.setattr(record.RecordWriter, "write", None)
    together(experiments, stores[0])
  records = []
  for store in stores:
    for experiment in experiments:
      compute(experiment, store, ("queries",))
    records.append([experiment.queries.load(store) for experiment in experiments])
  assert not list((tmp_path / "together" / "queries").glob("*.together"))
  for both, alone in zip(*records, strict=True):
    for ours, theirs in zip(both, alone, strict=True):
      np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_without_an_optional_package_it_says_so_at_once(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "jax_privacy", None)
  arguments = [
    f"--config={ROOT / 'configs' / 'digits.py'}:smoke",
    f"--workdir={tmp_path / 'run'}",
    "--config.classifier.defense=dpsgd",
  ]
  assert main.run(["diffence", *arguments]) == 2
  assert "pip install" in capsys.readouterr().err
  assert not (tmp_path / "run").exists()


def test_a_table_that_cannot_be_made_is_refused_in_a_line(tmp_path):
  command = [
    sys.executable,
    ROOT / "experiments" / "defense_table.py",
    f"--config={ROOT / 'configs' / 'digits.py'}:smoke",
    f"--workdir={tmp_path / 'run'}",
    "--defenses=salena",
  ]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and "did you mean 'selena'" in done.stderr
  assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_the_table_of_defenses_runs_resumes_and_reads_as_its_cells(tmp_path):
  (tmp_path / "own_defenses.py").write_text(OWN)
  (tmp_path / "own_config.py").write_text(OWN_CONFIG.format(configs=str(ROOT / "configs")))
  command = [
    sys.executable,
    ROOT / "experiments" / "defense_table.py",
    f"--config={tmp_path / 'own_config.py'}",
    f"--workdir={tmp_path}",
    "--defenses=hamp,memguard,output=own_defenses:round_off",
    "--seeds=0,1,0",
  ]
  path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
  first, second = (
    subprocess.run(
      command,
      check=True,
      capture_output=True,
      text=True,
      env={**os.environ, "PYTHONPATH": path},
    )
    for _ in range(2)
  )
  assert first.stdout == second.stdout and "HAMP" in first.stdout
  assert "running" in first.stderr and "running" not in second.stderr
  table = json.loads((tmp_path / "defense_table.json").read_text())
  assert dict(table["facts"])["inference"].startswith("timed on 24 target non-members in one")
  cells = table["cells"]
  for row in table["rows"]:
    columns = list(row["columns"].values())
    changed = [column["label_changes"]["value"] > 0 for column in columns]
    assert [column["label_floor"] is None for column in columns] == changed
    # What keeps the labels leaves what they tell.
    floors = [column["label_floor"] for column in columns if column["label_floor"]]
    assert all(floor == floors[0] for floor in floors)
    for column, is_changed in zip(columns, changed, strict=True):
      assert is_changed or column["label_floor"]["value"] >= column["gap"]["value"]
  assert all(table["rows"][0]["columns"][name]["label_floor"] for name in COLUMNS)
  own = "output=own_defenses:round_off"
  assert [cell["defense"] for cell in cells] == ["undefended", "hamp", "memguard", own] * 2
  assert cells[0]["options"] == {}
  assert cells[3]["options"] == {"own_defenses:round_off": {"decimals": 1}}
  assert cells[1]["options"] == {
    "hamp": {"alpha": 0.005, "gamma": 0.95, "random_outputs": False}
  }
  for suffix in ("txt", "csv", "html", "tex"):
    assert "MemGuard" in (tmp_path / f"defense_table.{suffix}").read_text()
