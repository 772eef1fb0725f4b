"""Reads a page as a browser does, and is stricter about it."""

import html.parser

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
