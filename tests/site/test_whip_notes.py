"""Publishers by WHIP, as one director notes them and the next one reads them."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from anabranch.core.names import new_id
from anabranch.host.holdings import Holdings, keeping
from anabranch.media.publisher_figures import Connection
from anabranch.media.source import RtpStream
from anabranch.site.whip_notes import NotedPublisher, note_publishers, noted_publishers

names = st.text("abcdef", min_size=1, max_size=5)
publishers = st.builds(
    NotedPublisher,
    names,
    names,
    st.lists(st.builds(RtpStream, names, st.integers(), st.integers())).map(tuple),
    st.none() | st.builds(Connection, st.floats(0, 1e10), names),
    st.none() | st.dictionaries(names, st.integers()),
    st.dictionaries(names, st.none() | names),
)


@given(st.lists(publishers))
def test_what_is_noted_is_read(noted: list[NotedPublisher]) -> None:
    run_id = new_id()
    kept = Holdings(Path("/nowhere"), os.environ)
    with keeping(run_id, kept):
        assert noted_publishers(run_id) == []
        note_publishers(run_id, noted)
        assert noted_publishers(run_id) == noted
        note_publishers(run_id, [])
        assert kept.notes == {}
    note_publishers(run_id, noted)  # nothing outlives this run's director
    assert noted_publishers(run_id) == []
