"""A whole process that logs: setting up, storms, signals, forks, the end of the interpreter."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import textwrap
import time

import pytest

from headgate.observe import logs
from headgate.observe.logs import context
from headgate.observe.logs.rules import RepeatRules, SinkRules
from headgate.security.redact import Redactor, redact_logs
from tests.observe.logs.conftest import wait_until

pytestmark = pytest.mark.integration
app = logging.getLogger("app")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=50,
    )


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_call_has_every_logger_write_lines_of_json(own_logging, tmp_path, monkeypatch):
    path = tmp_path / "o.log"
    server = logging.getLogger("uvicorn.access")
    # A server that another test ran in this process has chosen its own.
    monkeypatch.setattr(server, "level", logging.NOTSET)
    server.manager._clear_cache()  # type: ignore[attr-defined]  # of the library
    server.addHandler(logging.StreamHandler())
    logs.setup("orders", version="2", sinks=[str(path)], levels={"noisy": "error"})
    logging.getLogger("any").info("%s %d", "std", 1, extra={"a": 1})
    logging.getLogger("noisy").warning("not said")
    with logs.bound(order=7):
        logs.get("shop").bind(b=2).info("paid %d", 3, amount=4)
    server.info("GET /")
    assert logs.flush(20)
    found = lines_of(path)
    assert [(line["logger"], line["message"]) for line in found] == [
        ("any", "std 1"),
        ("shop", "paid 3"),
        ("uvicorn.access", "GET /"),
    ]
    assert found[0]["a"] == 1 and found[0]["service"] == "orders"
    assert {k: found[1][k] for k in ("order", "b", "amount")} == {"order": 7, "b": 2, "amount": 4}
    assert not server.handlers
    assert logs.levels()["noisy"] == "error"


def test_setting_up_again_keeps_sinks_that_are_the_same(own_logging, tmp_path):
    path = tmp_path / "o.log"
    logs.setup("orders", sinks=[str(path)])
    app.info("one")
    logs.setup("orders", sinks=[str(path), SinkRules(kind="file", path=str(tmp_path / "p.log"))])
    app.info("two")
    assert logs.flush(20)
    assert logs.snapshot()[f"file:{path}"].written == 2
    with pytest.raises(ValueError, match="no format"):
        logs.setup("orders", format="xml", sinks=[])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="http://"):
        logs.setup("orders", sinks=[SinkRules(kind="loki", url="nowhere")])
    app.info("three")
    assert logs.flush(20)
    assert logs.snapshot()[f"file:{path}"].written == 3


def test_the_redactor_of_redact_logs_holds_for_fields_too(own_logging, tmp_path):
    path = tmp_path / "o.log"
    logs.setup("orders", sinks=[str(path)], redact=False)
    app.info("password=hunter2hunter2")
    redact_logs(Redactor())
    app.info("password=hunter2hunter2", extra={"token": "hunter2hunter2"})
    assert logs.flush(20)
    first, second = path.read_text().splitlines()
    assert "hunter2" in first and "hunter2" not in second


def test_repeats_are_said_once_and_levels_end_by_themselves(own_logging, tmp_path):
    path = tmp_path / "o.log"
    made = logs.setup("o", sinks=[str(path)], repeats=RepeatRules(most=2, within_s=1.0))
    made.order("", logging.ERROR, for_s=1.0)
    for number in range(50):
        app.error("broken %d", number)
    app.info("not said")
    wait_until(lambda: logs.levels()["root"] == "info")
    wait_until(lambda: logs.flush(20) and len(path.read_text().splitlines()) == 3)
    assert lines_of(path)[2]["repeated"] == 48


def test_lines_carry_the_ids_that_tracing_knows(own_logging, tmp_path, monkeypatch):
    path = tmp_path / "o.log"
    logs.setup("o", sinks=[str(path)])
    monkeypatch.setattr(context, "current", lambda: {"trace_id": "ab" * 16})
    app.info("a")
    assert logs.flush(20)
    assert lines_of(path)[0]["trace_id"] == "ab" * 16


def test_a_value_that_logs_while_it_is_shown_ends(own_logging, tmp_path):
    path = tmp_path / "o.log"

    class Chatty:
        def __str__(self):
            app.info("within", extra={"thing": self})
            return "chatty"

    logs.setup("o", sinks=[str(path)])
    app.info("outside", extra={"thing": Chatty()})
    assert logs.flush(20)
    assert [line["message"] for line in lines_of(path)][-1] == "outside"


def test_structlog_ends_here(own_logging, tmp_path):
    structlog = importlib.import_module("structlog")
    path = tmp_path / "o.log"
    logs.setup("o", sinks=[str(path)])
    try:
        structlog.get_logger("shop").info("paid", amount=3, level="x")
    finally:
        structlog.reset_defaults()
    assert logs.flush(20)
    (line,) = lines_of(path)
    assert (line["message"], line["amount"], line["level"]) == ("paid", 3, "info")


def test_a_storm_into_a_pipe_that_nobody_reads_holds_nobody_up():
    code = """
        import logging, resource, sys, time
        from headgate.observe import logs
        logs.setup("storm", sinks=["stdout"])
        log = logging.getLogger("storm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(100_000):
            log.info("line %d of a storm", number, extra={"filler": "x" * 200})
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        stats = logs.snapshot()["stdout"]
        print(grown, stats.dropped, stats.queued_bytes, file=sys.stderr)
        logs.shutdown(0.2)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        process.wait(50)  # it ends although its standard output is full
        last = process.stderr.read().strip().splitlines()
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
    grown_kb, dropped, queued = map(int, next(x for x in last if x[0].isdigit()).split())
    assert dropped > 50_000
    assert queued <= 8 * 1024 * 1024
    assert grown_kb < 64 * 1024


def test_lines_at_the_end_of_the_interpreter_are_written():
    code = """
        import atexit, logging
        from headgate.observe import logs
        atexit.register(lambda: logging.warning("after the end"))
        logs.setup("o")
        class Late:
            def __del__(self):
                logging.warning("by a destructor")
        late = Late()
        logging.warning("before")
    """
    done = run(code)
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()][:2] == [
        "before",
        "after the end",
    ]
    assert "Traceback" not in done.stderr


