"""The tables about the worst case: single examples, whom an attacker can name, epsilon."""

from collections.abc import Sequence

from diffence_jax.audit.agreement import LIMIT, AgreementRow
from diffence_jax.audit.discoveries import LEVELS
from diffence_jax.metrics import Rate, precision
from diffence_jax.metrics.per_example import Quantile
from diffence_jax.report.cells import (
  Cell,
  auc_cell,
  limit_name,
  percent,
  rate_cell,
  rate_headings,
  told_interval,
)
from diffence_jax.report.results import Results

# Of 100, or of 10, one is a member.
PRIORS = (0.01, 0.1)


def quantile_name(quantile: str) -> str:
  """A quantile as it is spoken of: "0.99" is "99% quantile"."""
  names = {0.5: "median", 1.0: "highest"}
  return names.get(float(quantile), f"{limit_name(float(quantile))} quantile")


def quantile_interval(quantile: Quantile) -> str:
  """The ends of its interval; empty where it cannot be had."""
  return "" if quantile.low is None else f"[{quantile.low:.3f}, {quantile.high:.3f}]"


def chosen_headings(results: Results) -> list[tuple[str, str]]:
  """The headings of `chosen_rows`."""
  return [
    ("", "predictor"),
    ("chosen on", "other models"),
    ("", "AUC"),
    *rate_headings(results.shadow.chosen[0].tpr_at_fpr),
    ("highest of all,", "picked on these"),
    ("its", "AUC"),
  ]


def chosen_rows(results: Results) -> list[list[Cell]]:
  """The best single attack chosen on other models, beside the highest; a row a predictor."""
  rows = []
  for row in results.shadow.chosen:
    of_predictor = [
      one
      for one in results.shadow.samples
      if (one.predictor, one.queries) == (row.predictor, 1)
    ]
    highest = max(of_predictor, key=lambda one: one.auc.value)
    chosen = (f"{one.title} ({one.num_models} of {row.num_models})" for one in row.attacks)
    rows.append(
      [
        Cell(row.predictor),
        Cell(", ".join(chosen)),
        auc_cell(row.auc),
        *map(rate_cell, row.tpr_at_fpr),
        Cell(highest.title),
        auc_cell(highest.auc),
      ]
    )
  return rows


def named_headings() -> list[tuple[str, str]]:
  """The headings of `named_rows`."""
  headings = [("", "predictor"), ("members", "judged"), ("non-members", "known")]
  for level in map(limit_name, LEVELS):
    headings += [
      ("named at", f"FDR {level}"),
      ("false", "of these"),
      ("named so that surely", f"at most {level} are false"),
    ]
  return headings


def named_rows(results: Results) -> list[list[Cell]]:
  """How many members can be named, a row a predictor."""
  rows = []
  for row in results.shadow.named:
    cells = [Cell(row.predictor), _count(row.num_members), _count(row.num_calibration)]
    for level in map(str, LEVELS):
      named = row.at[level]
      cells += [_count(named.named), Cell(percent(named.false_share)), _count(named.surely)]
    rows.append(cells)
  return rows


def epsilon_headings() -> list[tuple[str, str]]:
  """The headings of `epsilon_rows`."""
  return [
    ("", "predictor"), ("first", "run"), ("", "lowest"), ("", "highest"),
    ("first run", "by f-DP"), ("if noise", "is Gaussian"), ("", "runs"), ("", "samples"),
  ]  # fmt: skip


def epsilon_rows(results: Results) -> list[list[Cell]]:
  """The lower bounds on epsilon, a row a predictor."""
  return [
    [
      Cell(row.predictor),
      *(Cell(f"{bound:.3f}") for bound in (row.first, row.lowest, row.highest)),
      *(Cell(f"{bound:.3f}") for bound in (row.first_fdp, row.first_gaussian)),
      Cell(f"{row.num_models}"),
      Cell(f"{row.num_samples:,}"),
    ]
    for row in results.shadow.epsilon
  ]


def precision_headings(results: Results) -> list[tuple[str, str]]:
  """The headings of `precision_rows`."""
  rates = results.undefended.highest_tpr_at_fpr
  return [
    ("", "predictor"),
    *(
      (f"1 of {1 / prior:.0f} is a member,", f"FPR {limit_name(rate.limit)}")
      for prior in PRIORS
      for rate in rates
    ),
  ]


def precision_rows(results: Results) -> list[list[Cell]]:
  """Of those called members the share that are, where members are rare; a row a predictor."""
  rows = []
  for row in results.predictors:
    cells = [Cell(row.name)]
    for prior in PRIORS:
      for highest in row.highest_tpr_at_fpr:
        rate = Rate(*(getattr(highest, name) for name in Rate._fields))
        share = precision(rate, prior)
        text = rate_cell(rate._replace(value=share.value)).text
        cells.append(Cell(text, below=told_interval(share)))
    rows.append(cells)
  return rows


def agreement_headings() -> list[tuple[str, str]]:
  """The headings of `agreement_rows`."""
  return [
    ("", "predictor"),
    ("", "attacks"),
    ("the attack that", "finds most"),
    ("members", "found by it"),
    ("found by", "any"),
    ("found by", "half of them"),
  ]


def agreement_rows(results: Results) -> list[list[Cell]]:
  """Whom attacks find together, a row a predictor."""
  rows = []
  for row in results.agreement:
    alone = [row.both[at][at] for at in range(len(row.titles))]
    best = max(range(len(alone)), key=alone.__getitem__)
    counts = (alone[best], row.by_any, row.by_half)
    shares = [Cell(percent(count / row.num_members)) for count in counts]
    rows.append([Cell(row.predictor), Cell(f"{len(alone)}"), Cell(row.titles[best]), *shares])
  return rows


def overlaps(row: AgreementRow) -> Sequence[Sequence[str]]:
  """For every two attacks the members that both find, as a share of those that either finds."""
  return [
    [_overlap(both, row.both[i][i] + row.both[j][j] - both) for j, both in enumerate(of_attack)]
    for i, of_attack in enumerate(row.both)
  ]


def agreement_limit() -> str:
  """The FPR at which members count as found."""
  return limit_name(LIMIT)


def _overlap(both, either):
  return percent(both / either, 0) if either else "-"


def _count(mean):
  return Cell(f"{mean:,.1f}")
