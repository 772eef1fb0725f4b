"""What shadow models show, in one sentence."""

import dataclasses

import pytest
from report_example import (
  MORE,
  changed,
  estimate,
  with_aucs,
  with_shadow,
  with_shadow_aucs,
)

from diffence_jax.metrics import Estimate
from diffence_jax.report import format_table, shadow, shadow_rows

_TURN = "With each of 6 shadow models as the target in turn, "
_BETTER = (
  f"{_TURN}scenario 1 takes 24.7% off the AUC of the strongest attack at one query (LiRA "
  "online 0.810 -> 0.610, difference -0.200 [-0.202, -0.198])"
)


def _finding(label_changes=(0, 0, 0, 0, 9), **changes):
  results = with_aucs(label_changes=label_changes)
  return shadow.finding(with_shadow_aucs(results=results, **changes))


def _with_turn(results, predictor, attack, **fields):
  """Other fields of one row about every model in turn, at one query."""
  (found,) = shadow_rows.in_turn(results, predictor=predictor, attack=attack, queries=1)
  rows = (
    dataclasses.replace(row, **fields) if row is found else row
    for row in results.shadow.samples
  )
  return with_shadow(results, samples=tuple(rows))


def test_finding_of_a_gain_and_what_comes_back():
  assert _finding() == (
    f"{_BETTER}; 16 queries get 50% of that back (LiRA online 0.710 [0.706, 0.714])."
  )


@pytest.mark.parametrize(
  ("changes", "end"),
  [
    ({"queries": (1,)}, "repeated queries were not tried."),
    ({"step": -0.01}, "asking up to 16 times gains nothing."),
    ({"step": 0.0}, "asking up to 16 times gains nothing."),
    ({"step": 0.11}, "16 queries get all of that back (LiRA online 0.830 [0.826, 0.834])."),
    (
      {"step": 0.002},
      "16 queries get 2% of that back (LiRA online 0.614 [0.610, 0.618], 95% intervals "
      "overlap).",
    ),
  ],
)
def test_finding_tells_what_more_queries_gain(changes, end):
  assert _finding(**changes) == f"{_BETTER}; {end}"


def test_finding_says_that_a_difference_may_be_chance():
  results = with_shadow_aucs((0.80, 0.76, 0.79, 0.79, 0.79))
  change = Estimate(-0.04, -0.09, 0.01)
  text = shadow.finding(_with_turn(results, "scenario 1", "lira_online", auc_change=change))
  assert "takes 4.9% off" in text
  assert "0.810 -> 0.770, difference -0.040 [-0.090, 0.010], which includes 0)" in text


@pytest.mark.parametrize("best", [0.80, 0.7999, 0.83])
def test_finding_of_no_gain(best):
  text = _finding(aucs=(0.80, best, 0.85, 0.86, 0.87))
  assert text.startswith(
    f"{_TURN}nothing was gained: no defended predictor that keeps the labels lowers the AUC of "
    f"the strongest attack at one query (undefended LiRA online 0.810, best scenario 1 "
    f"{best + MORE:.3f}, difference "
  )
  reached = best + MORE + 0.1
  assert text.endswith(
    f"; 16 queries reach more than one does (LiRA online {reached:.3f} "
    f"[{reached - 0.004:.3f}, {reached + 0.004:.3f}])."
  )


def test_finding_is_about_predictors_that_keep_labels():
  aucs = (0.80, 0.60, 0.64, 0.63, 0.55)
  assert "scenario 1 takes" in _finding(aucs=aucs)
  assert "average takes" in _finding(aucs=aucs, label_changes=(0, 1, 1, 1, 1))


def test_finding_names_an_attack_that_reaches_more_on_the_predictor():
  auc = estimate(0.63, 0.01)
  text = shadow.finding(_with_turn(with_shadow_aucs(), "scenario 1", "rmia_offline", auc=auc))
  assert text.startswith(f"{_BETTER[:-1]}; RMIA offline 0.630); 16 queries get 50% of that")


def test_finding_follows_the_attack_that_is_strongest_undefended():
  auc = estimate(0.84, 0.01)
  text = shadow.finding(_with_turn(with_shadow_aucs(), "undefended", "rmia_online", auc=auc))
  assert "(RMIA online 0.840 -> 0.590, " in text
  assert "16 queries get 50% of what is taken off LiRA online back (LiRA online 0.710" in text


def test_an_audit_without_policies_has_a_finding():
  kinds = ("adaptive", "samples", "canaries", "vulnerability", "epsilon")
  results = with_shadow_aucs()
  own = {
    kind: tuple(r for r in getattr(results.shadow, kind) if r.predictor == "undefended")
    for kind in kinds
  }
  reused = {"undefended": results.shadow.reused["undefended"]}
  results = with_shadow(results, **own, reused=reused)
  results = changed(results, predictors=results.predictors[:1])
  assert shadow.finding(results) == (
    "No policy was audited; with each of 6 shadow models as the target in turn, the strongest "
    "attack at one query is LiRA online 0.810."
  )
  assert format_table(results).endswith(shadow.finding(results))
  assert shadow.REPEATED_TITLE not in format_table(results)
