"""Pages as PDF, printed by a Chromium that is at hand."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from diffence_jax.disk import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Seconds; a page takes about two.
_PATIENCE = 180


def find_browser() -> str:
  """The path of a browser that prints.

  Raises:
    ValueError: there is none.
  """
  paths = (shutil.which(name) for name in BROWSERS)
  browser = next(filter(None, paths), None)
  if browser is None:
    raise ValueError(
      f"--pdf needs a Chromium, and none of {', '.join(BROWSERS)} is on the PATH. Install one, "
      "or leave --pdf out and print the page from any browser."
    )
  return browser


def renew_pdf(page: Path, wanted: bool) -> Path | None:
  """Prints a page beside it if that is wanted; an old print, of the old page, goes in any case.

  Returns:
    The PDF file, or None where there is none now.

  Raises:
    ValueError: there is no browser.
    RuntimeError: it has failed.
  """
  path = page.with_suffix(".pdf")
  path.unlink(missing_ok=True)
  if not wanted:
    return None
  write_pdf(page, path)
  return path


def write_pdf(page: str | os.PathLike, path: str | os.PathLike) -> None:
  """Prints a page of ours, A4, with all open that is closed on the screen.

  Args:
    page: an HTML file.
    path: the PDF file, replaced if it is there; there whole or not at all.

  Raises:
    ValueError: there is no browser.
    RuntimeError: it has failed.
  """
  browser = find_browser()
  with tempfile.TemporaryDirectory(prefix="diffence-pdf-") as folder:
    given, printed = Path(folder, "page.html"), Path(folder, "page.pdf")
    text = Path(page).read_text(encoding="utf-8")
    # Not every version opens them for the style's sake.
    given.write_text(text.replace("<details>", "<details open>"), encoding="utf-8")
    command = [
      browser,
      "--headless",
      "--disable-gpu",
      f"--user-data-dir={folder}/profile",
      "--no-pdf-header-footer",
      f"--print-to-pdf={printed}",
      given.as_uri(),
    ]
    # As root it starts without a sandbox or not at all; the page is ours and has no scripts.
    if os.geteuid() == 0:
      command.insert(1, "--no-sandbox")
    try:
      process = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
      raise RuntimeError(f"{browser} did not print {page}: {error}.") from error
    if process.returncode != 0 or not printed.is_file():
      said = process.stderr.decode(errors="replace").strip().splitlines()
      raise RuntimeError(
        f"{browser} did not print {page}; it ended with the code {process.returncode}"
        + (f" and said: {said[-1]}" if said else ".")
      )
    write_atomically(Path(path), printed.read_bytes())
