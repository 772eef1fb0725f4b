"""What a reader learns first: three plain sentences, or why there are none."""

import dataclasses

import pytest
from page_reader import Page
from report_example import (
  STAGES,
  changed,
  stored,
  stored_arrays,
  with_aucs,
  with_enough,
  with_predictors,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.report import finding, format_table
from diffence_jax.report.page import render_page
from diffence_jax.report.results import AnswerTime
from diffence_jax.report.summary import SMOKE, caution, sentences


def _words(text):
  return " ".join(text.split())


def _learnt(results=None, **fields):
  """Round figures of a classifier that has learnt, in a run that is no smoke test."""

  def change(row, ece, nll):
    tested = row.test_accuracy._replace(value=0.96, low=0.94, high=0.98)
    return dataclasses.replace(row, test_accuracy=tested, ece=ece, nll=nll)

  results = without_shadow(with_aucs()) if results is None else results
  results = with_predictors(
    results, change, (0.039, 0.03, 0.03, 0.029, 0.03), (0.13, 0.2, 0.2, 0.17, 0.2)
  )
  time = AnswerTime("scenario_3", 24, alone=0.21, defended=12.34)
  return changed(results, **{"variant": "", "answer_time": time, **fields})


def _rates(row, enough, first, second):
  rates = tuple(
    dataclasses.replace(rate, value=value, enough=sure)
    for rate, value, sure in zip(row.highest_tpr_at_fpr, (first, second), enough, strict=True)
  )
  return dataclasses.replace(row, highest_tpr_at_fpr=rates)


def test_three_sentences_what_leaked_what_leaks_and_the_price():
  results = with_predictors(
    _learnt(),
    lambda row, rate: _rates(row, (False, False), 0.01, rate),
    (0.085, 0.03, 0.03, 0.035, 0.03),
  )
  assert sentences(results) == [
    "Of 100 guesses between a member, an image that the classifier was trained on, and a "
    "non-member an attacker gets 74 right without Diffence; 50 is guessing, 58 is what the "
    "labels alone tell.",
    "Behind scenario 3 (the defender knows nobody, and answers with the first re-generation "
    "that keeps the label) the attacker gets 61 right (95% interval 57 to 65); if it may "
    "accuse 1% of the non-members falsely, it finds 3.5% of the members instead of 8.5%, of "
    "too few samples to be sure.",
    "The price: 96.0% of new images are classified rightly (before 96.0%), no label "
    "changes; confidences are off by 2.9 points on average (before 3.9), the log loss is 0.17 "
    "(before 0.13); an answer takes 12 ms (before 0.21).",
  ]
  assert caution(results) == ""
  assert finding(results) == " ".join(sentences(results))


def test_they_are_about_scenario_3_however_good_the_others_are():
  (_, now, _) = sentences(_learnt(without_shadow(with_aucs((0.74, 0.51, 0.62, 0.61, 0.50)))))
  assert "scenario 3" in now and "gets 61 right" in now


def test_without_scenario_3_they_are_about_the_first_policy_of_the_config():
  rows = _learnt().predictors
  results = _learnt(predictors=(rows[0], rows[2], rows[1]))
  assert results.told_of.name == "scenario 2"
  assert "Behind scenario 2 (the defender knows some members only" in finding(results)
  results = _learnt(predictors=(rows[0], rows[4]))
  assert "Behind average the attacker gets 63 right" in finding(results)


def test_scenario_3_as_published_is_scenario_3():
  rows = _learnt().predictors
  published = dataclasses.replace(rows[3], policy="scenario_3_published")
  results = _learnt(predictors=(*rows[:3], published))
  assert results.told_of is results.predictors[3]
  assert "the defender knows nobody" in finding(results)


def test_the_rate_is_at_the_lowest_limit_that_the_samples_are_enough_for():
  for enough, limit in (((True, True), "0.1%"), ((False, True), "1%"), ((False, False), "1%")):
    text = finding(with_enough(enough, _learnt()))
    assert f"if it may accuse {limit} of the non-members" in text
    assert ("too few samples" in text) == (not any(enough))


def _blended(auc, undone):
  """A blend, and what comes out where it is undone."""
  before, _, _, row, *_ = _learnt().predictors

  def named(name, policy, value):
    highest = dataclasses.replace(row.highest_auc, value=value)
    return dataclasses.replace(row, name=name, policy=policy, highest_auc=highest)

  rows = [named("blend", "blend", auc), named("blend, undone", "mean_kept", undone)]
  return _learnt(predictors=(before, *rows[::-1]))


def test_who_knows_the_policy_may_get_more():
  results = _blended(0.57, 0.64)
  assert results.told_of.name == "blend"
  (_, now, _) = sentences(results)
  assert "Behind blend the attacker gets 57 right" in now
  assert now.endswith(
    "; an attacker who knows the policy computes backwards from its answers, and gets 64 right."
  )
  assert "backwards" not in finding(_blended(0.57, 0.57))
  notes = [line for line in format_table(results).splitlines() if line.startswith("blend, un")]
  assert any("what an attacker who knows the policy computes" in line for line in notes)


@pytest.mark.parametrize(
  ("auc", "verdict"),
  [
    (0.65, ") the attacker gets 65 right"),
    (0.70, ") no clear change: the attacker gets 70 right"),
    (0.74, ") nothing was gained: the attacker gets 74 right"),
    (0.80, ") nothing was gained: the attacker gets 80 right"),
  ],
)
def test_what_is_no_clear_gain_is_said_so(auc, verdict):
  results = _learnt(without_shadow(with_aucs((0.74, 0.5, 0.5, auc, 0.5))))
  assert verdict in finding(results)


def test_changed_labels_are_a_price():
  results = _learnt(without_shadow(with_aucs(label_changes=(0, 0, 0, 60, 0))))
  assert "60 of 1,200 labels (5.0%) change" in finding(results)


def test_what_asking_again_gets_is_told_where_it_is_more():
  # Of LiRA online 0.63 at one query, and 0.05 more at 4, twice that at 16.
  assert "; asking 16 times about an image it gets 73 right." in finding(
    _learnt(with_shadow_aucs())
  )
  assert "asking" not in finding(_learnt(with_shadow_aucs(queries=(1,))))
  assert "asking" not in finding(_learnt(with_shadow_aucs(step=-0.02)))


def test_the_published_protocol_is_for_comparison_only():
  first, *_ = sentences(_learnt(protocol="paper"))
  assert first.endswith("published figures only: known samples are among these.")
  assert "published" not in finding(_learnt())


def test_without_policies_there_is_one_sentence():
  results = _learnt(predictors=_learnt().predictors[:1], answer_time=None)
  assert results.told_of is None
  (text,) = sentences(results)
  assert "gets 74 right" in text and text.endswith("No policy was audited.")


def _screen(results):
  """What the page says before its first table, and its title."""
  page = Page(render_page(results, stored_arrays(), STAGES))
  return page.text.split("What was gained")[0], page


def test_the_page_and_the_terminal_begin_and_end_with_them():
  results = _learnt()
  screen, page = _screen(results)
  assert finding(results) in screen
  assert "SMOKE" not in page.text and "warning" not in [a.get("class") for _, a in page.tags]
  text = format_table(results, 80)
  assert _words(text).endswith(finding(results))


@pytest.mark.parametrize("results", [without_shadow(), stored()])
def test_a_smoke_run_says_so_everywhere_and_has_no_headline(results):
  assert results.is_smoke
  screen, page = _screen(results)
  assert SMOKE in screen and screen.startswith("SMOKE RUN: digits, seed 0")
  classes = [attributes.get("class") for _, attributes in page.tags]
  assert "warning" in classes and "finding" not in classes
  assert "guesses" not in page.text
  text = _words(format_table(results))
  assert text.startswith(SMOKE) and text.endswith(SMOKE)
  assert "guesses" not in text


@pytest.mark.parametrize(("low", "is_chance"), [(0.12, True), (0.1201, False)])
def test_a_classifier_that_has_learnt_nothing_has_no_headline(low, is_chance):
  data = dataclasses.replace(stored().data, largest_class=0.12)

  def change(row):
    tested = row.test_accuracy._replace(value=0.15, low=low, high=0.2)
    return dataclasses.replace(row, test_accuracy=tested)

  results = with_predictors(_learnt(data=data), change)
  assert results.is_chance == is_chance
  screen, _ = _screen(results)
  told = (
    "of 100 new images it gets 15 right (95% interval 12 to 20), always giving the most "
    "frequent class 12."
  )
  assert (told in screen) == is_chance
  assert ("guesses" in finding(results)) != is_chance
  assert _words(format_table(results)).startswith("THE CLASSIFIER") == is_chance


def test_worse_figures_are_red_and_others_are_not():
  results = _learnt(without_shadow(with_aucs((0.74, 0.80, 0.62, 0.61, 0.63))))
  page = render_page(results, stored_arrays(), STAGES)
  assert '<span class="change worse">+8.1%</span>' in page
  assert '<span class="change">-16.2%</span>' in page
  # Of the labels that averaging changes; and its text stands in the row.
  assert '9<span class="change worse">worse</span>' in page
  assert "worse" not in page.split('<th scope="row">undefended</th>')[1].split("</tr>")[0]


def test_the_page_explains_every_scenario_beside_the_first_table():
  text = Page(render_page(_learnt(), stored_arrays(), STAGES)).text
  notes = text.split("What was gained, and what it cost")[1].split("What was measured")[0]
  for number, known in ((1, "some members and"), (2, "some members only"), (3, "nobody")):
    assert f"scenario {number} the defender knows {known}" in notes
