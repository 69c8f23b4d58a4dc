"""A source that stores its examples during the first epoch, in memory or in a pack on disk, for later epochs."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from experiments.data.base import DataSpec
from experiments.data.cache import paths
from experiments.data.cache.pack import CorruptPackError, Pack, PackSpec
from experiments.data.cache.pack_writer import PackWriter, check_room, packing
from experiments.data.cache.rows import Array, MemoryRows
from experiments.data.pipeline import Indices, Source, side_effect, without_autotune
from experiments.errors import DataError

logger = logging.getLogger(__name__)
_CHUNK = 32


RowStore = Pack | PackWriter | MemoryRows
"""Arrays by position. `read` returns the rows of positions, and for each of them True if it is valid."""


@dataclass
class MemoryCache:
    """Storage in memory, where rows can always be written and are always valid."""

    rows: MemoryRows
    failure: None = None

    def row_store(self) -> RowStore:
        return self.rows

    def row_corrupt(self) -> None:
        """Does nothing: rows in memory are always valid."""

    def refused(self, error: OSError) -> None:
        """Does nothing: rows can always be written to memory."""


@dataclass
class DiskCache:
    """Storage in a pack below `cache_dir`. If `required`, a pack that cannot be written is an error.

    failure: error to raise because nothing can be stored; None if storing works or is not required.
    """

    contents: PackSpec
    cache_dir: str
    required: bool
    failure: DataError | None = None
    _current: Pack | PackWriter | None = field(default=None, init=False)
    _gave_up: bool = field(default=False, init=False)

    @property
    def folder(self) -> Path:
        return paths.packs_folder(self.cache_dir) / self.contents.key

    def row_store(self) -> RowStore | None:
        """Returns the store to read or write in the next epoch; None to work without a cache. Raises `failure`."""
        if isinstance(self._current, PackWriter) and self._current.failure is not None:
            self.refused(self._current.failure)
        if not self._gave_up and not (self._current is not None and self._current.open):
            try:
                self._current = self._pack_or_writer()
            except OSError as error:
                self.refused(error)
        if self.failure is not None:
            raise self.failure
        return self._current

    def prepare(self) -> None:
        """Raises `failure` before a run starts if the pack does not exist, cannot be written and is required."""
        try:
            if not self.folder.exists():
                check_room(self.folder, self.contents)
        except OSError as error:
            self.refused(error)
        if self.failure is not None:
            raise self.failure

    def refused(self, error: OSError) -> None:
        """Turns the cache off: sets `failure` if the cache is required, else logs one warning."""
        # First, as all threads of tf.data meet a full disk at the same time.
        is_first, self._gave_up, self._current = not self._gave_up, True, None
        reason = error.strerror or str(error)
        message = (
            f"data.cache_dir='{self.cache_dir}' cannot keep the decoded images of '{self.contents.about['split']}' "
            f"({self.contents.num_bytes / 1e6:,.0f} MB): {reason}."
        )
        if self.required:
            self.failure = DataError(
                f"{message} Set data.cache_dir to a place with room that you can write to, data.cache=none to decode "
                "in every epoch, or data.cache_required=false to train without a cache."
            )
        elif is_first:
            logger.warning("%s Training continues and decodes in every epoch.", message)

    def _pack_or_writer(self) -> Pack | PackWriter | None:
        try:
            return Pack(self.folder, self.contents)
        except FileNotFoundError:
            return packing(self.folder, self.contents)
        except CorruptPackError as error:
            logger.warning("The pack %s is corrupt (%s): it is removed and written again.", self.folder, error)
            paths.remove(self.folder)
            return packing(self.folder, self.contents)

    def row_corrupt(self) -> None:
        """Removes the pack, which is then written again."""
        damaged, self._current = self._current, None
        if isinstance(damaged, Pack):
            text = "The pack %s is corrupt: unreadable rows are decoded, and the pack is removed and written again."
            logger.warning(text, self.folder)
            try:
                damaged.discard()
            except OSError as error:
                self.refused(error)


CacheBackend = MemoryCache | DiskCache
"""Storage for the examples of a source."""


class WrappedSource:
    """Forwards everything except `batches` to `origin`."""

    origin: Source

    @property
    def spec(self) -> DataSpec:
        return self.origin.spec

    @property
    def labels(self) -> Indices:
        return self.origin.labels

    @property
    def names(self) -> Sequence[str]:
        return self.origin.names

    def unreadable_examples(self) -> list[str]:
        return self.origin.unreadable_examples()

    def read_error(self) -> DataError | None:
        return self.origin.read_error()


class CachedSource(WrappedSource):
    """Stores the inputs of another source during the first epoch and reads them in later epochs."""

    def __init__(self, origin: Source, backend: CacheBackend) -> None:
        self.origin = origin
        self.backend = backend

    def read_error(self) -> DataError | None:
        return self.backend.failure or self.origin.read_error()

    def batches(self, indices: Indices, batch_size: int, num_parallel_calls: int) -> tf.data.Dataset:
        store = self.backend.row_store()
        chosen = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        if store is not None and store.complete:
            read = self._reader(store)
            return chosen.map(read, num_parallel_calls=num_parallel_calls, deterministic=True)
        inputs = self.origin.batches(indices, batch_size, num_parallel_calls)
        if store is None:
            return inputs
        write = self._writer(store, len(indices))
        passing = tf.data.Dataset.zip(chosen, inputs)
        return passing.map(write, num_parallel_calls=num_parallel_calls, deterministic=True)

    def _reader(self, store: RowStore) -> Callable[[tf.Tensor], tf.Tensor]:
        shape = (None, *self.spec.input_shape)

        def read(positions: Indices) -> Array:
            rows, sound = store.read(positions)
            if not sound.all():
                self.backend.row_corrupt()
                rows[~sound] = np.concatenate(list(self._decoded(positions[~sound])))
            return rows

        @tf.autograph.experimental.do_not_convert
        def step(positions: tf.Tensor) -> tf.Tensor:
            # tf.data does not prefetch the results of stateful functions if determinism is enabled.
            rows = tf.numpy_function(read, [positions], self.spec.input_dtype, stateful=False)
            return tf.ensure_shape(rows, shape)

        return step  # type: ignore[no-any-return]

    def _writer(self, store: RowStore, count: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        left, guard = count, threading.Lock()

        def write(positions: Indices, rows: Array) -> None:
            nonlocal left
            try:
                store.write(positions, rows)
            except OSError as error:
                self.backend.refused(error)
                if self.backend.failure is not None:
                    raise self.backend.failure from error
            with guard:  # tf.data calls this from several threads
                left -= len(rows)
                is_last = left == 0
            if is_last and len(store.missing()):
                threading.Thread(target=self._fill, args=[store], name="fill a pack", daemon=True).start()

        @tf.autograph.experimental.do_not_convert
        def step(positions: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
            return side_effect(write, [positions, rows], rows)

        return step  # type: ignore[no-any-return]

    def _fill(self, store: RowStore) -> None:
        """Writes the rows that an epoch left out because it started in the middle."""
        missing = store.missing()
        try:
            for number, rows in enumerate(self._decoded(missing)):
                store.write(missing[number * _CHUNK : number * _CHUNK + len(rows)], rows)
        except (OSError, tf.errors.OpError) as error:
            logger.debug("A pack cannot be completed, and the next epoch reports this error: %s", error)

    def _decoded(self, positions: Indices) -> Iterator[Array]:
        apart = tf.data.Options()
        apart.threading.private_threadpool_size = 2  # the threads of the shared pool may wait for these rows
        yield from without_autotune(self.origin.batches(positions, _CHUNK, 2)).with_options(apart).as_numpy_iterator()


def cached(source: Source, contents: PackSpec, kind: str, cache_dir: str, *, required: bool) -> Source:
    """Returns `source` with a cache of its arrays, which `contents` describes.

    `kind` is "none", "memory", or "disk" for a pack below `cache_dir`. Raises DataError if memory is too small, or if
    the disk cannot be written and the cache is `required`.
    """
    if kind == "none":
        return source
    if kind == "memory":
        try:
            return CachedSource(source, MemoryCache(MemoryRows(len(contents.labels), contents.shape, contents.dtype)))
        except MemoryError as error:
            raise DataError(
                f"data.cache=memory needs {contents.num_bytes / 1e6:,.0f} MB for the decoded images, more than this "
                "machine can allocate. Set data.cache=disk."
            ) from error
    backend = DiskCache(contents, cache_dir, required)
    backend.prepare()
    return CachedSource(source, backend)
