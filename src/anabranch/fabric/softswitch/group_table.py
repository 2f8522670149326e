"""Groups: which buckets a packet meets (OpenFlow 1.3.5, sections 5.6 and 6.5)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from anabranch.fabric.openflow.actions import GROUP_ANY, PORT_ANY, Action, Group
from anabranch.fabric.openflow.messages import (
    BUCKET_ALL,
    BUCKET_FIRST,
    BUCKET_LAST,
    GROUP_ALL,
    Bucket,
    GroupCommand,
    GroupMod,
    GroupType,
)
from anabranch.fabric.openflow.refusals import Refusal
from anabranch.fabric.softswitch.refusals import RefusedError

_GROUP_MAX = 0xFFFFFF00

_HASHED = (
    *("eth_src", "eth_dst", "vlan_vid", "eth_type", "ip_proto", "ipv4_src", "ipv4_dst"),
    *("ipv6_src", "ipv6_dst", "udp_src", "udp_dst", "tcp_src", "tcp_dst", "arp_spa", "arp_tpa"),
)


@dataclass(slots=True, eq=False)
class BucketEntry:
    """A bucket with its counters."""

    bucket: Bucket
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True, eq=False)
class GroupEntry:
    """A group with its counters; ``created`` in monotonic seconds."""

    group_id: int
    type: GroupType
    buckets: list[BucketEntry]
    created: float
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class GroupTable:
    """The groups of a switch.

    ``port_live`` says whether a port is up; ``check`` raises RefusedError for impossible actions.
    """

    port_live: Callable[[int], bool]
    check: Callable[[tuple[Action, ...]], None]
    groups: dict[int, GroupEntry] = field(default_factory=dict)

    def __iter__(self) -> Iterator[GroupEntry]:
        return iter(self.groups.values())

    def modify(self, mod: GroupMod, now: float) -> frozenset[int]:
        """Do what ``mod`` says; return the groups that are gone, whose flows must go, too.

        Raises:
            RefusedError: it cannot be done; nothing has changed.
        """
        if mod.command == GroupCommand.DELETE:
            return self._delete(mod.group_id)
        if mod.group_id > _GROUP_MAX:
            raise RefusedError(Refusal.INVALID_GROUP)
        present = self.groups.get(mod.group_id)
        if mod.command == GroupCommand.ADD:
            if present is not None:
                raise RefusedError(Refusal.GROUP_EXISTS)
            self._check(mod.group_id, mod.type, mod.buckets)
            buckets = list(map(BucketEntry, mod.buckets))
            self.groups[mod.group_id] = GroupEntry(mod.group_id, mod.type, buckets, now)
            return frozenset()
        if present is None:
            raise RefusedError(Refusal.UNKNOWN_GROUP)
        match mod.command:
            case GroupCommand.MODIFY:
                self._check(mod.group_id, mod.type, mod.buckets)
                # All of it is replaced, but the time since it was made (section 6.5).
                present.type = mod.type
                present.buckets = list(map(BucketEntry, mod.buckets))
                present.packets = present.bytes = 0
            case GroupCommand.INSERT_BUCKET:
                self._insert(present, mod.buckets, mod.command_bucket_id)
            case GroupCommand.REMOVE_BUCKET:
                self._remove(present, mod.command_bucket_id)
        return frozenset()

    def reserve(self, group_id: int, now: float) -> None:
        """Make a group that drops, for others to refer to."""
        self.groups[group_id] = GroupEntry(group_id, GroupType.ALL, [], now)

    def _delete(self, group_id: int) -> frozenset[int]:
        if group_id == GROUP_ALL:
            gone = frozenset(self.groups)
        else:
            if group_id > _GROUP_MAX:
                raise RefusedError(Refusal.INVALID_GROUP)
            gone = frozenset({group_id} & self.groups.keys())
            used = any(gone & _references(b.bucket for b in other.buckets) for other in self)
            if used:
                raise RefusedError(Refusal.CHAINED_GROUP)
        for one in gone:
            del self.groups[one]
        return gone

    def _insert(self, group: GroupEntry, buckets: tuple[Bucket, ...], where: int) -> None:
        ids = [entry.bucket.bucket_id for entry in group.buckets]
        if {bucket.bucket_id for bucket in buckets} & set(ids):
            raise RefusedError(Refusal.BUCKET_EXISTS)
        at = 0 if where == BUCKET_FIRST else len(ids)
        if where not in (BUCKET_FIRST, BUCKET_LAST):
            if where not in ids:
                raise RefusedError(Refusal.UNKNOWN_BUCKET)
            at = ids.index(where) + 1
        after = [*group.buckets[:at], *map(BucketEntry, buckets), *group.buckets[at:]]
        self._check(group.group_id, group.type, tuple(entry.bucket for entry in after))
        group.buckets = after

    def _remove(self, group: GroupEntry, which: int) -> None:
        ids = [entry.bucket.bucket_id for entry in group.buckets]
        if which == BUCKET_ALL:
            group.buckets = []
        elif which == BUCKET_FIRST:
            del group.buckets[:1]
        elif which == BUCKET_LAST:
            del group.buckets[-1:]
        elif which in ids:
            del group.buckets[ids.index(which)]
        else:
            raise RefusedError(Refusal.UNKNOWN_BUCKET)

    def _check(self, group_id: int, kind: GroupType, buckets: tuple[Bucket, ...]) -> None:
        if kind == GroupType.INDIRECT and len(buckets) != 1:
            raise RefusedError(Refusal.INVALID_GROUP)
        for bucket in buckets:
            if bucket.weight and kind != GroupType.SELECT:
                raise RefusedError(Refusal.INVALID_GROUP)
            watches = bucket.watch_port != PORT_ANY or bucket.watch_group != GROUP_ANY
            if kind == GroupType.FAST_FAILOVER and not watches:
                raise RefusedError(Refusal.INVALID_GROUP)
            if kind in (GroupType.ALL, GroupType.INDIRECT) and watches:
                raise RefusedError(Refusal.WATCH_UNSUPPORTED)
            self.check(bucket.actions)
        # A group that leads back to itself would never end, and so would its liveness.
        ahead = _references(buckets)
        seen: set[int] = set()
        while ahead:
            one = ahead.pop()
            if one == group_id:
                raise RefusedError(Refusal.GROUP_LOOP)
            if one not in seen and one in self.groups:
                seen.add(one)
                ahead |= _references(entry.bucket for entry in self.groups[one].buckets)

    def live(self, group_id: int) -> bool:
        """Say whether a group exists and has a live bucket."""
        group = self.groups.get(group_id)
        return group is not None and any(self._bucket_live(b.bucket) for b in group.buckets)

    def _bucket_live(self, bucket: Bucket) -> bool:
        """A bucket lives if what it watches does; one that watches nothing always does."""
        port, group = bucket.watch_port, bucket.watch_group
        if port == PORT_ANY and group == GROUP_ANY:
            return True
        return (port != PORT_ANY and self.port_live(port)) or (
            group != GROUP_ANY and self.live(group)
        )

    def choose(self, group: GroupEntry, fields: dict[str, int]) -> list[BucketEntry]:
        """Return the buckets that a packet with these header fields meets."""
        match group.type:
            case GroupType.FAST_FAILOVER:
                return next(([b] for b in group.buckets if self._bucket_live(b.bucket)), [])
            case GroupType.SELECT:
                return self._select(group, fields)
        return list(group.buckets)

    def _select(self, group: GroupEntry, fields: dict[str, int]) -> list[BucketEntry]:
        """Rendezvous by weight: a flow stays with its bucket unless that very one goes away."""
        seed = repr([fields.get(name) for name in _HASHED]).encode()
        best: tuple[float, int] | None = None
        for at, entry in enumerate(group.buckets):
            bucket = entry.bucket
            if bucket.weight and self._bucket_live(bucket):
                name = at if bucket.bucket_id is None else bucket.bucket_id
                digest = blake2b(seed + name.to_bytes(4, "big"), digest_size=4).digest()
                # The largest u ** (1 / w) wins with a probability in proportion to w.
                score = ((int.from_bytes(digest, "big") + 1) / (1 << 32)) ** (1 / bucket.weight)
                if best is None or score > best[0]:
                    best = score, at
        return [] if best is None else [group.buckets[best[1]]]


def _references(buckets: Iterator[Bucket] | tuple[Bucket, ...]) -> set[int]:
    """Return the groups that buckets send to or watch."""
    found = set()
    for bucket in buckets:
        found |= {action.group_id for action in bucket.actions if isinstance(action, Group)}
        if bucket.watch_group != GROUP_ANY:
            found.add(bucket.watch_group)
    return found
