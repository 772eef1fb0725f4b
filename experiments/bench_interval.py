"""How long `fit_interval` takes for the samples that the paper's defender knows.

    python experiments/bench_interval.py

Made-up logits of an overfitted classifier, members surer than non-members, and candidates
around them. The first call, which compiles what computes phi, is reported by itself. Prints the
median of the rounds and their range, and the same as a line of JSON.
"""

import json
import os
import statistics
import time

import numpy as np
from absl import app, flags

import diffence_jax as dj

_SAMPLES = flags.DEFINE_integer("samples", 1000, "Known members, and as many non-members.")
_CANDIDATES = flags.DEFINE_integer("candidates", 30, "Candidates of each.")
_CLASSES = flags.DEFINE_integer("classes", 10, "Classes.")
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Rounds; the median is reported.")


def draw_side(draw, num: int, num_candidates: int, num_classes: int, signal: float):
  """Candidate logits f32[num,M,K] and raw ones f32[num,K], the largest some `signal` above."""
  raw = draw.normal(0.0, 1.5, (num, num_classes))
  raw[np.arange(num), draw.integers(0, num_classes, num)] += signal
  candidates = raw[:, None] + draw.normal(0.0, 1.5, (num, num_candidates, num_classes))
  return candidates.astype(np.float32), raw.astype(np.float32)


def main(_) -> None:
  """Measures and prints."""
  draw, shape = np.random.default_rng(0), (_SAMPLES.value, _CANDIDATES.value, _CLASSES.value)
  known = (*draw_side(draw, *shape, 8.0), *draw_side(draw, *shape, 5.0))
  seconds = []
  for _ in range(1 + _ROUNDS.value):
    start = time.perf_counter()
    interval = dj.fit_interval(*known)
    seconds.append(time.perf_counter() - start)
  first, *warm = seconds
  result = {
    "cores": len(os.sched_getaffinity(0)),
    "samples": 2 * shape[0],
    "candidates": shape[1],
    "interval": interval,
    "first_seconds": round(first, 4),
    "median_seconds": round(statistics.median(warm), 4),
    "range_seconds": [round(min(warm), 4), round(max(warm), 4)],
  }
  low, high = result["range_seconds"]
  print(f"{shape[0]} + {shape[0]} samples, {shape[1]} candidates, {result['cores']} cores:")
  print(f"{result['median_seconds']} s ({low} to {high}); the first call {first:.3f} s")
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
