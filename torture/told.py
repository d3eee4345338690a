"""What a program of `torture` tells: an account for each fault, and the report that `torture.table` reads."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torture.scene import Account
from torture.table import Row


class Told:
    """The accounts of the program *how*, by fault, all of one place (*where*)."""

    def __init__(self, how: str, where: str) -> None:
        self._how = how
        self._where = where
        self._by_fault: dict[str, Account] = {}

    def add(self, fault: str, account: Account) -> None:
        """Count *account* in; its `tried` is how often the fault happened."""
        self._by_fault.setdefault(fault, Account()).add(account)

    @property
    def total(self) -> Account:
        """All of them together."""
        found = Account()
        for one in self._by_fault.values():
            found.add(one)
        return found

    @property
    def problems(self) -> Sequence[str]:
        """Everything that was wrong."""
        return self.total.problems

    def rows(self) -> list[Row]:
        """A row for each fault that happened."""
        return [
            Row(fault, self._where, self._how, one.tried, one.runs, one.lost, one.paid_twice, one.resent)
            for fault, one in self._by_fault.items()
            if one.tried
        ]

    def lines(self) -> list[str]:
        """The rows as text."""
        width = max((len(fault) for fault in self._by_fault), default=0)
        return [
            f"  {row.fault:<{width}} {row.tried:>6} times {row.runs:>7} runs {row.lost:>4} lost"
            f" {row.paid_twice:>4} paid twice {row.sent_again_knowingly:>5} sent again knowingly"
            for row in self.rows()
        ]

    def write(self, path: Path, *, seed: int, seconds: float) -> None:
        """Write the report."""
        report = {
            "rows": [asdict(row) for row in self.rows()],
            "kills": self.total.kills,
            "seed": seed,
            "seconds": round(seconds, 1),
            "problems": list(self.problems),
        }
        path.write_text(json.dumps(report, indent=1) + "\n")
