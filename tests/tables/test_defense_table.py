"""The table of defenses: its figures, and the same in text, CSV, HTML and LaTeX."""

import base64
import csv
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from defense_example import FACTS, make_cells
from report.page_reader import Page

from diffence_jax.report.summary import SMOKE
from diffence_jax.tables.defense_figures import privacy_utility
from diffence_jax.tables.defense_rows import aggregate, average
from diffence_jax.tables.defense_table import (
  format_defense_table,
  write_defense_table,
)
from diffence_jax.tables.published import DEFENSES, published


def _write(folder, cells, title="digits & more"):
  write_defense_table(title, cells, FACTS, folder)
  return {suffix: (folder / f"defense_table.{suffix}").read_text() for suffix in
          ("txt", "csv", "html", "tex", "json")}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  return _write(tmp_path_factory.mktemp("table"), make_cells())


def _words(text):
  return " ".join(text.split())


def _lines(text, panel):
  """The figures of one table of the text, by defense; the paper's by "paper of" a defense."""
  _, _, after = text.partition(f"\n{panel}\n")
  # The rule under the headings begins the lines, an empty line ends them.
  _, *lines = re.search(r"^-[- ]+\n(?:.+\n)+", after, re.MULTILINE).group().splitlines()
  found, last = {}, ""
  for line in lines:
    if line.startswith("  paper"):
      found[f"paper of {last}"] = line.split()[1:]
    elif not line.startswith(" "):
      last = line.split("  ")[0]
      found[last] = line[len(last) :].split()
  return found


def _column(rows, defense, name):
  return next(row for row in rows if row["defense"] == defense)["columns"][name]


def test_mean_over_seeds_with_the_least_and_the_most_of_them():
  rows = aggregate(make_cells())
  auc = _column(rows, "undefended", "alone")["highest_auc"]
  assert [auc[key] for key in ("value", "low", "high")] == pytest.approx([0.75, 0.74, 0.76])
  assert [(seed["seed"], seed["value"]) for seed in auc["seeds"]] == [(0, 0.74), (1, 0.76)]
  defended = _column(rows, "undefended", "scenario 1")["highest_auc"]
  assert defended["relative_change"] == pytest.approx(0.59 / 0.75 - 1)


def test_one_seed_has_its_own_interval():
  auc = _column(aggregate(make_cells(seeds=(1,))), "selena", "alone")["highest_auc"]
  assert [auc[key] for key in ("value", "low", "high")] == pytest.approx([0.62, 0.58, 0.66])


def test_several_seeds_are_compared_by_a_paired_t_interval():
  # Differences of -0.12 and -0.16: mean -0.14, standard error 0.02, t quantile 12.7062.
  difference = _column(aggregate(make_cells()), "undefended", "scenario 2")["difference"]
  assert difference["value"] == pytest.approx(-0.14)
  assert difference["low"] == pytest.approx(-0.14 - 12.7062 * 0.02, abs=1e-5)
  assert difference["high"] == pytest.approx(-0.14 + 12.7062 * 0.02, abs=1e-5)


def test_one_seed_is_compared_by_the_ends_of_both_intervals():
  rows = aggregate(make_cells(seeds=(0,)))
  difference = _column(rows, "undefended", "scenario 1")["difference"]
  found = [difference[key] for key in ("value", "low", "high")]
  assert found == pytest.approx([-0.16, -0.24, -0.08])
  assert _column(rows, "undefended", "scenario 1")["verdict"] == "below"
  assert _column(rows, "selena", "scenario 1")["verdict"] == "below, within the interval"
  assert _column(rows, "selena", "scenario 3")["verdict"] == "not below, within the interval"


def test_verdicts_over_several_seeds():
  rows = aggregate(make_cells())
  verdicts = [_column(rows, "selena", f"scenario {i}")["verdict"] for i in (1, 2, 3)]
  assert verdicts == ["below", "not below, within the interval", "above"]
  assert _column(rows, "undefended", "scenario 2")["verdict"] == "below, within the interval"


def test_no_difference_is_not_below():
  cells = make_cells()
  for cell in cells:
    cell["predictors"][1]["highest_auc"] = cell["predictors"][0]["highest_auc"]
  column = _column(aggregate(cells), "selena", "scenario 1")
  assert column["difference"]["value"] == 0.0
  assert column["verdict"] == "not below, within the interval"


