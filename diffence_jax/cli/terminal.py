"""What the command says: text of others, such as names in files, as harmless characters."""

import re
import sys
from typing import TextIO

# Control characters but for tabs and ends of lines, what turns the direction of text, and what
# is half a character: file names that are no UTF-8.
_UNSAFE = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def say(text: str, file: TextIO | None = None) -> None:
  """Prints a line.

  Args:
    text: escape codes in it, and what the terminal's encoding has not, are spelt out.
    file: where to; None for standard output.
  """
  file = sys.stdout if file is None else file
  encoding = getattr(file, "encoding", None) or "utf-8"
  print(printable(text).encode(encoding, "backslashreplace").decode(encoding), file=file)


def printable(text: str) -> str:
  """Text with control characters spelt out: a backslash, and their number."""
  return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
