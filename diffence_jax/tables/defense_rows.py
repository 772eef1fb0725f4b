"""The figures of every defense alone and behind Diffence, over seeds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffence_jax.metrics import Estimate, t_interval
from diffence_jax.report.cells import flat
from diffence_jax.tables.published import published

COLUMNS = ("alone", "scenario 1", "scenario 2", "scenario 3")
# How the highest AUC behind Diffence compares with the same defense alone, and its mark.
VERDICTS = {
  "below": ("", ""),
  "below, within the interval": (
    "~",
    "highest AUC below the defense's alone, but the interval of the difference includes 0",
  ),
  "not below, within the interval": (
    "!",
    "highest AUC not below the defense's alone; the interval of the difference includes 0",
  ),
  "above": (
    "!!",
    "highest AUC above the defense's alone, and all of the interval of the difference above 0",
  ),
}
FIGURES = ("test_accuracy", "highest_auc", "highest_accuracy", "ece", "nll", "gap")
# Where a predictor has changed labels it has none.
FLOORS = ("label_floor", "above_label_floor")
_RATIOS = ("training_ratio", "inference_alone_ratio", "inference_ratio")


def aggregate(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """The figures of every defense over its seeds.

  A figure is a mapping of `value`, the mean over seeds; `low` and `high`, with one seed the
  ends of its own 95% interval (None where it has none), with several the least and the most;
  and `seeds`, the figure of every seed as it came.

  Args:
    cells: one a defense and seed, "undefended" among them for every seed: `defense`, `title`,
      `seed`, `predictors` (as `audit` makes them; the first is the defense alone),
      `train_seconds`, `inference_ms` (of `alone` and `diffence`, a sample) and `epsilon` (with
      `delta`); the last three may be None.

  Returns:
    JSON-able, one row a defense in order of appearance: `defense`, `title`, `seeds`,
    `train_seconds`, `training_ratio` (to undefended), `inference_ms`, `inference_alone_ratio`
    (of the defense alone, to undefended), `inference_ratio` (with Diffence, to the defense
    alone), `epsilon`, `published` (see there), and `columns`: for each of `COLUMNS` the
    figures, shares in [0, 1], `accuracy_delta` to undefended alone, `label_changes` (the sum
    over seeds) of `num_labels`, `label_floor` (what the labels alone leave, see
    `audit.label_floor`) and `above_label_floor` (the highest AUC less it), both None where a
    label is changed at any seed, and for the scenarios `difference` of the highest AUC to the
    defense alone and the `verdict` on it.

  Raises:
    ValueError: a defense is there twice for one seed.
  """
  runs: dict[str, dict[int, Mapping[str, Any]]] = {}
  for cell in cells:
    if cell["seed"] in runs.setdefault(cell["defense"], {}):
      raise ValueError(f"{cell['defense']!r} is there twice for seed {cell['seed']}.")
    runs[cell["defense"]][cell["seed"]] = cell
  return [
    _row(list(of_seeds.values()), [runs["undefended"][seed] for seed in of_seeds])
    for of_seeds in runs.values()
  ]


def _row(cells, undefended):
  seeds = [cell["seed"] for cell in cells]
  alone, *defended = ([_predictor(cell, name) for cell in cells] for name in COLUMNS)
  bare = [_predictor(cell, COLUMNS[0]) for cell in undefended]
  columns = {"alone": _column(seeds, alone, bare)}
  for name, predictors in zip(COLUMNS[1:], defended, strict=True):
    column = columns[name] = _column(seeds, predictors, bare)
    for figure in ("highest_auc", "highest_accuracy"):
      before = columns["alone"][figure]["value"]
      column[figure]["relative_change"] = column[figure]["value"] / before - 1.0
    column["difference"] = _difference(seeds, predictors, alone, "highest_auc")
    column["verdict"] = _verdict(column["difference"])
  times = [cell["train_seconds"] for cell in cells]
  inference = [cell["inference_ms"] or {} for cell in cells]
  inference = {name: [ms.get(name) for ms in inference] for name in ("alone", "diffence")}
  bare_ms = [(cell["inference_ms"] or {}).get("alone") for cell in undefended]
  epsilon = [e and {"value": e["epsilon"], "delta": e["delta"]} for e in _all(cells, "epsilon")]
  return {
    "defense": cells[0]["defense"],
    "title": cells[0]["title"],
    "seeds": seeds,
    "columns": columns,
    "train_seconds": _summary(seeds, times),
    "training_ratio": _ratio(times, _all(undefended, "train_seconds")),
    "inference_ms": {name: _summary(seeds, ms) for name, ms in inference.items()},
    "inference_alone_ratio": _ratio(inference["alone"], bare_ms),
    "inference_ratio": _ratio(inference["diffence"], inference["alone"]),
    "epsilon": _summary(seeds, epsilon),
    "published": published(cells[0]["defense"]),
  }


def _all(cells, name):
  return [cell[name] for cell in cells]


def _predictor(cell, name):
  # The first one has no Diffence, whatever it is called.
  first, *others = cell["predictors"]
  return first if name == COLUMNS[0] else {row["name"]: row for row in others}[name]


def _column(seeds, predictors, bare):
  column = {figure: _summary(seeds, _all(predictors, figure)) for figure in FIGURES}
  column |= _floors(seeds, predictors)
  column["highest_tpr_at_fpr"] = [
    {
      **_summary(seeds, rates),
      "limit": rates[0]["limit"],
      "enough": all(rate["enough"] for rate in rates),
    }
    for rates in zip(*_all(predictors, "highest_tpr_at_fpr"), strict=True)
  ]
  column["accuracy_delta"] = _difference(seeds, predictors, bare, "test_accuracy")
  changes = _all(predictors, "label_changes")
  column["label_changes"] = {
    "value": sum(changes),
    "seeds": [{"seed": s, "value": n} for s, n in zip(seeds, changes, strict=True)],
  }
  column["num_labels"] = sum(_all(predictors, "num_labels"))
  return column


def _floors(seeds, predictors):
  """What the labels alone leave, and what is left above it."""
  floors = _all(predictors, "label_floor")
  if None in floors:
    return dict.fromkeys(FLOORS)
  highest = _all(predictors, "highest_auc")
  above = [auc["value"] - floor["value"] for auc, floor in zip(highest, floors, strict=True)]
  return {name: _summary(seeds, of) for name, of in zip(FLOORS, (floors, above), strict=True)}


def _summary(seeds, figures):
  """The mean over seeds, with what is known of its spread; None if there is no figure."""
  known = [
    {"seed": seed, **(figure if isinstance(figure, Mapping) else {"value": figure})}
    for seed, figure in zip(seeds, figures, strict=True)
    if figure is not None
  ]
  if not known:
    return None
  values = _all(known, "value")
  ends = (known[0].get("low"), known[0].get("high"))
  low, high = ends if len(known) == 1 else (min(values), max(values))
  return {"value": statistics.mean(values), "low": low, "high": high, "seeds": known}


def _difference(seeds, after, before, figure):
  """Mean of the paired differences, and an interval that includes 0 if it may be chance.

  With several seeds the 95% t-interval of the mean; with one the ends of the two 95% intervals
  against each other, so that it includes 0 if they overlap. That is conservative: the two
  figures rest on the same samples. A figure has no interval around its difference to itself.
  """
  pairs = [(a[figure], b[figure]) for a, b in zip(after, before, strict=True)]
  differences = [a["value"] - b["value"] for a, b in pairs]
  mean, low, high = statistics.mean(differences), None, None
  if after[0] is before[0]:
    pass
  elif len(seeds) == 1:
    ((a, b),) = pairs
    low, high = a["low"] - b["high"], a["high"] - b["low"]
  else:
    _, low, high = t_interval(differences)
  each = [{"seed": s, "value": d} for s, d in zip(seeds, differences, strict=True)]
  return {"value": mean, "low": low, "high": high, "seeds": each}


def _verdict(difference):
  if difference["value"] < 0.0:
    return "below" if difference["high"] < 0.0 else "below, within the interval"
  return "above" if difference["low"] > 0.0 else "not below, within the interval"


def estimate(figure: Mapping[str, Any]) -> Estimate:
  """A figure's value and ends, without those of the single seeds."""
  return Estimate(figure["value"], figure["low"], figure["high"])


