"""The page of an audit with shadow models, and the files written with it."""

import base64
import re

import pytest
from page_reader import Page
from report_example import NAMES, STAGES, make_arrays, make_results, make_shadow

from diffence_jax.report import shadow, write_report
from diffence_jax.report.page import render_page


def _render(**changes):
  results = make_results(shadow=make_shadow(**changes))
  return render_page(results, make_arrays(shadow=True), STAGES)


@pytest.fixture(scope="module")
def rendered():
  return _render()


def test_page_tells_everything_that_shadow_models_show(rendered):
  page = Page(rendered)
  assert shadow.finding(make_results(shadow=make_shadow())) in page.text
  for expected in (
    shadow.TARGET_TITLE, shadow.MODELS_TITLE, shadow.REPEATED_TITLE,
    "64 models, each trained on 310 of 620 samples", "LiRA online k = 16", "50% back",
    "- near duplicates", "at 1.00%, 96 of 9600", "The same on the canaries",
    "20 images with a wrong label", "99% quantile", "chance 0.660", "not a guarantee",
    "over 4 runs", "0.250", "0.125", "1.500", "not themselves bounds at 95%",
    "leaks through the diffusion model itself", "favours the attacker slightly",
    "Only the 300 samples", "resample pairs", 'randomness="per_input"',
  ):  # fmt: skip
    assert expected in page.text
  details = [tag for tag, _ in page.tags].count("details")
  # Twice every predictor, all models in turn, the canaries, and the settings.
  assert details == 2 * len(NAMES) + 3


def test_every_figure_is_embedded_described_and_follows_the_colour_scheme(rendered):
  images = [attributes for tag, attributes in Page(rendered).tags if tag == "img"]
  assert len(images) == 7
  for attributes in images:
    assert len(attributes["alt"]) > 20
    assert attributes["src"].startswith("data:image/")
  encoded = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", rendered)
  assert len(encoded) == 5
  for svg in map(base64.b64decode, encoded):
    assert b"prefers-color-scheme:dark" in svg
    assert b"var(--ink)" in svg


def test_page_needs_nothing_from_outside_and_is_the_same_every_time(rendered):
  tags = Page(rendered).tags
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
  linked = [a[name] for _, a in tags for name in ("src", "href", "srcset") if name in a]
  assert all(link.startswith("data:") for link in linked)
  assert not re.search(r"https?://|@import|url\(", rendered)
  assert _render() == rendered


def test_threat_model_says_what_is_covered(rendered):
  threat = Page(rendered).text.split("Threat model")[1].split("How to read it")[0]
  assert "trained 64 classifiers of its own" in threat
  assert "up to 16 times" in threat
  assert "Not covered" not in threat

  once = Page(_render(queries=(1,))).text.split("Threat model")[1].split("How to read it")[0]
  assert "trained 64 classifiers of its own" in once
  assert "Not covered in this run: each image is sent once" in once

  for results in (make_results(), make_results(shadow=None)):
    text = Page(render_page(results, make_arrays(), STAGES)).text
    assert "Not covered in this run: attacks that train shadow models" in text
    assert ":audit" in text
    assert "Attacks with shadow models" not in text


def test_page_without_repeated_queries_has_no_plot_of_them():
  page = Page(_render(queries=(1,)))
  assert [tag for tag, _ in page.tags].count("img") == 6
  assert "The same query again" not in page.text
  assert shadow.REPEATED_TITLE not in page.text


def test_page_without_near_duplicates_does_not_explain_them():
  changed = make_shadow()
  changed["adaptive"] = [r for r in changed["adaptive"] if r["inputs"] == "same"]
  text = Page(
    render_page(make_results(shadow=changed), make_arrays(shadow=True), STAGES)
  ).text.lower()
  assert "the same query again" in text
  assert "per_input" not in text
  assert "near-duplicate" not in text
  assert "near duplicate" not in text


def test_page_without_canaries_or_bounds():
  text = Page(_render(num_canaries=0, canaries=[], epsilon=[])).text
  assert "The same on the canaries" not in text
  assert "jax-privacy is not installed" in text


def test_attacks_are_called_what_papers_call_them():
  results = make_results()
  for row in results["predictors"]:
    attack = {**row["attacks"][0], "name": "lira_online_per_example", "threshold": "global"}
    row["attacks"].append(attack)
    row["highest_auc"]["attack"] = "rmia_offline"
  del results["predictors"][-1]["attacks"][0]
  text = Page(render_page(results, make_arrays(), STAGES)).text
  assert "LiRA online per example" in text
  assert "highest: RMIA offline," in text
  assert "over 5 to 6 attacks" in text


def test_hostile_names_are_escaped():
  hostile = "<script>alert('x')</script>"
  results = make_results(shadow=make_shadow())
  results["predictors"][1]["name"] = hostile
  for key in ("adaptive", "samples", "canaries", "vulnerability", "epsilon"):
    for row in results["shadow"][key]:
      if row["predictor"] == "scenario 1":
        row["predictor"] = hostile
  names = [row["name"] for row in results["predictors"]]
  page = Page(render_page(results, make_arrays(names, shadow=True), STAGES))
  assert "script" not in {tag for tag, _ in page.tags}
  assert page.text.count(hostile) >= 10


def test_report_writes_the_rows_of_shadow_models(tmp_path):
  results = make_results(shadow=make_shadow())
  write_report(results, make_arrays(shadow=True), STAGES, tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {
    "results.json", "results.csv", "shadow.csv", "report.html"
  }  # fmt: skip
  assert (tmp_path / "shadow.csv").read_text().count("\n") > 100


def test_report_removes_the_rows_of_an_earlier_run(tmp_path):
  (tmp_path / "shadow.csv").write_text("old")
  write_report(make_results(shadow=None), make_arrays(), STAGES, tmp_path)
  assert not (tmp_path / "shadow.csv").exists()


def test_a_failed_report_leaves_the_old_rows(tmp_path):
  (tmp_path / "shadow.csv").write_text("old")
  with pytest.raises(KeyError):
    write_report(make_results(shadow=make_shadow()), make_arrays(), STAGES, tmp_path)
  assert (tmp_path / "shadow.csv").read_text() == "old"
