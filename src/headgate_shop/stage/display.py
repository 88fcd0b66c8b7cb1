"""The progress of a start, for people: bars on a terminal, a line for each step elsewhere."""

from __future__ import annotations

from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["Display"]

STEPS: Final = {
    "prepare": "keys, tokens, ports",
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "prometheus": "Prometheus",
    "import": "loading the services' code",
    "describe": "what each service says of its API",
    "data": "products, customers, months of orders",
    "services": "services",
    "gateway": "the gateway",
    "open": "the shop opens",
}


class Display:
    """Told of each line of progress; to be entered while the shop starts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, Any] = {}
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(finished_text="[green]✓[/green]"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[what]}", style="dim"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, news: dict[str, Any]) -> None:
        name = str(news.get("step"))
        if name not in STEPS:
            return
        if self._bars is None:
            if news["state"] == "done":
                self._console.print(f"{STEPS[name]}: {news['took_s']:.1f} s")
            return
        of = int(news.get("of") or 1)
        match news["state"]:
            case "begun":
                self._tasks[name] = self._bars.add_task(STEPS[name], total=of, what="")
            case "going":
                self._bars.update(self._tasks[name], completed=news["done"], what=f"{news['what']}")
            case "done":
                self._bars.update(self._tasks[name], completed=of, what="")
