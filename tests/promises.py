"""For each test that SECURITY.md names, a fault that it must notice. `mutations.py` puts them in, see there.

Each is a name, a file of the core (or a path from the root on), a text in it, what that becomes, and the tests. What
SECURITY.md names and is not here is among `mutations.py`'s own.
"""

_FAULTS = "test_host_faults.py"
_ATTACKS, _ENDPOINT, _SERVER = "wire/test_attacks.py", "wire/test_endpoint.py", "wire/test_server.py"
_ADVERSARIES, _FUZZ = "tests/test_adversaries.py", "tests/fuzz/test_fuzz.py"
_TOP = "packages/openrtc-top/src/openrtc_top"
_HOSTILE = "packages/openrtc-top/tests/test_hostile_texts.py"

PROMISES: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "the socket is 0666",
        "wire/_endpoint.py",
        "            if stat.S_IMODE(mode) != 0o600:  # a umask took from it\n                os.chmod(path, 0o600)",
        "            os.chmod(path, 0o666)",
        (f"{_SERVER}::test_another_user_cannot_connect",),
    ),
    (
        "every user is let in",
        "wire/_server.py",
        "            if not may_connect(peer_uid(connection)):",
        "            if False:",
        (f"{_SERVER}::test_another_user_who_connects_is_told_nothing",),
    ),
    (
        "anyone's directory will do",
        "wire/_endpoint.py",
        "    elif status.st_uid != owner:",
        "    elif False:",
        (f"{_ATTACKS}::test_what_someone_planted_is_refused[directory]",),
    ),
    (
        "links are followed",
        "wire/_endpoint.py",
        "        status = os.lstat(directory)\n    except OSError as error:",
        "        status = os.stat(directory)\n    except OSError as error:",
        (f"{_ATTACKS}::test_what_someone_planted_is_refused[link]",),
    ),
    (
        "workers in anyone's directory are found",
        "wire/_endpoint.py",
        "        _check_directory(directory, private=True, owner=owner)\n"
        '        paths = sorted(directory.glob("*.sock"))\n'
        "        found.extend(parse_name(path) for path in paths if os.lstat(path).st_uid == owner and "
        '_state_of(path) == "live")',
        '        paths = sorted(directory.glob("*.sock"))\n'
        '        found.extend(parse_name(path) for path in paths if _state_of(path) == "live")',
        (f"{_ATTACKS}::test_a_planted_worker_is_not_found",),
    ),
    (
        "every server is believed",
        "wire/_endpoint.py",
        "    return may_connect(uid) or _uid() == 0",
        "    return True",
        (f"{_ATTACKS}::test_a_swapped_socket_is_not_believed",),
    ),
    (
        "a directory that is exchanged breaks the start",
        "wire/_endpoint.py",
        "    except OSError as error:  # no file descriptor left, a directory that is gone again",
        "    except ZeroDivisionError as error:",
        (f"{_ATTACKS}::test_a_race_for_the_directory_is_an_error_or_a_private_socket",),
    ),
    (
        "the mode of what was put in the socket's place is set",
        "wire/_endpoint.py",
        "            if not stat.S_ISSOCK(mode):  # chmod",
        "            if False:  # chmod",
        (f"{_ATTACKS}::test_a_link_put_in_the_socket_s_place_is_not_followed",),
    ),
    (
        "a socket that answers is taken for dead",
        "wire/_endpoint.py",
        '    return "live" if code == 0 or code in _BUSY else "closed"',
        '    return "dead"',
        (f"{_ENDPOINT}::test_a_live_socket_is_never_taken",),
    ),
    (
        "workers do not start in turn",
        "wire/_endpoint.py",
        "                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "                pass",
        (f"{_ATTACKS}::test_one_of_two_that_replace_a_dead_socket_wins",),
    ),
    (
        "a file is taken for a dead socket",
        "wire/_endpoint.py",
        '        return "foreign"',
        '        return "dead"',
        (f"{_ENDPOINT}::test_a_file_at_the_path_is_never_deleted",),
    ),
    (
        "a client's loss ends the service",
        "wire/_server.py",
        "        except* OSError:\n            pass  # the client's loss\n        except* Exception as errors:\n",
        "        except* ZeroDivisionError:\n            pass\n        except* ZeroDivisionError as errors:\n",
        (
            f"{_ADVERSARIES}::test_a_hostile_peer_costs_its_own_connection_only",
            f"{_ADVERSARIES}::test_all_of_them_together_cost_no_more",
        ),
    ),
    (
        "nobody gives way",
        "wire/_server.py",
        "        if silent is None:\n            return False",
        "        if True:\n            return False",
        (
            f"{_ADVERSARIES}::test_ten_thousand_connections_lock_nobody_out",
            f"{_SERVER}::test_a_crowd_that_asks_nothing_locks_nobody_out",
        ),
    ),
    (
        "lines have no end",
        "wire/_server.py",
        "        self._lines = LineBuffer(self._limits.request_bytes)",
        "        self._lines = LineBuffer(1 << 40)",
        (f"{_ADVERSARIES}::test_a_gigabyte_without_a_newline_is_not_taken",),
    ),
    (
        "each reader holds a frame of its own",
        "wire/_source.py",
        "return to_json(SnapshotRequest(id=request_id))[:-1], self._body",
        "return to_json(SnapshotRequest(id=request_id))[:-1], self._body[:-1], self._body[-1:]",
        (f"{_SERVER}::test_readers_that_never_read_do_not_make_the_worker_grow",),
    ),
    (
        "what cannot be read is not answered",
        "wire/_server.py",
        "                await self._write(await self._server.paced(lambda: [refusal]))",
        "                pass",
        (
            f"{_FUZZ}::test_any_conversation_is_answered_line_by_line",
            f"{_FUZZ}::test_what_was_found_before_is_harmless",
        ),
    ),
    (
        "names reach the terminal as they are",
        f"{_TOP}/_encoding.py",
        '    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)',
        "    return text",
        (
            f"{_HOSTILE}::test_no_command_prints_what_a_terminal_obeys",
            f"{_HOSTILE}::test_the_live_view_writes_nothing_but_its_own_codes",
            f"{_HOSTILE}::test_ps_prints_nothing_a_terminal_obeys",
        ),
    ),
    (
        "a step that ends by an exception is not booked",
        "_meter.py",
        "            except BaseException as error:\n                try:\n"
        "                    ledger.end(outside, start, holder)\n",
        "            except BaseException as error:\n                try:\n"
        "                    ledger.running = outside\n",
        (f"{_FAULTS}::test_tasks_cancelled_anywhere_end_as_without_us",),
    ),
    (
        "what is no Exception ends a task without a word",
        "_meter.py",
        "  # as everywhere here\n                raise",
        "\n                if isinstance(error, Exception):\n                    raise",
        (f"{_FAULTS}::test_every_exception_ends_a_task_as_without_us",),
    ),
    (
        "a scope keeps what ends it",
        "_scope.py",
        "                introspector._sessions_live(False)",
        "                introspector._sessions_live(False)\n        return True",
        (f"{_FAULTS}::test_a_scope_lets_every_exception_through",),
    ),
    (
        "a session that was cancelled counts as errored",
        "_scope.py",
        "        failed = isinstance(error, Exception)",
        "        failed = error is not None",
        (f"{_FAULTS}::test_a_scope_lets_every_exception_through",),
    ),
    (
        "a scope's fault is the session's",
        "_scope.py",
        "            self._bind(session)\n        except Exception as fault:",
        "            self._bind(session)\n        except ZeroDivisionError as fault:",
        ("test_introspector.py::test_exceptions_inside_our_own_never_reach_a_session",),
    ),
    (
        "what is thrown into a task stays with the meter",
        "_meter.py",
        "                        del raising  # it may",
        "                        pass  # it may",
        (f"{_FAULTS}::test_without_a_collector_nothing_of_a_session_stays",),
    ),
    (
        "ended sessions are kept",
        "_sessions.py",
        "            del self.left_behind[id(session)]\n",
        "            pass\n",
        ("tests/test_soak.py::test_twenty_thousand_sessions_leave_nothing_behind",),
    ),
    (
        "a forked child keeps what is the parent's",
        "_fork.py",
        "        each.abandon_after_fork()",
        "        pass",
        (f"{_FAULTS}::test_a_child_forked_in_mid_step_goes_on_alone",),
    ),
    (
        "the service thread imports",
        "_service.py",
        "    import anyio._backends._asyncio  # noqa: F401\n",
        "",
        (f"{_FAULTS}::test_threads_of_ours_import_nothing",),
    ),
    (
        "sockets of the dead are left where they are",
        "wire/_endpoint.py",
        "                _remove_stale(directory)",
        "                pass",
        (f"{_FAULTS}::test_a_killed_worker_s_socket_is_cleaned_up_by_the_next",),
    ),
    (
        "the interpreter waits for the service thread",
        "_shared_thread.py",
        "name=self.name, daemon=True)",
        "name=self.name, daemon=False)",
        (f"{_FAULTS}::test_the_interpreter_ends_while_it_runs",),
    ),
    (
        "threads of ours do not end",
        "_shared_thread.py",
        "                if time.monotonic() >= self._until:",
        "                if False:",
        ("test_shared_thread.py::test_it_runs_from_the_first_part_until_a_moment_after_the_last",),
    ),
    (
        "threads of ours are kept for long",
        "_shared_thread.py",
        "KEEP_S = 0.2",
        "KEEP_S = 5.0",
        ("test_shared_thread.py::test_it_is_kept_for_less_than_a_second",),
    ),
    (
        "a worker that was closed ticks on",
        "_service.py",
        "        if self._ticking.acquire(timeout=max(0.0, deadline - time.monotonic())):\n"
        "            self._ticking.release()",
        "        pass",
        ("test_service.py::test_after_the_join_it_does_not_tick_any_more",),
    ),
    (
        "the service's loop is the host's to change",
        "_own_loop.py",
        "    locals().update(_methods_of(asyncio.SelectorEventLoop))",
        "    pass",
        ("test_own_loop.py::test_the_socket_answers_whatever_a_host_has_put_in_asyncio_s_place",),
    ),
    (
        "a disk that is full is not told of",
        "wire/_endpoint.py",
        "                    os.chmod(directory, 0o700)\n    except OSError as error:",
        "                    os.chmod(directory, 0o700)\n    except ZeroDivisionError as error:",
        (f"{_FAULTS}::test_a_runtime_directory_that_takes_no_socket_is_told",),
    ),
    (
        "a lack of file descriptors ends the service",
        "wire/_server.py",
        "                except OSError:  # out of file descriptors: the listener stays readable meanwhile",
        "                except ZeroDivisionError:",
        (f"{_FAULTS}::test_file_descriptors_that_run_out_pass",),
    ),
    (
        "a start that failed leaves its hook on the loop",
        "_introspector.py",
        "            self._detach_all()\n            for helper in self._threads:\n                helper.stop()\n"
        "            self._reporter = self._service",
        "            for helper in self._threads:\n                helper.stop()\n"
        "            self._reporter = self._service",
        (f"{_FAULTS}::test_a_start_without_file_descriptors_works_or_leaves_nothing",),
    ),
    (
        "a scope cannot be left in another context",
        "_scope.py",
        "            with contextlib.suppress(ValueError):\n                variable.reset(token)",
        "            with contextlib.suppress(ZeroDivisionError):\n                variable.reset(token)",
        (f"{_FAULTS}::test_generators_with_a_scope_that_are_closed_early_end_their_session",),
    ),
    (
        "a loop that was stopped was blocked",
        "_asyncio.py",
        "        self.busy_since = now\n        if self.thread_id",
        "        self.busy_since = now - 1.0\n        if self.thread_id",
        (f"{_FAULTS}::test_a_loop_stopped_restarted_and_closed_with_tasks_pending",),
    ),
    (
        "times follow the system's clock",
        "_clock.py",
        "        return reading + self._offset",
        "        return reading + time.time() - self.clock()",
        (f"{_FAULTS}::test_wall_clock_jumps_change_no_figure",),
    ),
    (
        "a socket from the future is young",
        "wire/_endpoint.py",
        '"young" if abs(age_s) <= _STALE_AFTER_S',
        '"young" if age_s <= _STALE_AFTER_S',
        (f"{_FAULTS}::test_a_socket_from_before_the_clock_was_set_is_replaced",),
    ),
    (
        "a task is counted before its coroutine can begin",
        "_meter.py",
        "        steps = drive(coro, ledger, tag)\n        steps.send(None)",
        "        tag.tasks += 1\n        steps = drive(coro, ledger, tag)\n        steps.send(None)\n"
        "        tag.tasks -= 1",
        (f"{_FAULTS}::test_a_recursion_limit_hit_in_a_step_is_the_host_s_own_error",),
    ),
    (
        "a name that is in use is used again",
        "wire/_endpoint.py",
        'for suffix in ("", *(f".{n}" for n in range(2, 100)))]',
        'for suffix in ("",)]',
        (f"{_FAULTS}::test_a_process_that_replaces_itself_is_found_once",),
    ),
    (
        "log records are handled where they are made",
        "_log.py",
        "                _writer.add(logger, record)",
        "                logger.handle(record)",
        ("test_log.py::test_a_stuck_handler_holds_no_loop_and_blames_nobody",),
    ),
    (
        "who closes waits for a log handler for ever",
        "_serving.py",
        "    _log.flush(max(0.0, deadline - time.monotonic()))",
        "    _log.flush(3600.0)",
        ("test_log.py::test_a_stuck_handler_does_not_keep_whoever_closes",),
    ),
    (
        "a record that comes while the log's thread ends waits for another",
        "_log.py",
        "        if not self._queue.empty():\n            self._see_to_it()",
        "",
        ("test_log.py::test_a_record_that_comes_while_the_thread_ends_is_handled",),
    ),
    (
        "the interpreter's exit forgets records",
        "_log.py",
        "        self._over = True\n        self._handle_here()",
        "        self._over = True",
        ("test_log.py::test_a_program_that_ends_without_closing_loses_no_record",),
    ),
    (
        "dropped records are not counted",
        "_log.py",
        "                self._dropped += 1",
        "                pass",
        ("test_log.py::test_what_finds_no_room_is_dropped_and_the_next_line_tells_how_many",),
    ),
    (
        "a forked child keeps its parent's log",
        "_fork.py",
        "    _log.abandon_after_fork()",
        "    pass",
        ("test_log.py::test_a_forked_child_logs_its_own_records_only",),
    ),
)
