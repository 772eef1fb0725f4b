"""The audit against the published figures, and on records with and without a leak."""

import warnings

import numpy as np
import pytest
from attacks.grouped import GROUPS, pool_of
from fixtures.answers import recorded_answers
from fixtures.load import load_fixture

from diffence_jax.attacks import ATTACKS, View, run_attack
from diffence_jax.audit import rows
from diffence_jax.audit.predictors import Defended, Predictor, fit_predictors, policy_title
from diffence_jax.audit.rows import PredictorRow, Scored, audit_predictors, score_name
from diffence_jax.audit.typed import from_plain, to_plain
from diffence_jax.defense import POLICIES, AggregatePolicy, Record

PUBLISHED = load_fixture("selection")[0]
POLICY_NAMES = ("undefended", "scenario_1", "scenario_2", "scenario_3", "average")
ATTACK_NAMES = ("correctness", "loss", "confidence", "entropy", "modified_entropy")


def fit(records, protocol="disjoint"):
  """All predictors, fitted on the known samples of group to record."""
  published = {"scenario_3": "scenario_3_published"} if protocol == "paper" else {}
  predictors = [
    Predictor(policy_title(name), POLICIES.choose(published.get(name, name)))
    for name in POLICY_NAMES
  ]
  return fit_predictors(predictors, records["known_members"], records["known_nonmembers"])


def audit(records, protocol="disjoint", skipped=()):
  """Predictor to row, and the figures' arrays, of group to record."""
  groups = [records[group] for group in GROUPS]
  record, pool = Record(*map(np.concatenate, zip(*groups, strict=True))), pool_of(groups)

  def score(defended, logits, choice):
    if choice.name in skipped:
      return None
    view = View(logits[:, None], pool.labels, is_known=pool.is_known, is_member=pool.is_member)
    scores = run_attack(choice, view, published=protocol == "paper")
    return Scored(scores, np.arange(len(scores)))

  choices = [ATTACKS.choose(name) for name in ATTACK_NAMES]
  predictors = fit(records, protocol)
  rows, arrays, scores = audit_predictors(
    predictors, record, pool, choices, score, protocol=protocol
  )
  ran = {name for name in ATTACK_NAMES if name not in skipped}
  assert set(scores) == {score_name(row.name, name) for row in rows for name in ran}
  return {row.name: row for row in rows}, arrays


@pytest.fixture(scope="module")
def paper_rows():
  records = {group: Record(*answers) for group, answers in recorded_answers().items()}
  return audit(records, "paper")[0]


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
    a for a in paper_rows[name].attacks if (a.name, a.threshold) == (attack, "global")
  )
  theirs = PUBLISHED["metrics"][SCENARIOS[name]][attack]
  assert ours.auc.value == pytest.approx(theirs["auc"], abs=1e-9)
  assert ours.accuracy.value == pytest.approx(theirs["accuracy"], abs=1e-9)
  tpr, tnr = ours.tpr_at_fpr[0], ours.tnr_at_fnr[0]
  assert tpr.value == pytest.approx(theirs["tpr_at_0_1pct_fpr"], abs=1e-9)
  assert tnr.value == pytest.approx(theirs["tnr_at_0_1pct_fnr"], abs=1e-9)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_paper_protocol_gives_the_published_calibration(paper_rows, name):
  theirs = PUBLISHED["metrics"][SCENARIOS[name]]
  # The published confidences are in single precision.
  assert paper_rows[name].ece == pytest.approx(theirs["ece_10bins"], abs=1e-7)
  accuracy = paper_rows[name].test_accuracy.value
  assert accuracy == pytest.approx(theirs["accuracy_nonmembers"], abs=1e-9)


def synthetic_records(leak, num=400, seed=0):
  """Members answer more confidently by `leak`; candidates forget it."""
  rng = np.random.default_rng(seed)
  records = {}
  for group in GROUPS:
    labels = rng.integers(0, 5, num)
    raw = rng.normal(0, 1, (num, 5))
    raw[np.arange(num), labels] += 4.0 + leak * group.endswith("_members")
    candidates = rng.normal(0, 1, (num, 6, 5))
    candidates[np.arange(num), :, labels] += 4.0
    records[group] = Record(raw.astype(np.float32), candidates.astype(np.float32), labels)
  return records


