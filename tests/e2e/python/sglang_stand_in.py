"""The part of SGLang that terrace.sglang is plugged into: the storage interface, host pools, and a controller whose
threads back pages up and prefetch them as SGLang's do. Nothing here is SGLang's code; names and calls are.

Read from python/sglang/srt/mem_cache/hicache_storage.py, pool_host/{common,mha,mla}.py and
managers/cache_controller.py.
"""
import ctypes
import dataclasses
import importlib
import mmap
import os
import queue
import sys
import threading
import types
from abc import ABC, abstractmethod

from terrace.backing import span_of

STORAGE_BATCH_SIZE = 128


class HiCacheStorage(ABC):
    def register_mem_pool_host(self, mem_pool_host):
        self.mem_pool_host = mem_pool_host

    def batch_get_v1(self, keys, host_indices, extra_info=None):
        raise NotImplementedError

    def batch_set_v1(self, keys, host_indices, extra_info=None):
        raise NotImplementedError

    @abstractmethod
    def get(self, key, target_location=None, target_sizes=None): ...

    @abstractmethod
    def batch_get(self, keys, target_locations=None, target_sizes=None): ...

    @abstractmethod
    def set(self, key, value=None, target_location=None, target_sizes=None): ...

    @abstractmethod
    def batch_set(self, keys, values=None, target_locations=None, target_sizes=None): ...

    @abstractmethod
    def exists(self, key): ...


@dataclasses.dataclass
class HiCacheStorageConfig:
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    attn_cp_rank: int = 0
    attn_cp_size: int = 1
    is_mla_model: bool = False
    enable_storage_metrics: bool = False
    is_page_first_layout: bool = True
    model_name: str = "org/model"
    extra_config: dict = None


@dataclasses.dataclass
class HiCacheStorageExtraInfo:
    prefix_keys: list = None
    extra_info: dict = None


def load_backend():
    """The class, through what SGLang's factory does for a dynamic backend."""
    name = "sglang.srt.mem_cache.hicache_storage"
    if name not in sys.modules:
        for part in ("sglang", "sglang.srt", "sglang.srt.mem_cache", name):
            sys.modules[part] = types.ModuleType(part)
            sys.modules[part].__path__ = []
        sys.modules["sglang"].__version__ = "0.0.stand_in"
        sys.modules[name].HiCacheStorage = HiCacheStorage
    backend = importlib.import_module("terrace.sglang").TerraceHiCache
    assert issubclass(backend, HiCacheStorage)
    return backend


class Indices(list):
    """What the plug-in uses of a tensor of token indexes."""

    def __getitem__(self, at):
        found = super().__getitem__(at)
        return Indices(found) if isinstance(at, slice) else found

    def new_tensor(self, values):
        return Indices(values)

    def tolist(self):
        return list(self)


class FlatTensor:
    """What the plug-in uses of a tensor of host memory."""

    def __init__(self, content):
        self._memory = bytearray(content)
        self.is_cuda = False

    def is_contiguous(self):
        return True

    def data_ptr(self):
        return span_of(self._memory).address

    def numel(self):
        return len(self._memory) // 2

    def element_size(self):
        return 2

    def bytes(self):
        return bytes(self._memory)


