"""Which file lies behind memory of this process, so that the daemon can be handed a descriptor of
it.

Engines keep their host pools in shared memory (a memfd, or a file of /dev/shm that is mostly
unlinked by now) and hand their plug-ins an address. /proc says which file an address belongs to; a
descriptor of that file comes, in this order, from one that this process still has open (mmap
objects of Python keep one), from its path where it is still that file, or from
/proc/self/map_files, which needs CAP_CHECKPOINT_RESTORE.
"""
import ctypes
import fcntl
import os
from typing import Iterator, List, NamedTuple, Optional, Tuple

PAGE_BYTES = 4096  # what the offset of a region in its file is a multiple of


class Span(NamedTuple):
    """Memory of this process."""

    address: int
    bytes: int


class Backing(NamedTuple):
    """A descriptor, which the receiver closes, and where in its file the memory begins."""

    fd: int
    offset: int


class _Buffer(ctypes.Structure):
    """Py_buffer, as CPython has had it since 3.3."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None
_SIMPLE, _WRITABLE = 0, 1


def span_of(view: object, writable: bool = False) -> Span:
    """Where the bytes of a contiguous buffer lie. Nothing of the buffer is held afterwards, so
    that its owner may release it; it must outlive the use of the address. Raises BufferError."""
    seen = _Buffer()
    _get_buffer(view, ctypes.byref(seen), _WRITABLE if writable else _SIMPLE)
    try:
        return Span(seen.buf or 0, seen.len)
    finally:
        _release_buffer(ctypes.byref(seen))


def backing_of(span: Span, read_only: bool = False) -> Optional[Backing]:
    """A descriptor of the file that all of `span` is a shared mapping of; None where there is
    none."""
    areas = list(_areas_of(span))
    if not areas or not _one_file(areas):
        return None
    first = areas[0]
    offset = first.offset + span.address - first.start
    for fd in _descriptors(first, read_only):
        if _file_of(fd) == (first.device, first.inode) and _reaches(fd, offset + span.bytes):
            return Backing(fd, offset)
        os.close(fd)
    return None


class _Area(NamedTuple):
    start: int
    end: int
    shared: bool
    offset: int
    device: int
    inode: int
    path: str


def _areas_of(span: Span) -> Iterator[_Area]:
    """Mappings that hold the span, without a gap; nothing where there is one."""
    found: List[_Area] = []
    reached = span.address
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            area = _parse(line)
            if area.end <= reached:
                continue
            if area.start > reached:
                break
            found.append(area)
            reached = area.end
            if reached >= span.address + span.bytes:
                yield from found
                return


def _parse(line: str) -> _Area:
    fields = line.rstrip("\n").split(None, 5)
    start, end = (int(text, 16) for text in fields[0].split("-"))
    major, minor = (int(text, 16) for text in fields[3].split(":"))
    return _Area(
        start=start,
        end=end,
        shared=fields[1][3] == "s",
        offset=int(fields[2], 16),
        device=os.makedev(major, minor),
        inode=int(fields[4]),
        path=fields[5] if len(fields) > 5 else "",
    )


def _one_file(areas: List[_Area]) -> bool:
    first = areas[0]
    return first.inode != 0 and all(
        area.shared
        and (area.device, area.inode) == (first.device, first.inode)
        and area.offset - first.offset == area.start - first.start
        for area in areas
    )


def _descriptors(area: _Area, read_only: bool) -> Iterator[int]:
    """Descriptors that may be of the area's file; all but the last that is taken must be closed."""
    wanted = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    for name in os.listdir("/proc/self/fd"):
        if _file_of(int(name)) != (area.device, area.inode):
            continue
        try:
            yield os.open(f"/proc/self/fd/{name}", wanted)
        except OSError:
            # What may not be opened again serves if it is open for writing as it is.
            duplicate = _duplicate(int(name), read_only)
            if duplicate is not None:
                yield duplicate
    for path in (area.path, f"/proc/self/map_files/{area.start:x}-{area.end:x}"):
        if path.startswith("/"):
            try:
                yield os.open(path, wanted)
            except OSError:
                continue


def _duplicate(fd: int, read_only: bool) -> Optional[int]:
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDWR or read_only:
            return os.dup(fd)
    except OSError:
        pass
    return None


def _file_of(fd: int) -> Optional[Tuple[int, int]]:
    try:
        seen = os.fstat(fd)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _reaches(fd: int, end: int) -> bool:
    return os.fstat(fd).st_size >= end
