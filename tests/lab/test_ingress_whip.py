"""WHIP behind an ingress: a browser, aiortc and GStreamer publish to a site that has one."""

import pytest
from tests.lab.behind_ingress import site
from tests.lab.test_whip import (
    stage,
    test_a_browsers_camera_is_seen_and_survives_a_killed_gate,
    test_aiortc_publishes_and_changes_its_size_in_mid_stream,
    test_gstreamer_publishes_until_it_is_killed,
)

__all__ = [
    "site",
    "stage",
    "test_a_browsers_camera_is_seen_and_survives_a_killed_gate",
    "test_aiortc_publishes_and_changes_its_size_in_mid_stream",
    "test_gstreamer_publishes_until_it_is_killed",
]

pytestmark = [pytest.mark.lab, pytest.mark.proof]  # the ways in themselves are tested without one
