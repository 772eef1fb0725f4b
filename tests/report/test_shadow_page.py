"""The page of an audit with shadow models, and the files written with it."""

import base64
import dataclasses
import re

import pytest
from page_reader import Page
from report_example import (
  NAMES,
  STAGES,
  changed,
  defended_alone,
  estimate,
  mapped,
  renamed,
  renamed_arrays,
  stored,
  stored_arrays,
  with_enough,
  with_predictors,
  with_shadow,
  with_shadow_aucs,
  without_shadow,
)

from diffence_jax.audit.worst_off import EpsilonRow
from diffence_jax.report import shadow, shadow_canaries, shadow_finding, write_report
from diffence_jax.report.page import render_page


def _results(**changes):
  """Round figures, other bounds than none, rates that are not marked."""
  results = mapped(with_enough((True, True), with_shadow_aucs()), EpsilonRow, _bounds)
  return with_shadow(results, **changes)


def _bounds(row):
  bounds = {"lowest": 0.125, "highest": 1.5, "first_fdp": 0.375, "first_gaussian": 2.25}
  return dataclasses.replace(row, first=0.25, **bounds)


def _render(results=None):
  return render_page(results or _results(), stored_arrays(), STAGES)


@pytest.fixture(scope="module")
def rendered():
  return _render()


def test_page_tells_everything_that_shadow_models_show(rendered):
  page, own = Page(rendered), stored().shadow
  assert "guesses" not in page.text  # of a smoke run
  rate = own.samples[-1].tpr_at_fpr[1]
  extreme = own.vulnerability[0].auc_quantiles["0.99"]
  named, chosen = own.named[0].at["0.1"], own.chosen[0]
  for expected in (
    shadow.TARGET_TITLE, shadow.MODELS_TITLE, shadow.REPEATED_TITLE,
    "6 models, each trained on 50 of 100 samples", "LiRA online k = 16", "50% back",
    "- near duplicates", f"at {100 * rate.realised:.2f}%, {rate.count} of {rate.num}",
    "The same on the canaries", "Canaries are 4 samples", shadow_canaries.title(stored()),
    "mislabelled, with a wrong label, fitted only by memorising them.", "99% quantile",
    f"{extreme.value:.3f} chance {extreme.by_chance:.3f}",
    f"{named.named:,.1f} {named.false_share:.1%} {named.surely:,.1f}", "FDR 10%",
    f"{chosen.attacks[0].title} ({chosen.attacks[0].num_models} of 6",
    f"{chosen.auc.value:.3f}",
    "not a guarantee", "over 4 runs", "0.250", "0.125", "1.500", "0.375", "2.250",
    "not themselves bounds at 95%",
    "leaks through the diffusion model itself", "favours the attacker slightly",
    "Only the 48 samples", "other pairs of models and other samples",
    "With 6 models they are too narrow", 'randomness="per_input"',
  ):  # fmt: skip
    assert expected in page.text
  details = [tag for tag, _ in page.tags].count("details")
  # Thrice every predictor, all models in turn, the canaries, and the settings.
  assert details == 3 * len(NAMES) + 3


def test_page_has_the_finding_of_a_classifier_that_has_learnt():
  tested = lambda row: dataclasses.replace(row, test_accuracy=estimate(0.9))
  results = changed(with_predictors(_results(), tested), variant="")
  assert shadow_finding.finding(results) in Page(_render(results)).text


def test_what_is_worse_behind_a_defense_is_red():
  page = _render(with_shadow_aucs((0.80, 0.88, 0.64, 0.80, 0.65)))
  assert '<span class="change worse">+10.0%</span>' in page
  assert '<span class="change">-20.0%</span>' in page
  # The difference over all models in turn.
  assert '+0.080<span class="change worse">worse</span>' in page
  assert '<span class="change">+0.0%</span>' in page


def test_every_figure_is_embedded_described_and_follows_the_colour_scheme(rendered):
  images = [attributes for tag, attributes in Page(rendered).tags if tag == "img"]
  assert len(images) == 6
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
  assert all(link.startswith(("data:", "#")) for link in linked)
  assert not re.search(r"https?://|@import|url\(", rendered)
  assert _render() == rendered


