"""Ways to break the engine that the simulation must notice: what it promises, and what was wrong with it once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One way to break the engine: in *file*, each first text becomes the second."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]


MUTATIONS = (
    Mutation(
        "the intent is not written",
        "submission.py",
        (("await self._recorder.record(intended)", "pass"),),
    ),
    Mutation(
        "the intent is written later",
        "submission.py",
        (("await self._recorder.record(intended)", "self._recorder.tell(intended)"),),
    ),
    Mutation(
        "a lost answer is taken for a submit that was not sent",
        "submission.py",
        (
            ("except AnswerLost as error:", "except ZeroDivisionError as error:"),
            ("case Unreachable():", "case Unreachable() | AnswerLost():"),
        ),
    ),
    Mutation(
        "a refused submit is not taken back",
        "submission.py",
        (("            self._recorder.tell(Withdrawn(self.work.run.key, self._number))", "            pass"),),
    ),
    Mutation(
        "the grace after a submit is gone",
        "follow.py",
        (("if self._sent_age_s < GRACE_S:", "if self._sent_age_s < 0.0:"),),
    ),
    Mutation("one 404 is enough", "follow.py", (("if self._missing < 2:", "if self._missing < 1:"),)),
    Mutation(
        "nobody asks whether the endpoint itself is known",
        "follow.py",
        (("await self._endpoint.check_known(within_s=self.age_s - self._sent_age_s)", "pass"),),
    ),
    Mutation(
        "an unknown status is final",
        "states.py",
        (("return status in FINAL_STATUSES", 'return status not in ("IN_QUEUE", "IN_PROGRESS", "UNKNOWN")'),),
    ),
    Mutation(
        "a progress update is taken for the output",
        "follow.py",
        (
            ("if job.is_final:", "if job.is_final or not isinstance(job.output, type(MISSING)):"),
            (
                "from runner.states import Outcome\n",
                "from runner.states import Outcome\nfrom runner.values import MISSING\n",
            ),
        ),
    ),
    Mutation(
        "nobody looks for an hour",
        "follow.py",
        (
            ("await self._clock.sleep(self._bounds.wait_s(self._looks))", "await self._clock.sleep(3600.0)"),
            ("await self._clock.sleep(due_s)", "await self._clock.sleep(3600.0)"),
        ),
    ),
    Mutation(
        "a cancel is not recorded first",
        "attempt.py",
        (
            (
                '        work, last = self.work, following.last_status or "not known"\n'
                "        await self._recorder.record(CancelDecided(work.run.key, work.attempts, self._clock.now()))\n",
                '        work, last = self.work, following.last_status or "not known"\n',
            ),
        ),
    ),
    Mutation(
        "what a broken read of a stream took is forgotten",
        "streaming.py",
        (
            (
                "            except (AnswerLost, TooLarge):\n                self.is_whole = False\n",
                "            except (AnswerLost, TooLarge):\n",
            ),
        ),
    ),
    Mutation(
        "what another process read of a stream is forgotten",
        "streaming.py",
        (("self.is_whole = not is_resumed", "self.is_whole = True"),),
    ),
    Mutation(
        "a read of a stream that was cut off is forgotten",
        "streaming.py",
        (
            (
                "        except asyncio.CancelledError:  # by a limit or a stop: the job may go on, and complete\n"
                "            self.is_whole = False\n",
                "        except asyncio.CancelledError:\n",
            ),
        ),
    ),
    Mutation(
        "rate windows begin anew on resume",
        "network.py",
        (('Pace(rates, {"run": past, "runsync": past})', "Pace(rates)"),),
    ),
    Mutation(
        "a window takes one call too many",
        "pace.py",
        (
            ("allowed, wait_s = self._rate.count, 0.0", "allowed, wait_s = self._rate.count + 1, 0.0"),
            ("maxlen=rate.count", "maxlen=rate.count + 1"),
        ),
    ),
    Mutation("a place is given back twice", "slots.py", (("        self.taken -= 1\n", "        self.taken -= 2\n"),)),
    Mutation(
        "known jobs take no place",
        "dispatch.py",
        (("                    slots.take_over()\n", "                    pass\n"),),
    ),
    Mutation(
        "answer_lost is always sent again",
        "settling.py",
        (
            (
                "if ending.outcome is Outcome.ANSWER_LOST and self._resubmit:",
                "if ending.outcome is Outcome.ANSWER_LOST:",
            ),
        ),
    ),
    Mutation("one retry too many", "policy.py", (("failures >= self.attempts", "failures > self.attempts"),)),
    Mutation(
        "stop_when stops nothing",
        "dispatch.py",
        (("            self.switch.close(Reason.STOP_WHEN)\n", ""),),
    ),
    Mutation(
        "a signal stops nothing",
        "live.py",
        (("            switch.close(Reason.INTERRUPT)\n", "            pass\n"),),
    ),
    Mutation(
        "the concurrency is one too many",
        "slots.py",
        (("if self.taken < self.limit and", "if self.taken <= self.limit and"),),
    ),
    Mutation(
        "a batch whose ledger is gone is begun anew",
        "resume.py",
        (("    check_newest(root)\n", ""),),
    ),
    Mutation(
        "results that were cut are taken as they are",
        "store.py",
        (
            ("        if end > self._end:\n", "        if end > self._end and False:\n"),
            ("        if not is_same(line, last.digest):\n", "        if False:\n"),
        ),
    ),
    Mutation(
        "thresholds decide nothing",
        "conduct.py",
        (("thresholds_hold=report.thresholds_hold(ledger, facts)", "thresholds_hold=None"),),
    ),
    Mutation(
        "a drain never ends",
        "live.py",
        (("self._end_at(asyncio.get_running_loop().time() + ", "self._end_at(1e9 + "),),
    ),
    Mutation(
        "known jobs are forgotten on resume",
        "resume.py",
        (("        elif one.job_id is not None:\n", "        elif one.job_id is not None and False:\n"),),
    ),
    Mutation(
        "an intent without an answer is pending again",
        "resume.py",
        (
            (
                "                events.append(settle(work, lost, now=now))\n",
                "                events.append(Ended(one.run.key, one.attempt, lost, now))\n"
                "                works.append(work)\n",
            ),
        ),
    ),
    Mutation(
        "what a kill left on disk is not adopted",
        "store.py",
        (("for line in self._lines(end):", "for line in [][:0]:"),),
    ),
    Mutation(
        "a line is not synced",
        "store.py",
        (
            (
                "                os.fdatasync(self._file)\n        self._end = offset\n",
                "                pass\n        self._end = offset\n",
            ),
        ),
    ),
    Mutation(
        "the ledger is written before the line",
        "store.py",
        (
            (
                "        short: list[bytes] = []\n        with _said_plainly(self._results):\n",
                "        first: list[tuple[Event, Place | None]] = []\n"
                "        for event in events:\n"
                "            place = None\n"
                "            if isinstance(event, Settled):\n"
                "                place = Place(offset, len(event.line), digest(event.line))\n"
                "                offset += len(event.line)\n"
                "            first.append((event, place))\n"
                "        refused, offset = self.ledger.apply(first), self._end\n"
                "        short: list[bytes] = []\n        with _said_plainly(self._results):\n",
            ),
            ("        return self.ledger.apply(placed)\n", "        return refused\n"),
        ),
    ),
    Mutation(
        "who waits is told before the disk is",
        "record.py",
        (
            (
                "        self._hand_over(group)\n",
                "        for event, done in group:\n"
                "            if done is not None and not done.done() and not isinstance(event, Claimed):\n"
                "                done.set_result(None)\n"
                "        self._hand_over(group)\n",
            ),
        ),
    ),
    Mutation(
        "a disk that says no is overheard",
        "record.py",
        (
            (
                "        except RecordError as error:\n            self._failure = error\n",
                "        except RecordError:\n            pass\n",
            ),
        ),
    ),
    Mutation(
        "two processes may run a batch",
        "batch.py",
        (("        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", ""),),
    ),
    Mutation(
        "keys are not masked",
        "secret.py",
        (
            (
                "    def __call__(self, text: str) -> str:\n",
                "    def __call__(self, text: str) -> str:\n        return text\n\n"
                "    def _never(self, text: str) -> str:\n",
            ),
        ),
    ),
    Mutation(
        "known jobs take their places when their turn comes",
        "dispatch.py",
        (
            ("                    slots.take_over()\n", "                    pass\n"),
            (
                '        Its places are taken already.\n        """\n        try:\n',
                '        Its places are taken already.\n        """\n'
                "        for slots in (self._slots, self._endpoint.slots):\n"
                "            slots.take_over()\n"
                "        try:\n",
            ),
        ),
    ),
    Mutation(
        "a 404 counts from when it is heard",
        "follow.py",
        (("if self._sent_age_s < GRACE_S:", "if self.age_s < GRACE_S:"),),
    ),
    Mutation(
        "the calendar decides how old a job is",
        "follow.py",
        (
            (
                "        return self._age_s + self._clock.monotonic()\n",
                "        return self._clock.now() - self._submitted_at\n",
            ),
        ),
    ),
    Mutation(
        "/health of a while ago speaks for the endpoint",
        "follow.py",
        (("check_known(within_s=self.age_s - self._sent_age_s)", "check_known(within_s=5.0)"),),
    ),
    Mutation(
        "what was never sent is tried again",
        "settling.py",
        (
            (
                "is_attempt = was_sent or work.job_id is not None or ending.outcome is Outcome.ANSWER_LOST",
                "is_attempt = True",
            ),
        ),
    ),
    Mutation(
        "only /run has a past",
        "network.py",
        (('Pace(rates, {"run": past, "runsync": past})', 'Pace(rates, {"run": past})'),),
    ),
    Mutation(
        "an intent that never left is not taken back",
        "submission.py",
        (
            (
                "takes it for sent\n                self._recorder.tell(Withdrawn(self.work.run.key, number))\n",
                "takes it for sent\n                pass\n",
            ),
        ),
    ),
    Mutation(
        "zeros in the file of a stream are read",
        "received.py",
        (("            with suppress(ValueError):", "            with suppress(ZeroDivisionError):"),),
    ),
    Mutation(
        "a cancel that comes too early is not sent again",
        "attempt.py",
        (("if not isinstance(error, NotFound) or following.age_s >= GRACE_S:", "if True:"),),
    ),
    Mutation(
        "the verdict is of this process's memory",
        "conduct.py",
        (
            (
                '        tally = Tally(ledger.noted("plan"))\n        tally.restore(ledger.counts())\n        came_to',
                "        came_to",
            ),
            ("            tally,\n            interrupted", "            live.tally,\n            interrupted"),
        ),
    ),
    Mutation(
        "a folder that can't be synced is our bug",
        "conduct.py",
        (
            (
                '        except OSError as error:\n            raise RecordError(\n                f"{folder.ledger}',
                "        except ZeroDivisionError as error:\n"
                '            raise RecordError(\n                f"{folder.ledger}',
            ),
        ),
    ),
    Mutation(
        "a run that is given up forgets its job",
        "reconcile.py",
        (("replace(work, job_id=work.last_job_id, submitted_at=work.last_submitted_at)", "replace(work)"),),
    ),
    Mutation(
        "what was changed is taken in unasked",
        "reconcile.py",
        (
            (
                "        if self._options.accept_changes:\n            return None\n        return lambda",
                "        return None\n        return lambda",
            ),
        ),
    ),
    Mutation(
        "a job that is not among the oldest is never looked at",
        "follow.py",
        (
            (
                "rarely_s = bounded_s(math.inf, age_s=self.age_s, bounds=self._bounds, ttl_s=self._ttl_s)",
                "rarely_s = None",
            ),
        ),
    ),
    Mutation(
        "an artifact takes a name that another run has",
        "artifacts.py",
        (("            if taken is not None:\n", "            if False:\n"),),
    ),
    Mutation(
        "a bad gateway means that nothing was accepted",
        "faults.py",
        (("Refused if 400 <= status < 500 else AnswerLost", "Refused"),),
    ),
)
