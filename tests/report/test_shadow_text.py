"""What shadow models show, as text: tables, the finding in one sentence, and the CSV file."""

import csv

import pytest
from report_example import NAMES, SHADOW_AUCS, make_results, make_shadow

from diffence_jax.report import finding, format_table, shadow, shadow_rows

_BETTER = (
  "With 64 shadow models, scenario 1 takes 25.0% off the AUC of the strongest attack at one"
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


def test_table_shows_one_query_and_what_more_get_back():
  text = _text()
  assert _row(text, "undefended") == ["undefended", "0.740", "0.800", "0.780", "-", "-"]
  assert _row(text, "scenario 1")[1:] == [
    "1", "0.580", "-21.6%", "0.600", "-25.0%", "0.580", "-25.6%",
    "0.650", "25%", "back", "0.700", "50%", "back",
  ]  # fmt: skip
  # 0.580 at one query, and 0.630 of which 0.030 is above what one query about the image gives.
  assert _row(text, "- near duplicates")[3:] == [
    "0.580", "-27.5%", "0.560", "-28.2%", "0.630", "15%", "back", "0.680", "40%", "back"
  ]  # fmt: skip
  assert _row(text, "average")[-2:] == ["-", "-"]
  assert "[0.560, 0.640]" in text


def test_table_shows_every_model_in_turn():
  in_turn = _text().split(shadow.MODELS_TITLE)[1]
  assert _row(in_turn, "undefended") == ["undefended", "0.800", "0.780", "2.0%", "20.0%"]
  assert _row(in_turn, "scenario 2")[2:] == ["0.640", "-0.160", "0.620", "2.0%", "20.0%"]
  assert "[-0.162, -0.158]" in in_turn


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


@pytest.mark.parametrize(
  ("step", "words"),
  [(0.3, "all back"), (0.2, "all back"), (0.0, "none back"), (-0.1, "none back")],
)
def test_shares_outside_of_0_and_1_are_words(step, words):
  (row,) = (
    row
    for row in shadow.target_rows(make_results(shadow=make_shadow(queries=(1, 4), step=step)))
    if row[0].text == "scenario 1"
  )
  assert row[-1].change == words


@pytest.mark.parametrize(("auc", "given"), [(0.78, True), (0.795, False), (0.85, False)])
def test_no_share_of_next_to_nothing(auc, given):
  rows = shadow.target_rows(make_results(shadow=make_shadow(aucs=(0.8, auc, 0.6, 0.6, 0.6))))
  assert bool(rows[1][-1].change) is given


@pytest.mark.parametrize("enough", [(False, True), (True, True)])
def test_rates_of_too_small_samples_are_marked(enough):
  text = _text(enough=enough)
  assert ("2.0%*" in text) is (not enough[0])
  assert ("fewer than 10 expected false positives" in text) is (not enough[0])


def test_block_says_what_was_trained_and_asked():
  text = " ".join(_text().split())
  assert "64 models, each trained on 310 of 620 samples (the target: 400)" in text
  assert "20 of them canaries" in text
  assert "every image once, and 4 and 16 times; instead of the same image also near" in text
  assert "canaries" not in _text(num_canaries=0)
  assert "times" not in _text(queries=(1,)).split(shadow.TARGET_TITLE)[0]


def test_answers_that_are_used_again_are_told():
  assert "independent" not in _text()
  reused = {name: {"target": 0.0, "shadow": 0.0} for name in NAMES}
  reused["scenario 2"] = {"target": 0.125, "shadow": 0.25}
  text = " ".join(_text(reused=reused).split())
  assert "12.5% of the images on the target and 25.0% on shadow models" in text
  assert "for 16 independent queries" in text


def test_finding_of_a_gain_and_what_comes_back():
  assert _finding() == (
    f"{_BETTER} query (LiRA online 0.800 -> 0.600); 16 queries get 50% of that back (LiRA "
    "online 0.700)."
  )


@pytest.mark.parametrize(
  ("changes", "end"),
  [
    ({"queries": (1,)}, "repeated queries were not tried."),
    ({"step": -0.01}, "asking up to 16 times gains nothing."),
    ({"step": 0.0}, "asking up to 16 times gains nothing."),
    ({"step": 0.1}, "16 queries get all of that back (LiRA online 0.800)."),
    (
      {"step": 0.02},
      "16 queries get 20% of that back (LiRA online 0.640, 95% intervals overlap).",
    ),
  ],
)
def test_finding_tells_what_more_queries_gain(changes, end):
  text = _finding(**changes)
  assert text.startswith(_BETTER)
  assert text.endswith(f"(LiRA online 0.800 -> 0.600); {end}")


def test_finding_names_overlapping_intervals():
  text = _finding(aucs=(0.80, 0.76, 0.79, 0.79, 0.79))
  assert "takes 5.0% off" in text
  assert "(LiRA online 0.800 -> 0.760, 95% intervals overlap)" in text


@pytest.mark.parametrize("best", [0.80, 0.7999, 0.83])
def test_finding_of_no_gain(best):
  text = _finding(aucs=(0.80, best, 0.85, 0.86, 0.87))
  assert text == (
    "Nothing was gained against shadow models: no defended predictor that keeps the labels "
    "lowers the AUC of the strongest attack at one query (undefended LiRA online 0.800, best "
    f"scenario 1 LiRA online {best:.3f}); 16 queries reach more than one does (LiRA online "
    f"{best + 0.1:.3f})."
  )


def test_finding_is_about_predictors_that_keep_labels():
  aucs = (0.80, 0.60, 0.64, 0.63, 0.55)
  assert "scenario 1 takes" in _finding(aucs=aucs)
  assert "average takes" in _finding(aucs=aucs, label_changes=(0, 1, 1, 1, 1))


def test_finding_names_the_attack_and_the_images_that_are_strongest():
  changed = make_shadow()
  for row in changed["adaptive"]:
    same = row["predictor"] == "scenario 1" and row["attack"] == "rmia_offline"
    if same and row["shadow_models"] == "raw" and row["queries"] == 1:
      row["auc"] = {"value": 0.62, "low": 0.58, "high": 0.66}
    if same and row["inputs"] == "near duplicates" and row["queries"] == 4:
      row["auc"] = {"value": 0.71, "low": 0.67, "high": 0.75}
  text = shadow.finding(make_results(shadow=changed))
  assert "(LiRA online 0.800 -> RMIA offline 0.620)" in text
  assert "4 queries about near duplicates get 50% of that back (RMIA offline 0.710)" in text


def test_sizes_of_all_models_in_turn():
  members, nonmembers = shadow_rows.pooled_sizes(make_results(shadow=make_shadow()))
  assert (members, nonmembers) == (64 * 600 - 19_200, 19_200)


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
  for row, auc in zip(
    (row for row in rows if row["table"] == "leave_one_out" and row["attack"] == "lira_online"),
    SHADOW_AUCS,
    strict=True,
  ):
    assert float(row["auc"]) == auc
    assert float(row["auc_low"]) == pytest.approx(auc - 0.004)
    assert row["queries"] == row["inputs"] == row["shadow_models"] == ""
    assert (row["num_models"], row["tpr_at_fpr_0.01_count"]) == ("64", "192")
    expected = "" if row["predictor"] == "undefended" else str(auc - SHADOW_AUCS[0])
    assert row["auc_change"] == expected
  first, last = own["adaptive"][0], own["adaptive"][-1]
  for row, source in ((rows[0], first), (rows[len(own["adaptive"]) - 1], last)):
    for name in ("predictor", "attack", "inputs", "shadow_models"):
      assert row[name] == source[name]
    assert int(row["queries"]) == source["queries"]
    assert (row["experiment"], row["seed"], row["num_models"]) == ("digits", "0", "")
