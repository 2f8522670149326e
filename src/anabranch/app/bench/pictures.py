"""Whose picture a browser shows, frame by frame, read from the decoded pixels.

Test channels move, so a channel is known by the points of a grid that are mostly still and whose
colours differ from the other's there: found by watching each of them for a while. A frame is
*clean* if at least 85 in 100 of these points are of one channel (what moves covers some) and 3 at
most of the other. With more of the other it is *mixed*; else it is of no channel (a slate, a key
frame of poor quality).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from anabranch.core.errors import UnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Page

MIXED = -1
UNCLEAR = -2
LEARN_MS = 10_000
"""Time that a channel is watched to know it: after 8 s of a test channel nothing new comes."""
SETTLE_MS = 4000
"""Time after which a picture is no mixture any more."""
FREEZE_MS = 200.0
CLOSE_MS = 100.0
"""A delay that is no longer than the steady one by more than this is live."""

PROBE = """
() => {
  const WIDTH = 32, HEIGHT = 18, SIZE = WIDTH * HEIGHT * 4;
  const APART = 64, MARGIN = 24, STILL = 0.8, OWN = 0.85, FOREIGN = 0.03;
  const canvas = document.createElement('canvas');
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const context = canvas.getContext('2d', { willReadFrequently: true, alpha: false });
  context.imageSmoothingEnabled = false;  // points, not means of areas
  const samples = [];   // pictures by channel
  const middles = [];   // by channel: the median of every byte
  let points = [];
  let learning = null;
  const probe = (window.probe = { frames: [], keys: [] });

  probe.learn = (channel) => (learning = samples[channel] ??= []);
  probe.rest = () => (learning = null);
  const near = (data, middle, at) =>
    [0, 1, 2].every((i) => Math.abs(data[at + i] - middle[at + i]) <= MARGIN);
  const middleOf = (pictures) => Array.from({ length: SIZE }, (_, at) =>
    Uint8Array.from(pictures, (picture) => picture[at]).sort()[pictures.length >> 1]);
  probe.know = () => {
    middles.push(...samples.map(middleOf));
    const apart = (a, b, at) => [0, 1, 2].some((i) => Math.abs(a[at + i] - b[at + i]) > APART);
    const isStill = (channel, at) =>
      samples[channel].filter((picture) => near(picture, middles[channel], at)).length
        >= STILL * samples[channel].length;
    points = [];
    for (let at = 0; at < SIZE; at += 4) {
      const others = (channel) => middles.slice(channel + 1);
      if (middles.every((middle, channel) => isStill(channel, at)
        && others(channel).every((other) => apart(middle, other, at)))) points.push(at);
    }
    samples.length = 0;
    return points.length;
  };
  probe.model = () => ({ points, middles });
  probe.load = (model) => {
    points = model.points;
    middles.splice(0, middles.length, ...model.middles);
  };
  const channelOf = (data) => {
    const shares = middles.map((middle) =>
      points.filter((at) => near(data, middle, at)).length / points.length);
    const best = shares.indexOf(Math.max(...shares));
    const alone = shares.every((share, channel) => channel === best || share <= FOREIGN);
    return !alone ? -1 : shares[best] >= OWN ? best : -2;
  };
  const look = (video) => {
    context.drawImage(video, 0, 0, WIDTH, HEIGHT);
    const { data } = context.getImageData(0, 0, WIDTH, HEIGHT);
    if (learning) learning.push(data);
    return points.length ? channelOf(data) : null;
  };
  const follow = (video) => video.requestVideoFrameCallback(() => {
    const at = performance.now();
    const note = () => {
      if (!video.classList.contains('front')) return;
      probe.frames.push([at, look(video), window.anabranch?.readClock() ?? null]);
    };
    // The page may be about to bring it to the front because of this very frame.
    if (video.classList.contains('front')) note();
    else setTimeout(note);
    follow(video);
  });
  const begin = () => document.querySelectorAll('video').forEach(follow);
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
  addEventListener('keydown', (event) => probe.keys.push([event.timeStamp, event.key]), true);
}
"""

Frame = tuple[float, int | None, float | None]
"""Time (performance.now(), ms), channel, :data:`MIXED` or :data:`UNCLEAR`, delay by the picture's
clock in ms."""


@dataclass(frozen=True, slots=True)
class Zap:
    """What a viewer saw of one change, all in ms since the key was pressed.

    Attributes:
        clean_ms: the first clean frame of the new channel; None: there was none.
        live_ms: the first of these with the steady delay again; None: there was none.
        mixed: frames with something of both channels.
        freezes: gaps of more than 200 ms between two frames.
        longest_gap_ms: the longest gap.
    """

    clean_ms: float | None
    live_ms: float | None
    mixed: int
    freezes: int
    longest_gap_ms: float


def judge(frames: list[Frame], key_at: float, channel: int, steady_ms: float) -> Zap:
    """Judge the frames round a key press.

    Args:
        frames: in the order in which they were presented; some are from before the key.
        key_at: when the key was pressed.
        channel: the one that was asked for.
        steady_ms: the delay when nothing happens.
    """
    after = [frame for frame in frames if frame[0] >= key_at]
    before = [frame[0] for frame in frames if frame[0] < key_at]
    times = [*before[-1:], *(at for at, _, _ in after)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    clean = [(at, delay) for at, shown, delay in after if shown == channel]
    live = [at for at, delay in clean if delay is not None and delay <= steady_ms + CLOSE_MS]
    return Zap(
        clean_ms=clean[0][0] - key_at if clean else None,
        live_ms=live[0] - key_at if live else None,
        mixed=sum(shown == MIXED for _, shown, _ in after),
        freezes=sum(gap > FREEZE_MS for gap in gaps),
        longest_gap_ms=max(gaps, default=0.0),
    )


def frames_of(page: "Page") -> list[Frame]:
    """Return the frames that a page with the probe has noted."""
    return [(at, shown, delay) for at, shown, delay in page.evaluate("window.probe.frames")]


def know(page: "Page", channels: int, choose: Callable[[int], None]) -> None:
    """Watch every channel for a while to know it by its colours.

    Args:
        page: a watch page that plays, with the probe in it.
        channels: how many.
        choose: ``choose(number)`` shows one.

    Raises:
        UnavailableError: they look alike.
    """
    for channel in range(channels):
        choose(channel)
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate(f"window.probe.learn({channel})")
        page.wait_for_timeout(LEARN_MS)
        page.evaluate("window.probe.rest()")
    points = int(page.evaluate("window.probe.know()"))
    if points < 20:
        raise UnavailableError(f"only {points} points tell the channels apart")
