"""RTMP, SRT and RTP behind an ingress: tests of these ways in, of a site that has one."""

import pytest
from tests.lab.behind_ingress import site
from tests.lab.test_site_feed import (
    channel,
    test_a_killed_rtmp_server_lets_its_publisher_back_in,
    test_rtmp_with_its_key,
    test_rtp_with_garbage_on_its_port,
    test_srt_with_its_passphrase,
)

__all__ = [
    "channel",
    "site",
    "test_a_killed_rtmp_server_lets_its_publisher_back_in",
    "test_rtmp_with_its_key",
    "test_rtp_with_garbage_on_its_port",
    "test_srt_with_its_passphrase",
]

pytestmark = [pytest.mark.lab, pytest.mark.proof]  # the ways in themselves are tested without one
