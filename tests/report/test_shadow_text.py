"""What shadow models show, as text: tables, the finding in one sentence, and the CSV file."""

import csv

import pytest
from report_example import MORE, NAMES, make_results, make_shadow

from diffence_jax.report import finding, format_table, shadow, shadow_rows

_TURN = "With each of 64 shadow models as the target in turn, "
_BETTER = (
  f"{_TURN}scenario 1 takes 24.7% off the AUC of the strongest attack at one query (LiRA "
  "online 0.810 -> 0.610, difference -0.200 [-0.202, -0.198])"
)


def _text(**changes):
  return "\n".join(shadow.text_lines(make_results(shadow=make_shadow(**changes))))


def _finding(label_changes=(0, 0, 0, 0, 9), **changes):
  return shadow.finding(
    make_results(label_changes=label_changes, shadow=make_shadow(**changes))
  )


def _row(text, name):
  return next(line.split() for line in text.splitlines() if line.startswith(name))


def _csv(path):
  with open(path, newline="") as handle:
    return list(csv.DictReader(handle))


def test_without_shadow_models_the_table_is_as_before():
  alone = format_table(make_results())
  assert alone == format_table(make_results(shadow=None))
  assert "shadow" not in alone
  text = format_table(make_results(shadow=make_shadow()))
  assert text == alone + "\n\n" + _text()
  assert finding(make_results()) in text


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
  assert _row(in_turn, "undefended") == ["undefended", "0.810", "0.790", "2.0%", "20.0%"]
  assert _row(in_turn, "scenario 2")[2:] == ["0.650", "-0.160", "0.630", "2.0%", "20.0%"]
  assert "[-0.162, -0.158]" in in_turn


def test_table_shows_what_more_queries_get_back_over_all_models():
  again = _text().split(shadow.REPEATED_TITLE)[1]
  assert _row(again, "undefended") == ["undefended", "0.810", "-", "-", "-", "-"]
  assert _row(again, "scenario 1")[2:] == [
    "0.610", "0.660", "25%", "back", "0.710", "50%", "back", "0.690", "50%", "back", "20.0%"
  ]  # fmt: skip
  # 0.05 and 0.10 of the 0.15 that averaging takes off.
  assert _row(again, "average")[1:] == [
    "0.660", "0.710", "33%", "back", "0.760", "67%", "back", "0.740", "67%", "back", "20.0%"
  ]  # fmt: skip
  assert "[0.706, 0.714]" in again
  assert shadow.REPEATED_TITLE not in _text(queries=(1,))


def test_shares_are_of_the_models_in_turn_and_not_of_the_target():
  changed = make_shadow()
  for row in changed["adaptive"]:
    if row["queries"] > 1:
      row["auc"] = {"value": 0.99, "low": 0.98, "high": 1.0}
  results = make_results(shadow=changed)
  before = make_results(shadow=make_shadow())
  assert shadow.repeated_rows(results) == shadow.repeated_rows(before)
  assert shadow.finding(results) == shadow.finding(before)


@pytest.mark.parametrize("step", [-0.1, -0.001, 0.0004, 0.05, 0.2])
@pytest.mark.parametrize("queries", [(1,), (1, 2), (1, 4, 16, 64), (1, 2, 4, 8, 16, 1024)])
def test_block_fits_a_terminal_of_120_columns(queries, step):
  changes = {"num_examples": 1_234_567, "train_size": 617_283}
  text = _text(queries=queries, step=step, enough=(False, False), **changes)
  *lines, sentence = text.splitlines()
  assert max(map(len, lines)) <= 118
  assert text.isascii()
  assert sentence.endswith(".")


def test_terminal_shows_the_largest_numbers_of_queries_and_the_page_all():
  queries = (1, 2, 4, 8, 16)
  results = make_results(shadow=make_shadow(queries=queries))
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
  rows = shadow.repeated_rows(make_results(shadow=make_shadow(queries=(1, 4), step=step)))
  assert rows[1][0].text == "scenario 1"
  assert rows[1][2].change == rows[1][3].change == words


@pytest.mark.parametrize(("auc", "given"), [(0.78, True), (0.795, False), (0.85, False)])
def test_no_share_of_next_to_nothing(auc, given):
  rows = shadow.repeated_rows(make_results(shadow=make_shadow(aucs=(0.8, auc, 0.6, 0.6, 0.6))))
  assert bool(rows[1][2].change) is given


@pytest.mark.parametrize("enough", [(False, True), (True, True)])
def test_rates_of_too_small_samples_are_marked(enough):
  text = _text(enough=enough)
  assert ("2.0%*" in text) is (not enough[0])
  assert ("fewer than 10 expected false positives" in text) is (not enough[0])


