"""One node's Open vSwitch: ovsdb-server and ovs-vswitchd as supervised children.

Both run in the foreground of the node's namespace and keep everything (database, sockets) in one
directory. After a kill each comes back by itself: the database brings the bridge back, the
controller its rules. While ovsdb-server is away ovs-vswitchd lacks the database's lock and forwards
nothing: some of the packets wait in the sockets until it has reconnected, which takes a second.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from anabranch.core.events import Event
from anabranch.fabric.bridges import Bridge, ControllerTarget, Device, Tls, check
from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.fabric.ovsdb.changes import changes, reading, snapshot
from anabranch.fabric.ovsdb.database import Database
from anabranch.fabric.ovsdb.interfaces import InterfaceState, interface_state, watch_interfaces
from anabranch.fabric.ovsdb.session import result_rows
from anabranch.fabric.ovsdb.values import Row
from anabranch.host import network
from anabranch.host.process import Child, ChildSpec, ProcessError, run_command

START_TIMEOUT = 5.0
NICE = -10  # so that a busy machine does not delay BFD until it takes the far end for dead
_MAX_SOCKET_PATH = 107  # sizeof sun_path, less its final zero
_LOG_OPTIONS = ("-vconsole:warn", "-vfile:off", "-vsyslog:off")
_log = structlog.get_logger("anabranch.fabric")


class OpenVSwitch:
    """The switch of one node.

    Args:
        name: the node's name; the children are called ``<name>-ovsdb`` and ``<name>-vswitchd``.
        netns: the named network namespace to run in, None for the director's own.
        directory: where database and sockets live; made if missing, at most some 60 characters.
        run_id: mark of the children, see :mod:`anabranch.host.process`.
        on_event: gets ``child.restarted`` about a child that was started again.
        nice: scheduling priority of ovs-vswitchd, -20 (high) to 19; 0 leaves it alone.
        realtime: have ovs-vswitchd come before all ordinary processes (SCHED_RR): BFD is punctual
            beside any load, but every packet wakes it, which costs up to three times the CPU time.
    """

    def __init__(
        self,
        name: str,
        netns: str | None,
        directory: Path,
        run_id: str,
        on_event: Callable[[Event], None],
        *,
        nice: int = NICE,
        realtime: bool = False,
    ) -> None:
        self.name = name
        self.netns = netns
        self.directory = directory
        self._run_id = run_id
        self._on_event = on_event
        self._nice = nice
        self._realtime = realtime
        self._ended: dict[str, asyncio.Event] = {}
        self._lives: dict[str, int] = {}
        self.database = Database(self._database_socket, timeout=START_TIMEOUT)
        self.ovsdb = self._child(
            "ovsdb",
            "ovsdb-server",
            str(directory / "conf.db"),
            f"--remote=punix:{self._database_socket}",
            f"--unixctl={self._control('ovsdb')}",
        )
        self.vswitchd = self._child(
            "vswitchd",
            "ovs-vswitchd",
            f"unix:{self._database_socket}",
            f"--unixctl={self._control('vswitchd')}",
        )

    @property
    def running(self) -> bool:
        """Whether it forwards packets, as far as its processes tell."""
        return self.vswitchd.running

    @property
    def children(self) -> tuple[Child, ...]:
        """Its processes."""
        return self.ovsdb, self.vswitchd

    def controller_path(self, bridge: str) -> Path:
        """Return the one socket path at which ``bridge`` may look for a controller.

        Its target is ``unix:<path>``. Open vSwitch refuses sockets outside of its own directory.
        """
        return self.directory / f"{bridge}.controller"

    async def start(self) -> None:
        """Start both children and return when both answer.

        Raises:
            FabricError: a program is missing, ends at once or does not answer within 5 s.
        """
        if len(str(self.directory)) + len("/vswitchd.ctl") > _MAX_SOCKET_PATH:
            raise MisuseError(f"the directory {self.directory} is too long for a socket's path")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            await self._create_database()
            if not all(child.survives for child in self.children):
                for child in self.children:
                    await child.abandon()
                self._remove_sockets()
            await self.ovsdb.start()
            await self._until_connectable(self._database_socket, self.ovsdb)
            await self.database.open()
            await self._insert_root()
            await self.vswitchd.start()
            await self._until_connectable(self._control("vswitchd"), self.vswitchd)
        except (OSError, ProcessError, FabricError) as error:
            await self.stop()
            raise FabricError(f"Open vSwitch of {self.name} does not start: {error}") from error

    async def apply(
        self, bridges: Sequence[Bridge], *, tls: Tls | None = None, keep_others: bool = False
    ) -> None:
        """Make the switch what ``bridges`` say, in one transaction that has only the difference.

        Returns when the switch has taken it over, addresses of internal devices included.

        Args:
            tls: what ``ssl:`` controllers are met with.
            keep_others: leave bridges that are not named as they are.

        Raises:
            MisuseError: the description is impossible.
            FabricError: the database refused it, a device cannot be opened, or the switch did not
                follow within 5 s.
        """
        check(bridges)
        try:
            found = await self.database.transact(*reading())
            present = snapshot([result_rows(result) for result in found])
            operations = changes(bridges, present, tls=tls, keep_others=keep_others)
            if operations:
                await self._commit(operations)
            await self._check_ports(bridges)
            await asyncio.to_thread(self._set_addresses, bridges)
        except network.NetworkError as error:
            raise FabricError(f"Open vSwitch of {self.name}: {error}") from error
        except FabricError as error:
            raise type(error)(f"Open vSwitch of {self.name}: {error}") from error

    async def configure(
        self, bridge: str, dpid: int, ports: Mapping[str, int], controller: str
    ) -> None:
        """Make ``bridge`` exist with exactly these ports; others stay. See :meth:`apply`.

        Args:
            dpid: 64-bit datapath id, not 0.
            ports: device name to OpenFlow port number, 1 to 65279.
            controller: target, ``unix:<controller_path>`` or ``tcp:<address>:<port>``.
        """
        devices = [Device(name=device, ofport=number) for device, number in ports.items()]
        target = ControllerTarget(controller)
        wanted = Bridge(bridge, tuple(devices), dpid, controllers=(target,))
        await self.apply([wanted], keep_others=True)

    async def watch(
        self, on_change: Callable[[str, InterfaceState | None], None]
    ) -> Callable[[], None]:
        """Have ``on_change(device, state)`` called for each change of an interface's state.

        Link and BFD changes arrive within milliseconds; None: the interface is gone. After the
        switch was restarted the states are told anew. Returns a function that ends the watch.
        """
        return await watch_interfaces(self.database, on_change)

    async def _commit(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Execute and wait until ovs-vswitchd has followed, as ovs-vsctl(8) does."""
        count: Mapping[str, Any] = {
            "op": "mutate",
            "table": "Open_vSwitch",
            "where": [],
            "mutations": [["next_cfg", "+=", 1]],
        }
        read = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
        done = await self.database.transact(*operations, count, read)
        wanted = result_rows(done[-1])[0]["next_cfg"]
        followed = asyncio.Event()

        def changed(_table: str, _uuid: str, _old: Row | None, new: Row | None) -> None:
            current = new["cur_cfg"] if new is not None else 0
            if isinstance(current, int) and isinstance(wanted, int) and current >= wanted:
                followed.set()

        end = await self.database.monitor("Open_vSwitch", ("cur_cfg",), changed)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await followed.wait()
        except TimeoutError:
            raise FabricError("ovs-vswitchd does not follow its database") from None
        finally:
            end()

    async def _check_ports(self, bridges: Sequence[Bridge]) -> None:
        """The database takes a device that cannot be opened: look at what became of each."""
        columns = ["name", "ofport", "link_state", "bfd_status", "error"]
        read = {"op": "select", "table": "Interface", "where": [], "columns": columns}
        (found,) = await self.database.transact(read)
        states = {state.name: state for state in map(interface_state, result_rows(found))}
        for port in (port for bridge in bridges for port in bridge.ports):
            state = states.get(port.name)
            actual = state.ofport if state is not None else None
            if actual != port.ofport:
                why = f" ({state.error})" if state is not None and state.error else ""
                is_ = f"is port {actual}" if actual is not None else f"cannot be opened{why}"
                raise FabricError(f"{port.name} shall be port {port.ofport} but {is_}")

    def _set_addresses(self, bridges: Sequence[Bridge]) -> None:
        for bridge in bridges:
            if bridge.address is not None:
                network.set_address(self.netns, bridge.name, bridge.address, bridge.gateway)

    async def stop(self) -> None:
        """End both children within 2 s each, devices removed. Safe to call twice."""
        await self.database.close()
        graceful = await self._exit(self.vswitchd, "vswitchd", "--cleanup")
        await self._exit(self.ovsdb, "ovsdb")
        if self._lives["vswitchd"] and not graceful:
            await self._remove_taps()
        self._lives = dict.fromkeys(self._lives, 0)
        self._remove_sockets()

    # inside

    @property
    def _database_socket(self) -> Path:
        return self.directory / "db.sock"

    def _control(self, role: str) -> Path:
        return self.directory / f"{role}.ctl"

    def _child(self, role: str, *argv: str) -> Child:
        directory = str(self.directory)
        spec = ChildSpec(
            name=f"{self.name}-{role}",
            argv=(*argv, *_LOG_OPTIONS),
            netns=self.netns,
            env={
                "OVS_RUNDIR": directory,
                "OVS_LOGDIR": directory,
                "OVS_DBDIR": directory,
                "OVS_SYSCONFDIR": directory,
            },
            stop_timeout=1.0,
            # The database first: a vswitchd that finds none waits a second, then two, four, eight.
            first_delay=0.02 if role == "ovsdb" else 0.15,
            max_delay=2.0,
            lasting=True,
        )
        self._ended[role] = asyncio.Event()
        self._lives[role] = 0
        return Child(
            spec,
            self._run_id,
            on_line=lambda _, line: self._line(spec.name, line),
            on_start=lambda pid: self._started(role, spec.name, pid),
            on_exit=lambda _: self._exited(role),
        )

    def _raise_priority(self, pid: int) -> None:
        """Let BFD be heard on a busy machine. Threads to come inherit it; without leave, no harm.

        Where the kernel groups processes by session (sched_autogroup_enabled), a nice value counts
        within the session only and the session's own has to be set.
        """
        with suppress(OSError):
            if self._realtime:
                os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
        if self._nice == 0:
            return
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, self._nice)
            Path(f"/proc/{pid}/autogroup").write_text(str(self._nice))

    def _line(self, child: str, line: str) -> None:
        if "|ERR|" in line or "|EMER|" in line:
            _log.warning("switch.child_error", child=child, line=line)
        elif line:
            _log.debug("child.line", child=child, line=line)

    def _started(self, role: str, child: str, pid: int) -> None:
        self._ended[role].clear()
        if role == "vswitchd":
            self._raise_priority(pid)
        self._lives[role] += 1
        if self._lives[role] > 1:
            self._on_event(Event("child.restarted", child, {"node": self.name, "pid": pid}))

    def _exited(self, role: str) -> None:
        self._ended[role].set()
        if role == "ovsdb":
            # Without its database vswitchd forwards nothing until it is connected again, 1 to 8 s
            # later. A fresh one has ports and rules back in 0.3 s.
            self.vswitchd.kill()

    async def _create_database(self) -> None:
        database = self.directory / "conf.db"
        if database.exists():
            return
        # Renamed when complete, so that a creation cut short leaves no half database.
        new = self.directory / "conf.db.new"
        new.unlink(missing_ok=True)
        await run_command("ovsdb-tool", "create", str(new))
        new.rename(database)

    async def _until_connectable(self, path: Path, child: Child) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
                return
            if loop.time() > deadline:
                last = child.last_lines[-1] if child.last_lines else "it does not answer"
                raise FabricError(f"{child.spec.name}: {last}")
            await asyncio.sleep(0.01)

    async def _insert_root(self) -> None:
        """Make the one row of the table Open_vSwitch, as ``ovs-vsctl init`` does.

        ``vlan-limit``: a tagged packet on a bypass has two tags, and the switch must see both.
        """
        read = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["_uuid"]}
        (found,) = await self.database.transact(read)
        if not result_rows(found):
            limit = {"other_config": ["map", [["vlan-limit", "2"]]]}
            row = {"op": "insert", "table": "Open_vSwitch", "row": limit}
            await self.database.transact(row)

    async def _exit(self, child: Child, role: str, *options: str) -> bool:
        """End ``child`` by asking it; if it does not, by signals. Say whether asking was enough."""
        graceful = False
        if child.running:
            child.retire()
            control = f"--target={self._control(role)}"
            with suppress(ProcessError, TimeoutError):
                await run_command("ovs-appctl", control, "--timeout=1", "exit", *options)
                async with asyncio.timeout(1.0):
                    await self._ended[role].wait()
                graceful = True
        await child.stop()  # before its supervision would start it again
        return graceful

    async def _remove_taps(self) -> None:
        """Remove the devices that an ovs-vswitchd leaves behind when it is killed."""
        bridges = [path.stem for path in self.directory.glob("*.mgmt")]
        for device in ("ovs-netdev", *bridges):
            with suppress(ProcessError):
                await run_command("ip", "link", "delete", device, netns=self.netns)

    def _remove_sockets(self) -> None:
        for pattern in ("db.sock", "*.ctl", "*.mgmt", "*.snoop"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
