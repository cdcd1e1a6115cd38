"""`production.json`: which version is in use, which one is tried beside it, and all that was before.

A trial is a canary, which answers some of the users, or a shadow, whose answers are only compared. It ends with the
next move of any kind.
"""

import hashlib
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["promoted", "rolled back", "canary", "shadow", "ended"]
SETTLED = ("promoted", "rolled back")
TRIALS = ("canary", "shadow")
STEPS = 2**64


class Move(BaseModel):
    """One change of what is in production, or of what is tried beside it."""

    model_config = ConfigDict(frozen=True)

    version: str
    at: datetime
    kind: Kind
    why: str
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """In a trial: of the users."""

    def tries(self, user: object) -> bool:
        """Whether the trial is for this user: always the same ones, and with more percent these and others.

        Who has no id could not be given the same version again, and stays with the one in production.
        """
        if user is None or self.percent is None:
            return False
        place = hashlib.blake2b(f"{self.version}/{user}".encode(), digest_size=8).digest()
        return int.from_bytes(place) < self.percent / 100 * STEPS


class Production(BaseModel):
    """All moves; the last one that settled something says what is in use."""

    model_config = ConfigDict(frozen=True)

    moves: tuple[Move, ...] = ()

    @property
    def version(self) -> str | None:
        """The version in use, None before the first promotion."""
        settled = self._settled
        return settled[-1].version if settled else None

    @property
    def previous(self) -> str | None:
        """What was in use before the present version was promoted: where a rollback leads to."""
        settled = self._settled
        promoted = [n for n, move in enumerate(settled) if move.kind == "promoted" and move.version == self.version]
        return settled[promoted[-1] - 1].version if promoted and promoted[-1] else None

    @property
    def trial(self) -> Move | None:
        """The trial that runs, if one does."""
        return self.moves[-1] if self.moves and self.moves[-1].kind in TRIALS else None

    @property
    def _settled(self) -> list[Move]:
        return [move for move in self.moves if move.kind in SETTLED]
