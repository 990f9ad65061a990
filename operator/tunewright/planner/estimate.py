"""Memory of one rank as a sum of named terms, from a model's facts alone.

Model states follow ZeRO (Rajbhandari et al. 2020, section 3): 2 bytes of weight and gradient, 12 bytes of
fp32 master, momentum and variance per trainable parameter, divided over the ranks as the stage says.
Activations follow Korthikanti et al. 2022 for flash attention: 34 bytes per token, layer and hidden unit
without recomputation, 2 with full recomputation plus one layer's 34.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from tunewright_trainer.contract import ModelFacts

GIB = 1024**3
CONTEXT_BYTES = int(1.5 * GIB)
"""CUDA context and NCCL buffers: 0.8 to 2 GB seen."""
FRAGMENTATION = 0.07
"""Share of the sum that the caching allocator loses; 5 to 10 % seen."""
ACTIVATION_BYTES_PER_UNIT = 34
PREFETCH_ELEMENTS = 50_000_000
"""Parameters that ZeRO-3 holds gathered beside the largest layer (its prefetch bucket)."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one device. ``total`` adds what the allocator loses to fragmentation."""

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    context_bytes: int

    @property
    def total(self) -> int:
        """Peak of one rank, bytes."""
        return int(sum(getattr(self, term.name) for term in fields(self)) * (1 + FRAGMENTATION))


def rank_memory(
    model: ModelFacts,
    *,
    zero_stage: int,
    world_size: int,
    micro_batch: int,
    sequence_length: int,
    weight_bytes: int,
    activation_checkpointing: bool,
) -> RankMemory:
    """Estimate for one rank. ``weight_bytes`` is the size of one weight in the training precision (2 or 4).

    The fused loss head never builds full logits, so none are counted.
    """
    trainable = model.trainable_parameters
    frozen = max(model.parameters - trainable, 0) if trainable < model.parameters else 0
    weights = weight_bytes * (frozen + trainable)
    if zero_stage == 3:
        largest_layer = model.parameters // max(model.layers, 1)
        weights = weights // world_size + weight_bytes * (largest_layer + PREFETCH_ELEMENTS)
    gradients = weight_bytes * trainable // (world_size if zero_stage >= 2 else 1)
    optimizer = 12 * trainable // (world_size if zero_stage >= 1 else 1)
    tokens = micro_batch * sequence_length
    layer = ACTIVATION_BYTES_PER_UNIT * tokens * model.hidden_size * weight_bytes // 2
    activations = layer * model.layers
    if activation_checkpointing:
        activations = layer + weight_bytes * tokens * model.hidden_size * model.layers
    return RankMemory(weights, gradients, optimizer, activations, CONTEXT_BYTES)
