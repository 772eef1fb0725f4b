"""Progress bars with the time left, silent where nobody is watching."""

from tqdm import tqdm


def progress_bar(total: int, description: str, unit: str, done: int = 0) -> tqdm:
  """A bar on standard error; nothing at all when that is not a terminal.

  Args:
    total: units of work in all.
    description: what is being done.
    unit: what is counted, for example "step".
    done: units an earlier, killed run has done.

  Returns:
    A context manager; call its `update(n)`.
  """
  return tqdm(
    total=total, initial=done, desc=description, unit=unit, disable=None, dynamic_ncols=True
  )
