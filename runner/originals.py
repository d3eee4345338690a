"""Copy a file of an earlier batch, if it still is as it was made."""

import hashlib
import os
from pathlib import Path

from runner.decoding import ArtifactError
from runner.records import record

PIECE_BYTES = 1024 * 1024


@record(frozen=True, slots=True)
class Original:
    """An artifact of an earlier batch: where it is, and its digest as it was made."""

    file: Path
    sha256: str

    def copy(self, to: Path) -> tuple[str, int]:
        """
        Copy it durably to *to*, which must not exist; its digest and size. What is digested is what is written.

        Raises:
            ArtifactError: it is gone, or has changed.
            OSError: *to* can't be written.
        """
        digest = hashlib.sha256()
        try:
            source = self.file.open("rb")
        except OSError as error:
            raise ArtifactError(f"{self.file} can't be read: {error.strerror or error}") from None
        with source, to.open("xb") as file:
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        if digest.hexdigest() != self.sha256:
            raise ArtifactError(f"{self.file} is not as it was made")
        return self.sha256, size_bytes
