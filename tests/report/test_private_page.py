"""No image of the data set is in the report; the private page has them, and says so."""

import base64
import io

import numpy as np
import pytest
from page_reader import Page, embedded, pictures, shows
from PIL import Image
from report_example import STAGES, paper_protocol, stored, stored_arrays, without_shadow

from diffence_jax.report.page import render_page, render_private_page


@pytest.fixture(scope="module")
def private():
  return render_private_page(stored(), stored_arrays())


def _found(page, images):
  """For every image whether a picture of the page shows it."""
  shown = pictures(page)
  return [any(shows(picture, image) for picture in shown) for image in images]


@pytest.mark.parametrize("results", [stored, without_shadow, paper_protocol])
def test_no_image_of_the_data_set_is_in_the_report(results):
  arrays = stored_arrays()
  page = render_page(results(), arrays, STAGES)
  kinds = [kind for kind, _ in embedded(page)]
  assert kinds.count("image/svg+xml") == (3 if results is without_shadow else 5)
  assert kinds.count("image/png") == 1 and set(kinds) == {"image/svg+xml", "image/png"}
  assert not any(_found(page, arrays["images/raw"]))
  # Nor what was made of them, which may look like them.
  assert not any(_found(page, arrays["images/reconstructed"].reshape(-1, 8, 8, 1)))
  # What the diffusion model drew from noise is there: images are found where they are.
  assert all(_found(page, arrays["images/samples"]))


def test_the_report_does_not_depend_on_images_of_the_data_set():
  arrays = stored_arrays()
  page = render_page(stored(), arrays, STAGES)
  for name in [*arrays]:
    if name.startswith(("exposed/", "images/r")) or "/example_" in name:
      del arrays[name]
  assert render_page(stored(), arrays, STAGES) == page


def test_the_private_page_shows_them_beside_their_regenerations(private):
  arrays = stored_arrays()
  assert all(_found(private, arrays["images/raw"]))
  assert all(_found(private, arrays["images/reconstructed"].reshape(-1, 8, 8, 1)))
  assert not any(_found(private, arrays["images/samples"]))


def test_the_private_page_ranks_the_examples_that_are_exposed_most(private):
  arrays = stored_arrays()
  assert all(_found(private, arrays["exposed/images"]))
  text = Page(private).text
  at, aucs = arrays["exposed/at"], arrays["undefended/example_auc"]
  assert len(at) == 10 and np.all(np.diff(aucs[at]) <= 0.0)
  assert aucs[at[-1]] >= np.sort(aucs)[-10]
  place = 3
  low, high = (arrays[f"undefended/example_{end}"][at[place]] for end in ("low", "high"))
  facts = (arrays[f"exposed/{name}"][place] for name in ("ids", "labels"))
  side = "member" if arrays["exposed/is_member"][place] else "non-member"
  told = f"{place + 1} {' '.join(map(str, facts))} {side} {aucs[at[place]]:.2f}"
  assert f"{told} [{low:.2f}, {high:.2f}]" in text
  assert "too high on average" in text
  assert "exposed most" not in Page(render_private_page(without_shadow(), arrays)).text


def test_the_private_page_says_that_it_is_not_for_others(private):
  page = Page(private)
  assert "Not for others." in page.text
  assert "half of them from the classifier's training set" in page.text
  assert "What can be handed on is report.html" in page.text
  assert page.text.startswith("PRIVATE: digits, seed 0")
  assert "digits (audit_smoke), seed 0" in page.text
  assert f"after noise of {stored().purify.step} diffusion steps" in page.text


def test_the_report_says_where_they_are():
  text = Page(render_page(stored(), stored_arrays(), STAGES)).text
  assert "private.html , which shows training images and is not for others" in text
  assert "Not for others." not in text


def test_the_private_page_needs_nothing_from_outside_and_is_the_same_every_time(private):
  tags = Page(private).tags
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags}
  images = [attributes for tag, attributes in tags if tag == "img"]
  assert len(images) == 1 + 10 and len(images[0]["alt"]) > 20
  assert all(image["src"].startswith("data:image/png;base64,") for image in images)
  assert all(image["alt"] for image in images)
  assert "http" not in private
  assert render_private_page(stored(), stored_arrays()) == private


@pytest.mark.parametrize("factor", [1, 2, 6])
@pytest.mark.parametrize("within_a_plot", [False, True])
def test_an_image_is_found_wherever_it_is(factor, within_a_plot):
  """The search itself: another factor, another place, in a plot, a few levels off."""
  raw = stored_arrays()["images/raw"][:2]
  canvas = np.full((60, 71, 3), 9, np.uint8)
  large = raw[0].repeat(factor, axis=0).repeat(factor, axis=1)
  place = canvas[5:, 11:][: len(large), : len(large)]
  place[:] = np.where(large < 255, large + 1, large)
  buffer = io.BytesIO()
  Image.fromarray(canvas).save(buffer, "PNG")
  page = f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
  if within_a_plot:
    svg = f"<svg>{page.replace('<img src', '<image href')}</svg>".encode()
    page = f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}">'
  assert _found(page, raw) == [True, False]
