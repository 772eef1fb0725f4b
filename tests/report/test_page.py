"""The HTML page: complete, self-contained, escaped, reproducible; and the files written."""

import base64
import re

import pytest
from page_reader import Page
from report_example import (
  NAMES,
  STAGES,
  changed,
  paper_protocol,
  renamed,
  renamed_arrays,
  stored,
  stored_arrays,
  without_shadow,
)

from diffence_jax.report import finding, read_results, write_report
from diffence_jax.report.page import render_page, render_private_page


@pytest.fixture(scope="module")
def rendered():
  return render_page(without_shadow(), stored_arrays(), STAGES)


def test_page_tells_everything(rendered):
  page, results = Page(rendered), without_shadow()
  assert finding(results) in page.text
  defended = results.predictors[1]
  low, high = defended.interval
  best = defended.highest_auc
  (row,) = [a for a in defended.attacks if (a.name, a.threshold) == (best.attack, "global")]
  threshold = best.threshold.replace("_", " ")
  rate, auc = row.tnr_at_fnr[1], row.auc
  for expected in (
    *NAMES, "Threat model", "Gap floor", "fewer than 10 expected false positives", "seed 0",
    "0123456789abcdef", "31.4", "cached", f"jax {results.versions['jax']}",
    '"num_candidates": 3', f"{100 * defended.returned_raw:.2f}% of the queries got the raw",
    f"by {100 * defended.labels_kept:.1f}% of the candidates",
    f"phi in [{low:.3f}, {high:.3f}]", "neither the defender's interval",
    f"at {100 * rate.realised:.2f}%, {rate.count} of {rate.num}",
    f"highest: {best.title}, {threshold} threshold, AUC {best.value:.3f}",
    f"{row.title} global {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]",
    "LiRA online, variance per example",
  ):  # fmt: skip
    assert expected in page.text
  details = [tag for tag, _ in page.tags].count("details")
  assert details == 2 * len(NAMES) + 1


def test_attacks_stand_under_their_family(rendered):
  _, *sections = Page(rendered).text.split("Every attack")[1].split("highest: ")
  families = ("label only", "thresholds", "LiRA", "RMIA", "trained on known samples")
  for row, section in zip(without_shadow().predictors, sections, strict=True):
    for attack in row.attacks:
      assert attack.family in families and f" {attack.family} " in section
      words = f" {attack.title} {attack.threshold.replace('_', ' ')} {attack.auc.value:.3f} "
      assert words in section


def test_every_figure_is_embedded_and_described(rendered):
  images = [attributes for tag, attributes in Page(rendered).tags if tag == "img"]
  assert len(images) == 4
  for attributes in images:
    assert len(attributes["alt"]) > 20
    kind, content = re.fullmatch(
      r"data:image/(svg\+xml|png);base64,(.*)", attributes["src"]
    ).groups()
    magic = b"<svg" if kind == "svg+xml" else b"\x89PNG"
    assert base64.b64decode(content).startswith(magic)


def test_page_needs_nothing_from_outside(rendered):
  tags = Page(rendered).tags
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
  linked = [a[name] for _, a in tags for name in ("src", "href", "srcset") if name in a]
  assert all(link.startswith(("data:", "#")) for link in linked)
  assert not re.search(r"https?://|@import|url\(", rendered)


@pytest.mark.parametrize("results", [stored(), without_shadow()])
def test_contents_lead_to_every_part_and_keys_reach_all_that_scrolls(results):
  tags = Page(render_page(results, stored_arrays(), STAGES)).tags
  links = [a["href"] for tag, a in tags if tag == "a"]
  names = [a["id"] for _, a in tags if "id" in a]
  assert links == [f"#{name}" for name in names] and len(set(names)) == len(names)
  assert len(names) == (17 if results.shadow else 12)
  scrolled = [a for tag, a in tags if a.get("class") == "scroll" or tag == "pre"]
  assert len([tag for tag, _ in tags if tag == "table"]) == len(scrolled) - 1
  for attributes in scrolled:
    assert attributes["tabindex"] == "0" and attributes["role"] == "region"
    assert attributes["aria-label"]


def test_what_is_closed_prints_and_no_column_is_cut(rendered):
  _, printed = rendered.split("@media print {")
  printed = printed.split("</style>")[0]
  assert "details::details-content { content-visibility: visible;" in printed
  assert ".scroll, pre { overflow: visible; }" in printed
  # The cards of a narrow screen are not for paper, which is as narrow.
  assert "@media screen and (max-width" in rendered and "@media (max-width" not in rendered
  assert "@page { size: A4;" in rendered


def test_figures_follow_the_colour_scheme(rendered):
  encoded = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", rendered)
  assert len(encoded) == 3
  for svg in map(base64.b64decode, encoded):
    assert b"prefers-color-scheme:dark" in svg
    assert b"var(--ink)" in svg


def test_hostile_names_are_escaped():
  hostile = "<script>alert('x')</script>"
  results = without_shadow(renamed("scenario 1", hostile))
  results = changed(results, experiment=hostile, settings={"path": hostile}, device=hostile)
  arrays = renamed_arrays("scenario 1", hostile)
  page = Page(render_page(results, arrays, STAGES))
  assert "script" not in {tag for tag, _ in page.tags}
  assert page.text.count(hostile) >= 4
  private = Page(render_private_page(results, arrays))
  assert "script" not in {tag for tag, _ in private.tags}
  assert private.text.count(hostile) == 2


def test_page_is_the_same_every_time(rendered):
  assert render_page(without_shadow(), stored_arrays(), STAGES) == rendered


def test_published_protocol_is_said_to_be_for_comparison_only():
  text = Page(render_page(without_shadow(paper_protocol()), stored_arrays(), STAGES)).text
  assert "for comparison with published ones only" in text
  assert "neither the defender's interval" not in text


def test_report_writes_its_five_files_and_nothing_else(tmp_path):
  results, arrays = without_shadow(), stored_arrays()
  (tmp_path / "report.html").write_text("old")
  write_report(results, arrays, STAGES, tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {
    "results.json", "results.csv", "curves.npz", "report.html", "private.html"
  }  # fmt: skip
  assert (tmp_path / "results.json").read_text().endswith("}\n")
  assert read_results(tmp_path / "results.json") == results
  assert (tmp_path / "report.html").read_text() == render_page(results, arrays, STAGES)
  assert (tmp_path / "private.html").read_text() == render_private_page(results, arrays)


@pytest.mark.parametrize("missing", ["images/samples", "images/raw"])
def test_a_failed_report_leaves_the_old_pages(tmp_path, missing):
  for name in ("report.html", "private.html"):
    (tmp_path / name).write_text("old")
  arrays = stored_arrays()
  del arrays[missing]
  with pytest.raises(KeyError):
    write_report(without_shadow(), arrays, STAGES, tmp_path)
  assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
    "report.html": "old", "private.html": "old"
  }  # fmt: skip
