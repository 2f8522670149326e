"""The journal: what is struck out is not removed again, whatever else is there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.host.journal import Entry, Journal


def test_what_is_struck_out_is_gone_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.forget("netns", "never there")
    for name in ("a", "b", "a"):
        journal.record("netns", name)
    journal.record("link", "a")
    journal.forget("netns", "a")
    assert list(journal.entries()) == [Entry("netns", "b"), Entry("link", "a")]
    journal.record("nft", "c")
    assert list(journal.entries())[-1] == Entry("nft", "c")
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from(["netns", "link"]), st.sampled_from(["a", "b", "c"])
        )
    )
)
def test_the_journal_has_what_was_made_and_not_removed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str, str]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    there: list[Entry] = []
    for made, kind, name in steps:
        entry = Entry(kind, name)  # type: ignore[arg-type]
        if made:
            journal.record(entry.kind, name)
            there += [] if entry in there else [entry]  # what is made again is there once
        else:
            journal.forget(entry.kind, name)
            there = [each for each in there if each != entry]
    assert list(journal.entries()) == there
