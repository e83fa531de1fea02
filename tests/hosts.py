"""Several hosts on one machine: network namespaces on one bridge, each with an address and a loopback of its own."""

from __future__ import annotations

import subprocess
from types import TracebackType

from processes import AS_ROOT

HUB = "ip link add hub type bridge && ip link set hub up && ip link set lo up && echo ready && exec sleep infinity"
NOBODY = "02:00:00:00:00:01"
HOST = "ip link set lo up && echo ready && exec sleep infinity"


class Hosts:
    """Hosts by name, at 10.7.0.1, 10.7.0.2 and so on. They and everything that runs in them end with the block.

    Needs no root: without it, the namespaces belong to a user namespace.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        try:
            self._hold(["unshare", "--net", *AS_ROOT], HUB)
            for number, name in enumerate(self.names, start=1):
                holder = self._hold([*self._enter(0), "unshare", "--net"], HOST)
                commands = [
                    f"ip link add port{number} type veth peer name eth0 netns {holder.pid}",
                    f"ip link set port{number} master hub up",
                ]
                self._do([*self._enter(0), "sh", "-c", " && ".join(commands)])
                self._do([*self.on(name), "ip", "addr", "add", f"{self.address(name)}/24", "dev", "eth0"])
                self._do([*self.on(name), "ip", "link", "set", "eth0", "up"])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def address(self, name: str) -> str:
        return f"10.7.0.{self.names.index(name) + 1}"

    def on(self, name: str) -> list[str]:
        """What to write before a command so that it runs on that host."""
        return self._enter(self.names.index(name) + 1)

    def received_bytes(self, name: str) -> int:
        """Bytes that came to the host from others."""
        path = "/sys/class/net/eth0/statistics/rx_bytes"
        # A mount of its own: /sys shows the namespace in which it was mounted.
        mounted = f"mount -t sysfs sysfs /sys && cat {path}"
        return int(self._do([*self.on(name), "unshare", "--mount", "sh", "-c", mounted]))

    def add_address(self, name: str, address: str) -> None:
        """One more address of the host, which only it itself reaches."""
        self._do([*self.on(name), "ip", "addr", "add", f"{address}/32", "dev", "lo"])

    def cut(self, name: str) -> None:
        """From now on nothing comes to the host and nothing leaves it, and nobody is told."""
        self._plug(name, "down")

    def mend(self, name: str) -> None:
        self._plug(name, "up")

    def part(self, one: str, other: str) -> None:
        """From now on nothing that the one sends reaches the other, nor back, and nobody is told. Both reach others."""
        # A neighbour at an address of the link layer that nobody has: a route would tell who sends.
        for here, there in ((one, other), (other, one)):
            neighbour = [self.address(there), "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"]
            self._do([*self.on(here), "ip", "neigh", "replace", *neighbour])

    def join(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            neighbour = ["to", self.address(there), "dev", "eth0", "nud", "permanent"]
            self._do([*self.on(here), "ip", "neigh", "flush", *neighbour])

    def shrink_buffers(self, name: str, least: int, most: int) -> bool:
        """New connections of the host buffer so many bytes, each way. False: this machine forbids it."""
        script = f"for way in wmem rmem; do echo {least} {least} {most} > /proc/sys/net/ipv4/tcp_$way || exit 1; done"
        return subprocess.run([*self.on(name), "sh", "-c", script], capture_output=True, check=False).returncode == 0

    def _plug(self, name: str, state: str) -> None:
        self._do([*self._enter(0), "ip", "link", "set", f"port{self.names.index(name) + 1}", state])

    def _enter(self, holder: int) -> list[str]:
        user = ["--user", "--preserve-credentials"] if AS_ROOT else []
        return ["nsenter", "--target", str(self._holders[holder].pid), "--net", *user]

    def _hold(self, into: list[str], script: str) -> subprocess.Popen[bytes]:
        holder = subprocess.Popen([*into, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._holders.append(holder)
        assert holder.stdout is not None
        said = holder.stdout.readline()
        if said != b"ready\n":
            raise RuntimeError(f"no network namespace: {said.decode().strip()} (of: {' '.join(into)} sh -c '{script}')")
        return holder

    def _do(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _end(self) -> None:
        for holder in reversed(self._holders):
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
