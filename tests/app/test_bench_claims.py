"""Numbers that only one process has at a time."""

import os
import signal
import subprocess
import sys
from secrets import token_hex

import pytest

from anabranch.app.bench.claims import Claim
from anabranch.core.errors import UnavailableError


def test_all_are_given_once_and_again_when_released() -> None:
    use = token_hex(4)
    claims = [Claim(use, 5) for _ in range(5)]
    assert {claim.number for claim in claims} == set(range(5))
    with pytest.raises(UnavailableError, match=f"all 5 of {use} are in use"):
        Claim(use, 5)
    claims[2].release()
    again = Claim(use, 5)
    assert again.number == claims[2].number
    for claim in (*claims, again):
        claim.release()


def test_a_killed_process_has_none() -> None:
    use = token_hex(4)
    code = (
        "import sys, time; from anabranch.app.bench.claims import Claim\n"
        "held = Claim(sys.argv[1], 1); print(held.number, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, use], stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == b"0\n"
        with pytest.raises(UnavailableError):
            Claim(use, 1)
        os.kill(other.pid, signal.SIGKILL)
    Claim(use, 1).release()
