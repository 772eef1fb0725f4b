"""What the command says: text of others, such as names in files, as harmless characters."""

import os
import re
import shutil
import sys
from collections.abc import Collection
from typing import TextIO

# Control characters but for tabs and ends of lines, what turns the direction of text, and what
# is half a character: file names that are no UTF-8.
_UNSAFE = re.compile(
  "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
# Columns where there is no terminal.
_WIDTH = 118


def say(text: str, file: TextIO | None = None, red: Collection[str] = ()) -> None:
  """Prints a text.

  Args:
    text: escape codes in it, and what the terminal's encoding has not, are spelt out.
    file: where to; None for standard output.
    red: lines of it that are shown in red where that is a terminal and `NO_COLOR` is not set.
  """
  file = sys.stdout if file is None else file
  encoding = getattr(file, "encoding", None) or "utf-8"
  text = printable(text).encode(encoding, "backslashreplace").decode(encoding)
  if red and file.isatty() and not os.environ.get("NO_COLOR"):
    lines = (f"{_RED}{line}{_PLAIN}" if line in red else line for line in text.split("\n"))
    text = "\n".join(lines)
  print(text, file=file)


def columns() -> int:
  """How wide the terminal is; where there is none, as wide as tables need."""
  return shutil.get_terminal_size((_WIDTH, 24)).columns


def printable(text: str) -> str:
  """Text with control characters spelt out: a backslash, and their number."""
  return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
