"""Seconds to the first protected answer: cold, and with a warm compilation cache.

    python experiments/bench_first_answer.py --output=bench_first_answer.json

Each time a process of its own, on random weights: from its start to the imports, to the
networks, and to the first answer; then a second answer, compiled already. Cold begins with an
empty compilation cache and fills it, as the command does in its workdir; warm finds it filled.
All candidates of one image are drawn. Prints a table in Markdown, medians of the rounds.
"""

import json
import tempfile
import time

import jax
import measuring
from absl import app, flags
from random_networks import bind_random, networks_of, random_images

import diffence_jax as dj
from diffence_jax.experiment import compiled

_IMPORTED = time.time()

_NETWORKS = flags.DEFINE_list("networks", ["digits", "cifar10"], "Configs.")
_CANDIDATES = flags.DEFINE_integer("candidates", 30, "Candidates a query, N.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds, each with a cache of its own.")
_SMALL = flags.DEFINE_bool("small", False, "Tiny networks, to try the script.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the figures.")
_ALONE = flags.DEFINE_string("alone", None, "For the script itself: what a process does.")


def alone(name: str, small: bool, num_candidates: int, cache: str, started: float) -> dict:
  """Answers twice, and says how long everything took since `started`."""
  compiled.keep_in(cache)
  networks = networks_of(name, small=small)
  predict, denoise = bind_random(networks)
  built = time.time()
  protected = dj.protect(predict, denoise, networks.schedule, num_candidates=num_candidates)
  images = random_images(1, networks.image_shape)
  protected(jax.random.key(0), images).block_until_ready()
  answered = time.time()
  protected(jax.random.key(1), images).block_until_ready()
  return {
    "imports": _IMPORTED - started,
    "networks": built - _IMPORTED,
    "first answer": answered - built,
    "in all": answered - started,
    "second answer": time.time() - answered,
  }


def main(_) -> None:
  """Measures, prints and writes."""
  if _ALONE.value:
    print(json.dumps(alone(**json.loads(_ALONE.value))))
    return
  argument = {"small": _SMALL.value, "num_candidates": _CANDIDATES.value}
  entries, rows = [], []
  for name in _NETWORKS.value:
    runs = {"cold": [], "warm": []}
    for _ in range(_ROUNDS.value):
      with tempfile.TemporaryDirectory() as cache:
        for times in runs.values():
          settings = {**argument, "name": name, "cache": cache, "started": time.time()}
          times.append(measuring.in_own_process(__file__, settings))
    for when, times in runs.items():
      seconds = {part: measuring.summary([t[part] for t in times]) for part in times[0]}
      entries.append({"networks": name, "cache": when, "seconds": seconds})
      rows.append([name, when, *map(measuring.with_range, seconds.values())])
  measuring.show_table(["networks", "cache", *entries[0]["seconds"]], rows)
  measuring.write_figures(_OUTPUT.value, {**argument, "first_answers": entries})


if __name__ == "__main__":
  app.run(main)
