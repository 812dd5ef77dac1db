"""Heads of attention in groups, for a backward that takes a few at a time.

Note [Head groups]
Beside q, k, v and their gradients the backward of torch's flash and of cuDNN's attention hold the gradient of
q once more in float32, and those of k and v for each head of q (cuDNN, where these are more): 5.5 times the
output for Llama-8B's shapes. Heads are independent, so backward is called for a group of them at a time and needs
that much of a group only. Groups are as small as still fill a device with work, all heads where these are not twice as much: heads
of k and v with all of q that they serve, and beyond 64K tokens of Llama-8B single heads of q. Gradients of a shared head of k or v are then
summed here, as both kernels are taken to sum them: one of each head of q in their own type, added up in float32.
(torch's flash: `dk_expanded`; cuDNN: what its frontend's graph says and its plan's workspace has room for,
dryrun/cudnn/attention_graph.h.) Two of four heads in a call would be rounded once more.

A plan of cuDNN's is made on the host for each number of heads (its kernel is the same for any): there are at most two.
How many heads are wanted is a power of two: steps with as many groups are planned as one, and lengths that vary bring few
such numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_LEAST_WORK = 1 << 18  # batch x heads x tokens: some ten blocks of 128 tokens for each multiprocessor


def calls_of(batch: int, tokens: int, heads: tuple[int, int] | None) -> int:
    """What tells how many groups there are, with so many heads of q, and of k and v. None: not known."""
    if heads is None:
        return _wanted(batch * tokens)
    return sum(len(of_q) for of_q, _ in head_groups((batch, heads[0], tokens, 0), heads[1]))


def _wanted(tokens: int) -> int:
    """Heads of q in one call, where there are so many tokens of each."""
    return 1 << max(1, _LEAST_WORK // tokens).bit_length() - 1


def head_groups(q_shape: Sequence[int], kv_heads: int) -> Iterator[tuple[list[slice], slice]]:
    """Groups of heads of q that follow each other, and the heads of k and v that serve them all.

    `q_shape` is batch, heads, tokens, width.
    """
    batch, heads, tokens, _ = q_shape
    share = heads // kv_heads
    if batch * heads * tokens <= 2 * _LEAST_WORK:
        yield [slice(0, heads)], slice(0, kv_heads)
        return
    wanted = _wanted(batch * tokens)
    if wanted < share:
        for kv_head in range(kv_heads):
            served = range(kv_head * share, (kv_head + 1) * share)
            yield [slice(head, head + 1) for head in served], slice(kv_head, kv_head + 1)
        return
    calls = -(-kv_heads // (wanted // share))
    size = -(-kv_heads // calls)  # alike: one head alone would take as long as many
    for begin in range(0, kv_heads, size):
        end = min(begin + size, kv_heads)
        yield [slice(begin * share, end * share)], slice(begin, end)