def test_a_signal_handler_may_log_at_any_moment():
    code = """
        import logging, signal, time
        from headgate.observe import logs
        logs.setup("o", repeats=None)
        count = 0
        def handler(*_):
            global count
            count += 1
            logging.warning("signal")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            logging.warning("plain")
        signal.setitimer(signal.ITIMER_REAL, 0)
        logs.flush(20)
        assert count
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    messages = {json.loads(line)["message"] for line in done.stdout.splitlines()}
    assert messages == {"plain", "signal"}


def test_a_child_after_a_fork_writes_its_own_lines_once(tmp_path):
    path = tmp_path / "o.log"
    code = f"""
        import logging, os, threading
        from headgate.observe import logs
        logs.setup("o", sinks=[{str(path)!r}])
        stop = threading.Event()
        def noise():
            while not stop.is_set():
                logging.info("noise")
        thread = threading.Thread(target=noise); thread.start()
        for number in range(5):
            if os.fork() == 0:
                logging.info("child %d", number)
                logs.flush(20); logs.shutdown(); os._exit(0)
        for _ in range(5):
            os.wait()
        stop.set(); thread.join()
        logging.info("parent")
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    found = lines_of(path)
    quiet = [line for line in found if line["message"] != "noise"]
    assert sorted(line["message"] for line in quiet) == [
        *(f"child {number}" for number in range(5)),
        "parent",
    ]
    assert len({line["pid"] for line in quiet}) == 6


def test_importing_is_light_and_starts_nothing():
    code = """
        import sys, threading
        import headgate.observe
        before = set(sys.modules)
        from headgate.observe import logs
        heavy = {"sqlite3", "http.client", "ssl", "numpy", "fastapi", "pydantic", "asyncio"}
        print(sorted(heavy & (set(sys.modules) - before)), threading.active_count())
    """
    assert run(code).stdout.strip() == "[] 1"


def test_a_loop_is_not_held_up_by_a_sink_that_hangs(own_logging, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        logs.setup("o", sinks=[SinkRules(kind="loki", url=url, linger_s=0.0)])
        began = time.thread_time()
        for number in range(2000):
            app.info("line %d", number)
        assert time.thread_time() - began < 5
        assert logs.snapshot()["loki"].queued_bytes > 0
        logs.shutdown(0.1)
