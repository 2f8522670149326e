"""The stand-alone controller as a process that says when it has begun: ``... FILE``."""

import asyncio
import sys
from pathlib import Path

from anabranch.app.bench.fabric.lab import quieten
from anabranch.app.controller import ControllerProcess
from anabranch.app.controller_file import read_controller_file


def main(file: Path) -> None:
    """Print a line, then control until killed."""
    quieten()
    process = ControllerProcess(read_controller_file(file))
    sys.stdout.write("started\n")
    sys.stdout.flush()
    asyncio.run(process.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
