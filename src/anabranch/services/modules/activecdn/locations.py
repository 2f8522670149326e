"""Where addresses are: a table of prefixes with coordinates, and distances on the globe. Pure.

The table is CSV (RFC 4180), one prefix a line; ``#`` begins a comment::

    # prefix, latitude, longitude (degrees, north and east positive), name
    192.0.2.0/24, 52.52, 13.40, Berlin
    2001:db8:1::/48, 40.71, -74.01, New York

The seed takes MaxMind's GeoIP for this (003, 7.1); any such database can be written so.
"""

import csv
import math
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Self

from anabranch.core.errors import UsageError
from anabranch.services.errors import ServicesError
from anabranch.services.signalling.gist.objects import Address
from anabranch.services.signalling.values import Network

EARTH_KM = 6371.0
"""The mean radius (IUGG)."""
_MAX_FILE = 256 << 20
_MAX_NAME = 60


class LocationsError(ServicesError, UsageError):
    """A table that cannot be read; the message says where."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point on the globe, in degrees."""

    latitude: float
    longitude: float
    name: str = ""

    def distance_km(self, other: "Place") -> float:
        """Return the length of the great circle to another place (the haversine formula)."""
        here, there = math.radians(self.latitude), math.radians(other.latitude)
        north = math.sin((there - here) / 2) ** 2
        east = math.sin(math.radians(other.longitude - self.longitude) / 2) ** 2
        share = min(north + math.cos(here) * math.cos(there) * east, 1.0)
        return 2 * EARTH_KM * math.asin(math.sqrt(share))


class Locations:
    """Finds the longest prefix that an address is in."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], dict[int, tuple[Network, Place]]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}

    def put(self, prefix: Network, place: Place) -> None:
        version, length = prefix.version, prefix.prefixlen
        known = self._places.setdefault((version, length), {})
        known[int(prefix.network_address)] = prefix, place
        if length not in self._lengths[version]:
            self._lengths[version] = sorted([*self._lengths[version], length], reverse=True)

    def find(self, address: Address) -> tuple[Network, Place] | None:
        """Return the prefix of an address, and where it is; None: nobody knows."""
        number, bits = int(address), address.max_prefixlen
        for length in self._lengths[address.version]:
            start = number >> (bits - length) << (bits - length)
            found = self._places[address.version, length].get(start)
            if found is not None:
                return found
        return None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a table. Raises LocationsError."""
        made = cls()
        lines = csv.reader(text.splitlines(), skipinitialspace=True)
        try:
            for fields in lines:
                if fields and not fields[0].lstrip().startswith("#"):
                    made.put(*_row(fields))
        except (ValueError, csv.Error) as error:
            raise LocationsError(f"line {lines.line_num}: {error}") from None
        return made

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a table from a file. Raises LocationsError."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
            if len(data) > _MAX_FILE:
                raise LocationsError(f"{path} is larger than {_MAX_FILE} bytes")
            return cls.parse(data.decode())
        except OSError as error:
            raise LocationsError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise LocationsError(f"{path} is not UTF-8") from None
        except LocationsError as error:
            raise LocationsError(f"{path}: {error}") from None


def _row(fields: list[str]) -> tuple[Network, Place]:
    if len(fields) not in {3, 4}:
        raise ValueError("a line is PREFIX, LATITUDE, LONGITUDE, NAME")
    prefix = ip_network(fields[0].strip())
    latitude, longitude = float(fields[1]), float(fields[2])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(f"{fields[1]}, {fields[2]} is nowhere on the globe")
    name = fields[3].strip() if len(fields) == 4 else ""
    return prefix, Place(latitude, longitude, name[:_MAX_NAME])
