"""The part of ``bench signalling`` that needs no namespaces."""

from anabranch.app.bench.signalling.host import verifications_per_s
from anabranch.services.keys import PrivateKey


def test_the_limit_beside_it_is_of_this_core() -> None:
    assert verifications_per_s(PrivateKey.generate()) > 10
