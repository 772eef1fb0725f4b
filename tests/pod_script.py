"""One process of a pod: trains a diffusion model in step with the others, for test_pod.py."""

import sys
from pathlib import Path

import numpy as np
from pod_training import train

from diffence_jax import parallel
from diffence_jax.training.save_step import Agreement

folder, address, number, count = Path(sys.argv[1]), *sys.argv[2:]
parallel.connect(f"{address},{number},{count}")
assert parallel.is_pod() and parallel.is_first() == (number == "0")
mesh = parallel.pod_mesh()
assert mesh.size == int(count) and parallel.from_first(7 + int(number)) == 7

parallel.check_alike({"workdir": str(folder)})
try:
  parallel.check_alike({"workdir": str(folder), "config": number})
except ValueError as error:
  assert "Process 1 of" in str(error) and "another config" in str(error)
  assert "It has 1... where that has 0..." in str(error)
else:
  raise AssertionError("another config was not noticed")


def plan():
  if number == "1":
    raise KeyError("a setting")
  return "planned"


try:
  parallel.together(plan)
except (KeyError, OSError) as error:
  expected = "'a setting'" if number == "1" else "Process 1 of 2 was given something"
  assert str(error).startswith(expected)
else:
  raise AssertionError("another's error was not noticed")
assert parallel.together(lambda: number) == number

agreement = Agreement(mesh)
# After the same step in both, whoever asks, and once.
assert [agreement.reached(number == "1" and step == 2) for step in range(6)].index(True) == 3
assert not agreement.reached(True)

rows = np.arange(8)
assert np.array_equal(parallel.part(mesh, rows), np.split(rows, int(count))[int(number)])
for name, shard_parameters in (("whole", False), ("divided", True)):
  variables = train(folder / name, mesh, num_steps=5, shard_parameters=shard_parameters)
  if parallel.is_first():
    np.savez(folder / name / "variables.npz", **variables)
kernel = parallel.spread(mesh, np.zeros((1, 4)))
assert [shard.data.shape for shard in kernel.addressable_shards] == [(1, 4 // int(count))]
