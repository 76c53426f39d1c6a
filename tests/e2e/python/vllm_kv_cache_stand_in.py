"""Device memory of the stand-in CUDA driver, and KV caches in it as vLLM's attention backends lay them out."""
import ctypes
import dataclasses
import os
import types
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p

BLOCK_TOKENS, LAYERS, HEADS, HEAD_BYTES = 4, 2, 2, 32


class Device:
    """Memory of the stand-in driver, and a stream that kernels run on."""

    def __init__(self):
        self._calls = ctypes.CDLL(os.environ["TERRACE_CUDA_DRIVER"])
        found, context, stream = c_int(), c_void_p(), c_void_p()
        self._check("cuInit", 0)
        self._check("cuDeviceGet", byref(found), 0)
        self._check("cuDevicePrimaryCtxRetain", byref(context), found)
        self._check("cuCtxSetCurrent", context)
        self._check("cuStreamCreateWithPriority", byref(stream), 1, 0)
        self.stream = stream.value
        self._kept = []  # host memory of writes that may not have run

    def _check(self, name, *arguments):
        result = getattr(self._calls, name)(*arguments)
        assert result == 0, f"{name}: {result}"

    def allocate(self, count):
        address = c_uint64()
        self._check("cuMemAlloc_v2", byref(address), c_size_t(count))
        return address.value

    def free(self, address):
        """When nothing is to be written any more."""
        self._check("cuStreamSynchronize", c_void_p(self.stream))
        self._check("cuMemFree_v2", c_uint64(address))

    def delay(self, microseconds):
        """What every copy of this process takes from now on."""
        self._calls.stand_in_set_delay_us(microseconds)

    def write(self, address, content):
        """When the stream gets there."""
        host = ctypes.create_string_buffer(content, len(content))
        self._kept.append(host)
        self._check("cuMemcpyHtoDAsync_v2", c_uint64(address), host, c_size_t(len(content)), c_void_p(self.stream))

    def read(self, address, count):
        """After all that was written."""
        host = ctypes.create_string_buffer(count)
        self._check("cuMemcpyDtoHAsync_v2", host, c_uint64(address), c_size_t(count), c_void_p(self.stream))
        self._check("cuStreamSynchronize", c_void_p(self.stream))
        self._kept.clear()
        return host.raw


_device = []


def device():
    if not _device:
        _device.append(Device())
    return _device[0]


# ---------------------------------------------------------------- layouts


@dataclasses.dataclass(frozen=True)
class Layout:
    """Letters are dimensions: l layers, k keys and values, b blocks, t tokens, h heads. `shape`: as the tensor shows them;
    `order`: as they lie in memory, all layers in one allocation where it has an l. `pad`: bytes after each of its outermost
    entries."""

    shape: str
    order: str
    cross: bool = False
    pad: int = 0

    @property
    def mla(self):
        return "k" not in self.order


LAYOUTS = {
    "keys first, a tensor a layer": Layout("kbth", "kbth"),
    "blocks first": Layout("bkth", "bkth"),
    "blocks first, heads before tokens": Layout("bkth", "bkht"),
    "packed": Layout("bthk", "bthk"),
    "latent": Layout("bt", "bt"),
    "padded": Layout("bkth", "bkth", pad=64),
    "one allocation, views of it": Layout("bkth", "blkth"),
    "one allocation, layer by layer": Layout("kbth", "lkbth"),
    "all layers in one tensor": Layout("lbkth", "blkth", cross=True),
}


class Tensor:
    """What the plug-in looks at of a torch.Tensor."""

    def __init__(self, address, shape, strides):
        self._address, self.shape, self._strides = address, tuple(shape), tuple(strides)
        self.device = types.SimpleNamespace(index=0)

    def data_ptr(self):
        return self._address

    def stride(self):
        return self._strides

    def element_size(self):
        return 2


class KvCache:
    """One rank's."""

    def __init__(self, layout, block_count):
        self.layout, self.block_count = layout, block_count
        sizes = {"l": LAYERS, "k": 2, "b": block_count, "t": BLOCK_TOKENS, "h": HEADS}
        self.strides, step = {}, HEAD_BYTES
        for letter in reversed(layout.order):
            self.strides[letter] = step
            step *= sizes[letter]
            if letter == layout.order[1]:
                step += layout.pad
        self._bytes = step
        self._memories = [device().allocate(step) for _ in range(1 if "l" in layout.order else LAYERS)]
        self.kinds = 1 if layout.mla else 2
        self.heads = HEADS if "h" in layout.order else 1
        self.token_bytes = HEAD_BYTES * LAYERS * self.kinds * self.heads
        views = [self._tensor(self._layer(layer), sizes) for layer in range(LAYERS)]
        self.tensors = views[:1] if layout.cross else views

    def _layer(self, layer):
        return self._memories[0] + layer * self.strides["l"] if "l" in self.layout.order else self._memories[layer]

    def _tensor(self, address, sizes):
        letters = self.layout.shape
        return Tensor(address, [*(sizes[x] for x in letters), HEAD_BYTES // 2], [*(self.strides[x] // 2 for x in letters), 1])

    def close(self):
        for memory in self._memories:
            device().free(memory)

    def pieces(self, block, token):
        """Memory and offset of all that is kept of a token."""
        inside = block * self.strides["b"] + token * self.strides["t"]
        for layer in range(LAYERS):
            memory = 0 if "l" in self.layout.order else layer
            for kind in range(self.kinds):
                for head in range(self.heads):
                    yield memory, (inside + layer * self.strides.get("l", 0) + kind * self.strides.get("k", 0)
                                   + head * self.strides.get("h", 0))

    def store(self, block, token, content):
        for number, (memory, offset) in enumerate(self.pieces(block, token)):
            piece = content[number * HEAD_BYTES : (number + 1) * HEAD_BYTES]
            device().write(self._memories[memory] + offset, piece)

    def all_bytes(self):
        return [device().read(memory, self._bytes) for memory in self._memories]

    def token_of(self, everything, block, token):
        return b"".join(everything[memory][offset : offset + HEAD_BYTES] for memory, offset in self.pieces(block, token))
