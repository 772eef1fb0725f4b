"""How long `fit_interval` takes for the samples that the paper's defender knows.

    python experiments/bench_interval.py --output=bench_interval.json

Made-up logits of an overfitted classifier, members surer than non-members, and candidates
around them. Beside it, in turn in several rounds of one process, the search as published:
interval by interval and sample by sample, for the same result. The first call of ours, which
compiles what computes phi, is reported by itself. Prints a table in Markdown, medians of the
rounds and their range.
"""

import itertools

import measuring
import numpy as np
from absl import app, flags
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp

import diffence_jax as dj

_SAMPLES = flags.DEFINE_integer("samples", 1000, "Known members, and as many non-members.")
_CANDIDATES = flags.DEFINE_integer("candidates", 30, "Candidates of each.")
_CLASSES = flags.DEFINE_integer("classes", 10, "Classes.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; the median is reported.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")


def draw_side(draw, num: int, num_candidates: int, num_classes: int, signal: float):
  """Candidate logits f32[num,M,K] and raw ones f32[num,K], the largest some `signal` above."""
  raw = draw.normal(0.0, 1.5, (num, num_classes))
  raw[np.arange(num), draw.integers(0, num_classes, num)] += signal
  candidates = raw[:, None] + draw.normal(0.0, 1.5, (num, num_candidates, num_classes))
  return candidates.astype(np.float32), raw.astype(np.float32)


def phi_of(logits: np.ndarray) -> np.ndarray:
  """log(p / (1 - p)) of the largest probability, f64[...], of logits f[...,K]."""
  ordered = np.sort(np.float64(logits), axis=-1)
  return ordered[..., -1] - logsumexp(ordered[..., :-1], axis=-1)


def published_search(member_candidates, member_raw, nonmember_candidates, nonmember_raw):
  """The interval with the least Jensen-Shannon distance after selection, one by one."""

  def prepare(candidates, raw):
    options = np.concatenate([candidates, raw[:, None]], axis=1)
    valid = options.argmax(-1) == raw.argmax(-1)[:, None]
    return [phi[kept] for phi, kept in zip(phi_of(options), valid, strict=True)]

  def choose(sides, low, high):
    chosen = []
    for phi in sides:
      inside = np.flatnonzero((phi >= low) & (phi <= high))
      nearest = np.abs(phi - (low + high) / 2.0).argmin()
      chosen.append(phi[inside[0] if len(inside) else nearest])
    return np.array(chosen)

  members = prepare(member_candidates, member_raw)
  nonmembers = prepare(nonmember_candidates, nonmember_raw)
  # Without the raw predictions, which come last.
  low = min(phi[:-1].min(initial=np.inf) for phi in members)
  high = max(phi[:-1].max(initial=-np.inf) for phi in nonmembers)
  best, least = None, np.inf
  for interval in itertools.combinations(np.linspace(low, high, 21), 2):
    counts, edges = np.histogram(choose(nonmembers, *interval), bins=100)
    distance = jensenshannon(np.histogram(choose(members, *interval), bins=edges)[0], counts)
    if distance < least:
      best, least = interval, distance
  return best


def main(_) -> None:
  """Measures, prints and writes."""
  draw, shape = np.random.default_rng(0), (_SAMPLES.value, _CANDIDATES.value, _CLASSES.value)
  known = (*draw_side(draw, *shape, 8.0), *draw_side(draw, *shape, 5.0))
  first = measuring.timed(lambda: dj.fit_interval(*known))
  ways = {
    "fit_interval": lambda: measuring.timed(lambda: dj.fit_interval(*known), 5),
    "as published": lambda: measuring.timed(lambda: published_search(*known)),
  }
  seconds = {
    name: measuring.summary(times)
    for name, times in measuring.in_turn(ways, _ROUNDS.value).items()
  }
  intervals = {
    "fit_interval": dj.fit_interval(*known),
    "as published": published_search(*known),
  }
  slowest = seconds["as published"]["median"]
  print(f"{shape[0]} + {shape[0]} samples, {shape[1]} candidates; first call {first:.2f} s\n")
  measuring.show_table(
    ["", "seconds (range)", "times as fast", "interval"],
    [
      [
        name,
        measuring.with_range(times, ".3f"),
        f"{slowest / times['median']:.0f}x",
        ", ".join(f"{end:.4f}" for end in intervals[name]),
      ]
      for name, times in seconds.items()
    ],
  )
  measuring.write_figures(
    _OUTPUT.value, {"first": first, "seconds": seconds, "found": intervals}
  )


if __name__ == "__main__":
  app.run(main)
