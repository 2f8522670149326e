"""Layers behind an ingress: they become renditions in a site that has one."""

import pytest
from tests.lab.behind_ingress import site
from tests.lab.test_simulcast import (
    free,
    stage,
    test_a_browsers_camera_comes_in_layers,
    test_layers_are_seen_as_they_are_sent,
    test_layers_that_do_not_fit_are_encoded,
)

__all__ = [
    "free",
    "site",
    "stage",
    "test_a_browsers_camera_comes_in_layers",
    "test_layers_are_seen_as_they_are_sent",
    "test_layers_that_do_not_fit_are_encoded",
]

pytestmark = [pytest.mark.lab, pytest.mark.proof]  # the ways in themselves are tested without one
