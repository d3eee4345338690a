"""Ways to break mode batch that the simulation must notice."""

from torture.mutants import Mutation

MUTATIONS = (
    Mutation(
        "a finalize whose answer was lost is not asked about: its draft is dropped",
        "drafts.py",
        (
            (
                "                status = await self._status(batch_id)\n",
                '                raise Doubt("lost") from None\n',
            ),
        ),
    ),
    Mutation(
        "a finalize is sent before that is on disk",
        "drafts.py",
        (("await self._recorder.record(Finalizing(", "self._recorder.tell(Finalizing("),),
    ),
    Mutation(
        "an append whose answer was lost is sent into the same draft again",
        "drafts.py",
        (
            (
                "            raise Doubt(said(error)) from None\n        if ids and",
                "            ids = await self._patiently(lambda: self._api.append(draft.batch_id, bodies))\n"
                "        if ids and",
            ),
            ('raise Doubt(f"RunPod counts {total} requests in a draft of {len(draft.sent)}")', "pass"),
        ),
    ),
    Mutation(
        "that a draft is given up is not recorded",
        "drafts.py",
        (("        await self._recorder.record(DraftDropped(number, self._clock.now()))\n", "        pass\n"),),
    ),
    Mutation(
        "a draft that was given up is left at RunPod",
        "drafts.py",
        (("            await self._api.cancel(batch_id)\n", "            pass\n"),),
    ),
    Mutation(
        "a draft that may have been finalized is dropped by a resume",
        "carrier.py",
        (
            (
                "            finalized_at = one.finalized_at or await self._resolved(one, drafts)\n",
                '            if one.finalized_at is None:\n                raise Doubt("maybe")\n'
                "            finalized_at = one.finalized_at\n",
            ),
        ),
    ),
    Mutation(
        "runs of a draft that was given up are forgotten",
        "carrier.py",
        (
            (
                "        for work in works:\n            self._intake.give_back(work)\n",
                "        for _ in works:\n            self._intake.give_back()\n",
            ),
        ),
    ),
    Mutation(
        "an attempt is not taken back with its draft",
        "carrier.py",
        (("attempts=one.attempt - 1, job_id", "attempts=one.attempt, job_id"),),
    ),
    Mutation(
        "more runs are finalized than the concurrency allows",
        "carrier.py",
        (("min(most, self._manner.most_open - self._intake.open)", "most"),),
    ),
    Mutation(
        "results are known by their order",
        "echo.py",
        (
            (
                "            one = self._by_id.get(request_id)\n",
                "            one = next(iter(self._by_id.values()), None)\n",
            ),
        ),
    ),
    Mutation(
        "a result that was told is told again",
        "echo.py",
        (
            ("            self._by_id.pop(one.request_id, None)\n", "            pass\n"),
            ("        self._by_mark.pop(mark(one.key, one.attempt), None)\n", "        pass\n"),
            ("            self._told.add(request_id)\n", "            pass\n"),
        ),
    ),
    Mutation(
        "what an earlier process was told is taken for unknown",
        "echo.py",
        (("        ids = list(told)\n", "        ids: list[str | None] = []\n"),),
    ),
    Mutation(
        "failures that differ are told by their order",
        "echo.py",
        (("        if len(kinds) == 1:", "        if kinds:"),),
    ),
    Mutation(
        "one key is sent with every run",
        "intake.py",
        (("mark(run.key, work.attempts + 1)", 'mark("run", 1)'),),
    ),
    Mutation(
        "pages are read until they have moved once",
        "pages.py",
        (("        if has_more and page.shown:\n", "        if False:\n"),),
    ),
    Mutation(
        "a result that is on no page at first is lost",
        "pages.py",
        (
            (
                "        elif now - self._over_since >= MISSING_S and self._reads_over >= MISSING_READS:\n",
                "        else:\n",
            ),
        ),
    ),
    Mutation(
        "an answer about a batch that can't be read ends the process",
        "pages.py",
        (("            if may_shrink and (", "            if ("),),
    ),
    Mutation(
        "what a cancelled batch dropped is called lost",
        "harvest.py",
        (
            ("            elif is_broken_off and rest.is_silent:\n", "            elif False:\n"),
            ("            return self._unrun(job.status)\n", '            return ours(Outcome.LOST, "dropped")\n'),
        ),
    ),
    Mutation(
        "a RunPod batch is over when its first results are there",
        "harvest.py",
        (
            (
                "            await self._settle_all(children)\n",
                "            await self._settle_all(children)\n            if children:\n                break\n",
            ),
        ),
    ),
    Mutation(
        "that a RunPod batch is over is not recorded",
        "harvest.py",
        (("        self._recorder.tell(DraftOver(self._number, self._clock.now()))\n", "        pass\n"),),
    ),
)
