"""The RTMP server's own page of figures."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.media.errors import RtmpError
from anabranch.media.publisher_figures import Reception, SourcePicture
from anabranch.media.rtmp_figures import MAX_PAGE, read_stat

# As nginx-rtmp 1.1.4 tells it, with a reader beside the publisher.
PAGE = b"""<?xml version="1.0" encoding="utf-8" ?>
<rtmp><nginx_version>1.22.1</nginx_version><nginx_rtmp_version>1.1.4</nginx_rtmp_version>
<bw_in>414496</bw_in><bytes_in>650237</bytes_in>
<server><application><name>live</name><live>
<stream><name>abc</name><time>13769</time><bw_in>409752</bw_in><bytes_in>642850</bytes_in>
<bw_out>0</bw_out><bytes_out>0</bytes_out><bw_audio>75552</bw_audio><bw_video>334192</bw_video>
<client><id>4</id><address>127.0.0.1</address><time>99</time><flashver>LNX 9,0</flashver>
<dropped>0</dropped><avsync>0</avsync><timestamp>1</timestamp><active/></client>
<client><id>1</id><address>127.0.0.1</address><time>13944</time><flashver>FMLE/3.0</flashver>
<dropped>0</dropped><avsync>50</avsync><timestamp>13738</timestamp><publishing/><active/></client>
<meta><video><width>320</width><height>180</height><frame_rate>15</frame_rate><codec>H264</codec>
<profile>Baseline</profile><compat>192</compat><level>1.3</level></video>
<audio><codec>AAC</codec><profile>LC</profile><channels>1</channels></audio></meta>
<nclients>2</nclients><publishing/><active/></stream>
<nclients>2</nclients></live></application></server></rtmp>"""


def test_publishers_by_their_connections() -> None:
    assert read_stat(PAGE) == {
        "1": Reception(octets=642850, picture=SourcePicture("h264", 320, 180, 15))
    }
    assert read_stat(b"<rtmp/>") == {}


def test_sizes_that_are_not_known_yet_are_none() -> None:
    page = PAGE.replace(b"<width>320", b"<width>0").replace(b"<frame_rate>15", b"<frame_rate>")
    assert read_stat(page)["1"].picture == SourcePicture("h264", None, 180, None)
    bare = PAGE[: PAGE.index(b"<meta>")] + PAGE[PAGE.index(b"</meta>") + 7 :]
    assert read_stat(bare)["1"] == Reception(octets=642850)


@pytest.mark.parametrize(
    "page", [b"", b"<rtmp>", b'<?xml version="1.0" encoding="none"?><x/>', b" " * (MAX_PAGE + 1)]
)
def test_what_is_no_such_page(page: bytes) -> None:
    with pytest.raises(RtmpError):
        read_stat(page)


@given(st.binary(max_size=200), st.integers(0, len(PAGE)), st.integers(0, 20))
def test_any_page_is_figures_or_the_one_error(said: bytes, at: int, gone: int) -> None:
    for page in (said, PAGE[:at] + said[:5] + PAGE[at + gone :]):
        with suppress(RtmpError):
            for reception in read_stat(page).values():
                assert reception.octets >= 0
