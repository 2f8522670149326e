"""The whole fabric over soft switches: what is asked for is carried, whatever happens beneath.

s1 -- s2 -- s3, and s1 -- s3: a triangle, hosts at the ports 1 and 2 of each.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fabric.triangle import (
    LINKS,
    MAC,
    S1,
    S2,
    S3,
    World,
    end,
    flow,
    frame,
    live_port,
    wanting,
)
from tests.waiting import until

from anabranch.core.events import Event
from anabranch.fabric import frames
from anabranch.fabric.errors import DisconnectedError, FabricError, MisuseError, NoPathError
from anabranch.fabric.fabric import Fabric
from anabranch.fabric.host_services import Settings, Unicast
from anabranch.fabric.intents import Egress, Flow, Intents, Tap
from anabranch.fabric.model import Link, LinkInfo, PortRef
from anabranch.fabric.notify import StoredSubscriptions
from anabranch.fabric.openflow.oxm import Match
from anabranch.fabric.options import Options
from anabranch.fabric.pathlogic.logic import Path as VmPath
from anabranch.fabric.pathlogic.logic import Role
from anabranch.fabric.softswitch.farm import Farm
from anabranch.fabric.softswitch.network import SoftNetwork
from anabranch.fabric.softswitch.switch import SoftSwitch
from anabranch.store.database import Database

# --- what is asked for -------------------------------------------------------------------------


async def test_before_anybody_wants_anything_no_switch_is_touched(
    world: World, fabric: Fabric
) -> None:
    await asyncio.sleep(0.05)
    assert world.changes == 0
    assert await fabric.put(Intents()) == frozenset()
    assert world.changes > 0


async def test_put_is_as_good_as_done_when_it_returns(world: World, fabric: Fabric) -> None:
    assert world.send() == []
    assert await fabric.put(wanting(flow("news", S2, S3))) == frozenset()
    assert world.send() == [S2, S3]
    assert await fabric.put(wanting(flow("news", S2))) == frozenset()
    assert world.send() == [S2]
    await fabric.put(Intents())
    assert world.send() == []


async def test_owners_want_side_by_side(world: World, fabric: Fabric) -> None:
    await fabric.put(wanting(flow("news")))
    await fabric.put(wanting(flow("sport", S2, port=5006)), "operator")
    assert (world.send(), world.send(frame(5006))) == ([S3], [S2])
    assert fabric.intents().names == {"news", "sport"}
    assert fabric.intents("operator").names == {"sport"}
    assert fabric.intents("nobody") == Intents()
    assert set(fabric.owners()) == {"site", "operator"}
    await fabric.put(Intents(), "operator")
    assert (world.send(), world.send(frame(5006))) == ([S3], [])


async def test_a_contradiction_leaves_everything_as_it_was(world: World, fabric: Fabric) -> None:
    await fabric.put(wanting(flow("news")))
    path = VmPath("sport", S1, S2, "192.168.1.181", Match(eth_type=0x0800, ip_proto=6))
    await fabric.follow([path])
    before, changes = fabric.intents(), world.changes
    same = replace(flow("other"), egress=frozenset({Egress(S2)}))
    for wrong in (wanting(flow("news", S2, port=1)), wanting(flow("sport", port=1)), wanting(same)):
        with pytest.raises(MisuseError):
            await fabric.put(wrong, "operator")
    for paths in ([path, path], [replace(path, name="news")], [replace(path, match=Match())]):
        with pytest.raises(MisuseError):
            await fabric.follow(paths)
    assert fabric.intents() == before
    assert fabric.followed() == {"sport": path}
    await asyncio.sleep(0.05)
    assert world.changes == changes
    assert world.send() == [S3]


async def test_what_is_put_before_it_runs_waits_for_it(world: World) -> None:
    fabric = await world.connect()
    asking = asyncio.create_task(fabric.put(wanting(flow())))
    await until(lambda: len(fabric.network().switches) == 3)
    assert not asking.done()
    assert world.changes == 0
    running = asyncio.create_task(fabric.run())
    try:
        assert await asking == frozenset()
        assert world.send() == [S3]
    finally:
        await end(fabric, running)


async def test_nobody_waits_for_a_fabric_that_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabric = await world.connect(settle_s=0)
    running = asyncio.create_task(fabric.run())
    begun = asyncio.Event()

    async def hang(*_: object) -> frozenset[str]:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    with monkeypatch.context() as patch:
        patch.setattr(fabric.controller, "apply", hang)
        asking = asyncio.create_task(fabric.put(wanting(flow())))
        await begun.wait()
        running.cancel()
        with pytest.raises(DisconnectedError, match="the fabric does not run"):
            await asking
        with pytest.raises(DisconnectedError, match="the fabric does not run"):
            await fabric.follow([])
    again = asyncio.create_task(fabric.run())
    try:
        await until(lambda: world.send() == [S3])
    finally:
        await end(fabric, again)


async def test_callbacks_that_cannot_be_read_stop_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/none/site.db")
    events: list[Event] = []
    options = Options(settle_s=0, counters_s=0)
    fabric = Fabric(options, events.append, callbacks=StoredSubscriptions(database))
    running = asyncio.create_task(fabric.run())
    try:
        assert await fabric.put(Intents()) == frozenset()
        assert [event.kind for event in events] == ["callback.unavailable"]
        assert (await fabric.recent_events(1))[0].kind == "callback.unavailable"
    finally:
        await end(fabric, running)
        await database.close()


async def test_a_flow_that_is_gone_is_not_reachable(world: World, fabric: Fabric) -> None:
    far = PortRef("s9", 1)
    await fabric.put(wanting(flow("far", far), flow("news", far, port=5006)))
    assert sorted(world.told("flow.unreachable")) == ["far", "news"]
    await fabric.put(wanting(flow("news", S2, port=5006)))
    assert world.told("flow.reachable") == ["news"]


async def test_links_known_from_the_start_stay(world: World, fabric: Fabric) -> None:
    first, second = Link(*LINKS[0]), Link(*LINKS[2])
    extra = Link(PortRef("s2", 2), PortRef("s3", 2))
    fabric.declare({first.reverse: LinkInfo(capacity_mbit=7, redundant=True), extra: LinkInfo()})
    links = fabric.network().links
    assert len(links) == 8
    for link in (first, first.reverse):
        assert (links[link].capacity_mbit, links[link].redundant, links[link].up) == (7, True, True)
    assert links[second] == LinkInfo()
    fabric.declare({})
    links = fabric.network().links
    assert (len(links), links[first]) == (6, LinkInfo())
    with pytest.raises(MisuseError):
        fabric.declare({Link(first.src, PortRef("s3", 2)): LinkInfo()})
    assert fabric.network().links == links


async def test_a_switch_that_refuses_is_named_and_tried_again(world: World, fabric: Fabric) -> None:
    world.network.switches["s3"]._table_size = 1
    with pytest.raises(FabricError, match="s3"):
        await fabric.put(wanting(flow()))
    world.network.switches["s3"]._table_size = 1000
    await until(lambda: world.send() == [S3])


async def test_nobody_is_waited_for_who_is_not_there(world: World) -> None:
    names = {1: "s1", 2: "s2", 3: "s3", 9: "s9"}
    async with world.run(names=names, settle_s=0.1) as fabric:
        far = flow("far", S3, PortRef("s9", 1))
        assert await fabric.put(wanting(far)) == frozenset()
        assert fabric.plan().unreachable == {"far": {Egress(PortRef("s9", 1))}}
        assert world.told("flow.unreachable") == ["far"]
        assert world.send() == [S3]
        assert not fabric.switches()["s9"].connected


# --- what happens beneath ----------------------------------------------------------------------


async def test_a_link_that_fails_is_gone_around_and_used_again(
    world: World, fabric: Fabric
) -> None:
    await fabric.put(wanting(flow()))
    direct = LINKS[2][0]
    assert fabric.plan().trees["news"].links == (Link(*LINKS[2]),)
    world.farm.set_link(direct, False)
    assert world.send() == [S3], "the switch does so by itself"
    await until(lambda: len(fabric.plan().trees["news"].links) == 2)
    assert world.send() == [S3]
    world.farm.set_link(LINKS[1][0], False)
    await until(lambda: world.told("flow.unreachable") == ["news"])
    world.farm.set_link(LINKS[1][0], True)
    await until(lambda: world.told("flow.reachable") == ["news"])
    await until(lambda: world.send() == [S3])
    recent = [event.kind for event in await fabric.recent_events(1000)]
    assert recent.count("link.down") == 2
    assert recent[0] == "flow.reachable", "newest first"


async def test_a_switch_goes_away_and_comes_back(world: World, fabric: Fabric) -> None:
    await fabric.put(wanting(flow("news", S2)))
    world.farm._dialling = asyncio.Semaphore(0)
    world.farm.disconnect("s2")
    await until(lambda: not fabric.switches()["s2"].connected)
    assert world.send() == [S2], "what it has been told it does"
    pending = await fabric.put(wanting(flow("news", S2), flow("sport", S2, port=5006)))
    assert pending == {"s2"}
    assert world.send(frame(5006)) == []
    world.farm._dialling.release()
    await until(lambda: fabric.switches()["s2"].connected)
    await until(lambda: world.send(frame(5006)) == [S2])
    assert world.send() == [S2]


async def test_a_fabric_that_starts_anew_changes_nothing(world: World) -> None:
    wanted = wanting(flow("news", S2, S3), flow("sport", S3, port=5006))
    path = VmPath("vms", S1, S3, "192.168.1.181", Match(eth_type=0x0800, ip_proto=6))
    hosts = Settings(edge=frozenset({S1, S2, S3}), packet_in_rate=500)
    async with world.run(hosts=hosts) as fabric:
        await asyncio.gather(fabric.put(wanted), fabric.follow([path]))
        assert world.send() == [S2, S3]
    changes = world.changes
    assert changes > 0
    assert world.send() == [S2, S3], "nobody is at work now"
    # It hears of the switches one by one, and is asked long before it has heard of all.
    fabric = await world.connect(hosts=hosts)
    running = asyncio.create_task(fabric.run())
    try:
        pending = await asyncio.gather(fabric.put(wanted), fabric.follow([path]))
        assert not any(pending)
        assert world.changes == changes
        await fabric.put(wanting(flow("news", S2, S3)))
        assert world.changes > changes
    finally:
        await end(fabric, running)


async def test_a_port_that_is_up_but_not_live_takes_its_link_down(
    world: World, fabric: Fabric
) -> None:
    await fabric.put(wanting(flow()))
    world.set_port(LINKS[2][0], live_port(4, state=0))
    await until(lambda: not fabric.network().links[Link(*LINKS[2])].up)
    await until(lambda: len(fabric.plan().trees["news"].links) == 2)
    assert fabric.network().ports[LINKS[2][0]].up
    world.set_port(LINKS[2][0], live_port(4))
    await until(lambda: fabric.network().links[Link(*LINKS[2])].up)


async def test_a_switch_that_never_says_live_is_believed(tmp_path: Path) -> None:
    world = World(tmp_path)
    for switch in world.network.switches.values():
        for number in (1, 2, 3, 4):
            switch.add_port(live_port(number, state=0), 0.0)
        switch.news()
    await world.farm.start()
    try:
        async with world.run() as fabric:
            await fabric.put(wanting(flow()))
            assert all(info.up for info in fabric.network().links.values())
            assert world.send() == [S3]
    finally:
        await world.farm.close()


async def test_links_are_found_where_none_is_declared(world: World) -> None:
    async with world.run(links={}, discover=True, settle_s=0.2) as fabric:
        await fabric.put(wanting(flow()))
        await until(lambda: len(fabric.network().links) == 6)
        await until(lambda: world.send() == [S3])


async def test_who_is_not_expected_is_taken_in_only_where_that_is_wanted(world: World) -> None:
    async with world.run() as fabric:
        port = await fabric.controller.listen_tcp("127.0.0.1", 0)
        stranger = SoftNetwork({"x": SoftSwitch(77, [1])})
        farm = Farm(stranger, f"tcp:127.0.0.1:{port}")
        await farm.start()
        await asyncio.sleep(0.1)
        assert set(fabric.switches()) == {"s1", "s2", "s3"}
        await farm.close()
    async with world.run(adopt=True) as fabric:
        port = await fabric.controller.listen_tcp("127.0.0.1", 0)
        farm = Farm(stranger, f"tcp:127.0.0.1:{port}")
        await farm.start()
        await until(lambda: fabric.network().switches.get(f"{77:016x}") == 77)
        await farm.close()


# --- taps, hosts, paths past virtual machines --------------------------------------------------


async def test_what_a_tap_catches_comes_with_its_name(world: World, fabric: Fabric) -> None:
    taps = tuple(
        Tap(name, Match(eth_type=0x0800, ip_proto=17, udp_dst=port), divert=divert)
        for name, port, divert in (("copied", 5004, False), ("diverted", 5006, True))
    )
    await fabric.put(Intents((flow("news"), flow("sport", port=5006)), taps))
    assert world.send() == [S3]
    assert world.send(frame(5006)) == []
    assert world.send(frame(5008)) == []
    await until(lambda: len(world.tapped) == 2)
    assert world.tapped == [("copied", S1, frame()), ("diverted", S1, frame(5006))]
    await fabric.put(wanting(flow("news")))
    assert world.send() == [S3]
    await asyncio.sleep(0.05)
    assert len(world.tapped) == 2


async def test_hosts_find_and_reach_each_other_and_all_is_counted(world: World) -> None:
    settings = Settings(edge=frozenset({S1, S3}), unicast=Unicast.ANY)
    async with world.run(hosts=settings) as fabric:
        await fabric.put(Intents())
        a, b = MAC.format(1), MAC.format(3)
        world.send(frames.arp_request(b, "10.0.0.3", "10.0.0.9"), S3)
        await until(lambda: b in fabric.network().hosts)
        world.send(frames.arp_request(a, "10.0.0.1", "10.0.0.3"))
        await until(lambda: (S1, frames.arp_reply(b, "10.0.0.3", a, "10.0.0.1")) in world.left)
        assert fabric.counters()["arp_answered"] == 1
        data = frames.ipv4_udp(b, a, "10.0.0.1", "10.0.0.3", 1, 2, b"hello")
        world.send(data)
        await until(lambda: world.left == [(S3, data)])
        assert fabric.counters()["unicast_hot"] > 0
        assert world.send(data) == [S3], "the next one is the switches' own business"
        world.farm.set_port(S3, False)
        await until(lambda: world.send(data) == [])


VM = PortRef("s2", 9)
PATH = VmPath(
    "vms",
    S1,
    S3,
    "192.168.1.181",
    Match(eth_type=0x0800, ip_proto=17, ipv4_dst="239.1.2.3"),
    roles={"s1": Role.ROOT, "s3": Role.LEAF},
)


async def test_a_path_follows_the_machines_that_come_and_go(world: World) -> None:
    links = {Link(*ends): LinkInfo() for a, b in LINKS[:2] for ends in ((a, b), (b, a))}
    async with world.run(links=links, hosts=Settings()) as fabric:
        assert await fabric.follow([PATH]) == frozenset()
        assert fabric.followed() == {"vms": PATH}
        plain = [f"RTP_PASSTHROUGH{number:016x}" for number in (1, 2, 3)]
        past_vm = [plain[0], f"RTP_TOVNET9_{2:016x}", f"RTP_FROMVNET9_{2:016x}", plain[2]]

        def names() -> list[str]:
            return [rule.name for rule in fabric.named_rules("vms")]

        assert names() == plain
        expected = (S3, frames.rewrite(frame(), "ipv4_dst", "192.168.1.181"))
        world.send()
        assert world.left == [expected]
        for _ in range(2):
            world.set_port(VM, live_port(9, name="vnet0"))
            await until(lambda: len(world.told("vm.added")) > len(world.told("vm.removed")))
            assert (names(), world.send()) == (plain, [S3]), "it is still booting"
            world.send(frames.arp_request(MAC.format(9), "10.0.0.9", "10.0.0.9"), VM)
            await until(lambda: names() == past_vm)
            world.echo.clear()
            await until(lambda: world.send() == [VM])  # which is dumb
            world.echo = {VM}
            world.send()
            assert world.left == [expected], "the VM sends it on"
            world.set_port(VM, None)
            await until(lambda: names() == plain)
            await until(lambda: world.send() == [S3])
        assert world.told("vm.added") == world.told("vm.removed")
        assert len(world.told("vm.added")) == 2
        await fabric.follow([])
        assert world.send() == []
        with pytest.raises(NoPathError):
            fabric.named_rules("vms")


async def test_paths_that_a_machine_makes_alike_are_their_own_concern(world: World) -> None:
    links = {Link(*ends): LinkInfo() for a, b in LINKS[:2] for ends in ((a, b), (b, a))}
    near = replace(PATH, name="near", ingress=VM, exit=PortRef("s2", 2), roles=None)
    like_near = replace(near, name="like-near")
    first, more = (
        Flow(f"type-{eth_type:x}", Match(eth_type=eth_type), S1, frozenset({Egress(S3)}))
        for eth_type in (0x88B5, 0x88B6)
    )
    async with world.run(links=links, hosts=Settings()) as fabric:
        await fabric.put(wanting(first))
        await fabric.follow([PATH, near])
        world.echo = {VM}
        world.set_port(VM, live_port(9, name="vnet0"))
        await until(lambda: world.told("vm.added"))
        world.send(frames.arp_request(MAC.format(9), "10.0.0.9", "10.0.0.9"), VM)
        await until(lambda: world.told("path.impossible") == ["near"])
        (failure,) = fabric.failures()
        assert (failure.switch, failure.hit) == ("s2", {"near"})
        assert "flows vms and near match the same packets" in failure.reason
        await until(lambda: len(fabric.named_rules("vms")) == 4)
        await until(lambda: world.send() == [S3])
        assert fabric.named_rules("near") == ()

        assert await fabric.put(wanting(first, more)) == frozenset()
        packet = frames.ethernet(MAC.format(2), MAC.format(1), 0x88B6, b"more")
        assert world.send(packet) == [S3]
        assert await fabric.follow([PATH, near]) == frozenset()
        assert await fabric.restore({"site": wanting(first)}, [PATH, near]) == frozenset()
        clash = Flow("clash", PATH.match, VM, frozenset({Egress(near.exit)}))
        with pytest.raises(MisuseError, match="flows clash and vms"):
            await fabric.put(wanting(clash), "operator")
        with pytest.raises(MisuseError, match="match the same packets"):
            await fabric.follow([PATH, near, like_near])
        with pytest.raises(MisuseError, match="flows near and like-near"):
            await fabric.restore({}, [PATH, near, like_near])
        assert fabric.followed().keys() == {"vms", "near"}
        assert fabric.intents() == wanting(first)

        world.set_port(VM, None)
        await until(lambda: world.told("path.possible") == ["near"])
        assert fabric.failures() == ()
        await until(lambda: world.send() == [S3])


async def test_a_path_logic_that_is_not_there_is_misuse() -> None:
    with pytest.raises(MisuseError, match="'scenic'"):
        Fabric(Options(path_logic="scenic"), lambda _: None)


# --- what is shown -----------------------------------------------------------------------------


async def test_counters_make_loads(world: World) -> None:
    async with world.run(counters_s=0.05) as fabric:
        await fabric.put(wanting(flow()))
        link = Link(*LINKS[2])

        def loaded() -> bool:
            for _ in range(200):
                world.send()
            return fabric.network().links[link].load_mbit > 0

        await until(loaded)
        stats = {entry.port_no: entry for entry in await fabric.port_stats("s1")}
        assert stats[4].tx_packets >= 200


async def test_what_switches_hold_can_be_read(world: World, fabric: Fabric) -> None:
    await fabric.put(wanting(replace(flow(), rate_kbps=1000)))
    world.send()
    mine = [entry for entry in await fabric.flows("s1") if entry.match.udp_dst == 5004]
    assert [entry.packet_count for entry in mine] == [1]
    ((group, counts),) = await fabric.groups("s1")
    assert counts is not None
    assert (group.group_id, counts.packet_count) == (counts.group_id, 1)
    ((meter, caught),) = await fabric.meters("s1")
    assert caught is not None
    assert (meter.bands[0].rate, caught.packet_count) == (1000, 1)
    with pytest.raises(FabricError):
        await fabric.flows("s9")


async def test_events_are_told_to_whoever_asks(world: World, fabric: Fabric) -> None:
    async with aclosing(fabric.subscribe()) as happening:
        first = asyncio.ensure_future(anext(happening))
        await asyncio.sleep(0)
        world.set_port(VM, live_port(9, name="vnet0"))
        async with asyncio.timeout(10):
            event = await first
            while event.kind != "vm.added":
                event = await anext(happening)
    assert event in await fabric.recent_events(10)
    assert event in world.events
