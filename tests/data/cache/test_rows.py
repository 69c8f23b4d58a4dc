"""Memory that is lent for one batch and used again for a later one."""

import gc

import numpy as np
import tensorflow as tf

from experiments.data.cache.rows import BufferPool


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    memory = BufferPool()
    first = memory.lent(1000)
    begin = place(first)
    part = first.reshape(10, 100)[3].view(np.uint32)
    del first
    gc.collect()
    assert place(memory.lent(1000)) != begin, "a part of the first is still there"
    del part
    gc.collect()
    assert place(memory.lent(700)) == begin


def test_more_than_there_is_is_new() -> None:
    memory = BufferPool()
    memory.lent(100)
    larger = memory.lent(5000)
    larger[:] = 1
    assert len(larger) == 5000
    assert place(larger) % 64 == 0


def test_a_tensor_keeps_what_it_took_over() -> None:
    """Without a copy, and for as long as the tensor lives: else a later batch would be written over it."""
    memory, places = BufferPool(), []

    def numbered(number: np.int64) -> np.ndarray:
        batch = memory.lent(4096)
        batch[:] = number
        places.append(place(batch))
        return batch

    batches = list(tf.data.Dataset.range(20).map(lambda n: tf.numpy_function(numbered, [n], tf.uint8, stateful=False)))
    assert [set(batch.numpy().tolist()) for batch in batches] == [{number} for number in range(20)]
    assert len(set(places)) == 20
    assert all(batch.__array__().ctypes.data in places for batch in batches)
