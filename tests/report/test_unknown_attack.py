"""An attack of a user's own shows wherever one of ours does, whatever it is called."""

import csv
import dataclasses

import pytest
from page_reader import Page
from report_example import (
  NAMES,
  STAGES,
  changed,
  stored,
  stored_arrays,
  with_attack,
  with_predictors,
  with_shadow,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.attacks.attack import declaration_of
from diffence_jax.report import (
  format_table,
  shadow,
  shadow_finding,
  shadow_rows,
  table,
  write_csv,
)
from diffence_jax.report.page import render_page

NAME = "attacks_of_a_user:my_guess"
OWN = """
from diffence_jax.attacks import attack

def my_guess(view):
  return view.labels * 1.0

@attack("Closeness", family="distances", needs=("shadows",))
def closeness(view):
  return view.labels * 1.0
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
  """What a plain function declares, and one with a family of its own."""
  folder = tmp_path_factory.mktemp("own")
  (folder / "attacks_of_a_user.py").write_text(OWN)
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield declaration_of(NAME), declaration_of("attacks_of_a_user:closeness")


@pytest.fixture(scope="module")
def results(declared):
  """With the plain function's attack, which reaches what online RMIA does."""
  plain, _ = declared
  return with_attack(NAME, plain.title, plain.family)


def _page(results):
  return Page(render_page(results, stored_arrays(), STAGES)).text


def _csv(write, results, path):
  write(results, path)
  with open(path, newline="") as handle:
    return list(csv.DictReader(handle))


def test_a_plain_function_is_of_no_family_and_called_by_its_name(declared):
  plain, own = declared
  assert (plain.title, plain.family) == ("my guess", "others")
  assert (own.title, own.family) == ("Closeness", "distances")


def test_it_is_counted_and_can_be_the_strongest(results):
  def strongest(row):
    (own,) = (attack for attack in row.attacks if attack.name == NAME)
    named = {"attack": own.name, "title": own.title, "threshold": own.threshold}
    best = dataclasses.replace(row.highest_auc, **named, **own.auc._asdict())
    return dataclasses.replace(row, highest_auc=best)

  assert "over 20 to 23 attacks" in format_table(results)
  text = _page(with_predictors(results, strongest))
  for row in results.predictors:
    auc = next(attack.auc.value for attack in row.attacks if attack.name == NAME)
    assert f"{row.name} highest: my guess, global threshold, AUC {auc:.3f}" in text


def test_a_note_names_it_where_it_is_judged_on_fewer_samples(results):
  def on_fewer(row):
    *others, own = row.attacks
    fewer = [tuple(rate._replace(num=7) for rate in rates)
             for rates in (own.tpr_at_fpr, own.tnr_at_fnr)]  # fmt: skip
    own = own._replace(tpr_at_fpr=fewer[0], tnr_at_fnr=fewer[1])
    return dataclasses.replace(row, attacks=(*others, own))

  found = with_predictors(without_shadow(results), on_fewer)
  note = dict(table.notes(found))["highest"]
  assert note.endswith("HopSkipJump, my guess on fewer samples, 4 a side")
  assert note in _page(found)


def test_a_note_names_it_where_it_was_not_run():
  found = changed(without_shadow(), left_out={NAME: ("shadow models (shadow.num_models)",)})
  note = f"{NAME}, for want of shadow models (shadow.num_models)"
  assert dict(table.notes(found))["not run"] == note
  assert f"not run {note}" in _page(found)
  assert f"not run      {note}" in format_table(found)


def test_the_page_has_it_among_every_attack(results):
  text = _page(results)
  _, *sections = text.split("Every attack")[1].split("highest: ")
  for row, section in zip(results.predictors, sections, strict=True):
    known, own = (
      next(attack for attack in row.attacks if attack.title == title)
      for title in ("RMIA online", "my guess")
    )
    assert f"RMIA RMIA online global {known.auc.value:.3f}" in section
    assert f" others my guess global {own.auc.value:.3f}" in section
    assert known.auc == own.auc
  assert NAME not in text


def test_the_page_has_it_among_every_attack_with_shadow_models(results):
  _, text = _page(results).split("Every attack with shadow models")
  per_way = len([row for row in results.shadow.adaptive if row.attack == NAME])
  in_turn = len([row for row in results.shadow.samples if row.attack == NAME])
  canaries = len([row for row in results.shadow.canaries if row.attack == NAME])
  assert min(per_way, in_turn, canaries) >= len(NAMES)
  total = per_way + in_turn + canaries
  assert text.count("my guess ") == text.count("RMIA online ") == total


def test_csv_files_have_its_rows(results, tmp_path):
  tables_of = {write_csv: {""}, shadow.write_csv: {"adaptive", "leave_one_out", "canaries"}}
  for write, tables in tables_of.items():
    rows = _csv(write, results, tmp_path / "rows.csv")
    picked = ("highest", "chosen")
    rows = [row for row in rows if not row.get("metric", "").startswith(picked)]
    known = [row for row in rows if row["attack"] == "rmia_online"]
    own = [row for row in rows if row["attack"] == NAME]
    assert {row.get("table", "") for row in own} == tables
    for row, other in zip(own, known, strict=True):
      named = {"attack": NAME, "title": "my guess", "family": "others"}
      assert row == other | {name: value for name, value in named.items() if name in row}


def test_shadow_tables_have_a_column_of_it(results):
  assert shadow_rows.column_attacks(stored()) == {
    "lira_online": "LiRA online", "rmia_online": "RMIA online"
  }  # fmt: skip
  assert shadow_rows.column_attacks(results) == {
    "lira_online": "LiRA online", "rmia_online": "RMIA online", NAME: "my guess"
  }  # fmt: skip
  for headings, rows, known, own in (
    (shadow.target_headings, shadow.target_rows, ("RMIA online", "k = 1"), "k = 1"),
    (shadow.model_headings, shadow.model_rows, ("RMIA online", "AUC"), "AUC"),
    (shadow.repeated_headings, shadow.repeated_rows, ("RMIA online", "k = 2"), "k = 2"),
  ):
    found = headings(results)
    at, like = found.index(("my guess", own)), found.index(known)
    for row in rows(results):
      assert len(row) == len(found)
      assert row[at] == row[like]
    # The same table without it.
    assert [*found[:at], *found[at + 1 :]] == headings(stored())
    assert [[*row[:at], *row[at + 1 :]] for row in rows(results)] == rows(stored())
  text = format_table(results)
  for title in (shadow.TARGET_TITLE, shadow.MODELS_TITLE, shadow.REPEATED_TITLE):
    assert "my guess" in text.split(title)[1].splitlines()[1]
  assert text.isascii()


@pytest.mark.parametrize("queries", [(1,), (1, 2), (1, 2, 4, 8, 16, 1024)])
def test_the_block_still_fits_a_terminal_of_120_columns(queries):
  results = with_attack(NAME, "my guess", "others", with_shadow_aucs(queries=queries))
  lines = shadow.text_lines(results)
  assert max(map(len, lines)) <= 118
  # The largest number of queries is shown, whatever there is room for.
  if len(queries) > 1:
    assert f"k = {queries[-1]}" in "\n".join(lines)


def test_of_a_family_of_its_own_the_first_has_a_column_and_of_no_family_each(declared):
  _, own = declared
  results = with_attack("attacks_of_a_user:closeness", own.title, own.family)
  results = with_attack("attacks_of_a_user:nearness", "Nearness", own.family, results)
  assert list(shadow_rows.column_attacks(results).values()) == [
    "LiRA online", "RMIA online", "Closeness"
  ]  # fmt: skip
  results = with_attack("own:one", "one", "others", results)
  results = with_attack("own:two", "two", "others", results)
  assert list(shadow_rows.column_attacks(results).values()) == [
    "LiRA online", "RMIA online", "Closeness", "one", "two"
  ]  # fmt: skip
  text = _page(results)
  assert text.count(" distances Closeness global ") == len(NAMES)
  assert text.count(" others one global ") == len(NAMES)
  # In the tables of every attack all have their rows.
  assert text.count("Nearness global ") == text.count("two global ") == len(NAMES)


def test_thresholds_have_a_column_together():
  like = next(row for row in stored().shadow.samples if row.family == "thresholds")
  more = dataclasses.replace(like, attack="own:margin", title="margin")
  results = with_shadow(samples=(*stored().shadow.samples, more))
  assert list(shadow_rows.column_attacks(results)) == ["lira_online", "rmia_online"]


def test_it_can_be_the_main_attack(results):
  results = with_attack("own:other", "other", "others", results)
  results = with_shadow(results, main_attack=NAME, main_title="my guess")
  # The others of no family keep their columns.
  assert shadow_rows.column_attacks(results) == {
    NAME: "my guess", "lira_online": "LiRA online", "rmia_online": "RMIA online",
    "own:other": "other",
  }  # fmt: skip
  assert next(iter(shadow_rows.column_attacks(results))) == NAME
  assert "my guess gets " in shadow_finding.finding(results)
  page = _page(results)
  assert "the AUC of my guess between models trained on it and models that were not" in page
  assert "of this attack (my guess) on the first training run" in page
  series = shadow_rows.repeated_series(results)["AUC,\nthe target"]["scenario 1"]["same image"]
  known = shadow_rows.adaptive(
    results,
    predictor="scenario 1",
    attack="rmia_online",
    inputs="same",
    shadow_models="defended",
  )
  assert series == [(row.queries, *row.auc) for row in known]
