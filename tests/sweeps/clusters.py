"""Clusters of two nodes on this machine: Ray, and SLURM from Debian's packages."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

START_SECONDS = 90
RAY = {"RAY_AUTH_MODE": "disabled"}
"""A token would be written into the home folder."""
SLURM = ("slurmctld", "slurmd", "sbatch", "munged")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(*command: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the end of the block, then kills it and the processes that it has started."""
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        started = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **variables}, start_new_session=True
        )
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(20)


def wait_for(text: str, *command: str, **variables: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})
        if text in done.stdout:
            return
        time.sleep(0.5)
    raise TimeoutError(f"{command}: {done.stdout}{done.stderr}")


@contextmanager
def ray_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts a head and a second node, with one CPU each, and yields the variables that clients need."""
    ray, port = str(Path(sys.executable).with_name("ray")), free_port()
    address = f"127.0.0.1:{port}"
    common = ("start", "--block", "--num-cpus=1", "--disable-usage-stats")
    head = ("--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false")
    with ExitStack() as stack:
        stack.enter_context(process(sys.executable, ray, *common, *head, folder=folder, **RAY))
        wait_for("1 node", *nodes_of(address), **RAY)
        stack.enter_context(process(sys.executable, ray, *common, f"--address={address}", folder=folder, **RAY))
        wait_for("2 nodes", *nodes_of(address), **RAY)
        yield {**RAY, "RAY_ADDRESS": address}


def nodes_of(address: str) -> list[str]:
    code = f"import ray; ray.init('{address}', log_to_driver=False); n = len(ray.nodes())"
    return [sys.executable, "-c", f"{code}; print(n, 'node' if n == 1 else 'nodes')"]


def has_slurm() -> bool:
    return os.getuid() == 0 and all(shutil.which(name) for name in SLURM)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts a controller and two nodes with a key of their own, and yields the variables that clients need.

    Needs to be root. The names n0 and n1 of the nodes need no entry in /etc/hosts, because NodeAddr is given.
    """
    host, (control, first, second) = socket.gethostname(), (free_port() for _ in range(3))
    cores = os.cpu_count() or 1
    key, sock, conf = folder / "munge.key", folder / "munge.socket", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "state").mkdir()
    conf.write_text(
        f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={sock}
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
ReturnToService=2
SlurmdTimeout=30
KillWait=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd%n.pid
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs={cores} State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP
"""
    )
    variables = {"SLURM_CONF": str(conf)}
    munge = ["munged", "--foreground", "--force", f"--socket={sock}", f"--key-file={key}"]
    munge += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as stack:
        stack.enter_context(process(*munge, folder=folder))
        stack.enter_context(process("slurmctld", "-D", "-f", str(conf), folder=folder, **variables))
        for node in ("n0", "n1"):
            stack.enter_context(process("slurmd", "-D", "-N", node, "-f", str(conf), folder=folder, **variables))
        wait_for("2 idle", "sh", "-c", "echo $(sinfo --noheader -o '%D %t')", **variables)
        yield variables