def test_a_leak_is_seen_and_a_defense_that_forgets_it_removes_it():
  rows, arrays = audit(synthetic_records(leak=3.0))
  assert rows["undefended"].highest_auc.low > 0.8
  assert rows["scenario 3"].highest_auc.value < 0.6
  assert rows["scenario 3"].highest_auc.relative_change < -0.25
  for name, row in rows.items():
    assert row.label_changes == 0 or name == "average"
    gap = 0.5 + (row.member_accuracy.value - row.test_accuracy.value) / 2
    assert row.gap.value == pytest.approx(gap, abs=1e-12)
    assert row.excess >= 0.0
    assert row.excess == row.highest_auc.value - row.gap.value
    # The figures are of the target samples, and of the attack with the highest AUC.
    assert (
      arrays[f"{name}/phi_members"].shape == arrays[f"{name}/phi_nonmembers"].shape == (400,)
    )
    area = np.trapezoid(arrays[f"{name}/tpr"], arrays[f"{name}/fpr"])
    assert area == pytest.approx(row.highest_auc.value, abs=1e-9)


def test_the_highest_figures_are_those_of_an_attack_and_compared_with_no_defense():
  rows, _ = audit(synthetic_records(leak=1.0))
  for name, row in rows.items():
    best = max(row.attacks, key=lambda own: own.auc.value)
    highest = row.highest_auc
    assert (highest.attack, highest.title, highest.threshold) == (
      best.name,
      best.title,
      best.threshold,
    )
    assert (highest.value, highest.low, highest.high) == best.auc
    for at, rate in enumerate(row.highest_tpr_at_fpr):
      assert rate.value == max(own.tpr_at_fpr[at].value for own in row.attacks)
    before = rows["undefended"].highest_accuracy.value
    change = row.highest_accuracy.relative_change
    if name == "undefended":
      assert change is None
    else:
      assert change == pytest.approx(row.highest_accuracy.value / before - 1.0)


def test_without_a_leak_every_attack_is_a_coin():
  for row in audit(synthetic_records(leak=0.0))[0].values():
    for attack in row.attacks:
      assert attack.auc.low < 0.52 and attack.auc.high > 0.48, attack.name


def test_an_attack_that_was_not_run_has_no_row():
  rows, _ = audit(synthetic_records(leak=1.0), skipped=("loss",))
  for row in rows.values():
    assert {own.name for own in row.attacks} == set(ATTACK_NAMES) - {"loss"}


def test_intervals_are_fitted_on_known_samples_only():
  records = synthetic_records(leak=1.0)
  before = {own.name: own.policy.interval for own in fit(records)}
  for group in ("target_members", "target_nonmembers"):
    records[group] = records[group]._replace(candidates=3.0 * records[group].candidates)
  # What rows report is that of the policies.
  after = {name: row.interval for name, row in audit(records)[0].items()}
  assert before == after and before["scenario 3"] is None
  assert before["scenario 1"] is not None and before["scenario 2"] is not None


def test_rows_are_plain_in_a_file_and_come_back():
  rows, _ = audit(synthetic_records(leak=1.0, num=60))
  for row in rows.values():
    plain = to_plain(row)
    assert type(plain) is dict and type(plain["highest_auc"]) is dict
    assert from_plain(PredictorRow, plain) == row
  with pytest.raises(ValueError, match="other fields than expected: ece"):
    from_plain(PredictorRow, {k: v for k, v in plain.items() if k != "ece"})


def test_a_policy_that_breaks_its_word_is_noticed():
  raw = np.eye(3, dtype=np.float32)

  def warn_of(function, keeps_labels):
    policy = AggregatePolicy(function, keeps_labels=keeps_labels)
    defended = Defended(Predictor("mine", POLICIES.choose("average")), policy)
    rows._warn_of_changed_labels(defended, np.asarray(policy.answer(raw[:, None], raw)), raw)

  with warnings.catch_warnings():
    warnings.simplefilter("error")
    warn_of(lambda candidates, raw: -raw, keeps_labels=False)
    warn_of(lambda candidates, raw: 2 * raw, keeps_labels=True)
  with pytest.warns(
    UserWarning, match="'average' declares that it keeps labels, and changed 3"
  ):
    warn_of(lambda candidates, raw: -raw, keeps_labels=True)
