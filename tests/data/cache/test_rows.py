"""Buffers that are lent for one batch and reused for a later one."""

import gc

import numpy as np
import tensorflow as tf

from experiments.data.cache.rows import BufferPool


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_buffer_is_reused_when_no_array_refers_to_it() -> None:
    pool = BufferPool()
    first = pool.lent(1000)
    begin = place(first)
    part = first.reshape(10, 100)[3].view(np.uint32)
    del first
    gc.collect()
    assert place(pool.lent(1000)) != begin, "a view of the first buffer still exists"
    del part
    gc.collect()
    assert place(pool.lent(700)) == begin


def test_larger_buffer_is_allocated_and_aligned() -> None:
    pool = BufferPool()
    pool.lent(100)
    larger = pool.lent(5000)
    larger[:] = 1
    assert len(larger) == 5000
    assert place(larger) % 64 == 0


def test_tensor_keeps_its_buffer() -> None:
    """The tensor uses the buffer without a copy, so no later batch may overwrite it while the tensor exists."""
    pool, places = BufferPool(), []

    def numbered(number: np.int64) -> np.ndarray:
        batch = pool.lent(4096)
        batch[:] = number
        places.append(place(batch))
        return batch

    batches = list(tf.data.Dataset.range(20).map(lambda n: tf.numpy_function(numbered, [n], tf.uint8, stateful=False)))
    assert [set(batch.numpy().tolist()) for batch in batches] == [{number} for number in range(20)]
    assert len(set(places)) == 20
    assert all(batch.__array__().ctypes.data in places for batch in batches)
