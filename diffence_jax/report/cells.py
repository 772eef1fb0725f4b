"""How a figure is written down: in a cell, in a table of plain text, in a row of a CSV file."""

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffence_jax.audit.jackknife import ENOUGH_MODELS, LEAST_MODELS
from diffence_jax.audit.rows import Highest, PredictorRow
from diffence_jax.disk import write_atomically
from diffence_jax.metrics import Estimate, Rate
from diffence_jax.report.results import Results

MARK = "*"
# A relative change that would be printed as nothing.
NO_CHANGE = 0.0005
# Columns of text, where nobody says how wide the terminal is.
WIDTH = 118
# Narrower, words would be cut.
_LEAST_WIDTH = 40
# A share's interval that is wider tells nothing: it is not printed. Files have it.
_WIDEST = 0.5
# With more models intervals hold also where models differ much.
_MANY_MODELS = 32
GAP_FLOOR_NOTE = (
  "AUC of calling every correctly classified image a member; no defense that keeps the labels "
  "gets below it"
)
LABEL_FLOOR_NOTE = (
  "highest AUC of the same attacks, but for those trained on known samples, on an answer that "
  "tells the label alone and how often it is right: what is left at best where labels are kept"
)
# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


class Cell(NamedTuple):
  """A cell of a table.

  Attributes:
    text: the figure.
    change: in comparison with another figure, such as the undefended predictor's; empty if not
      given.
    below: the 95% interval, empty if there is none.
    worse: whether the figure is worse than that other one.
  """

  text: str
  change: str = ""
  below: str = ""
  worse: bool = False


def percent(share: float, digits: int = 1) -> str:
  """A share in [0, 1] as a percentage."""
  return f"{100 * share:.{digits}f}%"


def limit_name(limit: float) -> str:
  """A limit on an error rate as it is spoken of: 0.001 is "0.1%"."""
  return f"{100 * limit:g}%"


def rate_headings(rates: Iterable[Rate]) -> list[tuple[str, str]]:
  """The two lines of the headings of columns of `rate_cell`s."""
  return [("TPR at", f"{limit_name(rate.limit)} FPR") for rate in rates]


def of_100(share: float, digits: int = 0) -> str:
  """A share in [0, 1] as of 100 cases."""
  return f"{100 * share:.{digits}f}"


def interval(estimate: Estimate) -> str:
  """The ends of an interval, three decimals."""
  return f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def percent_interval(estimate: Estimate) -> str:
  """The ends of an interval of shares, in percent."""
  return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def told_interval(estimate: Estimate | Rate) -> str:
  """The ends of an interval of shares, in percent; empty where that tells nothing."""
  return "" if estimate.high - estimate.low > _WIDEST else percent_interval(estimate)


def relative_change(change: float | None) -> str:
  """A relative change in percent with its sign, empty if there is none."""
  # Adding zero turns a rounded -0.0 into 0.0.
  return "" if change is None else f"{round(100 * change, 1) + 0.0:+.1f}%"


def is_rise(change: str) -> bool:
  """Whether a change, as `relative_change` writes it, is one to more: of an attack, worse."""
  return change.startswith("+") and change != relative_change(0.0)


def loss_tail_notes(row: PredictorRow) -> list[tuple[str, str]]:
  """What the loss attack's TNR foretells of LiRA's TPR; none where it was not run.

  The TNR is that of `metrics.loss_tail`, which says whose finding it is.
  """
  attacks = {(attack.name, attack.threshold): attack for attack in row.attacks}
  if ("loss", "global") not in attacks:
    return []
  tail = attacks["loss", "global"].tnr_at_fnr[-1]
  text = (
    f"{percent(tail.value)} of {row.name}'s non-members have a loss above that of all but "
    f"{limit_name(tail.limit)} of its members; this has been seen to be near the TPR at "
    f"{limit_name(tail.limit)} FPR that LiRA finds (Dodd et al. 2025), and to be twice as high"
  )
  if lira := attacks.get(("lira_online", "global")):
    text += f", here {rate_text(lira.tpr_at_fpr[-1].value, lira.tpr_at_fpr[-1].enough)}"
  return [("loss tail", text)]


def few_models(num_models: int) -> str:
  """What few models do to intervals over all of them; empty where there are many."""
  if num_models < LEAST_MODELS:
    return f"With {num_models} models they are too narrow where models differ much."
  if num_models < ENOUGH_MODELS:
    return (
      f"With {num_models} models they are rough: those of an AUC are rather too wide where "
      "models are in pairs of complementary members, as all attacks were run again without "
      "each pair, and too narrow where they are not and differ much."
    )
  if num_models <= _MANY_MODELS:
    return (
      f"With {num_models} models they are a little too narrow where models differ much: in "
      "such simulations 95% intervals of an AUC held the truth in 90% of the runs with 16."
    )
  return ""


