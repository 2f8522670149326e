"""When a feed counts as live, stepped by hand."""

from anabranch.media.encoder_worker.watch import KeyframeLimit, Verdict, Watch


class Feed:
    """A watch polled every 50 ms with counters that the test moves."""

    def __init__(self):
        self.watch, self.now, self.video, self.audio = Watch(25), 100.0, 0, None

    def run(self, seconds, fps=25.0, anchor=True):
        verdict = Verdict()
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.video += fps * 0.05
            verdict = self.watch.poll(
                self.now, None if self.video is None else int(self.video), self.audio
            )
            if anchor and verdict.anchor:
                self.watch.anchored = True
        return verdict


def test_a_steady_feed_is_anchored_and_then_shown():
    feed = Feed()
    assert feed.run(0.3, anchor=False).anchor == "video"
    assert feed.run(0.3) == Verdict(video=True)


def test_a_burst_is_waited_for():
    feed = Feed()
    assert feed.run(0.5, fps=400, anchor=False) == Verdict()
    assert feed.run(0.3, anchor=False).anchor == "video"


def test_an_eternal_burst_is_taken_and_then_cut_off():
    feed = Feed()
    assert feed.run(2.3, fps=400, anchor=False).anchor == "video"
    assert feed.run(1.5, fps=400).runaway


def test_loss_and_return():
    feed = Feed()
    feed.run(1)
    assert feed.run(0.5, fps=0).video
    assert not feed.run(0.25, fps=0).video
    assert not feed.watch.anchored
    assert feed.run(0.3).video


def test_lost_picture_while_the_sound_goes_on_keeps_the_time():
    feed = Feed()
    feed.audio = 0
    for _ in range(40):
        feed.audio += 2400
        feed.run(0.05)
    for _ in range(20):
        feed.audio += 2400
        verdict = feed.run(0.05, fps=0)
    assert verdict == Verdict(video=False, audio=True)
    assert feed.watch.anchored


def test_sound_alone_sets_the_time():
    watch, now = Watch(25), 5.0
    verdicts = []
    for count in range(8):
        now += 0.05
        verdicts.append(watch.poll(now, None, count * 2400))
    assert verdicts[-1].anchor == "audio"


def test_drift_is_told_from_jitter():
    watch = Watch(25)
    assert all(watch.drift(late) == 0 for late in [0.5] * 9 + [0.0] + [0.5] * 9)
    watch = Watch(25)
    assert [watch.drift(0.4) for _ in range(10)][-1] == 0.4
    assert [watch.drift(-0.5) for _ in range(10)][-1] == -0.5


def test_key_frames_at_most_one_a_second():
    limit = KeyframeLimit()
    assert limit.request("high", 10.0)
    assert limit.request("low", 10.0)
    assert not limit.request("high", 10.2)
    assert not limit.request("high", 10.4)
    assert limit.due(10.9) == []
    assert limit.due(11.0) == ["high"]
    assert limit.due(12.5) == []
    assert limit.request("high", 12.5)