def test_threat_model_says_what_is_covered(rendered):
  threat = Page(rendered).text.split("Threat model")[1].split("How to read it")[0]
  assert "trained 6 classifiers of its own" in threat
  assert "up to 16 times" in threat
  assert "near-duplicates of the image" in threat
  assert "Not covered" not in threat

  once = Page(_render(with_shadow_aucs(queries=(1,)))).text
  once = once.split("Threat model")[1].split("How to read it")[0]
  assert "trained 6 classifiers of its own" in once
  assert "Not covered in this run: each image is sent once" in once

  text = Page(_render(without_shadow())).text
  assert "Not covered in this run: attacks that train shadow models" in text
  assert ":audit" in text
  assert "Attacks with shadow models" not in text


def test_page_without_repeated_queries_has_no_plot_of_them():
  page = Page(_render(with_shadow_aucs(queries=(1,))))
  assert [tag for tag, _ in page.tags].count("img") == 5
  assert "The same query again" not in page.text
  assert shadow.REPEATED_TITLE not in page.text


def test_page_without_near_duplicates_does_not_explain_them():
  same = tuple(row for row in stored().shadow.adaptive if row.inputs == "same")
  settings = {"shadow": {"near_duplicates": False}}
  results = dataclasses.replace(with_shadow(adaptive=same), settings=settings)
  text = Page(_render(results)).text.lower()
  assert "the same query again" in text
  assert "per_input" not in text
  assert "near-duplicate" not in text
  assert "near duplicate" not in text


def test_page_without_canaries_or_bounds():
  text = Page(_render(_results(num_canaries=0, canaries=(), epsilon=()))).text
  assert "The same on the canaries" not in text and "The worst off" not in text
  assert "jax-privacy is not installed" in text


def test_attacks_are_called_what_papers_call_them():
  text = Page(_render(stored())).text
  for title in (
    *(f"highest: {row.highest_auc.title}, " for row in stored().predictors),
    "RMIA online global", "LiRA online, variance per example global",
    "LiRA offline, variance shrunk global",
    "quantile regression global", "HopSkipJump global", "NN global",
    "modified entropy per class",
  ):  # fmt: skip
    assert title in text
  for name in ("lira_online ", "rmia_offline ", "hop_skip_jump ", "modified_entropy "):
    assert name not in text.split("All settings")[0]
  assert "over 19 to 22 attacks" in text


def test_a_classifier_that_is_defended_already_is_compared_with_itself():
  arrays = renamed_arrays("undefended", "alone")
  text = Page(render_page(defended_alone(), arrays, STAGES)).text.split("All settings")[0]
  assert "difference to alone" in text
  assert "change relative to alone" in text
  assert "selena (num_left_out 2, num_teachers 4), alone and under Diffence" in text
  assert "undefended" not in text


def test_hostile_names_are_escaped():
  hostile = "<script>alert('x')</script>"
  results, arrays = (make("scenario 1", hostile) for make in (renamed, renamed_arrays))
  page = Page(render_page(results, arrays, STAGES))
  assert "script" not in {tag for tag, _ in page.tags}
  assert page.text.count(hostile) >= 10


def test_report_writes_the_rows_of_shadow_models(tmp_path):
  write_report(stored(), stored_arrays(), STAGES, tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {
    "results.json", "results.csv", "curves.npz", "shadow.csv", "report.html", "private.html"
  }  # fmt: skip
  own = stored().shadow
  tables = (own.adaptive, own.samples, own.canaries, own.chosen, own.named, own.vulnerability)
  rows = sum(map(len, (*tables, own.epsilon)))
  assert (tmp_path / "shadow.csv").read_text().count("\n") == 1 + rows > 100


def test_report_removes_the_rows_of_an_earlier_run(tmp_path):
  (tmp_path / "shadow.csv").write_text("old")
  write_report(without_shadow(), stored_arrays(), STAGES, tmp_path)
  assert not (tmp_path / "shadow.csv").exists()


def test_a_failed_report_leaves_the_old_rows(tmp_path):
  (tmp_path / "shadow.csv").write_text("old")
  arrays = stored_arrays()
  del arrays["average/loo_low"]
  with pytest.raises(KeyError):
    write_report(stored(), arrays, STAGES, tmp_path)
  assert (tmp_path / "shadow.csv").read_text() == "old"
