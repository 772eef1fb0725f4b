"""Where two ways to select among candidates differ, and whether rounding explains it."""

from typing import Any

import numpy as np

import diffence_jax as dj


def differences(full, early, candidates, raw, interval) -> list[dict[str, Any]]:
  """What is known of every image for which another candidate was selected.

  Args:
    full: what was selected of all candidates, with `index` i[N].
    early: what was selected otherwise.
    candidates: f[N,M,K], all candidates' logits.
    raw: f[N,K].
    interval: on phi, or None.

  Returns:
    An entry each: "image", its number; "full" and "early", what was chosen; "phi" of both;
    "from_end", how far the nearer one's is from an end of the interval; "least", the least
    change of a logit or of phi that has either of the two chosen, or not.
  """
  rows = []
  for row in np.flatnonzero(np.asarray(full.index) != np.asarray(early.index)):
    options = np.concatenate([candidates[row], raw[row : row + 1]]).astype(np.float32)
    chosen = [int(full.index[row]), int(early.index[row])]
    phi = np.asarray(dj.scaled_logit(options))[chosen]
    ends = np.array([np.inf] if interval is None else interval)
    from_end = float(np.abs(phi[:, None] - ends).min())
    top = np.sort(options[chosen], axis=1)[:, -2:]
    # The raw prediction keeps its label, however near the next one is.
    of_label = [top[i, 1] - top[i, 0] for i in range(2) if chosen[i] < len(candidates[row])]
    least = min(from_end, *map(float, of_label))
    if interval is not None:  # none is inside, and both are as far from the midpoint
      apart = np.abs(phi - np.mean(interval))
      least = min(least, float(abs(apart[0] - apart[1])))
    rows.append(
      {
        "image": int(row),
        "full": chosen[0],
        "early": chosen[1],
        "phi": phi.tolist(),
        "from_end": from_end,
        "least": least,
      }
    )
  return rows
