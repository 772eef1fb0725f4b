"""What attacks with shadow models reach on the canaries of each kind, the worst off."""

from collections.abc import Sequence

from diffence_jax.audit.shadow import CanaryRow
from diffence_jax.report.cells import Cell, limit_name, rate_cell
from diffence_jax.report.results import Results

# What a kind stands for, by its title; a user's own kind needs no words here.
MEANINGS = {
  "clean": "unaltered, to compare with",
  "mislabelled": "with a wrong label, fitted only by memorising them",
  "blank": "of one colour each, but for one of 255 levels, with labels by chance",
  "out of distribution": "images of another data set, with labels by chance",
}


def kinds(results: Results) -> tuple[str, ...]:
  """The kinds there are, by their titles, as they follow one another."""
  return tuple(dict.fromkeys(row.kind for row in results.shadow.canaries))


def title(results: Results) -> str:
  """Of the table."""
  limit = limit_name(_rows(results)[0].tpr_at_fpr[0].limit)
  return (
    f"The worst off: TPR at {limit} FPR on canaries of each kind, every shadow model as the "
    "target in turn, one query"
  )


def attacks(results: Results) -> tuple[str, ...]:
  """The attacks of the table, as the config has them.

  The main attack, then the first one of every other family; each of those that belong to none.
  """
  main = results.shadow.main_attack
  rows = _rows(results, predictor=results.undefended.name, kind=kinds(results)[0])
  rows.sort(key=lambda row: row.attack != main)
  first = {}
  for row in rows:
    first.setdefault((row.family, row.attack if row.family == "others" else ""), row.attack)
  return tuple(first.values())


def headings(results: Results) -> list[tuple[str, str]]:
  """The two lines of every heading of the table."""
  return [("", "predictor"), ("", "attack"), *(("", kind) for kind in kinds(results))]


def rows(results: Results, shown: Sequence[str] | None = None) -> list[list[Cell]]:
  """The table, a row for every predictor and attack.

  Args:
    results: as `write_report` takes it, with canaries.
    shown: the attacks; None for all of `attacks`.

  Returns:
    The rows, the columns as in `headings`.
  """
  table = []
  for predictor in results.predictors:
    for attack in shown or attacks(results):
      of_kind = {
        row.kind: row for row in _rows(results, predictor=predictor.name, attack=attack)
      }
      first = next(iter(of_kind.values()))
      cells = [rate_cell(of_kind[kind].tpr_at_fpr[0]) for kind in kinds(results)]
      table.append([Cell(predictor.name), Cell(first.title), *cells])
  return table


def _rows(results: Results, **wanted: str) -> list[CanaryRow]:
  return [
    row
    for row in results.shadow.canaries
    if all(getattr(row, name) == value for name, value in wanted.items())
  ]
