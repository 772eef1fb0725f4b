"""The tables about rare members, agreement, naming and choosing, on the stored run."""

import pytest
from report_example import NAMES, stored

from diffence_jax.audit.worst_off import VulnerabilityRow
from diffence_jax.metrics.per_example import Quantile
from diffence_jax.report import worst_off


def test_where_members_are_rare_few_of_those_called_so_are():
  headings, rows = worst_off.precision_headings(stored()), worst_off.precision_rows(stored())
  assert [row[0].text for row in rows] == list(NAMES)
  assert headings[4] == ("1 of 10 is a member,", "FPR 1%")
  for row, predictor in zip(rows, stored().predictors, strict=True):
    assert len(row) == len(headings) == 5
    tpr = predictor.highest_tpr_at_fpr[1].value
    for cell, prior in ((row[2], 0.01), (row[4], 0.1)):
      share = prior * tpr / (prior * tpr + (1 - prior) * 0.01)
      assert float(cell.text.rstrip("*%")) == pytest.approx(100 * share, abs=0.051)


def test_agreement_is_a_share_of_the_members():
  rows = worst_off.agreement_rows(stored())
  for row, own in zip(rows, stored().agreement, strict=True):
    most = max(own.both[at][at] for at in range(len(own.titles)))
    assert row[2].text in own.titles
    assert [cell.text for cell in row[3:]] == [
      f"{100 * count / own.num_members:.1f}%" for count in (most, own.by_any, own.by_half)
    ]
    shares = worst_off.overlaps(own)
    assert all(shares[at][at] in ("100%", "-") for at in range(len(shares)))
    both, either = own.both[0][1], own.both[0][0] + own.both[1][1] - own.both[0][1]
    assert shares[0][1] == (f"{100 * both / either:.0f}%" if either else "-")


def test_every_table_has_a_row_a_predictor_and_a_heading_a_cell():
  own = stored().shadow
  for headings, rows in (
    (worst_off.chosen_headings(own.chosen), worst_off.chosen_rows(own.chosen, own.samples)),
    (worst_off.named_headings(), worst_off.named_rows(own.named)),
    (worst_off.epsilon_headings(), worst_off.epsilon_rows(own.epsilon)),
    (
      worst_off.quantile_headings(own.vulnerability),
      worst_off.quantile_rows(own.vulnerability),
    ),
    (worst_off.agreement_headings(), worst_off.agreement_rows(stored())),
  ):
    assert [row[0].text for row in rows] == list(NAMES)
    assert {len(row) for row in rows} == {len(headings)}


def test_an_interval_that_cannot_be_had_is_not_printed():
  quantiles = {"0.9": Quantile(0.9, 0.8, 0.95, 0.5), "1.0": Quantile(1.0, None, None, 0.75)}
  ((_, ninety, highest),) = worst_off.quantile_rows([VulnerabilityRow("p", 9, quantiles)])
  assert (ninety.text, ninety.below) == ("0.900", "[0.800, 0.950] chance 0.500")
  assert (highest.text, highest.below) == ("1.000", "chance 0.750")
  assert worst_off.quantile_name("0.5") == "median"
  assert worst_off.quantile_name("0.99") == "99% quantile"
