"""One node's Open vSwitch: ovsdb-server and ovs-vswitchd as supervised children.

Both run in the foreground of the node's namespace and keep everything (database, sockets) in one
directory. After a kill each comes back by itself: the database brings the bridge back, the
controller its rules. While ovsdb-server is away ovs-vswitchd lacks the database's lock and forwards
nothing: some of the packets wait in the sockets until it has reconnected, which takes a second.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from anabranch.core.events import Event
from anabranch.fabric.errors import FabricError, MisuseError
from anabranch.host.process import Child, ChildSpec, ProcessError, run_command

START_TIMEOUT = 5.0
_MAX_SOCKET_PATH = 107  # sizeof sun_path, less its final zero
_PROTOCOLS = "OpenFlow13,OpenFlow14,OpenFlow15"
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
    """

    def __init__(
        self,
        name: str,
        netns: str | None,
        directory: Path,
        run_id: str,
        on_event: Callable[[Event], None],
    ) -> None:
        self.name = name
        self.netns = netns
        self.directory = directory
        self._run_id = run_id
        self._on_event = on_event
        self._ended: dict[str, asyncio.Event] = {}
        self._lives: dict[str, int] = {}
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
            self._remove_sockets()
            await self.ovsdb.start()
            await self._until_connectable(self._database_socket, self.ovsdb)
            await self._vsctl("--no-wait", "init")
            await self.vswitchd.start()
            await self._until_connectable(self._control("vswitchd"), self.vswitchd)
        except (OSError, ProcessError, FabricError) as error:
            await self.stop()
            raise FabricError(f"Open vSwitch of {self.name} does not start: {error}") from error

    async def configure(
        self, bridge: str, dpid: int, ports: Mapping[str, int], controller: str
    ) -> None:
        """Make ``bridge`` exist with exactly these ports, in one transaction; repeatable.

        Args:
            dpid: 64-bit datapath id.
            ports: device name to OpenFlow port number, 1 to 65279.
            controller: target, ``unix:<controller_path>`` or ``tcp:<address>:<port>``.

        Returns when the switch has taken it over.

        Raises:
            MisuseError: a number is out of range or used twice.
            FabricError: the database refused it, a device cannot be opened, or the switch did not
                follow within 5 s.
        """
        if not 0 <= dpid < 1 << 64:
            raise MisuseError(f"{dpid} is not a datapath id")
        numbers = list(ports.values())
        if len(set(numbers)) != len(numbers) or not all(1 <= n <= 65279 for n in numbers):
            raise MisuseError(f"the port numbers {numbers} are not distinct ones of 1 to 65279")
        there = await self._vsctl("--", "--if-exists", "get", "bridge", bridge, "ports")
        present = (await self._vsctl("list-ports", bridge)).split() if there.strip() else []
        command = ["--may-exist", "add-br", bridge, "--", "set", "bridge", bridge]
        command += ["datapath_type=netdev", "fail_mode=secure", f"protocols={_PROTOCOLS}"]
        command += [f"other_config:datapath-id={dpid:016x}", "other_config:disable-in-band=true"]
        for device in present:
            if device not in ports:
                command += ["--", "del-port", bridge, device]
        for device, number in ports.items():
            command += ["--", "--may-exist", "add-port", bridge, device]
            command += ["--", "set", "interface", device, f"ofport_request={number}"]
        # 1000 ms is the least that the schema allows.
        command += ["--", "--id=@controller", "create", "controller", f'target="{controller}"']
        command += ["max_backoff=1000", "inactivity_probe=5000"]
        command += ["--", "set", "bridge", bridge, "controller=@controller"]
        await self._vsctl(*command)
        await self._check_ports(ports)

    async def _check_ports(self, ports: Mapping[str, int]) -> None:
        """ovs-vsctl succeeds although a device cannot be opened: look at what became of each."""
        command: list[str] = []
        for device in ports:
            command += ["--", "get", "interface", device, "ofport"]
        got = (await self._vsctl(*command)).split() if command else []
        for (device, number), actual in zip(ports.items(), got, strict=True):
            if actual != str(number):
                found = "cannot be opened" if actual in ("-1", "[]") else f"is port {actual}"
                raise FabricError(f"{self.name}: {device} shall be port {number} but {found}")

    async def stop(self) -> None:
        """End both children within 2 s each, devices removed. Safe to call twice."""
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

    def _line(self, child: str, line: str) -> None:
        if "|ERR|" in line or "|EMER|" in line:
            _log.warning("switch.child_error", child=child, line=line)
        elif line:
            _log.debug("child.line", child=child, line=line)

    def _started(self, role: str, child: str, pid: int) -> None:
        self._ended[role].clear()
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

    async def _vsctl(self, *command: str) -> str:
        try:
            return await run_command(
                "ovs-vsctl",
                f"--db=unix:{self._database_socket}",
                f"--timeout={START_TIMEOUT:.0f}",
                *command,
            )
        except ProcessError as error:
            raise FabricError(f"Open vSwitch of {self.name}: {error}") from error

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
