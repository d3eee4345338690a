"""Play the cases of a program of real processes, two at a time, and say what came of them."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from torture.cases import Case, Lane, lane, play, rows
from torture.scene import Account

AT_ONCE = 2
"""So many cases at a time: as many as a small machine has cores."""

SHOWN = 4
"""So many problems of a case are told; they are often the same."""

TELL_EVERY_S = 10.0


def play_all(
    cases: Sequence[Case], seed: int, *, again: str, at_once: int = AT_ONCE, tell: Callable[[str], None] = print
) -> list[Account]:
    """Play the cases, *at_once* at a time; what each came to. *again* is the command that plays a case of them."""
    free: SimpleQueue[Lane] = SimpleQueue()
    found: list[Account] = []
    began = told = time.monotonic()

    def one(case: Case) -> Account:
        beside = free.get()
        try:
            return play(case, beside, seed)
        finally:
            free.put(beside)

    with ExitStack() as stack:
        for _ in range(at_once):
            free.put(stack.enter_context(lane()))
        pool = stack.enter_context(ThreadPoolExecutor(at_once))
        for case, account in zip(cases, pool.map(one, cases), strict=True):
            found.append(account)
            for problem in account.problems[:SHOWN]:
                tell(problem)
            if account.problems:
                tell(f"  again: {again} --case {json.dumps(case.name)}")
            now = time.monotonic()
            if now - told > TELL_EVERY_S or len(found) == len(cases):
                told = now
                kills, wrong = sum(one.kills for one in found), sum(len(one.problems) for one in found)
                spent = f"{int(now - began) // 60}:{int(now - began) % 60:02d}"
                tell(f"{spent}  {len(found)} of {len(cases)} cases, {kills} SIGKILLs, {wrong} problems")
    return found


def report(
    cases: Sequence[Case], seed: int, *, again: str, at_once: int = AT_ONCE, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Play the cases; the object that ``--json`` writes."""
    began = time.monotonic()
    accounts = play_all(cases, seed, again=again, at_once=at_once, tell=tell)
    return {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "kills": sum(one.kills for one in accounts),
        "rows": rows(cases, accounts),
        "problems": [problem for one in accounts for problem in one.problems],
    }


def show(found: dict[str, Any], *, tell: Callable[[str], None] = print) -> None:
    """The rows as a table for a terminal."""
    heads = {"tried": 6, "runs": 6, "lost": 5, "paid_twice": 11, "sent_again_knowingly": 11}
    names = {"paid_twice": "paid twice", "sent_again_knowingly": "sent again"}
    tell(f"{'where':<10}  {'fault':<52}" + "".join(f"{names.get(one, one):>{width}}" for one, width in heads.items()))
    for row in found["rows"]:
        tell(
            f"{row['where']:<10}  {row['fault']:<52}" + "".join(f"{row[one]:>{width}}" for one, width in heads.items())
        )


def program(name: str, about: str | None, cases: Callable[[int, int], Sequence[Case]], *, random: int = 0) -> int:
    """
    Be the program ``python -m torture.NAME``, whose *cases* are those of a number of random moments and a seed.

    *random* is how many moments there are by default. 1 if anything is wrong.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="all chance comes from it and from the names of the cases")
    parser.add_argument("--random", type=int, default=random, metavar="N", help="kills at so many random moments")
    parser.add_argument("--case", action="append", metavar="NAME", help="this case only; can be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what came of it there, too")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    asked = parser.parse_args()
    every = cases(asked.random, asked.seed)
    if asked.case:
        by_name = {case.name: case for case in every}
        unknown = [one for one in asked.case if one not in by_name]
        if unknown:
            parser.error(f"no case is called {unknown[0]!r}; --list says which there are")
        every = [by_name[one] for one in asked.case]
    if asked.list:
        print(*(f"{case.where:<10}  {case.fault:<56}  {case.name}" for case in every), sep="\n")
        return 0
    print(f"seed {asked.seed}, {len(every)} cases, {AT_ONCE} at a time", flush=True)
    again = f"python -m torture.{name} --seed {asked.seed} --random {asked.random}"
    found = report(every, asked.seed, again=again, tell=lambda text: print(text, flush=True))
    show(found)
    print(f"{found['kills']} SIGKILLs in {found['seconds']:g} s, seed {asked.seed}: {len(found['problems'])} problems")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["problems"] else 0
