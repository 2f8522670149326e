"""Counters of a source while senders come and go."""

from anabranch.tree.pipelines.worker.reception import Reception


class Structure(dict):
    """Reads like a Gst.Structure."""

    def get_value(self, name):
        return self[name]


class Session:
    """Has the statistics of an rtpsession."""

    def __init__(self) -> None:
        self.senders: list[Structure] = []

    def get_property(self, _name):
        own = sender(1, 0) | {"internal": True}
        return Structure({"source-stats": [Structure(own), *self.senders]})


def sender(ssrc, packets, lost=0, jitter=0, rate=90000):
    return Structure(
        {
            "ssrc": ssrc,
            "internal": False,
            "packets-received": packets,
            "octets-received": packets * 100,
            "packets-lost": lost,
            "jitter": jitter,
            "clock-rate": rate,
        }
    )


def test_a_sender_that_is_forgotten_still_counts():
    session = Session()
    reception = Reception(session)
    assert reception.stats() == [0, 0, 0, 0.0]
    session.senders = [sender(7, 10, lost=2, jitter=90)]
    assert reception.stats() == [10, 1000, 2, 1.0]
    session.senders = [sender(7, 20, lost=3, jitter=90), sender(8, 5, jitter=180)]
    assert reception.stats() == [25, 2500, 3, 2.0]
    session.senders = [sender(8, 6)]
    assert reception.stats() == [26, 2600, 3, 0.0]
    session.senders = [sender(8, 7), sender(7, 1)]
    assert reception.stats() == [28, 2800, 3, 0.0]


def test_duplicates_make_no_negative_loss_and_an_unknown_clock_no_jitter():
    session = Session()
    session.senders = [sender(7, 10, lost=-2, jitter=90, rate=-1)]
    assert Reception(session).stats() == [10, 1000, 0, 0.0]
