"""The HTML page: complete, self-contained, escaped, reproducible; and the files written."""

import base64
import json
import re

import pytest
from page_reader import Page
from report_example import NAMES, STAGES, make_arrays, make_results

from diffence_jax.report import finding, write_report
from diffence_jax.report.page import render_page


@pytest.fixture(scope="module")
def rendered():
  return render_page(make_results(), make_arrays(), STAGES)


def test_page_tells_everything(rendered):
  page = Page(rendered)
  assert finding(make_results()) in page.text
  for expected in (
    *NAMES, "Threat model", "Gap floor", "fewer than 10 expected false positives", "seed 0",
    "0123456789abcdef", "31.4", "cached", "jax 0.10.2", '"num_candidates": 30', "0.25%",
    "phi in [1.250, 4.500]", "at 1.00%, 4 of 400", "neither the defender's interval",
  ):  # fmt: skip
    assert expected in page.text
  details = [tag for tag, _ in page.tags].count("details")
  assert details == len(NAMES) + 1


def test_every_figure_is_embedded_and_described(rendered):
  images = [attributes for tag, attributes in Page(rendered).tags if tag == "img"]
  assert len(images) == 5
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
  assert all(link.startswith("data:") for link in linked)
  assert not re.search(r"https?://|@import|url\(", rendered)


def test_figures_follow_the_colour_scheme(rendered):
  encoded = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", rendered)
  for svg in map(base64.b64decode, encoded):
    assert b"prefers-color-scheme:dark" in svg
    assert b"var(--ink)" in svg


def test_hostile_names_are_escaped():
  hostile = "<script>alert('x')</script>"
  results = make_results(experiment=hostile, settings={"path": hostile}, device=hostile)
  results["predictors"][1]["name"] = hostile
  names = [row["name"] for row in results["predictors"]]
  page = Page(render_page(results, make_arrays(names), STAGES))
  assert "script" not in {tag for tag, _ in page.tags}
  assert page.text.count(hostile) >= 4


def test_page_is_the_same_every_time(rendered):
  assert render_page(make_results(), make_arrays(), STAGES) == rendered


def test_published_protocol_is_said_to_be_for_comparison_only():
  text = Page(render_page(make_results(protocol="paper"), make_arrays(), STAGES)).text
  assert "for comparison with published ones only" in text
  assert "neither the defender's interval" not in text


def test_report_writes_its_three_files_and_nothing_else(tmp_path):
  results = make_results()
  (tmp_path / "report.html").write_text("old")
  write_report(results, make_arrays(), STAGES, tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {"results.json", "results.csv", "report.html"}
  text = (tmp_path / "results.json").read_text()
  assert text.endswith("}\n")
  assert json.loads(text) == results
  assert (tmp_path / "report.html").read_text() == render_page(results, make_arrays(), STAGES)


def test_a_failed_report_leaves_the_old_page(tmp_path, monkeypatch):
  (tmp_path / "report.html").write_text("old")
  arrays = make_arrays()
  del arrays["images/samples"]
  with pytest.raises(KeyError):
    write_report(make_results(), arrays, STAGES, tmp_path)
  assert (tmp_path / "report.html").read_text() == "old"
