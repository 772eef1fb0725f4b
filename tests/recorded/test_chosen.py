"""Audits of records: the attack that shadow models choose is run on the classifier."""

import json

import numpy as np
import pytest
from recorded.test_audit import CLASSES, QUICK, make_record

from diffence_jax.recorded import table
from diffence_jax.recorded.audit import audit
from diffence_jax.recorded.record import read_record
from diffence_jax.recorded.results import SCHEMA, from_content, to_json

NUM = 400


def known_record():
  record = make_record(leak=1.5, num=NUM, num_models=16)
  record["is_known"] = np.random.default_rng(3).random(NUM) < 0.3
  return record


@pytest.fixture(scope="module")
def results():
  """Of a record with a defense that shadow models stand behind, and one without."""
  record = known_record()
  record["defended/halved/logits"] = record["logits"] / 2
  record["defended/halved/shadow_logits"] = record["shadow_logits"] / 2
  told = record["logits"].argmax(axis=1)[:, None]
  record["defended/constant/logits"] = np.where(np.arange(CLASSES) == told, 3.0, 0.0)
  return audit(read_record(record), attacks=QUICK).results


def test_it_is_the_strongest_on_the_shadow_models_behind_the_same_defense(results):
  text = table.format_table(results, 400)
  for row in results.predictors[:2]:
    of_models = [one for one in results.in_turn if one.predictor == row.name]
    best = max(of_models, key=lambda one: one.auc.value)
    wanted = (best.attack, "global")
    (expected,) = [one for one in row.attacks if (one.name, one.threshold) == wanted]
    assert (row.chosen.attack, row.chosen.title) == (expected.name, expected.title)
    assert (row.chosen.value, row.chosen.low, row.chosen.high) == expected.auc
    # Of the main table, which is the first.
    line, *_ = (line for line in text.splitlines() if line.startswith(f"{row.name}  "))
    shown = f"{row.highest_auc.title} {row.chosen.value:.3f}"
    assert shown in " ".join(line.split())
  # Behind it no shadow model answers.
  assert results.predictors[2].chosen is None
  assert "picked on the samples that it is reported on" in " ".join(text.split())


def test_luck_on_the_classifier_does_not_choose_its_attack():
  record = known_record()
  # This one is less sure of its members: what finds those of other models errs.
  record["logits"][np.arange(NUM), record["labels"]] -= 3.0 * record["is_member"]
  row = audit(read_record(record), attacks=QUICK).results.undefended
  found = {one.name: one.auc.value for one in row.attacks if one.threshold == "global"}
  assert row.chosen.attack in ("lira_online", "rmia_online")
  assert row.chosen.value == found[row.chosen.attack] < 0.4
  assert row.highest_auc.value > row.chosen.value
  assert row.highest_auc.attack != row.chosen.attack


def test_without_shadow_models_nothing_is_chosen():
  record = known_record()
  for name in ("shadow_logits", "shadow_membership"):
    del record[name]
  results = audit(read_record(record), attacks=QUICK).results
  assert results.undefended.chosen is None
  assert "other models" not in table.format_table(results, 400)


def test_results_from_before_it_are_read_without(results):
  content = json.loads(to_json(results)) | {"schema": SCHEMA - 1}
  for row in content["predictors"]:
    del row["chosen"]
  found = from_content(content, "results.json")
  assert found.schema == SCHEMA and {row.chosen for row in found.predictors} == {None}
  assert found.in_turn == results.in_turn
  with pytest.raises(
    ValueError, match=f"reads schemas {SCHEMA - 1} and {SCHEMA}. Run diffence audit again"
  ):
    from_content(content | {"schema": SCHEMA - 2}, "results.json")