def test_block_says_what_was_trained_and_asked():
  text = " ".join(_text().split())
  assert "64 models, each trained on 310 of 620 samples (the target: 310)" in text
  assert "on the 300 samples that no interval of the defense was fitted to" in text
  assert 'against randomness="per_input"' in text
  assert "20 of them canaries" in text
  assert "every image once, and 4 and 16 times; instead of the same image also near" in text
  assert "canaries" not in _text(num_canaries=0)
  assert "times" not in _text(queries=(1,)).split(shadow.TARGET_TITLE)[0]


def test_published_protocol_judges_all_samples_in_turn():
  results = make_results(shadow=make_shadow(), protocol="paper")
  text = " ".join("\n".join(shadow.text_lines(results)).split())
  assert "each of them, on all 300 samples, with all others" in text
  assert "fitted to" not in text


def test_answers_that_are_used_again_are_told():
  assert "independent" not in _text()
  reused = {name: {"target": 0.0, "shadow": 0.0} for name in NAMES}
  reused["scenario 2"] = {"target": 0.125, "shadow": 0.25}
  text = " ".join(_text(reused=reused).split())
  assert "12.5% of the images on the target and 25.0% on shadow models" in text
  assert "for 16 independent queries" in text


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
  changed = make_shadow(aucs=(0.80, 0.76, 0.79, 0.79, 0.79))
  (row,) = shadow_rows.in_turn(
    {"shadow": changed}, predictor="scenario 1", attack="lira_online", queries=1
  )
  row["auc_change"] = {"value": -0.04, "low": -0.09, "high": 0.01}
  text = shadow.finding(make_results(shadow=changed))
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
  changed = make_shadow()
  found = {"shadow": changed}
  (row,) = shadow_rows.in_turn(found, predictor="scenario 1", attack="rmia_offline", queries=1)
  row["auc"] = {"value": 0.63, "low": 0.62, "high": 0.64}
  text = shadow.finding(make_results(shadow=changed))
  assert text.startswith(f"{_BETTER[:-1]}; RMIA offline 0.630); 16 queries get 50% of that")


def test_finding_follows_the_attack_that_is_strongest_undefended():
  changed = make_shadow()
  (row,) = shadow_rows.in_turn(
    {"shadow": changed}, predictor="undefended", attack="rmia_online", queries=1
  )
  row["auc"] = {"value": 0.84, "low": 0.83, "high": 0.85}
  text = shadow.finding(make_results(shadow=changed))
  assert "(RMIA online 0.840 -> 0.590, " in text
  assert "16 queries get 50% of what is taken off LiRA online back (LiRA online 0.710" in text


def test_recovered_share_of_nothing_is_none():
  auc = lambda value: {"value": value}
  share = shadow_rows.recovered_share
  assert share(auc(0.7), auc(0.6), auc(0.8)) == pytest.approx(0.5)
  assert share(auc(0.5), auc(0.6), auc(0.8)) == pytest.approx(-0.5)
  assert share(auc(0.7), auc(0.6), auc(0.605)) is None


def test_sizes_of_all_models_in_turn():
  results = make_results(shadow=make_shadow())
  assert shadow_rows.pooled_sizes(results) == (9_600, 9_600)
  assert shadow_rows.judged_samples(results) == 300


def test_csv_has_every_row_of_three_tables(tmp_path):
  results = make_results(shadow=make_shadow())
  shadow.write_csv(results, tmp_path / "shadow.csv")
  rows = _csv(tmp_path / "shadow.csv")
  sizes = {name: sum(row["table"] == name for row in rows) for name in
           ("adaptive", "leave_one_out", "canaries")}  # fmt: skip
  own = results["shadow"]
  assert list(sizes.values()) == [len(own[key]) for key in ("adaptive", "samples", "canaries")]
  assert len(rows) == sum(sizes.values())
  assert all(None not in row and None not in row.values() for row in rows)
  in_turn = [row for row in rows if row["table"] == "leave_one_out"]
  for row, source in zip(in_turn, own["samples"], strict=True):
    auc = source["auc"]["value"]
    assert float(row["auc"]) == auc
    assert float(row["auc_low"]) == pytest.approx(auc - 0.004)
    assert (row["attack"], int(row["queries"])) == (source["attack"], source["queries"])
    assert row["inputs"] == row["shadow_models"] == ""
    assert (row["num_models"], row["tpr_at_fpr_0.01_count"]) == ("64", "96")
    change = source.get("auc_change")
    assert row["auc_change"] == (str(change["value"]) if change else "")
  first, last = own["adaptive"][0], own["adaptive"][-1]
  for row, source in ((rows[0], first), (rows[len(own["adaptive"]) - 1], last)):
    for name in ("predictor", "attack", "inputs", "shadow_models"):
      assert row[name] == source[name]
    assert int(row["queries"]) == source["queries"]
    assert (row["experiment"], row["seed"], row["num_models"]) == ("digits", "0", "")
