"""Numbers of offload as Python values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._errors import EbbtideError
from .._stats import StepPlan
from ._registry import TagCount, registry
from ._store import Store
from ._swap_engine import SwapStats

if TYPE_CHECKING:
    from ._layer_record import Tally
    from ._offloaded import Offloaded


@dataclasses.dataclass(frozen=True)
class LayerStats:
    """One layer, over all its training calls. Bytes are what these calls' saved tensors weighed."""

    name: str
    calls: int
    attention_forwards: int
    kept_bytes: int  # stayed on the device
    swapped_bytes: int  # went to the host
    recomputed_bytes: int  # made again in backward instead
    whole_because: str | None  # why the layer is not cut; None: it is

    @staticmethod
    def of(tally: Tally) -> LayerStats:
        return LayerStats(**{f.name: getattr(tally, f.name) for f in dataclasses.fields(LayerStats)})


@dataclasses.dataclass(frozen=True)
class OffloadStats:
    """One model."""

    model: str
    number: int  # 1 for the first model of the program
    alpha: float
    head_calls: int  # losses computed over pieces
    layers: tuple[LayerStats, ...]
    host: SwapStats | None  # None: nothing goes to host memory
    limit: str = ""  # what keeps a chosen alpha from being larger: "link", "host", "time", "device"
    kept_layers: int = 0  # that "auto" has keep all they save on the device in the longest calls; 0: keep_last, or what hbm allows
    gap: float = 0.0  # of what is recomputed, the part that another choice might spare at most
    plan: StepPlan | None = None  # the address plan that "auto" confirmed its choice with; None: there is none

    @staticmethod
    def of(offloaded: Offloaded) -> OffloadStats:
        tallies = [] if offloaded.layers is None else offloaded.layers.counts()
        return OffloadStats(
            model=offloaded.name,
            number=offloaded.number,
            alpha=offloaded.options.alpha,
            head_calls=0 if offloaded.head is None else offloaded.head.calls,
            layers=tuple(map(LayerStats.of, tallies)),
            host=_sum(offloaded.stores.all()),
            limit=offloaded.limit,
            kept_layers=offloaded.kept_layers,
            gap=offloaded.gap,
            plan=offloaded.plan,
        )


@dataclasses.dataclass(frozen=True)
class AllOffload:
    """Every model and every tag of the program, gone ones included."""

    models: tuple[OffloadStats, ...] = ()
    tags: tuple[TagCount, ...] = ()
    tags_host: tuple[SwapStats, ...] = ()


def _host(store: Store) -> SwapStats | None:
    """None for a store on the device, and for one that was collected together with its model."""
    try:
        return store.stats() if hasattr(store, "stats") else None
    except EbbtideError:
        return None


def _sum(stores: Sequence[Store]) -> SwapStats | None:
    """Of one model's stores together."""
    found = [stats for store in stores if (stats := _host(store)) is not None]
    if len(found) < 2:
        return found[0] if found else None
    counts = zip(*map(dataclasses.astuple, found), strict=True)
    return dataclasses.replace(SwapStats(*map(sum, counts)), device=found[0].device)


def read() -> AllOffload:
    models = [*registry.past(), *map(OffloadStats.of, registry.models())]
    hosts = [found for store in registry.tag_stores() if (found := _host(store)) is not None]
    return AllOffload(
        tuple(sorted(models, key=lambda one: one.number)), tuple(registry.tags()), tuple(hosts)
    )
