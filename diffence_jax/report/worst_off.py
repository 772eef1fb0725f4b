"""The tables about the worst case: single examples, whom an attacker can name, epsilon."""

from collections.abc import Sequence

from diffence_jax.audit.agreement import LIMIT, AgreementRow
from diffence_jax.audit.chosen import ChosenRow
from diffence_jax.audit.discoveries import LEVELS, NamedRow
from diffence_jax.audit.shadow import InTurnRow
from diffence_jax.audit.worst_off import EpsilonRow, VulnerabilityRow
from diffence_jax.metrics import Rate, precision
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


def chosen_headings(rows: Sequence[ChosenRow]) -> list[tuple[str, str]]:
  """The headings of `chosen_rows`."""
  return [
    ("", "predictor"),
    ("chosen on", "other models"),
    ("", "AUC"),
    *rate_headings(rows[0].tpr_at_fpr),
    ("highest of all,", "picked on these"),
    ("its", "AUC"),
  ]


def chosen_rows(rows: Sequence[ChosenRow], in_turn: Sequence[InTurnRow]) -> list[list[Cell]]:
  """The best single attack chosen on other models, beside the highest; a row a predictor.

  Args:
    rows: of those that were chosen.
    in_turn: of all attacks, every model as the target.
  """
  cells = []
  for row in rows:
    once = (one for one in in_turn if (one.predictor, one.queries) == (row.predictor, 1))
    highest = max(once, key=lambda one: one.auc.value)
    chosen = (f"{one.title} ({one.num_models} of {row.num_models})" for one in row.attacks)
    cells.append(
      [
        Cell(row.predictor),
        Cell(", ".join(chosen)),
        auc_cell(row.auc),
        *map(rate_cell, row.tpr_at_fpr),
        Cell(highest.title),
        auc_cell(highest.auc),
      ]
    )
  return cells


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


def named_rows(rows: Sequence[NamedRow]) -> list[list[Cell]]:
  """How many members can be named, a row a predictor."""
  cells = []
  for row in rows:
    of_row = [Cell(row.predictor), _count(row.num_members), _count(row.num_calibration)]
    for level in map(str, LEVELS):
      named = row.at[level]
      of_row += [_count(named.named), Cell(percent(named.false_share)), _count(named.surely)]
    cells.append(of_row)
  return cells


def quantile_headings(rows: Sequence[VulnerabilityRow]) -> list[tuple[str, str]]:
  """The headings of `quantile_rows`."""
  return [("", "predictor"), *(("", quantile_name(name)) for name in rows[0].auc_quantiles)]


def quantile_rows(rows: Sequence[VulnerabilityRow]) -> list[list[Cell]]:
  """Quantiles over examples of their own AUCs, and what chance gives; a row a predictor."""
  return [
    [
      Cell(row.predictor),
      *(Cell(f"{one.value:.3f}", below=_ends(one)) for one in row.auc_quantiles.values()),
    ]
    for row in rows
  ]


def epsilon_headings() -> list[tuple[str, str]]:
  """The headings of `epsilon_rows`."""
  return [
    ("", "predictor"), ("first", "run"), ("", "lowest"), ("", "highest"),
    ("first run", "by f-DP"), ("if noise", "is Gaussian"), ("", "runs"), ("", "samples"),
  ]  # fmt: skip


def epsilon_rows(rows: Sequence[EpsilonRow]) -> list[list[Cell]]:
  """The lower bounds on epsilon, a row a predictor."""
  return [
    [
      Cell(row.predictor),
      *(Cell(f"{bound:.3f}") for bound in (row.first, row.lowest, row.highest)),
      *(Cell(f"{bound:.3f}") for bound in (row.first_fdp, row.first_gaussian)),
      Cell(f"{row.num_models}"),
      Cell(f"{row.num_samples:,}"),
    ]
    for row in rows
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


def _ends(quantile):
  """The ends of its interval, where it can be had, and what chance gives."""
  ends = "" if quantile.low is None else f"[{quantile.low:.3f}, {quantile.high:.3f}] "
  return f"{ends}chance {quantile.by_chance:.3f}"


def _count(mean):
  return Cell(f"{mean:,.1f}")
