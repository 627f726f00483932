# SPDX-License-Identifier: Apache-2.0
"""On the host: the Debian package under a real systemd, from its installation to its purge.

A clean Debian boots in the machine. What an administrator does follows in order, as one story: each
test goes on where the one before has left the system.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vm import debian
from vm.machine import REPOSITORY, Buffer, Machine
from vm.qemu import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 240.0
ECHO = "/usr/share/doc/binderd/examples/echo_service.py"
CONFIGURATION = "/etc/binderd/binderd.toml"
# What every script begins with: waiting for a state, with a deadline.
TOOLS = """
until_true() {
    for _ in $(seq 300); do eval "$1" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "in vain: $1"; systemctl status --no-pager --lines 20 binderd; exit 9
}
pid_of() { systemctl show --property MainPID --value "$1"; }
restarts() { systemctl show --property NRestarts --value binderd; }
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }
sees() { nsenter --target "$(pid_of "$1")" --mount ls "$2" 2>&1 | tr '\\n' ' '; }
call() { as_nobody binderctl --timeout 60 call org.example.echo 1 s16 hello; }
"""
MANAGER = "binder-servicemanager@binder"
SANDBOXES = {  # the name of a service: how it is kept apart
    "private-tmp": "PrivateTmp=yes",
    "dynamic-user": "DynamicUser=yes",
    "strict": "ProtectSystem=strict",
    "private-devices": "PrivateDevices=yes BindPaths=/dev/binderfs",
}
DEVICES = "binder binder-control binder_logs features hwbinder vndbinder "


class System:
    """The machine with the Debian, and the folder that it shares with us."""

    def __init__(self, machine: Machine, shared: Path) -> None:
        self._machine = machine
        self.shared = shared

    def run(self, script: str) -> str:
        """Run a script, which must succeed; return what it printed."""
        output, errors = Buffer(), Buffer()
        status = self._machine.run(
            f"{TOOLS}\nset -e\n{script}",
            timeout=PATIENCE,
            directory="/",
            output=output,
            errors=errors,
        )
        text = output.read_all().decode()
        assert status == 0, f"status {status}\n{text}\n{errors.read_all().decode()}"
        return text


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    shared = tmp_path_factory.mktemp("shared")
    packages = sorted(Path(REPOSITORY, "dist").glob("binderd_*_amd64.deb"))
    assert packages, "there is no package: make deb"
    shutil.copy(packages[-1], shared / "binderd.deb")
    settings = Settings(
        root=str(debian.obtain()), results=str(shared), boot_timeout=PATIENCE, timeout=PATIENCE
    )
    with Machine(settings) as machine:
        yield System(machine, shared)


def test_it_is_installed_and_started(system: System) -> None:
    said = system.run(
        f"""
        systemctl is-system-running --wait
        find /etc /usr /dev -xdev | sort >/root/before
        dpkg --install {system.shared}/binderd.deb >/root/log 2>&1 || {{ cat /root/log; exit 1; }}
        until_true "systemctl is-active binderd"
        systemctl is-enabled binderd
        binderd --version
        ls /dev/binderfs | tr '\\n' ' '; echo
        readlink /dev/binder /dev/hwbinder /dev/vndbinder
        """
    )
    assert said.splitlines() == [
        "running",
        "enabled",
        next(line for line in said.splitlines() if line.endswith("(compiled)")),
        DEVICES,
        "/dev/binderfs/binder",
        "/dev/binderfs/hwbinder",
        "/dev/binderfs/vndbinder",
    ]


def test_it_has_the_rights_of_the_unit_and_no_filter(system: System) -> None:
    said = system.run(
        """
        grep -E '^(Seccomp|CapBnd|NoNewPrivs):' /proc/$(pid_of binderd)/status
        systemctl show --property CapabilityBoundingSet --value binderd
        journalctl --unit binderd --no-pager --output cat
        systemd-analyze security --no-pager binderd | tail -n 1
        """
    )
    assert "Seccomp:\t0\n" in said
    assert "NoNewPrivs:\t1\n" in said
    assert "cap_net_admin" not in said
    assert "binderd: ready: /dev/binderfs/{binder,hwbinder,vndbinder}\n" in said
    assert "as CAP_" not in said, "no feature is missing for lack of a right"
    print(said.splitlines()[-1])


def test_users_call_each_other(system: System) -> None:
    said = system.run(
        f"""
        systemctl enable --now binder-servicemanager@binder 2>/dev/null
        systemctl show --property User --value binder-servicemanager@binder
        systemd-run --quiet --unit echo --property User=games \\
            --property Environment=PYTHONUNBUFFERED=1 python3 {ECHO} /dev/binder
        as_nobody binderctl --timeout 60 wait org.example.echo
        call
        """
    )
    assert said.startswith("binder-servicemanager\n")
    assert "68006500 6c006c00" in said


def test_a_reload_changes_what_can_change(system: System) -> None:
    said = system.run(
        f"""
        pid=$(pid_of binderd)
        sed -i 's/^#devices = .*/devices = ["binder", "hwbinder", "added"]/' {CONFIGURATION}
        binderd --check-config
        systemctl reload binderd
        until_true "test -e /dev/binderfs/added"
        until_true "test ! -e /dev/binderfs/vndbinder"
        readlink /dev/added
        test ! -L /dev/vndbinder
        echo 'nonsense = 1' >>{CONFIGURATION}
        systemctl reload binderd
        until_true "journalctl --unit binderd --no-pager | grep 'all stays as it was'"
        binderd --check-config 2>&1 || echo "status $?"
        sed -i -e '/nonsense/d' -e 's/^devices = .*/#&/' {CONFIGURATION}
        systemctl reload binderd
        until_true "test -e /dev/binderfs/vndbinder"
        test "$pid" = "$(pid_of binderd)"
        call
        """
    )
    assert "nothing is wrong with it\n/dev/binderfs/added\n" in said
    assert "nonsense: in [limits] " in said or "nonsense: there is no such" in said
    assert "status 2" in said
    assert "68006500" in said, "clients have noticed nothing"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("kill -KILL $(pid_of binderd)", "killed"),
        ("kill -STOP $(pid_of binderd)", "Watchdog timeout"),
        (f"systemctl stop echo {MANAGER}; umount --recursive /dev/binderfs", "status=3"),
    ],
)
def test_it_comes_back(system: System, how: str, status: str) -> None:
    """After a crash, a hang and an unmount by somebody else; so do those that depend on it."""
    said = system.run(
        f"""
        mkdir -p /run/systemd/system/binderd.service.d
        printf '[Service]\\nWatchdogSec=6s\\nTimeoutAbortSec=2s\\n' \\
            >/run/systemd/system/binderd.service.d/quick.conf
        systemctl daemon-reload
        systemctl restart binderd
        until_true "systemctl is-active binder-servicemanager@binder"
        systemctl restart echo 2>/dev/null || systemd-run --quiet --unit echo --collect \\
            --property User=games python3 {ECHO} /dev/binder
        as_nobody binderctl --timeout 60 wait org.example.echo
        before=$(restarts)
        {how}
        until_true 'test "$(restarts)" -gt '"$before"
        until_true "systemctl is-active binderd"
        until_true "systemctl is-active binder-servicemanager@binder"
        until_true "as_nobody binderctl list"
        journalctl --unit binderd --no-pager --output cat --grep 'Main process exited|Watchdog'
        """
    )
    assert status in said


def test_sandboxed_services_see_the_devices(system: System) -> None:
    for name, properties in SANDBOXES.items():
        words = " ".join(f"--property {word}" for word in properties.split())
        system.run(f"systemd-run --quiet --unit {name} {words} sleep infinity")
    for name in SANDBOXES:
        assert system.run(f"sees {name} /dev/binderfs") == DEVICES


def test_sandboxed_services_see_the_new_devices(system: System) -> None:
    """Those that share /dev do so at once, with a directory that was there before as without."""
    system.run(
        """
        systemctl stop binderd
        test ! -e /dev/binderfs
        mkdir --mode 711 /dev/binderfs
        systemctl start binderd
        """
    )
    for way in ("systemctl restart binderd", "kill -KILL $(pid_of binderd)"):
        system.run(
            f"before=$(pid_of binderd)\n{way}\n"
            "until_true 'test \"$(pid_of binderd)\" != '$before\n"
            "until_true 'systemctl is-active binderd'"
        )
        for name in ("private-tmp", "dynamic-user", "strict"):
            assert system.run(f"sees {name} /dev/binderfs") == DEVICES, (name, way)
    # A bound mount in a private /dev hears of nothing: such a service is restarted with the daemon.
    assert "not connected" in system.run("sees private-devices /dev/binderfs")
    system.run("systemctl stop binderd; test -d /dev/binderfs; rmdir /dev/binderfs")
    system.run("systemctl start binderd")


def test_mount_and_fstab(system: System) -> None:
    said = system.run(
        """
        mkdir /mnt/one
        mount -t binder binder /mnt/one -o max=7
        ls /mnt/one | tr '\\n' ' '; echo
        umount /mnt/one
        ! findmnt /mnt/one
        until_true "! pgrep -f -- '[-]-mount /mnt/one'"
        mount -t binder binder /mnt/one -o colour=red 2>&1 || echo "status $?"
        echo 'binder /mnt/two binder nofail,max=5,x-mount.mkdir 0 0' >>/etc/fstab
        systemctl daemon-reload
        systemctl start mnt-two.mount
        ls /mnt/two | tr '\\n' ' '; echo
        systemctl stop mnt-two.mount
        ! findmnt /mnt/two
        until_true "! pgrep -f -- '[-]-mount /mnt/two'"
        sed -i '/mnt.two/d' /etc/fstab
        rmdir /mnt/one /mnt/two
        """
    )
    assert said.count(DEVICES) == 2
    assert "there is no option 'colour=red'" in said
    assert "status 1" in said


def test_names_that_somebody_else_has(system: System) -> None:
    """Linux's own driver, for one: its /dev/binder stays, and ours is beside it."""
    said = system.run(
        """
        systemctl stop binderd
        modprobe binder_linux devices=binder
        until_true "test -c /dev/binder"
        systemctl start binderd
        stat --format %F /dev/binder
        readlink /dev/hwbinder
        systemctl stop binderd
        stat --format %F /dev/binder
        rm -f /dev/binder
        systemctl start binderd
        """
    )
    assert said.splitlines() == [
        "character special file",
        "/dev/binderfs/hwbinder",
        "character special file",
    ]


def test_stop_and_purge_leave_nothing(system: System) -> None:
    left = system.run(
        """
        systemctl stop echo private-tmp dynamic-user strict private-devices 2>/dev/null || true
        systemctl stop binderd
        grep fuse.binderd /proc/self/mountinfo || true
        ls -d /dev/*binder* 2>/dev/null || true
        pgrep --list-name '^binder' || true
        """
    )
    assert left == ""
    left = system.run(
        """
        systemctl disable binder-servicemanager@binder
        dpkg --purge binderd >/root/log 2>&1 || { cat /root/log; exit 1; }
        find /etc /usr /dev -xdev | sort >/root/after
        comm -13 /root/before /root/after | grep -v -e __pycache__ -e '^/etc/.*-$' || true
        systemctl list-units --no-legend --all 'binder*' | grep --invert-match binderd-vm || true
        """
    )
    assert left == "", "the user of the service manager alone stays, as Debian wants it"