def floor_cell(floor: Highest | None) -> Cell:
  """The label-only floor; a dash where labels were changed."""
  return Cell("-" if floor is None else f"{floor.value:.3f}")


def auc_cell(auc: Estimate, change: str = "") -> Cell:
  """An AUC with its interval; more than before is worse."""
  return Cell(f"{auc.value:.3f}", change, interval(auc), is_rise(change))


def rate_cell(rate: Rate) -> Cell:
  """A TPR or TNR with its interval, marked where the sample is too small for it."""
  return Cell(rate_text(rate.value, rate.enough), below=told_interval(rate))


def rate_text(value: float, enough: bool) -> str:
  """A rate as a percentage, marked where the sample is too small for it."""
  return percent(value) + ("" if enough else MARK)


def mark_notes(enough: Iterable[bool]) -> list[tuple[str, str]]:
  """What the mark means, if one of the rates bears it."""
  if all(enough):
    return []
  return [
    (
      MARK,
      "fewer than 10 expected false positives: the sample is too small for this rate; its "
      "interval is not printed where it is wider than 50 points",
    )
  ]


def grid(
  headings: Sequence[Sequence[str]], rows: Sequence[Sequence[Cell]], width: int = WIDTH
) -> list[str]:
  """Lines of plain text: two of headings and a rule, then two for every row.

  Args:
    headings: the two lines of every column's heading.
    rows: the cells; a row without any interval takes one line.
    width: of a line; where the columns need more, they stand in several tables one below the
      other, each beginning with the first column.

  Returns:
    The lines, columns aligned, without trailing blanks.
  """
  lines = [list(line) for line in zip(*headings, strict=True)]
  for row in rows:
    # The change has a fixed width, so that the figures before it stay aligned.
    lines.append([f"{c.text} {c.change:>7}" if c.change else c.text for c in row])
    if any(cell.below for cell in row):
      lines.append([cell.below for cell in row])
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  lines.insert(2, ["-" * width for width in widths])
  shown = []
  for columns in _blocks(widths, width):
    shown += [""] if shown else []
    for line in lines:
      text = "  ".join(line[at].ljust(widths[at]) for at in columns)
      # Of columns without intervals there is no line of these.
      shown += [text.rstrip()] if text.strip() or line is lines[0] else []
  return shown


def _blocks(widths: Sequence[int], width: int) -> list[list[int]]:
  """Which columns stand side by side, the first one everywhere."""
  blocks = [[0]]
  for at in range(1, len(widths)):
    needed = sum(widths[other] + 2 for other in blocks[-1]) + widths[at]
    if needed > width and len(blocks[-1]) > 1:
      blocks.append([0])
    blocks[-1].append(at)
  return blocks


def definitions(pairs: Sequence[tuple[str, str]], width: int = WIDTH) -> list[str]:
  """Lines of a term and its meaning, wrapped beside the term."""
  beside = max(len(name) for name, _ in pairs) + 2
  return [
    line
    for name, text in pairs
    for line in textwrap.wrap(
      text,
      max(width, _LEAST_WIDTH),
      initial_indent=name.ljust(beside),
      subsequent_indent=" " * beside,
      break_on_hyphens=False,
    )
  ]


def wrapped(text: str, width: int = WIDTH) -> list[str]:
  """A text in lines of a terminal."""
  return textwrap.wrap(text, max(width, _LEAST_WIDTH), break_on_hyphens=False)


def flat(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  """Nested figures as columns; an estimate's value bears the estimate's own name."""
  for name, value in figures.items():
    if isinstance(value, Mapping):
      for inner, number in flat(value):
        yield (name if inner == "value" else f"{name}_{inner}"), number
    elif isinstance(value, list):
      for rate in value:
        others = {key: number for key, number in rate.items() if key != "limit"}
        yield from flat({f"{name}_{rate['limit']:g}": others})
    else:
      yield name, value


def run_columns(results: Results) -> dict[str, Any]:
  """The first columns of every CSV file: which run the row is of."""
  return {
    name: getattr(results, name) for name in ("experiment", "variant", "seed", "protocol")
  }


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
  """Writes a CSV file atomically.

  Args:
    rows: at least one; the columns are those of all rows, in the order they first appear, and
      what a row does not have is left empty.
    path: the file, replaced if it is there.
  """
  text = io.StringIO(newline="")
  columns = dict.fromkeys(name for row in rows for name in row)
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow([no_formula(name) for name in columns])
  writer.writerows([[no_formula(row.get(name, "")) for name in columns] for row in rows])
  write_atomically(path, text.getvalue())


def no_formula(value: Any) -> Any:
  """A value as a spreadsheet shows it: text that it would run has an apostrophe in front."""
  is_run = isinstance(value, str) and value.lstrip().startswith(_FORMULA)
  return f"'{value}" if is_run else value
