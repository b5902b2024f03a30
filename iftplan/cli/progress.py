"""How runs show their progress on stderr: a bar on a terminal, a line for every evaluation or run elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iftplan.base.units import abbreviate
from iftplan.cli.output import Interrupted, say, waiting, working
from iftplan.report.table import printable

if TYPE_CHECKING:
    from iftplan.nn.training.loop import Moment

Watcher = Callable[["Moment"], None]


@contextmanager
def watching(steps: int, metric: str, *, done: int = 0, quiet: bool = False) -> Iterator[Watcher]:
    """Watcher that shows every moment of a run on stderr.

    Args:
        steps: of the run.
        metric: "accuracy" or "perplexity".
        done: steps taken before this start.
        quiet: show nothing: another process does.
    """
    if quiet:
        yield lambda moment: None
    elif sys.stderr.isatty():
        with _bar(steps, metric, done) as watcher:
            yield watcher
    else:
        yield lambda moment: _line(moment, metric)


def _line(moment: Moment, metric: str) -> None:
    if moment.score is not None:
        say(f"step {moment.step}/{moment.steps}  {_told(moment, metric)}")


def _told(moment: Moment, metric: str) -> str:
    assert moment.score is not None
    value = moment.score.metric(metric)
    return f"loss {moment.loss():.4f}  {metric} {value:.4f}  density {moment.density:.4f}  {abbreviate(moment.train_macs)} MACs"


@contextmanager
def _bar(steps: int, metric: str, done: int) -> Iterator[Watcher]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=steps, completed=done, told="")

        def watch(moment: Moment) -> None:
            progress.update(task, completed=moment.step)
            if moment.score is not None:
                progress.update(task, told=_told(moment, metric))

        yield watch


@contextmanager
def parts(what: str, count: int, after: str) -> Iterator[Callable[[], None]]:
    """Function to call for each part that is done: on a terminal a bar, where there are several, elsewhere one plain line.

    Args:
        what: is being done.
        count: of the parts.
        after: how to go on after Ctrl-C.

    Raises:
        Interrupted: Ctrl-C; it says how many parts are done.
    """
    done = 0
    try:
        with _bar_of_parts(what, count) as advance:

            def one() -> None:
                nonlocal done
                done += 1
                advance()

            yield one
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped with {done} of {count} measured; {after}") from error


@contextmanager
def _bar_of_parts(what: str, count: int) -> Iterator[Callable[[], None]]:
    if count < 2 or not (sys.stderr and sys.stderr.isatty()):
        with working(what):
            yield lambda: None
        return
    with waiting(what):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{printable(what)} …", total=count)
        yield lambda: progress.advance(task)


@contextmanager
def counting(ended: Callable[[], tuple[int, int]]) -> Iterator[Callable[[str], None]]:
    """Function that says lines about many runs, on a terminal above a bar.

    Args:
        ended: how many runs have, and how many there are; asked after every line.
    """
    if not sys.stderr.isatty():
        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:  # what goes to stderr, it prints above
        done, total = ended()
        task = progress.add_task("", total=total, completed=done)

        def tell(text: str) -> None:
            say(text)
            done, total = ended()
            progress.update(task, completed=done, total=total)

        yield tell


@contextmanager
def counted(total: int) -> Iterator[Callable[[str], None]]:
    """Function that says one line at the beginning of each of several timings.

    Args:
        total: how many there are.

    Raises:
        Interrupted: Ctrl-C; it says how many timings were done, of which nothing is kept.
    """
    begun = 0

    def tell(text: str) -> None:
        nonlocal begun
        begun += 1
        say(text)

    try:
        yield tell
    except KeyboardInterrupt as error:
        done = max(0, begun - 1)
        raise Interrupted(
            f"stopped with {done} of {total} timings done, and nothing was written; time fewer with fewer layers or --rounds 1"
        ) from error
