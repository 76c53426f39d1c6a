"""An engine's user on the machine: stores blocks whose content follows from their number, and compares what comes back.

usage: engine.py store FIRST COUNT [LEVEL]     prints how many were kept
       engine.py read FIRST COUNT              prints how many came back, and how many of them were not what was stored
       engine.py hold FIRST COUNT              prints "held", with leases until its stdin ends, then as `read`
"""
import hashlib
import random
import sys

import terrace

BLOCK = 64 * 1024
AT_ONCE = 16
RECORD = terrace.NamespaceRecord(model="m", weights_revision="r", kv_dtype="bf16", layout="rows", hash_algorithm="sha256",
                                 block_bytes=BLOCK, block_tokens=16)


def key_of(number):
    return hashlib.sha256(b"block %d" % number).digest()


def content_of(number):
    return random.Random(number).randbytes(BLOCK)


def calls(first, count):
    for begin in range(first, first + count, AT_ONCE):
        yield range(begin, min(begin + AT_ONCE, first + count))


def ended(session, call):
    if not session.wait(call, 60, done=True):
        sys.exit("a call did not end")
    return call.answer


def store(session, blocks, first, count, level):
    kept = 0
    for numbers in calls(first, count):
        payload = b"".join(content_of(number) for number in numbers)
        part = terrace.Part(blocks, [key_of(number) for number in numbers])
        answer = ended(session, session.put(part, payload=payload, payload_bytes=[BLOCK] * len(numbers), wait_for=level,
                                            deadline_s=30))
        kept += sum(answer.kept())
    return {"kept": kept}


def compare(lease, numbers):
    views = [(number, view) for number, view in zip(numbers, lease) if view is not None]
    return len(views), sum(bytes(view) != content_of(number) for number, view in views)


def read(session, blocks, first, count):
    found = wrong = 0
    for numbers in calls(first, count):
        answer = ended(session, session.get([terrace.Part(blocks, [key_of(number) for number in numbers])], deadline_s=30))
        lease = session.lease(answer)
        here = compare(lease, numbers)
        found, wrong = found + here[0], wrong + here[1]
        lease.release()
    return {"found": found, "wrong": wrong}


def hold(session, blocks, first, count):
    held = []
    for numbers in calls(first, count):
        answer = ended(session, session.get([terrace.Part(blocks, [key_of(number) for number in numbers])], deadline_s=30))
        held.append((numbers, session.lease(answer)))
    print("held", flush=True)
    sys.stdin.read()
    sums = [compare(lease, numbers) for numbers, lease in held]
    return {"found": sum(found for found, _ in sums), "wrong": sum(wrong for _, wrong in sums)}


def main():
    verb, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with terrace.Session() as session:
        if not session.wait_connected(60):
            sys.exit("no session")
        blocks = session.namespace(RECORD)
        if verb == "store":
            result = store(session, blocks, first, count, terrace.Level[sys.argv[4] if len(sys.argv) > 4 else "DRAM"])
        else:
            result = {"read": read, "hold": hold}[verb](session, blocks, first, count)
        print(*result.values())


main()
