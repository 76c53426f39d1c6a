"""The few calls of the CUDA driver that share memory of a GPU with the daemon, by ctypes.

What they do is done by whoever owns the memory: the daemon opens what is exported here. The driver
is `libcuda.so.1`, or what TERRACE_CUDA_DRIVER names. A process may have PyTorch's contexts already:
the device's primary context is the one that PyTorch uses, and nothing here changes it.
"""
import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint8, c_uint64, c_void_p
from typing import Dict, List, NamedTuple, Optional

from terrace.abi import HANDLE_BYTES

_DISABLE_TIMING, _INTERPROCESS = 2, 4  # CU_EVENT_*
_MOST_MARKS = 512


class CudaError(Exception):
    """The driver said no, or is not there; the message says to what and why."""


class Allocation(NamedTuple):
    """Memory as the driver gave it out; `handle` names it in other processes."""

    address: int
    bytes: int
    handle: bytes


class Mark:
    """A point of a stream, which the daemon waits for before it copies. Used by `users` calls."""

    __slots__ = ("event", "handle", "users")

    def __init__(self, event: int, handle: bytes) -> None:
        self.event = event
        self.handle = handle
        self.users = 0


class Cuda:
    """One device. Confined to the thread that uses the device. Raises CudaError."""

    def __init__(self, device: int = 0, library: Optional[str] = None) -> None:
        name = library or os.environ.get("TERRACE_CUDA_DRIVER") or "libcuda.so.1"
        try:
            self._calls = ctypes.CDLL(name)
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from None
        found, self._context = c_int(), c_void_p()
        self._uuid = (c_uint8 * 16)()
        self._free_marks: List[Mark] = []
        self._mark_count = 0
        self._allocations: Dict[int, Allocation] = {}
        self._check("cuInit", 0)
        self._check("cuDeviceGet", byref(found), device)
        self._check("cuDeviceGetUuid_v2", self._uuid, found)
        self._check("cuDevicePrimaryCtxRetain", byref(self._context), found)

    @property
    def uuid(self) -> bytes:
        return bytes(self._uuid)

    def allocation_of(self, address: int) -> Allocation:
        """The whole allocation that an address lies in. Memory that was not given out by
        cudaMalloc, such as PyTorch's expandable segments, cannot be exported so."""
        self._attach()
        start, count = c_uint64(), c_size_t()
        self._check("cuMemGetAddressRange_v2", byref(start), byref(count), c_uint64(address))
        known = self._allocations.get(start.value)
        if known is None or known.bytes != count.value:
            handle = (c_uint8 * HANDLE_BYTES)()
            self._check("cuIpcGetMemHandle", handle, start)
            known = Allocation(start.value, count.value, bytes(handle))
            self._allocations[start.value] = known
        return known

    def mark(self, stream: int) -> Mark:
        """After all that the stream (0: the default one) has been given so far."""
        self._attach()
        mark = self._free_marks.pop() if self._free_marks else self._new_mark()
        try:
            self._check("cuEventRecord", c_void_p(mark.event), c_void_p(stream or None))
        except CudaError:
            self._free_marks.append(mark)
            raise
        return mark

    def give_back(self, mark: Mark) -> None:
        """When nobody waits for it any more."""
        self._free_marks.append(mark)

    def _new_mark(self) -> Mark:
        if self._mark_count >= _MOST_MARKS:
            raise CudaError(f"{_MOST_MARKS} marks of streams are in use")
        event, handle = c_void_p(), (c_uint8 * HANDLE_BYTES)()
        self._check("cuEventCreate", byref(event), _DISABLE_TIMING | _INTERPROCESS)
        self._check("cuIpcGetEventHandle", handle, event)
        self._mark_count += 1
        return Mark(event.value or 0, bytes(handle))

    def _attach(self) -> None:
        self._check("cuCtxSetCurrent", self._context)

    def _check(self, name: str, *arguments: object) -> None:
        result = getattr(self._calls, name)(*arguments)
        if result != 0:
            text = c_char_p()
            self._calls.cuGetErrorName(result, byref(text))
            said = (text.value or b"").decode() or f"CUDA error {result}"
            raise CudaError(f"{name}: {said}")
