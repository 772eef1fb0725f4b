"""What shadow models show, in one sentence."""

import dataclasses

import pytest
from report_example import changed, estimate, with_shadow, with_shadow_aucs

from diffence_jax.metrics import Estimate
from diffence_jax.report import format_table, shadow, shadow_rows
from diffence_jax.report.shadow_finding import finding

_TURN = (
  "With each of 6 shadow models as the target in turn, the strongest attack at one query, LiRA "
  "online, gets 81.0 of 100 guesses right"
)
_BETTER = f"{_TURN} without Diffence and 64.0 behind scenario 3 (AUC -0.170 [-0.172, -0.168])"


def _with_turn(results, predictor, attack, **fields):
  """Other fields of one row about every model in turn, at one query."""
  (found,) = shadow_rows.in_turn(results, predictor=predictor, attack=attack, queries=1)
  rows = (
    dataclasses.replace(row, **fields) if row is found else row
    for row in results.shadow.samples
  )
  return with_shadow(results, samples=tuple(rows))


@pytest.mark.parametrize(
  ("changes", "end"),
  [
    ({}, "asking 16 times LiRA online gets 74.0 instead of 64.0 (59% of the difference to 81.0 "
         "without Diffence)."),
    ({"queries": (1,)}, "repeated queries were not tried."),
    ({"step": -0.01}, "asking up to 16 times gains nothing."),
    ({"step": 0.0}, "asking up to 16 times gains nothing."),
    ({"step": 0.11}, "asking 16 times LiRA online gets 86.0 instead of 64.0 (all of the "
                     "difference to 81.0 without Diffence)."),
    ({"step": 0.002}, "asking 16 times LiRA online gets 64.4 instead of 64.0 (2% of the "
                      "difference to 81.0 without Diffence; 95% intervals overlap)."),
  ],
)  # fmt: skip
def test_what_attacks_get_and_what_more_queries_gain(changes, end):
  assert finding(with_shadow_aucs(**changes)) == f"{_BETTER}; {end}"


def test_it_is_about_scenario_3_however_good_the_others_are():
  aucs = (0.80, 0.50, 0.64, 0.63, 0.51)
  assert finding(with_shadow_aucs(aucs)).startswith(_BETTER)


@pytest.mark.parametrize(
  ("change", "remark"),
  [
    (Estimate(-0.04, -0.09, 0.01), "AUC -0.040 [-0.090, 0.010], which may be chance)"),
    (Estimate(0.04, 0.01, 0.09), "AUC +0.040 [0.010, 0.090], worse than without)"),
    (Estimate(-0.04, -0.09, -0.01), "AUC -0.040 [-0.090, -0.010])"),
  ],
)
def test_what_a_difference_says(change, remark):
  results = _with_turn(with_shadow_aucs(), "scenario 3", "lira_online", auc_change=change)
  assert f"behind scenario 3 ({remark};" in finding(results)


def test_without_a_difference_no_share_of_it_comes_back():
  text = finding(with_shadow_aucs((0.80, 0.60, 0.64, 0.80, 0.65)))
  assert text.endswith("asking 16 times LiRA online gets 91.0 instead of 81.0.")


def test_it_names_an_attack_that_reaches_more_on_the_predictor():
  auc = estimate(0.66, 0.01)
  text = finding(_with_turn(with_shadow_aucs(), "scenario 3", "rmia_offline", auc=auc))
  assert text.startswith(
    f"{_TURN} without Diffence; the strongest behind scenario 3, RMIA offline, gets 66.0, and "
    "LiRA online itself 64.0 (AUC -0.170 [-0.172, -0.168]); asking 16 times LiRA"
  )


def test_it_names_what_an_attacker_gets_who_undoes_the_policy():
  results = with_shadow_aucs()
  (row,) = shadow_rows.in_turn(results, predictor="average", attack="rmia_offline", queries=1)
  undone = dataclasses.replace(row, predictor="scenario 3, undone", auc=estimate(0.66, 0.01))
  text = finding(with_shadow(results, samples=(*results.shadow.samples, undone)))
  assert text.startswith(
    f"{_TURN} without Diffence; the strongest behind scenario 3, RMIA offline, where the "
    "policy is undone, gets 66.0, and LiRA online itself 64.0 (AUC"
  )


def test_it_follows_the_attack_that_is_strongest_undefended():
  auc = estimate(0.84, 0.01)
  text = finding(_with_turn(with_shadow_aucs(), "undefended", "rmia_online", auc=auc))
  assert "at one query, RMIA online, gets 84.0 of 100" in text
  assert "behind scenario 3, LiRA online, gets 64.0, and RMIA online itself 62.0 (" in text
  assert "asking 16 times LiRA online gets 74.0 instead of 64.0" in text


def test_an_audit_without_policies_has_a_finding():
  kinds = ("adaptive", "samples", "canaries", "vulnerability", "epsilon")
  results = with_shadow_aucs()
  own = {
    kind: tuple(r for r in getattr(results.shadow, kind) if r.predictor == "undefended")
    for kind in kinds
  }
  reused = {"undefended": results.shadow.reused["undefended"]}
  results = with_shadow(results, **own, reused=reused)
  results = changed(results, predictors=results.predictors[:1], variant="")
  assert finding(results) == f"{_TURN}; no policy was audited."
  assert shadow.REPEATED_TITLE not in format_table(results)