def test_accuracy_is_compared_with_the_undefended_classifier_of_the_same_seed():
  rows = aggregate(make_cells())
  delta = _column(rows, "selena", "alone")["accuracy_delta"]
  assert delta["value"] == pytest.approx(-0.025)
  assert [seed["value"] for seed in delta["seeds"]] == pytest.approx([-0.02, -0.03])
  # Standard error 0.005.
  assert delta["low"] == pytest.approx(-0.025 - 12.7062 * 0.005, abs=1e-6)
  assert _column(rows, "undefended", "alone")["accuracy_delta"]["low"] is None


def test_seed_that_a_defense_does_not_have_is_left_out_of_its_comparison():
  cells = [c for c in make_cells() if (c["defense"], c["seed"]) != ("selena", 0)]
  row = next(row for row in aggregate(cells) if row["defense"] == "selena")
  assert row["seeds"] == [1]
  assert row["columns"]["alone"]["accuracy_delta"]["value"] == pytest.approx(-0.03)
  assert row["training_ratio"] == pytest.approx(216 / 12)
  text = _words(format_defense_table("t", cells))
  assert "of one seed: its 95% interval; of 2 seeds: the least and the most" in text


def test_cell_that_is_there_twice_is_refused():
  with pytest.raises(ValueError, match="'undefended' is there twice for seed 0"):
    aggregate([*make_cells(), make_cells()[0]])


def test_average_is_the_mean_of_figures_and_of_changes():
  column = average(aggregate(make_cells()))["columns"]["scenario 1"]["highest_auc"]
  assert column["value"] == pytest.approx((0.59 + 0.56 + 0.61) / 3)
  changes = [0.59 / 0.75 - 1, 0.56 / 0.61 - 1, 0.61 / 0.71 - 1]
  assert column["relative_change"] == pytest.approx(sum(changes) / 3)


def test_text_shows_highest_auc_accuracy_and_the_papers_figures(written):
  rows = _lines(written["txt"], "Highest attack AUC")
  assert rows["undefended"] == [
    "96.5%", "+0.0", "0.750", "0.590", "-21.3%", "0.610~", "-18.7%", "0.620", "-17.3%"
  ]  # fmt: skip
  assert rows["SELENA"] == [
    "94.0%", "-2.5", "0.610", "0.560", "-8.2%", "0.615!", "+0.8%", "0.630!!", "+3.3%"
  ]  # fmt: skip
  assert rows["paper of SELENA"] == [
    "-2.13", "0.622", "0.560", "-10.0%", "0.603", "-3.1%", "0.578", "-7.1%"
  ]  # fmt: skip
  assert "paper of 50% & $_own" not in rows
  assert "paper of mean" not in rows
  assert rows["mean"][2:5] == ["0.690", "0.587", "-14.5%"]
  assert "[-8.9, 3.9]" in written["txt"]


def test_text_shows_the_other_figures(written):
  rows = _lines(written["txt"], "Highest attack accuracy")
  assert rows["undefended"] == [
    "0.700", "0.572", "-18.3%", "0.588", "-16.0%", "0.596", "-14.9%"
  ]  # fmt: skip
  assert rows["paper of undefended"][:3] == ["0.777", "0.654", "-15.8%"]
  rates = _lines(written["txt"], "Highest TPR at 1% FPR")
  assert rates["SELENA"] == ["21.0%", "17.0%", "13.0%", "9.0%"]
  low = _lines(written["txt"], "Highest TPR at 0.1% FPR")
  assert low["SELENA"] == ["2.0%*"] * 4
  ece = _lines(written["txt"], "Expected calibration error")
  assert ece["SELENA"] == ["0.025", "0.027", "0.029", "0.031"]
  assert ece["paper of undefended"] == ["0.139", "0.142", "0.126", "0.131"]
  assert "paper of SELENA" not in ece


def test_text_shows_what_a_defense_costs(written):
  rows = _lines(written["txt"], "Cost")
  assert rows["undefended"] == ["11.0", "1.0x", "0.50", "1.0x", "9.00", "18x"]
  assert rows["SELENA"] == ["198.0", "18x", "0.40", "0.8x"]
  assert rows["50% & $_own"] == ["16.5", "1.5x"]
  assert "epsilon" not in written["txt"]


