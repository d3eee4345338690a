"""Ways to break pipelines and reuse that the simulation must notice."""

from torture.mutants import Mutation

MUTATIONS = (
    Mutation(
        "rows are made of runs that failed",
        "upstream.py",
        (("return Given(run.index, row, None if has_succeeded else _why(run))", "return Given(run.index, row, None)"),),
    ),
    Mutation(
        "rows are made of the runs of other jobs, too",
        "upstream.py",
        (("if run.job == self._job:", "if run.job <= self._job:"),),
    ),
    Mutation(
        "every other run of a job gives no row",
        "upstream.py",
        (("self._offset = run.place.offset\n", "self._offset = run.place.offset + run.place.length\n"),),
    ),
    Mutation(
        "a gate is open whatever is behind it",
        "pipeline.py",
        (("closed = gate.judged(self._tallies, self._closed)\n", "closed = None\n"),),
    ),
    Mutation(
        "nobody waits for what a job needs",
        "pipeline.py",
        (("while (standing := self._standing(gate.waits_for))", "while (standing := self._standing(()))"),),
    ),
    Mutation(
        "what is collected is not waited for",
        "gates.py",
        (("is_streamed = self.job.when is None and not rows.collect", "is_streamed = self.job.when is None"),),
    ),
    Mutation(
        "nobody wakes who waits for rows",
        "pipeline.py",
        (("self._lanes[upstream].settling.downstream.append(self._feeds[downstream])", "pass"),),
    ),
    Mutation(
        "a limit of rows is passed by one",
        "pipeline.py",
        (
            ("                if kept == limit:\n", "                if limit is not None and kept > limit:\n"),
            ("while limit is None or kept < limit:", "while limit is None or kept <= limit:"),
        ),
    ),
    Mutation(
        "how many runs came of the rows is not recorded",
        "pipeline.py",
        (("            self._recorder.tell(Planned(planned.name, made))\n", "            pass\n"),),
    ),
    Mutation(
        "what was collected stays, though there is more now",
        "pipeline.py",
        (("            yield from self._replaced(planned, row)\n", "            yield from ()\n"),),
    ),
    Mutation(
        "what is collected comes in the order of settling",
        "pipeline.py",
        (('{"runs": sorted(found, key=lambda one: one["index"])}', '{"runs": list(found)}'),),
    ),
    Mutation(
        "nothing is reused",
        "reuse.py",
        (("        for before in self._earlier.holding(self._job):\n", "        for before in ():\n"),),
    ),
    Mutation(
        "a reused result names no batch",
        "reuse.py",
        (("            reused_from=made_by,\n", "            reused_from=None,\n"),),
    ),
    Mutation(
        "files of a reused result are named, and not copied",
        "reuse.py",
        (("            await self._artifacts.make(run.key, 0, wanted, loopback=False)\n", "            pass\n"),),
    ),
    Mutation(
        "a batch that was killed at its first step gives nothing to another",
        "conduct.py",
        (("is_resumed=any(counts.values()),", "is_resumed=live.resumed,"),),
    ),
)
