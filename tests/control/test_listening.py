from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from headgate.control.listening import (
    UNSENT_BYTES,
    BindRefused,
    Endpoint,
    Listeners,
    open_socket,
    parse_bind,
    port_owner,
)


@pytest.fixture
def listeners():
    made = Listeners()
    yield made
    for bind in made.descriptors():
        made.close(bind)


def test_an_address_in_use_is_told_with_its_owner_also_when_the_port_could_be_shared():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindRefused) as refused:
            open_socket(Endpoint(f"127.0.0.1:{port}"), share_port=True)
        assert f"process {os.getpid()}" in str(refused.value)
        assert str(refused.value).startswith(f"cannot listen on 127.0.0.1:{port}: ")
        assert (port_owner(port) or "").startswith(f"process {os.getpid()}")


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        ("192.0.2.7:1", "this machine has no address 192.0.2.7"),
        ("no-such-host.invalid:80", "does not resolve"),
        ("127.0.0.1", "expected host:port"),
        ("127.0.0.1:http", "expected host:port"),
        ("127.0.0.1:70000", "expected host:port"),
        ("unix:", "the path is missing"),
        ("unix:/no/such/directory/x.sock", "there is no directory /no/such/directory"),
    ],
)
def test_what_cannot_be_bound_says_what_to_do(bind: str, says: str):
    with pytest.raises(BindRefused) as refused:
        open_socket(Endpoint(bind))
    assert says in str(refused.value)


def test_addresses_are_taken_apart():
    assert (parse_bind("[::1]:80").host, parse_bind("[::1]:80").port) == ("::1", 80)
    assert parse_bind("unix:/a b").path == "/a b"


def test_one_shard_a_worker_on_one_port(listeners: Listeners):
    endpoint = Endpoint("127.0.0.1:0")
    listeners.open([endpoint], 3)
    shards = [listeners.assignment([endpoint], worker, 3)[endpoint.bind] for worker in range(3)]
    assert [list(row) for row in shards] == [[f"127.0.0.1:0#{n}"] for n in range(3)]
    ports = {sock.getsockname()[1] for row in shards for sock in row.values()}
    assert len(ports) == 1
    assert listeners.addresses() == {"127.0.0.1:0": f"127.0.0.1:{ports.pop()}"}


def test_the_kernel_holds_little_for_a_client_that_does_not_read():
    with open_socket(Endpoint("127.0.0.1:0")) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        listening.settimeout(10)
        accepted, _ = listening.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            with pytest.raises(BlockingIOError):
                while True:
                    taken += accepted.send(bytes(64 * 1024))
        assert taken < 4 * UNSENT_BYTES


def test_every_shard_has_a_worker_whatever_their_number(listeners: Listeners):
    endpoint = Endpoint("127.0.0.1:0")
    listeners.open([endpoint], 5)
    for workers in (1, 2, 3, 5):
        named = [
            name
            for worker in range(workers)
            for name in listeners.assignment([endpoint], worker, workers)[endpoint.bind]
        ]
        assert sorted(named) == [f"127.0.0.1:0#{shard}" for shard in range(5)]


def test_a_unix_listener_is_one_socket_for_all(listeners: Listeners, tmp_path: Path):
    endpoint = Endpoint(f"unix:{tmp_path}/s", 0o640)
    listeners.open([endpoint], 4)
    rows = [listeners.assignment([endpoint], worker, 4)[endpoint.bind] for worker in range(4)]
    assert len({sock.fileno() for row in rows for sock in row.values()}) == 1
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o640
    listeners.close(endpoint.bind)
    assert not (tmp_path / "s").exists()


def test_the_socket_file_of_a_killed_run_is_replaced(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    open_socket(Endpoint(f"unix:{path}")).close()


def test_a_socket_file_that_somebody_listens_on_is_not(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(BindRefused, match="another process listens there"):
            open_socket(Endpoint(f"unix:{path}"))
    assert path.exists()


def test_a_file_of_that_name_is_not_removed(tmp_path: Path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindRefused, match="it is no socket"):
        open_socket(Endpoint(f"unix:{path}"))
    assert path.read_text() == "precious"


def test_paths_beyond_the_kernels_limit_work(tmp_path: Path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    open_socket(Endpoint(f"unix:{folder}/s")).close()
    assert (folder / "s").exists()


def test_all_or_none_is_opened(listeners: Listeners):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindRefused):
            listeners.open([Endpoint("127.0.0.1:0"), Endpoint(bad)], 1)
    assert listeners.descriptors() == {}


def test_undo_closes_only_what_was_opened(listeners: Listeners):
    listeners.open([Endpoint("127.0.0.1:0")], 1)
    opened = listeners.open([Endpoint("127.0.0.1:0"), Endpoint("[::1]:0")], 1)
    opened.undo()
    assert list(listeners.descriptors()) == ["127.0.0.1:0"]


def test_one_port_may_move_between_addresses_of_ours(listeners: Listeners):
    listeners.open([Endpoint("127.0.0.1:0")], 1)
    port = listeners.addresses()["127.0.0.1:0"].rpartition(":")[2]
    listeners.open([Endpoint(f"0.0.0.0:{port}")], 1)
    listeners.close_all_but([Endpoint(f"0.0.0.0:{port}")])
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5):
        pass


def test_adopted_sockets_are_the_same(listeners: Listeners):
    listeners.open([Endpoint("127.0.0.1:0")], 2)
    copies = {b: [os.dup(fd) for fd in row] for b, row in listeners.descriptors().items()}
    successor = Listeners()
    successor.adopt(copies, listeners.modes())
    assert successor.addresses() == listeners.addresses()
    successor.close("127.0.0.1:0")