def test_the_papers_costs_are_beside_ours(written):
  rows = _lines(written["txt"], "Cost")
  # 81.5 ms are 3.26 times 25 ms, 10.9 hours 18.2 times 0.6.
  assert " ".join(rows["paper of undefended"]) == "0.6 h 1.0x 24 to 26 1.0x 81 to 82 3.3x"
  assert rows["paper of SELENA"] == ["10.9", "h", "18x"]
  assert "paper of 50% & $_own" not in rows
  assert "milliseconds on an RTX-8000; only the ratios compare" in _words(written["txt"])
  page = Page(written["html"]).text
  assert "paper 10.9 h 18x" in page and "paper 0.139 0.142 0.126 0.131" in page
  assert r"\quad paper & 10.9 h & 18x &  &  &  &  \\" in written["tex"]
  assert r"\quad paper & 0.139 & 0.142 & 0.126 & 0.131 \\" in written["tex"]


def test_a_defense_without_published_training_has_its_inference_beside_it():
  cells = make_cells()
  for cell in cells[1::3]:
    cell["defense"] = "memguard"
  rows = _lines(format_defense_table("t", cells), "Cost")
  # The middle of 586 and 732 ms is 26.4 times 25 ms.
  assert " ".join(rows["paper of SELENA"]) == "586 to 732 26x"
  for cell in cells[1::3]:
    cell["defense"] = "hamp"
  ece = _lines(format_defense_table("t", cells), "Expected calibration error")
  assert ece["paper of SELENA"] == ["0.448"]


def test_epsilon_is_shown_where_there_is_one(tmp_path):
  cells = make_cells()
  for cell in cells[2::3]:
    cell |= {"epsilon": {"epsilon": 12.5 + cell["seed"], "delta": 1e-5}}
  texts = _write(tmp_path, cells)
  rows = _lines(texts["txt"], "Cost")
  assert rows["50% & $_own"] == ["16.5", "1.5x", "13", "(1e-05)"]
  assert rows["SELENA"] == ["198.0", "18x", "0.40", "0.8x"]
  lines = list(csv.DictReader(texts["csv"].splitlines()))
  found = [(row["seed"], row["epsilon"]) for row in lines if row["column"] == "alone"]
  assert found[-3:] == [("0", "12.5"), ("1", "13.5"), ("all", "13.0")]