def _ratio(after, before):
  """The ratio of the sums over the seeds that have both, None if there are none."""
  pairs = [(a, b) for a, b in zip(after, before, strict=True) if a is not None and b]
  return sum(a for a, _ in pairs) / sum(b for _, b in pairs) if pairs else None


def average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The means of the rows of `aggregate`, of what has a meaning over defenses; no intervals."""
  columns = {}
  for name in COLUMNS:
    of_defenses = [row["columns"][name] for row in rows]
    column = {f: _mean(_all(of_defenses, f)) for f in (*FIGURES, *FLOORS, "accuracy_delta")}
    column["highest_tpr_at_fpr"] = [
      {**_mean(rates), "limit": rates[0]["limit"], "enough": all(_all(rates, "enough"))}
      for rates in zip(*_all(of_defenses, "highest_tpr_at_fpr"), strict=True)
    ]
    if name != "alone":
      for figure in ("highest_auc", "highest_accuracy"):
        changes = [c[figure]["relative_change"] for c in of_defenses]
        column[figure]["relative_change"] = statistics.mean(changes)
    columns[name] = column
  return {"title": "mean", "published": None, "columns": columns}


def _mean(figures):
  """The mean, None where one of the defenses has no such figure."""
  if None in figures:
    return None
  return {"value": statistics.mean(_all(figures, "value")), "low": None, "high": None}


def csv_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
  """Lines of a CSV file: for every defense and column one a seed, then one with seed "all".

  Args:
    rows: as `aggregate` makes them.

  Yields:
    Column to figure. In the lines of a seed `low` and `high` are the ends of a 95% interval, in
    those of all seeds what `aggregate` says; shares, the paper's too, are in [0, 1].
  """
  for row in rows:
    for at, (name, column) in enumerate(row["columns"].items()):
      names = (*FIGURES, *FLOORS, "accuracy_delta", "difference")
      figures = {f: column.get(f) for f in names}
      figures |= {f"inference_ms_{of}": ms for of, ms in row["inference_ms"].items()}
      figures |= {f: row[f] for f in ("train_seconds", "epsilon")}
      figures["label_changes"] = column["label_changes"]
      rates = column["highest_tpr_at_fpr"]
      for seed in (*row["seeds"], "all"):
        line = {f: _of(figure, seed) for f, figure in figures.items()}
        line["highest_tpr_at_fpr"] = [{"limit": r["limit"], **_of(r, seed)} for r in rates]
        names = {"defense": row["defense"], "title": row["title"], "column": name, "seed": seed}
        if seed == "all":
          line |= {f: row[f] for f in _RATIOS}
          line |= {"num_labels": column["num_labels"], "verdict": column.get("verdict")}
          if row["published"]:
            line["published"] = _published(row["published"], at)
        yield {**names, **dict(flat(line))}


def _published(theirs, at):
  """The paper's figures of one column, shares in [0, 1]."""
  ends = {
    f"inference_ms_{name}": dict(zip(("low", "high"), ms, strict=True))
    for name in ("alone", "diffence")
    if (ms := theirs[f"{name}_ms"])
  }
  return {
    "accuracy_delta": theirs["accuracy_delta"] / 100,
    **{figure: theirs[figure][at] / 100 for figure in ("auc", "accuracy")},
    "ece": theirs["ece"][at],
    "train_hours": theirs["train_hours"],
    **ends,
    **{ratio: theirs[ratio] for ratio in _RATIOS},
  }


def _of(figure, seed):
  """A figure of one seed, or of all together; empty if there is none."""
  if figure is None:
    return {}
  if seed == "all":
    return {name: value for name, value in figure.items() if name != "seeds"}
  of_seed = next((f for f in figure["seeds"] if f["seed"] == seed), {})
  return {name: value for name, value in of_seed.items() if name != "seed"}
