"""By which versions of packages figures were computed."""

import importlib.metadata
import platform


def package_versions(*packages: str) -> dict[str, str]:
  """Installed package to its version, and "python" to that of this program."""
  versions = {name: importlib.metadata.version(name) for name in packages}
  return {"python": platform.python_version(), **versions}
