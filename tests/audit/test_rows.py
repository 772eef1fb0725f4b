"""The audit against the published figures, and on records with and without a leak."""

import numpy as np
import pytest
from fixtures.answers import recorded_answers
from fixtures.load import load_fixture

from diffence_jax import audit

PUBLISHED = load_fixture("selection")[0]


@pytest.fixture(scope="module")
def paper_rows():
  records = {group: audit.Record(*answers) for group, answers in recorded_answers().items()}
  rows, _ = audit.audit(audit.predictors(records, "paper"), records, "paper")
  return {row["name"]: row for row in rows}


SCENARIOS = {
  "undefended": "undefended",
  "scenario 1": "scenario1",
  "scenario 2": "scenario2",
  "scenario 3": "scenario3",
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("attack", ["loss", "confidence", "entropy", "modified_entropy"])
def test_the_paper_protocol_gives_the_published_attack_figures(paper_rows, name, attack):
  ours = next(
    a for a in paper_rows[name]["attacks"] if (a["name"], a["threshold"]) == (attack, "global")
  )
  theirs = PUBLISHED["metrics"][SCENARIOS[name]][attack]
  assert ours["auc"]["value"] == pytest.approx(theirs["auc"], abs=1e-9)
  assert ours["accuracy"]["value"] == pytest.approx(theirs["accuracy"], abs=1e-9)
  tpr, tnr = ours["tpr_at_fpr"][0], ours["tnr_at_fnr"][0]
  assert tpr["value"] == pytest.approx(theirs["tpr_at_0_1pct_fpr"], abs=1e-9)
  assert tnr["value"] == pytest.approx(theirs["tnr_at_0_1pct_fnr"], abs=1e-9)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_paper_protocol_gives_the_published_calibration(paper_rows, name):
  theirs = PUBLISHED["metrics"][SCENARIOS[name]]
  # The published confidences are in single precision.
  assert paper_rows[name]["ece"] == pytest.approx(theirs["ece_10bins"], abs=1e-7)
  accuracy = paper_rows[name]["test_accuracy"]["value"]
  assert accuracy == pytest.approx(theirs["accuracy_nonmembers"], abs=1e-9)


def synthetic_records(leak, num=400, seed=0):
  """Members answer more confidently by `leak`; candidates forget it."""
  rng = np.random.default_rng(seed)
  records = {}
  for group in audit.GROUPS:
    labels = rng.integers(0, 5, num)
    raw = rng.normal(0, 1, (num, 5))
    raw[np.arange(num), labels] += 4.0 + leak * group.endswith("_members")
    candidates = rng.normal(0, 1, (num, 6, 5))
    candidates[np.arange(num), :, labels] += 4.0
    records[group] = audit.Record(raw.astype(np.float32), candidates.astype(np.float32), labels)
  return records


def rows_of(leak, protocol="disjoint"):
  records = synthetic_records(leak)
  rows, _ = audit.audit(audit.predictors(records, protocol), records, protocol)
  return {row["name"]: row for row in rows}


def test_a_leak_is_seen_and_a_defense_that_forgets_it_removes_it():
  rows = rows_of(leak=3.0)
  assert rows["undefended"]["highest_auc"]["low"] > 0.8
  assert rows["scenario 3"]["highest_auc"]["value"] < 0.6
  assert rows["scenario 3"]["highest_auc"]["relative_change"] < -0.25
  for name, row in rows.items():
    assert row["label_changes"] == 0 or name == "average"
    gap = 0.5 + (row["member_accuracy"]["value"] - row["test_accuracy"]["value"]) / 2
    assert row["gap"]["value"] == pytest.approx(gap, abs=1e-12)
    assert row["highest_auc"]["excess"] >= 0.0


def test_without_a_leak_every_attack_is_a_coin():
  for row in rows_of(leak=0.0).values():
    for attack in row["attacks"]:
      assert attack["auc"]["low"] < 0.52 and attack["auc"]["high"] > 0.48, attack["name"]


def test_intervals_are_fitted_on_known_samples_only():
  records = synthetic_records(leak=1.0)
  before = {a.name: a.interval for a in audit.predictors(records, "disjoint")}
  for group in ("target_members", "target_nonmembers"):
    records[group] = records[group]._replace(candidates=3.0 * records[group].candidates)
  after = {a.name: a.interval for a in audit.predictors(records, "disjoint")}
  assert before == after and before["scenario 3"] is None