class HostPool:
    """Pages in a memfd (allocator shm) or in anonymous memory; of K and V, or of MLA's one tensor."""

    def __init__(self, pages=64, page_size=16, token_bytes=96, layout="page_first", mla=False, shm=True):
        self.layout, self.page_size, self.mla = layout, page_size, mla
        self.size = pages * page_size
        self.page_bytes = page_size * token_bytes  # of K, of V, or of MLA's tensor
        self.dtype, self.layer_num, self.head_num, self.head_dim = "torch.bfloat16", 2, 2, 12
        self._total = self.page_bytes * pages * (1 if mla else 2)
        self.fd = -1
        if shm:
            self.fd = os.memfd_create("sglang_host_pool")
            os.ftruncate(self.fd, self._total)
            self.memory = mmap.mmap(self.fd, self._total)
        else:
            self.memory = mmap.mmap(-1, self._total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.free_slots = Indices(range(self.size))
        self._lock = threading.Lock()
        self._free = list(range(pages))

    def get_page_buffer_meta(self, indices):
        first = span_of(self.memory).address
        addresses = []
        for index in indices[::self.page_size]:
            at = first + index // self.page_size * self.page_bytes
            addresses.append(at)
            if not self.mla:
                addresses.append(at + self._total // 2)
        return addresses, [self.page_bytes] * len(addresses)

    def alloc(self, pages):
        """Token indexes of so many pages; None: no room."""
        with self._lock:
            if len(self._free) < pages:
                return None
            taken, self._free = self._free[:pages], self._free[pages:]
        return self.indices(taken)

    def free(self, indices):
        with self._lock:
            self._free += [index // self.page_size for index in indices[::self.page_size]]

    def indices(self, pages):
        return Indices(page * self.page_size + token for page in pages for token in range(self.page_size))

    def pieces(self, page):
        addresses, sizes = self.get_page_buffer_meta(self.indices([page]))
        return list(zip(addresses, sizes))

    def write(self, page, content):
        for address, size in self.pieces(page):
            ctypes.memmove(address, content[:size], size)
            content = content[size:]

    def read(self, page):
        return b"".join(ctypes.string_at(address, size) for address, size in self.pieces(page))

    @property
    def content_bytes(self):
        return self.page_bytes * (1 if self.mla else 2)


class Controller:
    """Two threads: one backs pages up, one asks for pages and gets them. An exception in one ends it, as in SGLang."""

    def __init__(self, backend, pool):
        self.backend, self.pool = backend, pool
        self._backups, self._prefetches = queue.Queue(), queue.Queue()
        self.backed_up, self.prefetched = queue.Queue(), queue.Queue()
        self.threads = [threading.Thread(target=self._back_up, daemon=True),
                        threading.Thread(target=self._prefetch, daemon=True)]
        for thread in self.threads:
            thread.start()

    def back_up(self, keys, indices, prefix=None):
        self._backups.put((keys, indices, prefix))
        return self.backed_up.get(timeout=120)

    def prefetch(self, keys):
        """Indexes of the pages that came, from the first key on, and how many."""
        self._prefetches.put(keys)
        return self.prefetched.get(timeout=120)

    def stop(self):
        self._backups.put(None)
        self._prefetches.put(None)
        for thread in self.threads:
            thread.join()

    def alive(self):
        return all(thread.is_alive() for thread in self.threads)

    def _back_up(self):
        while True:
            work = self._backups.get()
            if work is None:
                return
            keys, indices, prefix = work
            done, size = 0, self.pool.page_size
            for at in range(0, len(keys), STORAGE_BATCH_SIZE):
                batch = keys[at:at + STORAGE_BATCH_SIZE]
                info = HiCacheStorageExtraInfo(prefix_keys=prefix)
                if not all(self.backend.batch_set_v1(batch, indices[at * size:(at + len(batch)) * size], info)):
                    break
                if prefix:
                    prefix = prefix + batch
                done += len(batch)
            self.backed_up.put(done)

    def _prefetch(self):
        while True:
            keys = self._prefetches.get()
            if keys is None:
                return
            hits = 0
            for at in range(0, len(keys), STORAGE_BATCH_SIZE):
                batch = keys[at:at + STORAGE_BATCH_SIZE]
                found = self.backend.batch_exists(batch, HiCacheStorageExtraInfo())
                hits += found
                if found < len(batch):
                    break
            indices = self.pool.alloc(hits)
            if not hits or indices is None:
                self.prefetched.put((None, 0))
                continue
            came = 0
            for at in range(0, hits, STORAGE_BATCH_SIZE):
                batch = keys[at:min(hits, at + STORAGE_BATCH_SIZE)]
                size = self.pool.page_size
                results = self.backend.batch_get_v1(batch, indices[at * size:(at + len(batch)) * size])
                good = results.index(False) if False in results else len(results)
                came += good
                if good < len(batch):
                    break
            self.prefetched.put((indices, came))
