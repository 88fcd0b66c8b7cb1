"""What every test shares: where the repository is, and which tests are quick.

`make check` runs what is neither `slow` nor `integration`. A test that starts a process, a real
peer or the gateway belongs in one of the folders below, or carries the marker itself.
"""

from __future__ import annotations

import contextvars
import gc
import inspect
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

INTEGRATION_FOLDERS = {"docs", "e2e", "integration", "differential", "interop", "packaging"}

# Property tests must not depend on how busy the machine is; failures are reproduced from the
# printed blob, so runs need not be the same every time.
settings.register_profile(
    "headgate",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("headgate")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


def pytest_collection_finish() -> None:
    """What has been collected stays until the end: spare every scan of the collector the sight of
    it. Many tests look for what is left over by `gc.collect()`, each a second long without this.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Each test in a context of its own. What a WSGI app is told of its request holds until the
    thread's next one, and here that thread is everybody's.
    """
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}
    contextvars.copy_context().run(pyfuncitem.obj, **given)
    return True


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The same for what modules leave behind: their fixtures and caches, a gigabyte at the end."""
    if nextitem is None or nextitem.path != item.path:
        gc.freeze()
        end_logging()


def end_logging() -> None:
    """Apps that are hardened set up the logging of their process, for as long as it lives. Here
    that is the next test's process as well, which may fork or look at what is logged.
    """
    logs = sys.modules.get("headgate.observe.logs")
    if logs is not None:
        ours = logs.process_logging()
        if ours.outlet in logging.getLogger().handlers:
            ours.remove()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = ROOT / "tests"
    for item in items:
        folders = item.path.relative_to(tests).parts[:-1] if item.path.is_relative_to(tests) else ()
        if INTEGRATION_FOLDERS.intersection(folders):
            item.add_marker(pytest.mark.integration)