def test_unknown_times_are_left_blank():
  cells = make_cells()
  for cell in cells:
    cell["train_seconds"] = None
  rows = _lines(format_defense_table("t", cells), "Cost")
  assert rows["undefended"] == ["0.50", "1.0x", "9.00", "18x"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_text_is_ascii_and_fits_a_terminal_of_120_columns(seeds):
  cells = make_cells(seeds=seeds)
  for cell in cells[1::3]:
    cell["title"] = "confidence penalty"
  text = format_defense_table("digits", cells)
  assert max(map(len, text.splitlines())) <= 120
  assert text.isascii()


def test_text_is_as_narrow_as_the_terminal():
  text = format_defense_table("digits", make_cells(), 80)
  assert max(map(len, text.splitlines())) <= 80
  wide = format_defense_table("digits", make_cells())
  # The same figures, wherever they stand.
  assert set(re.findall(r"\d\.\d{3}", text)) == set(re.findall(r"\d\.\d{3}", wide))


def test_a_table_of_smoke_runs_says_so_and_has_no_headline(tmp_path):
  cells = [{**cell, "caution": SMOKE} for cell in make_cells()]
  texts = _write(tmp_path, cells)
  record = json.loads(texts["json"])
  assert (record["caution"], record["finding"]) == (SMOKE, "")
  words = _words(texts["txt"])
  assert words.startswith(SMOKE) and words.endswith(SMOKE)
  page = Page(texts["html"])
  assert page.text.startswith("SMOKE RUN: digits & more") and SMOKE in page.text
  assert "warning" in [attributes.get("class") for _, attributes in page.tags]
  assert _words(texts["tex"]).count(SMOKE) == 2
  assert not any("On average over" in text for text in texts.values())


def test_a_rise_is_red(written):
  # SELENA in scenario 3.
  assert '<span class="change worse">+3.3%</span>' in written["html"]
  assert '<span class="change">-21.3%</span>' in written["html"]


def test_a_defense_that_has_learnt_nothing_leaves_the_headline(tmp_path):
  cells = [{**cell, "caution": "nothing"} if cell["defense"] == "own" else cell
           for cell in make_cells()]  # fmt: skip
  assert json.loads(_write(tmp_path, cells)["json"])["finding"].startswith("On average over")


@pytest.mark.parametrize(("seeds", "marks"), [((0,), {"~", "!"}), ((0, 1), {"~", "!", "!!"})])
def test_only_marks_that_are_there_are_explained(seeds, marks):
  lines = format_defense_table("t", make_cells(seeds=seeds)).splitlines()
  explained = {line.split()[0] for line in lines if "highest AUC" in line}
  assert explained & {"~", "!", "!!"} == marks


def test_notes_say_what_the_error_bars_are():
  one = _words(format_defense_table("t", make_cells(seeds=(0,))))
  several = _words(format_defense_table("t", make_cells()))
  assert "of one seed: its 95% interval" in one
  assert "both 95% intervals against each other" in one
  assert "seeds: the least" not in one
  assert "of 2 seeds: the least and the most of them, not a confidence interval" in several
  assert "paired differences with its 95% t-interval" in several
  assert "of one seed" not in several


def test_rates_of_large_samples_are_not_marked():
  text = format_defense_table("t", make_cells(enough=(True, True)))
  assert "*" not in text
  assert _lines(text, "Highest TPR at 0.1% FPR")["SELENA"] == ["2.0%"] * 4


def test_label_changes_are_shown(tmp_path, written):
  assert "labels changed  none\n" in written["txt"]
  assert _words(written["txt"]).endswith("; it changes no label.")
  texts = _write(tmp_path, make_cells(label_changes=(2, 0, 6, 0)))
  note = (
    "SELENA, alone: 4 of 2,400 labels (0.17%), accuracy delta -2.50 pp; "
    "SELENA, scenario 2: 12 of 2,400 labels (0.50%), accuracy delta -2.50 pp"
  )
  assert note in _words(texts["txt"])
  assert note in Page(texts["html"]).text
  # Of the scenarios only: 3 defenses, 3 scenarios, 2 seeds of 1,200 labels.
  assert _words(texts["txt"]).endswith("; it changes 12 of 21,600 labels (0.06%).")


def test_finding_names_the_worst_case(written):
  finding = _words(written["txt"].rpartition("\n\n")[2])
  assert finding == (
    "On average over 3 defenses, undefended included, Diffence changes the highest attack AUC "
    "by -14.5% / -8.1% / -7.0% in scenarios 1 / 2 / 3; the worst case is SELENA in scenario 3, "
    "0.610 -> 0.630 (+3.3%, difference +0.020 [0.020, 0.020]); it leaves a higher AUC than the "
    "defense alone in 2 of 9 cases, in 1 of them beyond the interval; it changes no label."
  )
  assert finding in Page(written["html"]).text
  assert json.loads(written["json"])["finding"] == finding


def test_finding_and_table_of_the_undefended_classifier_only():
  text = format_defense_table("t", make_cells()[::3])
  assert _words(text.rpartition("\n\n")[2]) == (
    "On undefended, Diffence changes the highest attack AUC by -21.3% / -18.7% / -17.3% in "
    "scenarios 1 / 2 / 3; the worst case is undefended in scenario 3, 0.750 -> 0.620 (-17.3%, "
    "difference -0.130 [-0.130, -0.130]); it changes no label."
  )
  assert "mean" not in _lines(text, "Highest attack AUC")


def test_csv_has_all_seeds_and_their_mean(written):
  lines = list(csv.DictReader(written["csv"].splitlines()))
  assert len(lines) == 3 * 4 * 3
  assert all(None not in line and None not in line.values() for line in lines)
  found = [
    line for line in lines if (line["defense"], line["column"]) == ("selena", "scenario 1")
  ]
  assert [line["seed"] for line in found] == ["0", "1", "all"]
  assert [float(line["highest_auc"]) for line in found] == pytest.approx([0.55, 0.57, 0.56])
  assert [float(line["highest_auc_low"]) for line in found] == pytest.approx([0.51, 0.53, 0.55])
  assert [line["highest_auc_attack"] for line in found[:2]] == ["lira_online", "rmia_online"]
  assert [float(line["accuracy_delta"]) for line in found] == pytest.approx(
    [-0.02, -0.03, -0.025]
  )
  assert [float(line["highest_tpr_at_fpr_0.01"]) for line in found] == pytest.approx(
    [0.16, 0.18, 0.17]
  )
  assert [float(line["train_seconds"]) for line in found] == [180.0, 216.0, 198.0]
  last = found[-1]
  assert (last["verdict"], last["training_ratio"]) == ("below", "18.0")
  assert float(last["published_auc"]) == pytest.approx(0.56)
  assert float(last["published_accuracy"]) == pytest.approx(0.5523)
  assert float(last["published_train_hours"]) == 10.9
  assert float(last["published_training_ratio"]) == pytest.approx(10.9 / 0.6)
  assert (last["published_ece"], last["published_inference_ms_alone_low"]) == ("", "")
  assert (found[0]["verdict"], found[0]["published_auc"]) == ("", "")
  assert found[0]["published_train_hours"] == ""
  (bare,) = [
    line
    for line in lines
    if [line[name] for name in ("defense", "column", "seed")]
    == ["undefended", "scenario 3", "all"]
  ]
  published = {name: bare[f"published_{name}"] for name in (
    "ece", "inference_ms_alone_low", "inference_ms_alone_high", "inference_ms_diffence_low",
    "inference_ms_diffence_high", "inference_alone_ratio", "inference_ratio",
  )}  # fmt: skip
  assert list(map(float, published.values())) == [0.131, 24.0, 26.0, 81.0, 82.0, 1.0, 3.26]
  own = next(line for line in lines if line["defense"] == "own" and line["seed"] == "all")
  assert (own["published_auc"], own["inference_ms_alone"]) == ("", "")


def test_json_has_rows_and_cells(written):
  record = json.loads(written["json"])
  assert record["cells"] == make_cells()
  assert record["rows"] == json.loads(json.dumps(aggregate(make_cells())))
  assert record["facts"] == [list(fact) for fact in FACTS]


def test_page_tells_everything(written):
  page = Page(written["html"])
  for expected in (
    "digits & more", "2 cores, jax_1 & more", "SELENA", "50% & $_own", "0.630!! +3.3%",
    "0.630!!", "paper -2.13 0.622 0.560 -10.0%", "LiRA online, RMIA online", "2.0%*",
    "198.0 18x", "not a confidence interval",
  ):  # fmt: skip
    assert expected in page.text
  assert [tag for tag, _ in page.tags].count("table") == 8


def test_page_needs_nothing_from_outside(written):
  tags = Page(written["html"]).tags
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
  ((_, image),) = [(tag, a) for tag, a in tags if tag == "img"]
  assert len(image["alt"]) > 20
  svg = base64.b64decode(image["src"].removeprefix("data:image/svg+xml;base64,"))
  assert svg.startswith(b"<svg")
  assert b"prefers-color-scheme:dark" in svg
  assert not re.search(r"https?://|@import|url\(", written["html"])


def test_hostile_names_are_escaped(tmp_path):
  hostile = "<script>alert('x')</script>\\input{x}"
  cells = make_cells()
  for cell in cells[1::3]:
    cell["title"] = hostile
  texts = _write(tmp_path, cells, title=hostile)
  page = Page(texts["html"])
  assert "script" not in {tag for tag, _ in page.tags}
  assert page.text.count(hostile) >= 4
  assert "\\input" not in texts["tex"]
  assert "\\textbackslash{}input\\{x\\}" in texts["tex"]


def test_latex_has_the_figures_of_the_text(written):
  tex = written["tex"]
  assert (
    r"SELENA & 94.0\% & $-$2.5 & 0.610 & 0.560 $-$8.2\% & 0.615! +0.8\% & 0.630!! +3.3\% \\"
  ) in tex
  assert r"undefended & 96.5\% & +0.0 & 0.750 & 0.590 $-$21.3\% & 0.610\textasciitilde{}" in tex
  assert r"\quad paper &  & $-$2.13 & 0.622 & 0.560 $-$10.0\%" in tex
  assert r"{\scriptsize {[}$-$8.9, 3.9]}" in tex
  assert r"2.0\%* & 2.0\%* & 2.0\%* & 2.0\%* \\" in tex


def test_latex_is_well_formed_and_escaped(written):
  tex = written["tex"]
  assert r"50\% \& \$\_own & 97.2\%" in tex
  assert r"\caption{digits \& more: Highest attack AUC}" in tex
  assert r"\item[{machine}] 2 cores, jax\_1 \& more" in tex
  _, body = tex.split("\n", 1)
  unescaped = re.sub(r"\\[&%$#_{}\\]", "", body)
  assert not re.search(r"[%#_~^]", unescaped)
  assert unescaped.count("{") == unescaped.count("}")
  begun, ended = (re.findall(rf"\\{word}{{(\S+?)}}", tex) for word in ("begin", "end"))
  assert sorted(begun) == sorted(ended)
  for table in re.findall(r"\\begin{tabular}{(l+)}(.*?)\\end{tabular}", tex, re.DOTALL):
    columns, content = table
    rows = [line for line in content.splitlines() if line.endswith(r"\\")]
    assert len(rows) > 3
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)}


