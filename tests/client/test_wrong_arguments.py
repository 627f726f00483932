# SPDX-License-Identifier: Apache-2.0
"""Arguments of public functions that are of no use to them: the error says which, of what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from binderclient import (
    Device,
    Parcel,
    ReceivedFile,
    Service,
    ServiceManager,
    as_interface,
    bundle,
    hidl,
    interface,
    oneway,
    transaction,
)
from binderclient.servicemanager import ServiceManagerService
from binderclient.trio import AsyncServiceManager, open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from binderclient.testing import Binder


class Plain(Service):
    descriptor = "org.example.IPlain"


@interface("org.example.IGiven")
class Given(Service):
    def number(self, value: int) -> int:
        return value


class Vain:
    """What nothing takes."""


VAIN: Any = Vain()


@pytest.fixture(scope="module")
def world() -> Iterator[SimpleNamespace]:
    from binderclient.testing import Binder

    with Binder() as binder, binder.device() as server, binder.device() as device:
        server.become_context_manager(ServiceManagerService())
        server.start_thread_pool()
        yield SimpleNamespace(
            binder=binder,
            device=device,
            manager=ServiceManager(device),
            proxy=device.context_manager,
        )


def zeros() -> Parcel:
    return Parcel(bytes(64))


CASES: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    # Parcels
    (lambda _: Parcel(5), TypeError, r"Parcel\(\): data must be bytes or .*, not int"),  # type: ignore[arg-type]
    (lambda _: Parcel.for_interface(VAIN), TypeError, r"for_interface\(\): descriptor must be str"),
    (lambda _: Parcel().append(VAIN), TypeError, r"append\(\): other must be Contents, not Vain"),
    (lambda _: Parcel().append(zeros(), VAIN), TypeError, r"append\(\): start must be int"),
    (lambda _: Parcel().append(zeros(), 0, VAIN), TypeError, r"append\(\): size must be int"),
    (lambda _: setattr(zeros(), "position", "x"), TypeError, "position must be int, not str"),
    (lambda _: zeros().read_raw(VAIN), TypeError, r"read_raw\(\): size must be int"),
    (lambda _: zeros().read_list(VAIN), TypeError, r"read_list\(\): read must be a function"),
    (lambda _: zeros().read_nullable(VAIN), TypeError, r"read_nullable\(\): read must be a func"),
    (lambda _: Parcel().write_list([1], VAIN), TypeError, r"write_list\(\): write must be a func"),
    (lambda _: Parcel().write_bool_array(VAIN), TypeError, r"write_bool_array\(\) takes a list"),
    (lambda _: Parcel().write_char_array(VAIN), TypeError, r"write_char_array\(\) takes a list"),
    (
        lambda _: Parcel().write_file(VAIN),
        TypeError,
        r"write_file\(\) takes a file or a desc",
    ),
    (
        lambda _: Parcel().write_exception(VAIN),
        TypeError,
        r"write_exception\(\): error must be R",
    ),
    (lambda _: Parcel().write_buffer(VAIN), TypeError, r"write_buffer\(\): data must be bytes"),
    (lambda _: Parcel().write_file_array(0, 0, -1), ValueError, r"count must be from 0 to"),
    (lambda _: Parcel().write_interface_token("a", VAIN), TypeError, r"\(\): era must be Era"),
    (lambda _: Parcel().enforce_interface(VAIN), TypeError, r"enforce_interface\(\): descriptor"),
    (lambda _: ReceivedFile(VAIN), TypeError, r"ReceivedFile\(\): descriptor must be int"),
    # Other encodings
    (
        lambda _: bundle.read_bundle(b"x"),
        TypeError,
        r"parcel must be Parcel, not bytes",
    ),  # type: ignore[arg-type]
    (lambda _: bundle.read_bundle(zeros(), android=VAIN), TypeError, r"android must be int"),
    (lambda _: hidl.read_string(VAIN), TypeError, r"read_string\(\): parcel must be Parcel"),
    (lambda _: hidl.read_strings(VAIN), TypeError, r"read_strings\(\): parcel must be Parcel"),
    (lambda _: hidl.read_vec(VAIN, "i"), TypeError, r"read_vec\(\): parcel must be Parcel"),
    (lambda _: hidl.read_vec(zeros(), "z"), ValueError, r"read_vec\(\): kind: 'z' is none of"),
    (lambda _: hidl.read_handle(VAIN), TypeError, r"read_handle\(\): parcel must be Parcel"),
    (lambda _: hidl.write_string(Parcel(), VAIN), TypeError, r"write_string\(\): text must be str"),
    (lambda _: hidl.write_strings(Parcel(), "abc"), TypeError, r"texts must be a list, not str"),
    (lambda _: hidl.write_strings(Parcel(), ["a", 5]), TypeError, r"texts\[1\] must be str"),  # type: ignore[list-item]
    (lambda _: hidl.write_vec(Parcel(), "i", VAIN), TypeError, r"values must be a list"),
    (lambda _: hidl.write_vec(Parcel(), "i", ["x"]), TypeError, r"values\[0\] must be int"),  # type: ignore[list-item]
    (lambda _: hidl.write_handle(Parcel(), VAIN), TypeError, r"handle must be Handle, not Vain"),
    (lambda _: hidl.write_handle(Parcel(), hidl.Handle(VAIN)), TypeError, "files must be a list"),
    # Devices and proxies
    (lambda _: Device(VAIN), TypeError, r"Device\(\): path must be str or PathLike, not Vain"),
    (lambda w: Device(w.binder.path(), map_size=VAIN), TypeError, r"map_size must be int"),
    (lambda w: Device(w.binder.path(), map_size=-1), ValueError, r"map_size must be from 1 to"),
    (lambda w: Device(w.binder.path(), max_threads=VAIN), TypeError, r"max_threads must be int"),
    (lambda w: Device(w.binder.path(), max_threads=-1), ValueError, r"max_threads must be from 0"),
    (lambda w: w.device.proxy("x"), TypeError, r"proxy\(\): handle must be int, not str"),
    (lambda w: w.device.become_context_manager(VAIN), TypeError, r"service must be Service"),
    (lambda w: w.device.on_gone(VAIN), TypeError, r"on_gone\(\): callback must be a function"),
    (lambda w: w.device.wait_back(VAIN), TypeError, "timeout must be a number of seconds"),
    (lambda w: w.proxy.call("x"), TypeError, r"call\(\): code must be int, not str"),
    (lambda w: w.proxy.call(-1), ValueError, r"call\(\): code must be from 0 to 4294967295"),
    (lambda w: w.proxy.call(1 << 32), ValueError, r"call\(\): code must be from 0 to 4294967295"),
    (lambda w: w.proxy.call(1, "x"), TypeError, r"call\(\): data must be Parcel, not str"),
    (lambda w: w.proxy.link_to_death(VAIN), TypeError, r"link_to_death\(\): callback must be a f"),
    # The service manager
    (lambda _: ServiceManager(VAIN), TypeError, r"ServiceManager\(\): device must be Device"),
    (lambda w: w.manager.add(5, Plain()), TypeError, r"add\(\): name must be str, not int"),
    (lambda w: w.manager.add("a", Plain), TypeError, r"add\(\): service must be IBinder, not type"),
    (lambda w: w.manager.check(5), TypeError, r"checkService\(\): name must be str, not int"),
    (lambda w: w.manager.wait(5), TypeError, r"\(\): name must be str, not int"),
    (lambda w: w.manager.wait("a", "x"), TypeError, "timeout must be a number of seconds"),
    (lambda w: w.manager.named(5), TypeError, r"named\(\): name must be str, not int"),
    (
        lambda w: w.manager.register_for_notifications("a", VAIN),
        TypeError,
        "registered must be a",
    ),
    (lambda w: w.manager.try_unregister("a", VAIN), TypeError, r"argument 2 must be IBinder"),
    (lambda _: ServiceManagerService(13, [VAIN]), TypeError, r"declared\[0\] must be Declared"),
    # Interfaces
    (lambda _: interface(VAIN), TypeError, r"interface\(\): descriptor must be str, not Vain"),
    (lambda _: interface("a")(VAIN), TypeError, r"interface\(\) is for subclasses of Service"),
    (lambda w: as_interface(VAIN, w.proxy), TypeError, r"as_interface\(\): cls must be type"),
    (lambda _: as_interface(Given, VAIN), TypeError, r"is no org\.example\.IGiven, nor a proxy"),
    (lambda _: oneway(VAIN), TypeError, r"oneway\(\): method must be a function, not Vain"),
    (lambda _: transaction(VAIN), TypeError, r"transaction\(\): code must be int, not Vain"),
    (lambda _: transaction(1)(VAIN), TypeError, r"what is marked must be a function, not Vain"),
    # Tests' own
    (lambda w: w.binder.process(uid="x"), TypeError, r"process\(\): uid must be int, not str"),
    (lambda w: w.binder.device(5), TypeError, r"path\(\): name must be str, not int"),
    (lambda w: w.binder.advance("x"), TypeError, r"advance\(\): seconds must be int or float"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_it_says_which(
    world: SimpleNamespace, case: tuple[Callable[[Any], object], type[Exception], str]
) -> None:
    function, kind, said = case
    with pytest.raises(kind, match=said):
        function(world)
    world.proxy.ping()  # it has done no harm: the thread can call, the device can be used
    assert world.manager.list() == ["manager"]


async def test_in_a_loop(binder: Binder) -> None:
    with binder.device() as server:
        server.become_context_manager(ServiceManagerService())
        server.start_thread_pool()
        with pytest.raises(TypeError, match=r"open_device\(\): max_calls must be int, not Vain"):
            async with open_device(binder.path(), max_calls=VAIN):
                pass
        async with binder.async_device() as device:
            proxy = device.context_manager
            with pytest.raises(TypeError, match=r"AsyncServiceManager\(\): device must be Async"):
                AsyncServiceManager(VAIN)
            with pytest.raises(TypeError, match=r"on_gone\(\): callback must be a function"):
                device.on_gone(VAIN)
            for code in ("x", -1, 1 << 32):
                with pytest.raises((TypeError, ValueError), match=r"call\(\): code must be"):
                    await proxy.call(code)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"add\(\): service must be IBinder, not Vain"):
                await AsyncServiceManager(device).add("a", VAIN)
            with trio.fail_after(10):
                assert await AsyncServiceManager(device).list() == ["manager"]
