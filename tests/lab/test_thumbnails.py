"""What channels look like, from a real site: over HTTP, and on the list page in Chromium."""

import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.lab.page import Watching
from tests.media.key_frames import jpeg_size

from anabranch.app.bench.site_process import SiteProcess, running_site

pytestmark = pytest.mark.lab
DRAWN = """
() => [...document.querySelectorAll('canvas.thumbnail.shown')].map((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
    sum += data[i] + data[i + 1] + data[i + 2];
  }
  return { width: canvas.width, colours: colours.size, sum };
})
"""


@pytest.fixture(scope="module")
def own_site() -> Iterator[SiteProcess]:
    """One that has its channels at hand though nobody watches."""
    with running_site(leaf=json.dumps({"kind": "anabranch", "warm": "all"})) as made:
        yield made


def until(condition: Callable[[], object], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_a_channel_that_nobody_watches_shows_what_is_on(own_site: SiteProcess) -> None:
    path = f"{own_site.url}/api/channels/test1/thumbnail.jpg"
    until(lambda: httpx.get(path, timeout=10).status_code == 200, 15.0)
    first = httpx.get(path, timeout=10)
    assert jpeg_size(first.content) == (320, 180)
    same = httpx.get(path, headers={"If-None-Match": first.headers["etag"]}, timeout=10)
    assert same.status_code in (200, 304)
    # The test picture has a clock: a later one is another one.
    until(lambda: httpx.get(path, timeout=10).headers["etag"] != first.headers["etag"], 15.0)


def test_the_list_draws_channels_and_keeps_them_fresh(
    own_site: SiteProcess, watch: Watching
) -> None:
    page = watch.open(own_site.url)
    until(lambda: len(page.evaluate(DRAWN)) == 2, 20.0)
    before = page.evaluate(DRAWN)
    assert all(each["width"] == 320 and each["colours"] > 100 for each in before), before
    until(lambda: page.evaluate(DRAWN) != before, 25.0)
    assert len(page.evaluate(DRAWN)) == 2  # nothing has gone meanwhile
