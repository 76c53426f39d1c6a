"""Where vLLM's KV-cache blocks lie in memory, read off its tensors.

A layer's tensor has a dimension of blocks somewhere (first, or behind that of keys and values) and
others in whatever order the attention backend wants; a block is all that is left when one index of
that dimension is chosen. It is described by the strides alone, so that NHD and HND, packed and
padded layouts, MLA, and all layers in one tensor are the same case. Bytes of a block go out piece
by piece, layers in the order of their tensors and pieces by address.
"""
import itertools
from typing import Any, List, NamedTuple, Tuple


class Run(NamedTuple):
    """A piece of every block: `bytes` at address + index * stride."""

    address: int
    stride: int
    bytes: int


class Layer(NamedTuple):
    """`shape` says what the bytes of a block mean: sizes and order of the dimensions."""

    runs: List[Run]
    shape: str


def layer_of(tensor: Any, block_count: int) -> Layer:
    """Of a torch.Tensor, or what has its data_ptr, shape, stride and element_size. Raises
    ValueError for what is no array of that many blocks."""
    item = tensor.element_size()
    sizes = [int(size) for size in tensor.shape]
    strides = [int(stride) * item for stride in tensor.stride()]
    dimension, parts = _block_dimension(sizes, block_count)
    block_stride = strides[dimension] * parts
    others = [
        (size, stride, number)
        for number, (size, stride) in enumerate(zip(sizes, strides))
        if number != dimension
    ]
    if parts > 1:
        others.append((parts, strides[dimension], len(sizes)))
    inner = sorted((stride, size) for size, stride, _ in others if size > 1)
    run_bytes, outer = _merged(inner, item)
    if block_stride < run_bytes and block_count > 1:
        raise ValueError(f"blocks of {run_bytes} bytes at {block_stride} bytes from each other")
    offsets = sorted(sum(places) for places in itertools.product(*outer)) if outer else [0]
    begin = int(tensor.data_ptr())
    runs = [Run(begin + offset, block_stride, run_bytes) for offset in offsets]
    order = sorted(others, key=lambda other: (-other[1], other[2]))
    text = "x".join(f"{size}d{number}" for size, _, number in order if size > 1)
    return Layer(runs, f"{text}*{item}/{len(runs)}")


def _block_dimension(sizes: List[int], count: int) -> Tuple[int, int]:
    """Which one it is, and how many of its entries make up a block: kernels may see smaller blocks
    than the scheduler."""
    exact = [number for number, size in enumerate(sizes) if size == count]
    if len(exact) == 1:
        return exact[0], 1
    split = [number for number, size in enumerate(sizes) if size > count and size % count == 0]
    if not exact and len(split) == 1:
        return split[0], sizes[split[0]] // count
    raise ValueError(f"a tensor of {sizes}: which dimension has the {count} blocks is not clear")


def _merged(inner: List[Tuple[int, int]], item: int) -> Tuple[int, List[List[int]]]:
    """Bytes that lie together, and the places of the dimensions that are left outside."""
    run_bytes, at = item, 0
    while at < len(inner) and inner[at][0] == run_bytes:
        run_bytes *= inner[at][1]
        at += 1
    outer, extent = [], run_bytes
    for stride, size in inner[at:]:
        if stride < extent:
            raise ValueError(f"a dimension of {size} at {stride} bytes overlaps {extent} bytes")
        outer.append([stride * index for index in range(size)])
        extent += stride * (size - 1)
    return run_bytes, outer
