"""A 7-node site on this machine: a root, two relays, four leaves; any leaf can use either relay."""

import json
from collections.abc import Collection

RELAYS = ("relay1", "relay2")
LEAVES = ("leaf1", "leaf2", "leaf3", "leaf4")


def seven_nodes(
    *, idle: Collection[str] = (), capacity: int | None = None, redundancy: bool = False
) -> dict[str, str]:
    """Return settings for :class:`SiteProcess`.

    Args:
        idle: nodes of the pool.
        capacity: viewers of each leaf at most.
        redundancy: each leaf has the other relay for a reserve. Else it gets a link to the root
            when its relay dies.
    """
    parents = {"relay1": "root", "relay2": "root"}
    parents |= {leaf: RELAYS[number // 2] for number, leaf in enumerate(LEAVES)}
    nodes: list[dict[str, object]] = [{"name": "root", "role": "root"}]
    nodes += [{"name": name, "role": "relay", "parent": "root"} for name in RELAYS]
    nodes += [
        {"name": name, "role": "leaf", "parent": parents[name], "capacity": capacity}
        for name in LEAVES
    ]
    for node in nodes:
        node["idle"] = node["name"] in idle
    reserves = [
        {"between": [leaf, relay]} for leaf in LEAVES for relay in RELAYS if parents[leaf] != relay
    ]
    return {
        "NODES": json.dumps(nodes),
        "LINKS": json.dumps(reserves if redundancy else []),
    }
