"""Complaints in the log: one about each subject, now and then."""

import structlog
from structlog.testing import capture_logs

from anabranch.tree.complaints import Complaints


def test_each_subject_has_one_line_in_a_while() -> None:
    with capture_logs() as logs:
        complaints = Complaints(structlog.get_logger(), 10.0)
        for now in range(25):
            complaints.make("one", float(now), "wrong", node="one")
            if now >= 5:
                complaints.make("other", float(now), "wrong", node="other")
    assert [each["node"] for each in logs] == ["one", "other", "one", "other", "one"]
    assert logs[0] == {"event": "wrong", "log_level": "warning", "node": "one"}


def test_who_is_good_again_is_forgotten() -> None:
    with capture_logs():
        complaints = Complaints(structlog.get_logger(), 10.0)
        for number in range(1000):
            complaints.make(number, float(number), "wrong")
    assert len(complaints._quiet_until) == 10
