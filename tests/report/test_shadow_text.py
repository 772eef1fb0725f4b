"""What shadow models show, as text: the tables and the CSV file."""

import csv
import dataclasses

import pytest
from report_example import (
  NAMES,
  SHADOW_AUCS,
  STAGES,
  changed,
  defended_alone,
  estimate,
  paper_protocol,
  stored,
  stored_arrays,
  with_aucs,
  with_enough,
  with_predictors,
  with_shadow,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.attacks.optimised_queries import OptimisedSettings
from diffence_jax.audit.optimised import SENT, OptimisedRow
from diffence_jax.metrics import Estimate
from diffence_jax.report import (
  finding,
  format_table,
  shadow,
  shadow_canaries,
  shadow_finding,
  shadow_optimised,
  shadow_rows,
)
from diffence_jax.report.cells import rate_cell
from diffence_jax.report.page import render_page


def _text(**changes):
  return "\n".join(shadow.text_lines(with_shadow_aucs(**changes)))


def _words(text):
  return " ".join(text.split())


def _tprs(predictor, queries):
  """The main attack's TPRs over all models in turn at 0.1% and 1%, as the tables have them."""
  wanted = {"predictor": predictor, "attack": "lira_online", "queries": queries}
  (row,) = shadow_rows.in_turn(stored(), **wanted)
  return [f"{100 * rate.value:.1f}%*" for rate in row.tpr_at_fpr]


def _row(text, name):
  return next(line.split() for line in text.splitlines() if line.startswith(name))


def _csv(path):
  with open(path, newline="") as handle:
    return list(csv.DictReader(handle))


def test_without_shadow_models_the_table_is_as_before():
  alone = format_table(without_shadow(with_aucs()))
  assert "shadow" not in alone
  before, _, told = alone.rpartition("\n\n")
  # But for the column of the attack that they choose.
  predictors = without_shadow(with_aucs()).predictors
  text = format_table(changed(with_shadow_aucs(), predictors=predictors))
  assert text == "\n\n".join((before, _text(), told))


def test_the_findings_stand_at_the_end():
  tested = lambda row: dataclasses.replace(row, test_accuracy=estimate(0.9))
  results = changed(with_predictors(with_shadow_aucs(), tested), variant="")
  expected = f"{finding(results)} {shadow_finding.finding(results)}"
  assert _words(format_table(results)).endswith(expected)


def test_table_of_the_target_shows_one_query_and_more():
  text = _text()
  assert _row(text, "undefended") == ["undefended", "0.740", "0.800", "0.780", "-", "-"]
  assert _row(text, "scenario 1")[1:] == [
    "1", "0.580", "-21.6%", "0.600", "-25.0%", "0.580", "-25.6%", "0.650", "0.700"
  ]  # fmt: skip
  assert _row(text, "- near duplicates")[3:] == [
    "0.580", "-27.5%", "0.560", "-28.2%", "0.630", "0.680"
  ]  # fmt: skip
  assert _row(text, "average")[-2:] == ["0.700", "0.750"]
  target = text.split(shadow.MODELS_TITLE)[0]
  assert "[0.660, 0.740]" in target
  assert "back" not in target


def test_table_shows_every_model_in_turn():
  in_turn = _text().split(shadow.MODELS_TITLE)[1]
  assert _row(in_turn, "undefended") == [
    "undefended", "0.810", "0.790", *_tprs("undefended", 1)
  ]  # fmt: skip
  assert _row(in_turn, "scenario 2")[2:] == [
    "0.650", "-0.160", "0.630", *_tprs("scenario 2", 1)
  ]  # fmt: skip
  assert "[-0.162, -0.158]" in in_turn


def test_table_shows_what_more_queries_get_back_over_all_models():
  again = _text().split(shadow.REPEATED_TITLE)[1]
  assert _row(again, "undefended") == ["undefended", "0.810", "-", "-", "-", "-"]
  assert _row(again, "scenario 1")[2:] == [
    "0.610", "0.660", "25%", "back", "0.710", "50%", "back", "0.690", "50%", "back",
    _tprs("scenario 1", 2)[1],
  ]  # fmt: skip
  # 0.05 and 0.10 of the 0.15 that averaging takes off.
  assert _row(again, "average")[1:] == [
    "0.660", "0.710", "33%", "back", "0.760", "67%", "back", "0.740", "67%", "back",
    _tprs("average", 2)[1],
  ]  # fmt: skip
  assert "[0.706, 0.714]" in again
  assert shadow.REPEATED_TITLE not in _text(queries=(1,))


def test_shares_are_of_the_models_in_turn_and_not_of_the_target():
  before = with_shadow_aucs()
  rows = (
    dataclasses.replace(row, auc=Estimate(0.99, 0.98, 1.0)) if row.queries > 1 else row
    for row in before.shadow.adaptive
  )
  results = with_shadow(before, adaptive=tuple(rows))
  assert shadow.repeated_rows(results) == shadow.repeated_rows(before)
  assert shadow_finding.finding(results) == shadow_finding.finding(before)


@pytest.mark.parametrize("step", [-0.1, -0.001, 0.0004, 0.05, 0.2])
@pytest.mark.parametrize("queries", [(1,), (1, 2), (1, 4, 16, 64), (1, 2, 4, 8, 16, 1024)])
def test_block_fits_a_terminal_of_120_columns(queries, step):
  changes = {"num_examples": 1_234_567, "train_size": 617_283}
  text = _text(queries=queries, step=step, **changes)
  assert "*" in text
  assert max(map(len, text.splitlines())) <= 118
  assert text.isascii()


def test_terminal_shows_the_largest_numbers_of_queries_and_the_page_all():
  queries = (1, 2, 4, 8, 16)
  results = with_shadow_aucs(queries=queries)
  shown = [bottom for _, bottom in shadow.target_headings(results, 3)]
  assert shown[4:] == ["k = 4", "k = 8", "k = 16"]
  for most, count in ((3, 3), (None, 4)):
    headings = shadow.target_headings(results, most)
    assert len(headings) == 4 + count
    assert {len(row) for row in shadow.target_rows(results, most)} == {len(headings)}
    headings = shadow.repeated_headings(results, most)
    assert len(headings) == 4 + count
    assert headings[-2][1] == "k = 16"
    assert {len(row) for row in shadow.repeated_rows(results, most)} == {len(headings)}


@pytest.mark.parametrize(
  ("step", "words"),
  [
    (0.3, "all back"),
    (0.21, "all back"),
    (0.19, "95% back"),
    (0.0004, "none back"),
    (0.0, "none back"),
    (-0.1, "none back"),
  ],
)
def test_shares_outside_of_0_and_1_are_words(step, words):
  rows = shadow.repeated_rows(with_shadow_aucs(queries=(1, 4), step=step))
  assert rows[1][0].text == "scenario 1"
  assert rows[1][2].change == rows[1][3].change == words


@pytest.mark.parametrize(("auc", "given"), [(0.78, True), (0.795, False), (0.85, False)])
def test_no_share_of_next_to_nothing(auc, given):
  rows = shadow.repeated_rows(with_shadow_aucs((0.8, auc, 0.6, 0.6, 0.6)))
  assert bool(rows[1][2].change) is given


@pytest.mark.parametrize("enough", [(False, True), (True, True)])
def test_rates_of_too_small_samples_are_marked(enough):
  text = "\n".join(shadow.text_lines(with_enough(enough, with_shadow_aucs())))
  low, high = _tprs("scenario 1", 1)
  marked = [low if not enough[0] else low.rstrip("*"), high.rstrip("*")]
  assert _row(text.split(shadow.MODELS_TITLE)[1], "scenario 1")[-2:] == marked
  assert ("fewer than 10 expected false positives" in text) is (not enough[0])


def test_block_says_what_was_trained_and_asked():
  text = _words(_text())
  assert "6 models, each trained on 50 of 100 samples (the target: 50)" in text
  assert "on the 48 samples that no interval of the defense was fitted to" in text
  assert 'against randomness="per_input"' in text
  assert "4 of them canaries: mislabelled" in text
  assert "every image once, and 4 and 16 times; instead of the same image also near" in text
  assert "canaries" not in _text(num_canaries=0, canaries=())
  assert "times" not in _text(queries=(1,)).split(shadow.TARGET_TITLE)[0]


def test_the_worst_off_stand_kind_by_kind_and_attack_by_attack():
  own = stored().shadow.canaries
  blank = tuple(dataclasses.replace(row, kind="blank") for row in own)
  results = with_shadow(canaries=own + blank)
  assert shadow_canaries.kinds(results) == ("mislabelled", "blank")
  # One of every family, the main one first; thresholds are one.
  names = shadow_canaries.attacks(results)
  families = [next(row.family for row in own if row.attack == name) for name in names]
  assert names[0] == results.shadow.main_attack and len(set(families)) == len(families)
  assert set(families) == {row.family for row in own}
  rows = shadow_canaries.rows(results)
  assert len(rows) == len(NAMES) * len(names)
  for row in rows:
    (source,) = (
      entry for entry in own if (entry.predictor, entry.title) == (row[0].text, row[1].text)
    )
    assert row[2:] == [rate_cell(source.tpr_at_fpr[0])] * 2
  text = "\n".join(shadow.text_lines(results))
  assert "canaries: mislabelled, blank" in _words(text)
  table = text.split("The worst off")[1].split("online  ")[0]
  assert len(shadow_canaries.headings(results)) == 4 and "mislabelled" in table


def with_optimised():
  """Rows of optimised queries, which a smoke run has none of."""
  own = stored().shadow
  optimised = []
  for name in NAMES[:2]:
    (row,) = shadow_rows.in_turn(stored(), predictor=name, attack="lira_online", queries=1)
    for number, sent in enumerate(SENT):
      change = None if number == 0 else estimate(0.1 * number, 0.01)
      for k in (1,) if name == NAMES[0] else (1, 4):
        optimised.append(OptimisedRow(
          name, row.attack, row.title, row.family, sent, k, 8, 6, estimate(0.5 + 0.1 * number),
          change, row.tpr_at_fpr, estimate(0.6),
        ))  # fmt: skip
  settings = {**stored().settings, "optimised": dataclasses.asdict(OptimisedSettings())}
  shadow_results = dataclasses.replace(own, optimised=tuple(optimised))
  return dataclasses.replace(stored(), shadow=shadow_results, settings=settings)


def test_optimised_queries_stand_beside_the_sample(tmp_path):
  results = with_optimised()
  rows = shadow_optimised.rows(results)
  others = [f"- {sent}" for sent in SENT[1:]]
  assert [row[0].text for row in rows] == [NAMES[0], *others, NAMES[1], *others]
  assert rows[0][2].text == "" and rows[1][2].text == "+0.100" and rows[1][2].worse
  assert rows[2][4].text == "-" and rows[5][4].text == "0.700"
  text = "\n".join(shadow.text_lines(results))
  assert shadow_optimised.TITLE in text and "For 8 target samples" in _words(text)
  assert "AUC, k = 4" in " ".join(map(" ".join, shadow_optimised.headings(results)))
  shadow.write_csv(results, tmp_path / "shadow.csv")
  written = [row for row in _csv(tmp_path / "shadow.csv") if row["table"] == "optimised"]
  assert len(written) == len(results.shadow.optimised)
  assert written[1]["sent"] == SENT[1] and written[1]["auc_change"] == "0.1"
  assert shadow_optimised.TITLE not in _text()
  page = render_page(results, stored_arrays(), STAGES)
  assert "For 8 samples it sends" in _words(page)
  assert shadow_optimised.TITLE in page and "through one re-generation" in page


def test_published_protocol_judges_all_samples_in_turn():
  text = _words("\n".join(shadow.text_lines(paper_protocol())))
  assert "each of them, on all 48 samples, with all others" in text
  assert "fitted to" not in text


def test_answers_that_are_used_again_are_told():
  reused = {name: {"target": 0.0, "shadow": 0.0} for name in NAMES}
  assert "independent" not in _text(reused=reused)
  reused["scenario 2"] = {"target": 0.125, "shadow": 0.25}
  text = _words(_text(reused=reused))
  assert "12.5% of the images on the target and 25.0% on shadow models" in text
  assert "for 16 independent queries" in text


def test_recovered_share_of_nothing_is_none():
  auc = estimate
  share = shadow_rows.recovered_share
  assert share(auc(0.7), auc(0.6), auc(0.8)) == pytest.approx(0.5)
  assert share(auc(0.5), auc(0.6), auc(0.8)) == pytest.approx(-0.5)
  assert share(auc(0.7), auc(0.6), auc(0.605)) is None


def test_sizes_of_all_models_in_turn():
  # 6 models, each a member's of 24 of 48 samples.
  assert shadow_rows.pooled_sizes(stored()) == (144, 144)
  assert shadow_rows.judged_samples(stored()) == 48


def test_csv_has_the_rows_about_the_worst_case(tmp_path):
  own = stored().shadow
  shadow.write_csv(stored(), tmp_path / "shadow.csv")
  rows = {}
  for row in _csv(tmp_path / "shadow.csv"):
    rows.setdefault(row["table"], []).append(row)
  sources = {"chosen": own.chosen, "named": own.named, "single_examples": own.vulnerability}
  for table, expected in (*sources.items(), ("epsilon", own.epsilon)):
    assert [row["predictor"] for row in rows[table]] == list(NAMES)
    assert len(expected) == len(NAMES)
  assert float(rows["chosen"][1]["auc_high"]) == own.chosen[1].auc.high
  assert float(rows["named"][2]["at_0.05_surely"]) == own.named[2].at["0.05"].surely
  found = float(rows["single_examples"][0]["auc_quantiles_0.99_by_chance"])
  assert found == own.vulnerability[0].auc_quantiles["0.99"].by_chance
  assert float(rows["epsilon"][3]["first_gaussian"]) == own.epsilon[3].first_gaussian


def test_csv_has_every_row_of_three_tables(tmp_path):
  results = stored()
  shadow.write_csv(results, tmp_path / "shadow.csv")
  tables = ("adaptive", "leave_one_out", "canaries")
  rows = [row for row in _csv(tmp_path / "shadow.csv") if row["table"] in tables]
  sizes = {name: sum(row["table"] == name for row in rows) for name in tables}
  own = results.shadow
  assert list(sizes.values()) == [
    len(rows) for rows in (own.adaptive, own.samples, own.canaries)
  ]
  assert len(rows) == sum(sizes.values())
  assert all(None not in row and None not in row.values() for row in rows)
  sources = (*own.adaptive, *own.samples, *own.canaries)
  for row, source in zip(rows, sources, strict=True):
    for name in ("predictor", "attack", "title", "family"):
      assert row[name] == getattr(source, name)
    assert int(row["queries"]) == source.queries
    assert (row["experiment"], row["seed"], row["protocol"]) == ("digits", "0", "disjoint")
    assert float(row["auc"]) == source.auc.value
    assert float(row["auc_low"]) == source.auc.low
    assert int(row["tpr_at_fpr_0.01_count"]) == source.tpr_at_fpr[1].count
    # What a table does not have is left empty.
    for name in ("inputs", "shadow_models", "num_models", "kind"):
      assert row[name] == str(getattr(source, name, ""))
    change = getattr(source, "auc_change", None)
    assert row["auc_change"] == (str(change.value) if change else "")
    assert row["auc_change_high"] == (str(change.high) if change else "")


def test_tables_of_a_run_have_its_own_figures():
  text = "\n".join(shadow.text_lines(stored()))
  target, in_turn = text.split(shadow.MODELS_TITLE)
  in_turn, again = in_turn.split(shadow.REPEATED_TITLE)
  for name in NAMES:
    aucs = {}
    for attack in ("lira_online", "rmia_online"):
      for k in (1, 2):
        wanted = {"predictor": name, "attack": attack, "queries": k}
        for row in shadow_rows.adaptive(
          stored(), **wanted, inputs="same", shadow_models="defended"
        ):
          aucs["target", attack, k] = f"{row.auc.value:.3f}"
        for row in shadow_rows.in_turn(stored(), **wanted):
          aucs["turn", attack, k] = f"{row.auc.value:.3f}"
    asked = name != "undefended"
    assert len(aucs) == (8 if asked else 4)
    figures = [word for word in _row(target, name) if word.count(".") == 1 and "%" not in word]
    assert figures[1:3] == [aucs["target", a, 1] for a in ("lira_online", "rmia_online")]
    assert figures[3:] == ([aucs["target", "lira_online", 2]] if asked else [])
    shown = _row(in_turn, name)
    assert aucs["turn", "lira_online", 1] in shown and aucs["turn", "rmia_online", 1] in shown
    assert shown[-2:] == _tprs(name, 1)
    if asked:
      shown = _row(again, name)
      assert {aucs["turn", "lira_online", 2], aucs["turn", "rmia_online", 2]} <= set(shown)
      assert shown[-1] == _tprs(name, 2)[1]


def test_a_classifier_that_is_defended_already_is_compared_with_itself():
  results = defended_alone()
  assert shadow.model_headings(results)[2] == ("difference to", "alone")
  assert dict(shadow.notes(results))["+x% or -x%"] == "change relative to alone"
  assert "undefended" not in "\n".join(shadow.text_lines(results))
  same = [[cell.text for cell in row][1:] for row in shadow.model_rows(results)]
  assert same == [[cell.text for cell in row][1:] for row in shadow.model_rows(stored())]


def test_without_threshold_attacks_the_target_has_no_column_of_them():
  def without(row):
    kept = tuple(attack for attack in row.attacks if attack.family != "thresholds")
    return dataclasses.replace(row, attacks=kept)

  results = with_shadow_aucs()
  results = changed(results, predictors=tuple(map(without, results.predictors)))
  headings, before = (shadow.target_headings(own) for own in (results, with_shadow_aucs()))
  assert headings == [before[0], *before[2:]] and before[1] == ("best threshold", "attack")
  rows = zip(shadow.target_rows(results), shadow.target_rows(with_shadow_aucs()), strict=True)
  for row, full in rows:
    assert row == [full[0], *full[2:]]
  assert _row(format_table(results).split(shadow.TARGET_TITLE)[1], "undefended")[1] == (
    f"{SHADOW_AUCS[0]:.3f}"
  )
