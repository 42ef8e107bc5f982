"""With real processes: small programs that live, die, refuse to die, and leave children behind."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from orchestrator.stack.children import Child, ChildSpec, StackError
from orchestrator.stack.leftovers import end_leftovers
from orchestrator.stack.restarts import RestartPolicy
from orchestrator.stack.supervisor import StopRequestedError, Supervisor

LIVES = "import time\nprint('up', flush=True)\ntime.sleep(600)"
DIES = "print('out of luck', flush=True)\nraise SystemExit(3)"
IGNORES_TERM = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{LIVES}"
STARTS_ANOTHER = (
    f"import subprocess, sys\nsubprocess.Popen((sys.executable, '-c', 'import time; time.sleep(600)'))\n{LIVES}"
)


def says_up(child: Child) -> bool:
    return "up" in child.new_log()


def build_spec(
    name: str,
    program: str,
    *,
    may_restart: bool = False,
    start_timeout_seconds: float = 60.0,
    stop_grace_seconds: float = 10.0,
) -> ChildSpec:
    return ChildSpec(
        name,
        (sys.executable, "-c", program),
        is_ready=says_up,
        may_restart=may_restart,
        start_timeout_seconds=start_timeout_seconds,
        stop_grace_seconds=stop_grace_seconds,
    )


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def find_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def watch_in_thread(supervisor: Supervisor) -> threading.Thread:
    thread = threading.Thread(target=supervisor.watch)
    thread.start()
    return thread


def test_children_end_in_reverse_order(supervisor: Supervisor, data_directory: Path) -> None:
    record = data_directory / "order"
    program = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(record)!r}, 'a').write(sys.argv[1]); sys.exit()\n"
        f"signal.signal(signal.SIGTERM, end)\n{LIVES}"
    )
    for name in "abc":
        supervisor.start(ChildSpec(name, (sys.executable, "-c", program, name), is_ready=says_up))
    supervisor.stop()
    assert record.read_text() == "cba"


def test_a_child_that_dies_while_starting_is_named_with_its_status_and_its_log(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"(?s)broken did not start, it exited with status 3.*out of luck"):
        supervisor.start(build_spec("broken", DIES))


def test_a_child_that_is_never_ready_is_not_waited_for_for_ever(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"slow was not ready after 0.3 seconds"):
        supervisor.start(build_spec("slow", "import time; time.sleep(600)", start_timeout_seconds=0.3))


def test_a_program_that_is_not_there_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match="missing could not be started"):
        supervisor.start(ChildSpec("missing", ("no-such-program",)))


def test_a_child_that_dies_later_ends_the_watch_and_nothing_of_it_remains(supervisor: Supervisor) -> None:
    other = supervisor.start(build_spec("other", LIVES))
    child = supervisor.start(build_spec("vital", STARTS_ANOTHER))
    vital = psutil.Process(child.pid)
    everything = [psutil.Process(other.pid), vital, *vital.children(recursive=True)]
    assert len(everything) == 3
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(StackError, match=r"(?s)vital was ended by SIGKILL\. The end of .*vital\.log:\nup"):
        supervisor.watch()
    supervisor.stop()
    assert find_running(everything) == []


def test_descendants_that_left_the_group_end_too(supervisor: Supervisor) -> None:
    child = supervisor.start(build_spec("parent", STARTS_ANOTHER.replace("600)'))", "600)'), start_new_session=True)")))
    descendants = psutil.Process(child.pid).children()
    assert os.getpgid(descendants[0].pid) != child.pid
    supervisor.stop()
    assert find_running(descendants) == []


def test_who_ignores_the_signal_is_killed_after_its_grace(supervisor: Supervisor) -> None:
    child = supervisor.start(build_spec("deaf", IGNORES_TERM, stop_grace_seconds=0.2))
    supervisor.stop()
    assert child.exit_status() == -signal.SIGKILL


def test_a_second_request_does_not_wait_for_the_grace(supervisor: Supervisor) -> None:
    child = supervisor.start(build_spec("deaf", IGNORES_TERM, stop_grace_seconds=60.0))
    supervisor.request_stop()
    threading.Timer(0.2, supervisor.request_stop).start()
    supervisor.watch()
    supervisor.stop()
    assert child.exit_status() == -signal.SIGKILL


def test_a_stop_asked_for_while_starting_is_heard(supervisor: Supervisor) -> None:
    threading.Timer(0.2, supervisor.request_stop).start()
    with pytest.raises(StopRequestedError):
        supervisor.start(build_spec("slow", "import time; time.sleep(600)"))


def test_a_worker_that_was_killed_is_started_again(supervisor: Supervisor, said: list[str]) -> None:
    child = supervisor.start(build_spec("worker", STARTS_ANOTHER, may_restart=True))
    left_behind = psutil.Process(child.pid).children()
    thread = watch_in_thread(supervisor)
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: [other.pid for other in supervisor.children] not in ([], [child.pid]))
    supervisor.request_stop()
    thread.join()
    assert said[0].startswith("worker was ended by SIGKILL and is started again in 0.5 s")
    assert find_running(left_behind) == []


def test_a_worker_that_cannot_live_is_given_up(data_directory: Path) -> None:
    supervisor = Supervisor(data_directory, lambda _message: None, RestartPolicy(2, first_delay_seconds=0.01))
    supervisor.start(ChildSpec("worker", (sys.executable, "-c", DIES), may_restart=True))
    with pytest.raises(StackError, match="worker exited with status 3"):
        supervisor.watch()
    assert (data_directory / "logs" / "worker.log").read_text() == "out of luck\n" * 3


def test_a_step_that_fails_ends_the_start(supervisor: Supervisor) -> None:
    supervisor.run_to_end(build_spec("fine", "print('up')"))
    with pytest.raises(StackError, match=r"(?s)migrate exited with status 3.*out of luck"):
        supervisor.run_to_end(build_spec("migrate", DIES))
    assert supervisor.children == ()


def test_what_a_killed_supervisor_left_is_ended_by_the_next(
    supervisor: Supervisor, data_directory: Path, said: list[str]
) -> None:
    child = supervisor.start(build_spec("left", STARTS_ANOTHER))
    processes = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
    end_leftovers(data_directory, said.append)
    assert find_running(processes) == []
    assert said == [f"Ending left (pid {child.pid}), left over from a run that was killed."]


def test_a_process_that_only_got_the_pid_of_a_child_is_left_alone(
    supervisor: Supervisor, data_directory: Path, said: list[str]
) -> None:
    child = supervisor.start(build_spec("mine", LIVES))
    child.create_time -= 60
    supervisor.start(build_spec("recorded_with_it", LIVES))
    end_leftovers(data_directory, said.append)
    assert child.exit_status() is None
    assert len(said) == 1
