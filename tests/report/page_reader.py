"""Reads a page as a browser does, and is stricter about it."""

import base64
import html.parser
import io
import re

import numpy as np
from PIL import Image

_VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
  """Collects text and attributes, and checks that every element is closed in its order."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.words = [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)

  @property
  def text(self):
    return " ".join(" ".join(self.words).split())


def embedded(text):
  """All that is embedded in a text, and in what is embedded there: media types and bytes."""
  # Nothing may be embedded in another way, which would be missed here.
  found = re.findall(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/=\s]+)", text)
  assert len(found) == len(re.findall(r"\bdata:|base64", text)) / 2
  contents = [(kind, base64.b64decode(content)) for kind, content in found]
  for kind, content in list(contents):
    if kind == "image/svg+xml":
      contents += embedded(content.decode())
  return contents


def pictures(text):
  """The pixels u8[H,W,4] of every picture in a page, those within plots too."""
  found = []
  for kind, content in embedded(text):
    if kind != "image/svg+xml":
      found.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")))
  return found


def shows(picture, image, tolerance=2):
  """Whether an image is in a picture, anywhere and enlarged by any whole factor.

  Args:
    picture: u8[H,W,4].
    image: u8[h,w,C], C of 1 or 3.
    tolerance: levels that every pixel may be off.
  """
  picture = picture[..., :3].astype(np.int16)
  height, width = image.shape[:2]
  for factor in range(1, min(picture.shape[0] // height, picture.shape[1] // width) + 1):
    rows, columns = (
      size - factor * own + 1 for size, own in zip(picture.shape, (height, width), strict=False)
    )
    found = np.ones((rows, columns), bool)
    for i, j in np.ndindex(height, width):
      there = picture[factor * i :, factor * j :][:rows, :columns]
      found &= (abs(there - image[i, j]) <= tolerance).all(axis=-1)
      if not found.any():
        break
    else:
      return True
  return False
