"""Who teaches a classifier what: the teachers' training sets, and what their answers say."""

import numpy as np

from diffence_jax import rng
from diffence_jax.training.recipe import Teachers


def teachers_of(
  teachers: Teachers, name: str, members: np.ndarray, seed: int
) -> tuple[list[str], np.ndarray]:
  """The teachers of one classifier: T of them.

  Args:
    teachers: of its recipe.
    name: of the classifier's streams of randomness; a teacher's begins with it.
    members: bool[N], who is in the classifier's training set.
    seed: of the streams.

  Returns:
    T names, and bool[T,N], who is in which teacher's training set.
  """
  chosen = np.flatnonzero(members)
  parts = teachers.membership(len(chosen), rng.numpy_seed(seed, f"{name}/teachers"))
  membership = np.zeros((len(parts), len(members)), bool)
  membership[:, chosen] = parts
  return [f"{name}/teacher/{number}" for number in range(len(parts))], membership


def taught(
  teachers: Teachers, members: np.ndarray, membership: np.ndarray, answers: np.ndarray
) -> np.ndarray:
  """What the teachers of one classifier say.

  Args:
    teachers: as above, like the next.
    members: bool[N].
    membership: bool[T,N], as `teachers_of` gives it.
    answers: f32[T,N,K], every teacher's logits.

  Returns:
    f32[N,K], soft labels of the classifier's members; 0 for others.
  """
  soft_labels = np.zeros(answers.shape[1:], np.float32)
  soft_labels[members] = teachers.soft_labels(answers[:, members], membership[:, members])
  return soft_labels
