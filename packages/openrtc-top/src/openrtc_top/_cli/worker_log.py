"""What becomes of the workers that a command follows, told on stderr: lost, frozen, back."""

from __future__ import annotations

from collections import Counter

from openrtc_top._cli.outcome import say
from openrtc_top._model.events import Dropped, Event, Found, Frame, Gone, Listed, Unanswered
from openrtc_top._model.workers import worker_label
from openrtc_top._view.unanswered import frozen_line


class WorkerLog:
    """Tells each change once, with the name that the worker has in other output."""

    def __init__(self) -> None:
        self.hosts: dict[str, str | None] = {}
        """The machine of each worker that was found, as the user called it. None: this one."""
        self._names: dict[str, str] = {}
        self._pids: dict[str, int | None] = {}
        self._lost: set[str] = set()
        self._frozen: set[str] = set()

    def take(self, event: Event) -> None:
        """Take note of an event, and say what there is to say of it."""
        match event:
            case Found(key, name, pid, host):
                self.hosts[key], self._names[key], self._pids[key] = host, name, pid
            case Frame(key, snapshot):
                self._names[key], self._pids[key] = snapshot.worker.name, snapshot.worker.pid
                if key in self._lost:
                    say(f"{self._who(key)}: connected again")
                elif key in self._frozen:
                    say(f"{self._who(key)}: answers again")
                self._lost.discard(key)
                self._frozen.discard(key)
            case Unanswered(key, reading) if reading.held is not None and key not in self._frozen:
                self._frozen.add(key)
                say(frozen_line(self.label(key), reading))
            case Listed(str() as problem):
                say(f"--via-each: {problem}")
            case Gone(key, reason) if key not in self._lost:
                self._lost.add(key)
                say(f"{self._who(key)}: {reason}; trying again")
            case Dropped(key) if key in self._names:
                del self.hosts[key], self._names[key], self._pids[key]
                self._lost.discard(key)
                self._frozen.discard(key)

    def label(self, key: str) -> str:
        """Return what a view calls a worker that was found."""
        return worker_label(self.hosts[key], self._names[key])

    def _who(self, key: str) -> str:
        """Return the same, with the process id if another worker has that name."""
        label, pid = self.label(key), self._pids[key]
        same = Counter(map(self.label, self._names))[label] > 1
        return f"{label} pid {pid}" if same and pid is not None else label
