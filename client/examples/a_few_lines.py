#!/usr/bin/env python3
"""The least that works: store one block, read it in place. Without a daemon the read is a miss and
nothing else happens."""
import sys

from terrace import NamespaceRecord, Part, Session

record = NamespaceRecord(
    model="example/model",
    weights_revision="1",
    kv_dtype="bf16",
    layout="example/1",
    hash_algorithm="none",
    block_bytes=4096,
)
key, block = b"k" * 32, b"b" * 4096

with Session() as session:
    blocks = session.namespace(record)
    put = session.put(Part(blocks, [key]), block)
    session.wait(put)
    get = session.get([Part(blocks, [key])])
    session.wait(get)
    with session.lease(get.answer) as lease:
        view = lease.view(0)
        hit, same = view is not None, view == block
        del view  # it would end with the lease

found = "the same bytes" if same else "other bytes" if hit else "a miss"
print(f"stored: {put.answer.kept()[0]}, read back: {found}")
sys.exit(1 if hit and not same else 0)
