"""Keeps the ranks of a gang of one mind: what one of them learned, all act on at the same step.

A pod that is evicted gets SIGTERM alone. If only its ranks stopped or saved, the others would wait for
them in a collective for ever; so the wish to stop is exchanged at every boundary and acted on together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from tunewright_trainer.train.stop import StopRequest


@dataclass(frozen=True)
class Agreement:
    """What the gang knows after one exchange."""

    stop: bool
    """Some rank got SIGTERM."""
    save: bool
    """Some rank finds a periodic checkpoint due (rank 0 alone looks at the clock)."""
    broken_rank: int | None
    """Lowest rank whose loss or gradient was not finite."""


class Gang:
    """The exchange itself: one all-reduce of three numbers, to be called by all ranks alike."""

    def __init__(self, request: StopRequest, device: torch.device) -> None:
        self._request, self._device = request, device
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.stopping = False
        """The gang has agreed to stop; stays so."""

    @property
    def terminated(self) -> bool:
        """This very process got SIGTERM, not a peer."""
        return self._request.made

    def agree(self, *, save: bool = False, broken: torch.Tensor | None = None) -> Agreement:
        """Exchange with all ranks. ``broken`` is a boolean scalar tensor, None for False."""
        # The lowest rank wins a MAX if ranks count down from the world size.
        wishes = torch.tensor([int(self._request.made), int(save), 0], dtype=torch.int64, device=self._device)
        if broken is not None:
            wishes[2] = broken.to(torch.int64) * (self.world_size - self.rank)
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX)
        stop, due, place = wishes.tolist()
        self.stopping = self.stopping or bool(stop)
        return Agreement(self.stopping, bool(due), self.world_size - place if place else None)

    def share(self, value: object) -> object:
        """Rank 0's ``value`` on all ranks. Pickled by torch, but only ever between the gang's own ranks."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def collect(self, value: object) -> list[object]:
        """Every rank's ``value``, by rank, on all ranks."""
        values: list[object] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        dist.barrier()
