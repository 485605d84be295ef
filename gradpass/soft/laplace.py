"""Sums over sorted entries with the weight exp(-|s_i - s_j|), in O(n) instead of O(n^2)."""

from __future__ import annotations

from typing import Any

from gradpass.rules.lazy import tf

BLOCK = 32
DEPTH = 3  # levels of blocks; the pairs of the last are (n / 32^3)^2, a thousand for n = 10^6


def laplace_sums(ordered: Any, payload: Any) -> Any:
    """sum_j exp(-|s_i - s_j|) p_j for s [..., n] in ascending or descending order and payloads p [..., m, n].

    Along sorted entries the kernel is a product of the steps between neighbours, so what lies before i is a linear
    recurrence, h_i = p_i + exp(-|s_i - s_(i-1)|) h_(i-1), in which every factor is at most 1: nothing overflows and
    nothing cancels. Pairs within a block are summed as they are; the sums of whole blocks, as seen from their last
    entry, are the same problem with n / BLOCK entries.
    """
    rank = len(payload.shape)
    rows_last = [*range(rank - 2), rank - 1, rank - 2]
    s, p = _blocks(ordered, tf.transpose(payload, rows_last))
    near = _kernel(s, s) @ p
    behind = _from_before(s[..., ::-1, ::-1], p[..., ::-1, ::-1, :], ordered.shape[-1])[..., ::-1, ::-1, :]
    whole = near + _from_before(s, p, ordered.shape[-1]) + behind
    return tf.transpose(_entries(whole, tf.shape(ordered)[-1]), rows_last)


def _up_to(s: Any, p: Any, known: int | None, depth: int) -> Any:
    """sum_(j <= i) exp(-|s_i - s_j|) p_j for s [..., n] sorted, p [..., n, m]; `known` bounds n where that is known."""
    if depth == 0 or (known is not None and known <= BLOCK):
        return tf.linalg.band_part(_kernel(s, s), -1, 0) @ p
    n = tf.shape(s)[-1]
    s, p = _blocks(s, p)
    near = tf.linalg.band_part(_kernel(s, s), -1, 0) @ p
    return _entries(near + _from_before(s, p, known, depth), n)


def _from_before(s: Any, p: Any, known: int | None, depth: int = DEPTH) -> Any:
    """What all blocks before its own give to each entry; s [..., blocks, BLOCK], p [..., blocks, BLOCK, m]."""
    end = s[..., -1:]
    totals = tf.squeeze(_kernel(end, s) @ p, -2)
    states = _up_to(end[..., 0], totals, None if known is None else -(-known // BLOCK), depth - 1)
    given = _kernel(s[..., 1:, :], end[..., :-1, :]) * states[..., :-1, None, :]
    return tf.concat([tf.zeros_like(p[..., :1, :, :]), given], axis=-3)


def _kernel(a: Any, b: Any) -> Any:
    """exp(-|a_i - b_j|) [..., i, j]."""
    return tf.exp(-tf.abs(a[..., :, None] - b[..., None, :]))


def _blocks(s: Any, p: Any) -> tuple[Any, Any]:
    """s [..., n] and p [..., n, m] cut into blocks; the last is filled up with the last entry and payloads of 0."""
    missing = -tf.shape(s)[-1] % BLOCK
    s = tf.concat([s, tf.repeat(s[..., -1:], missing, axis=-1)], axis=-1)
    p = tf.pad(p, [[0, 0]] * (len(p.shape) - 2) + [[0, missing], [0, 0]])
    blocked = tf.reshape(s, tf.concat([tf.shape(s)[:-1], [-1, BLOCK]], 0))
    return blocked, tf.reshape(p, tf.concat([tf.shape(p)[:-2], [-1, BLOCK, tf.shape(p)[-1]]], 0))


def _entries(blocked: Any, n: Any) -> Any:
    """[..., blocks, BLOCK, m] as [..., n, m]."""
    shape = tf.shape(blocked)
    return tf.reshape(blocked, tf.concat([shape[:-3], [-1], shape[-1:]], 0))[..., :n, :]
