"""Keys of engines as keys of Terrace: 16 to 64 bytes, of one length within a part."""
import hashlib
import re
from typing import Dict, Iterable, List, Sequence, Tuple

from terrace.abi import LEAST_KEY_BYTES, MOST_KEY_BYTES

_HEX = re.compile(r"(?:[0-9a-f]{2}){16,64}\Z")


def fitted(key: bytes, suffix_bytes: int = 0) -> bytes:
    """The key itself where it has 16 to 64 bytes; else a digest of it that keeps its suffix."""
    if LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        return key
    cut = max(0, len(key) - suffix_bytes)
    return digest(key[:cut]) + key[cut:]


def of_text(key: str) -> bytes:
    """The bytes of a hash in lower-case hexadecimal digits; of any other text, a digest."""
    if _HEX.match(key):
        return bytes.fromhex(key)
    return digest(key.encode())


def digest(content: bytes) -> bytes:
    """32 bytes, apart from every digest that an engine makes of something else."""
    return hashlib.blake2b(content, digest_size=32, person=b"terrace key").digest()


def by_length(keys: Sequence[bytes]) -> Iterable[Tuple[List[int], List[bytes]]]:
    """Positions and keys of each length; a single pass where all have the same, as they mostly
    do."""
    if not keys:
        return
    length = len(keys[0])
    if all(len(key) == length for key in keys):
        yield list(range(len(keys))), list(keys)
        return
    sorted_out: Dict[int, Tuple[List[int], List[bytes]]] = {}
    for position, key in enumerate(keys):
        positions, same = sorted_out.setdefault(len(key), ([], []))
        positions.append(position)
        same.append(key)
    yield from sorted_out.values()
