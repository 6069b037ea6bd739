"""The folders of a run, held against other runs from before its state is read until it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from deeplabv3.config import TrainConfig
from deeplabv3.distributed import by_the_first
from deeplabv3.files import make_dir, only_writer, remove_partials
from deeplabv3.training.state import RunPaths


@contextmanager
def held_folders(config: TrainConfig) -> Iterator[Callable[[RunPaths], None]]:
    """Keep other runs out of a run's folders for the time of a `with` statement; of several processes the first does.

    Those that are there are held at once, so that what is read of the run stays the newest. The others are made later,
    because a mistake of the user leaves no folder behind.

    Args:
        config: The run.

    Yields:
        Makes and holds the others, and removes what a process that was killed left half written. It raises InputError
        where a new run finds files by then, or another process in a folder, and OutputError where one cannot be made.

    Raises:
        InputError: Another process writes into one of them.
        OutputError: One cannot be opened.
    """
    with ExitStack() as held:
        known: set[tuple[int, int]] = set()

        def hold() -> None:
            for folder in filter(os.path.isdir, RunPaths(config).folders):
                status = folder.stat()
                if (status.st_dev, status.st_ino) not in known:  # one folder may have two names
                    held.enter_context(only_writer(folder))
                    known.add((status.st_dev, status.st_ino))

        def make(paths: RunPaths) -> None:
            for folder in paths.folders:
                make_dir(folder)
            hold()
            if not config.resume:
                paths.require_unused()  # once more: another run may have come and gone
            remove_partials(paths.files)

        by_the_first(hold)
        yield partial(by_the_first, make)