def test_files_are_the_same_every_time(tmp_path, written):
  assert _write(tmp_path, make_cells()) == written
  assert len(list(tmp_path.iterdir())) == 5


def test_failed_table_leaves_the_old_one(tmp_path):
  (tmp_path / "defense_table.html").write_text("old")
  cells = make_cells()
  # JSON is rendered last.
  cells[-1]["unexpected"] = object()
  with pytest.raises(TypeError, match="not JSON serializable"):
    write_defense_table("t", cells, FACTS, tmp_path)
  assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_plot_names_every_panel_and_defense():
  svg = privacy_utility(aggregate(make_cells()))
  root = ElementTree.fromstring(svg)
  texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]
  names = ["scenario 1", "scenario 2", "scenario 3", "undefended", "SELENA", "50% & $_own"]
  assert [texts.count(name) for name in names] == [1] * len(names)
  assert privacy_utility(aggregate(make_cells())) == svg


@pytest.mark.parametrize(
  ("color", "changes"),
  # The differences in AUC in scenarios 1, 2 and 3 of the first two defenses.
  [("#d55e00", (-0.16, -0.14, -0.13)), ("#0072b2", (-0.05, 0.005, 0.02))],
)
def test_points_of_the_plot_move_by_the_difference_in_auc(color, changes):
  svg = privacy_utility(aggregate(make_cells())).decode()
  place = r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="{}; stroke: {}'
  alone = re.findall(place.format("fill-opacity: 0", color), svg)
  defended = re.findall(place.format(f"fill: {color}", color), svg)[:3]
  assert [y for _, y in alone] == [y for _, y in defended]
  assert len(alone) == 3
  assert len({x for x, _ in alone}) == 1
  moved = [float(b) - float(a) for (a, _), (b, _) in zip(alone, defended, strict=True)]
  # Both defenses are drawn on one scale, so many points an AUC of 1.
  assert [x / _points_an_auc(svg) for x in moved] == pytest.approx(changes, abs=1e-4)
  # An arrow's line, before the two sides of its head, ends a little before each of its points.
  arrow = rf'<path d="M ([\d.]+) [^"]*?([\d.]+) [\d.]+\s*" [^>]*stroke: {color}; stroke-linecap'
  ends = [(float(a), float(b)) for a, b in re.findall(arrow, svg)][::2]
  assert len(ends) == 3
  for (start, stop), (a, _), (b, _) in zip(ends, alone, defended, strict=True):
    assert (start, stop) == (pytest.approx(float(a), abs=4), pytest.approx(float(b), abs=4))


def _points_an_auc(svg):
  """How far 0.1 of AUC is apart on the axis, tenfold, from the labels of two ticks."""
  ticks = re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(0\.\d\d)</text>', svg)
  (x0, first), *_, (x1, last) = ticks
  return (float(x1) - float(x0)) / (float(last) - float(first))


def test_paper_has_four_columns_of_every_defense():
  assert list(DEFENSES) == [
    "undefended", "selena", "advreg", "hamp", "relaxloss", "dpsgd", "memguard"
  ]  # fmt: skip
  assert DEFENSES["dpsgd"].auc == (56.61, 55.47, 58.40, 56.60)
  assert DEFENSES["hamp"].accuracy_delta == -0.23
  hours = [found.train_hours for found in DEFENSES.values()]
  assert hours == [0.6, 10.9, 10.9, 0.8, 0.5, 0.8, None]


def test_what_the_paper_has_not_is_not_made_up():
  assert published("early_stopping") is None
  ratios = ("training_ratio", "inference_alone_ratio", "inference_ratio")
  for name, expected in (
    ("advreg", [pytest.approx(10.9 / 0.6), None, None]),
    ("memguard", [None, pytest.approx(659 / 25), None]),
  ):
    assert [published(name)[ratio] for ratio in ratios] == expected
