"""What the transformer of ttft_transformer.py asks of libterrace, of the daemon and of the CUDA driver, by ctypes.

The structs are those of client/include/terrace/terrace.h, which lets them grow: each says its own size.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

LEVEL_DRAM, LEVEL_LOCAL_SYNCED, LEVEL_POOL = 2, 4, 5
PUT_STORED, PUT_DUPLICATE, GET_OK = 1, 2, 1
MEMORY_CUDA_IPC = 2
RULE_PREFIX = 1
DELIVER_REGION = 3
HANDLE_BYTES = 64


class Refused(Exception):
    """Something said no, or is not there; the message says who and why."""


class Options(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("runtime_dir", c_char_p), ("client_name", c_char_p),
                ("default_deadline_ms", c_uint32), ("reconnect_ms", c_uint32), ("spin_us", c_uint32),
                ("slab_mapped", c_void_p), ("slab_unmapping", c_void_p), ("slab_context", c_void_p)]


class NamespaceRecord(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("model", c_char_p), ("weights_revision", c_char_p), ("kv_dtype", c_char_p),
                ("quantization", c_char_p), ("layout", c_char_p), ("engine_format", c_char_p),
                ("hash_algorithm", c_char_p), ("hash_seed", c_char_p), ("block_tokens", c_uint32),
                ("block_bytes", c_uint64), ("group", c_uint32), ("group_kind", c_char_p), ("shard_count", c_uint32),
                ("shard_rank", c_uint32), ("sharding", c_uint32), ("parallel", c_char_p), ("key_suffix", c_void_p),
                ("key_suffix_bytes", c_uint32), ("labels", c_void_p), ("label_count", c_uint32)]


class Segment(Structure):
    _fields_ = [("offset", c_uint64), ("bytes", c_uint64)]


class Plane(Structure):
    _fields_ = [("offset", c_uint64), ("block_stride", c_uint64), ("segments", POINTER(Segment)),
                ("segment_count", c_uint32)]


class RegionSpec(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("fd", c_int), ("offset", c_uint64), ("bytes", c_uint64),
                ("block_count", c_uint32), ("planes", POINTER(Plane)), ("plane_count", c_uint32),
                ("block_bytes", c_uint64), ("read_only", c_int32), ("memory", c_int), ("handle", c_void_p),
                ("device_uuid", c_uint8 * 16), ("allocation_bytes", c_uint64), ("planes_per_layer", c_uint32),
                ("canary_block", c_uint32)]


class Part(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("ns", c_uint32), ("rule", c_int), ("salt", c_void_p),
                ("salt_bytes", c_uint32), ("keys", c_char_p), ("key_bytes", c_uint32), ("key_count", c_uint32),
                ("first_token", c_uint64), ("end_tokens", c_void_p), ("window_tokens", c_uint32), ("region", c_uint32),
                ("block_indexes", POINTER(c_uint32)), ("after_event", c_void_p), ("progress_slot", c_uint32)]


class Call(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("tag", c_uint64), ("deadline_ms", c_uint32), ("parts", POINTER(Part)),
                ("part_count", c_uint32), ("request_id", c_void_p), ("request_id_bytes", c_uint32)]


class GetOptions(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("delivery", c_int), ("hold", c_uint8 * 16), ("wait_pending", c_int32)]


class PutOptions(Structure):
    _fields_ = [("struct_bytes", c_uint32), ("payload_bytes", c_void_p), ("parent", c_char_p),
                ("parent_bytes", c_uint32), ("wait_for", c_int), ("output_tokens", c_uint32), ("stop_reason", c_char_p),
                ("session_end", c_int32), ("expected_return_ms", c_uint32), ("compute_us", c_uint64)]


class Completion(Structure):
    """As far as it is looked at."""
    _fields_ = [("call_id", c_uint64), ("tag", c_uint64), ("verb", c_int), ("status", c_int), ("key_count", c_uint32),
                ("states", POINTER(c_uint8)), ("outcomes", POINTER(c_uint8)), ("reasons", POINTER(c_uint8)),
                ("levels", POINTER(c_uint8))]


def sized(struct):
    struct.struct_bytes = ctypes.sizeof(struct)
    return struct


class Driver:
    """The calls of the CUDA driver that an engine makes to share its memory; on the device's primary context."""

    def __init__(self, library):
        try:
            self._calls = ctypes.CDLL(library)
        except OSError as error:
            raise Refused(f"no CUDA driver: {error}") from None
        device = c_int()
        context = c_void_p()
        self._uuid = (c_uint8 * 16)()
        self._check("cuInit", 0)
        self._check("cuDeviceGet", byref(device), 0)
        self._check("cuDeviceGetUuid_v2", self._uuid, device)
        self._check("cuDevicePrimaryCtxRetain", byref(context), device)
        self._check("cuCtxSetCurrent", context)
        self._stream = c_void_p()
        self._check("cuStreamCreateWithPriority", byref(self._stream), 1, 0)

    def _check(self, name, *arguments):
        result = getattr(self._calls, name)(*arguments)
        if result != 0:
            text = c_char_p()
            self._calls.cuGetErrorName(result, byref(text))
            raise Refused(f"{name}: {(text.value or b'').decode() or f'CUDA error {result}'}")

    @property
    def uuid(self):
        return self._uuid

    def allocate(self, count):
        address = c_uint64()
        self._check("cuMemAlloc_v2", byref(address), c_size_t(count))
        return address.value

    def free(self, address):
        self._check("cuMemFree_v2", c_uint64(address))

    def export(self, address):
        handle = (c_uint8 * HANDLE_BYTES)()
        self._check("cuIpcGetMemHandle", handle, c_uint64(address))
        return handle

    def write(self, address, host, count):
        self._check("cuMemcpyHtoDAsync_v2", c_uint64(address), c_void_p(host), c_size_t(count), self._stream)
        self._check("cuStreamSynchronize", self._stream)

    def read(self, host, address, count):
        self._check("cuMemcpyDtoHAsync_v2", c_void_p(host), c_uint64(address), c_size_t(count), self._stream)
        self._check("cuStreamSynchronize", self._stream)


class Client:
    """A session of libterrace; one call at a time."""

    def __init__(self, library, runtime_dir):
        try:
            self._calls = ctypes.CDLL(str(library))
        except OSError as error:
            raise Refused(f"libterrace: {error}") from None
        self._calls.terrace_last_error.restype = c_char_p
        self._client = c_void_p()
        options = sized(Options(runtime_dir=os.fsencode(runtime_dir), client_name=b"ttft", default_deadline_ms=60000))
        self._check("terrace_open", byref(options), byref(self._client))

    def _check(self, name, *arguments):
        status = getattr(self._calls, name)(*arguments)
        if status != 0:
            raise Refused(f"{name}: {self._calls.terrace_last_error().decode()} (status {status})")

    def close(self):
        if self._client:
            self._calls.terrace_close(self._client)
            self._client = c_void_p()

    def connected(self, timeout_ms):
        return self._calls.terrace_wait_connected(self._client, c_uint32(timeout_ms)) == 0

    def open_namespace(self, model, block_tokens, block_bytes, kv_dtype):
        record = sized(NamespaceRecord(model=model.encode(), weights_revision=b"random", kv_dtype=kv_dtype.encode(),
                                       layout=b"keys first", engine_format=b"1", hash_algorithm=b"blake2b",
                                       block_tokens=block_tokens, block_bytes=block_bytes, shard_count=1))
        namespace = c_uint32()
        self._check("terrace_open_namespace", self._client, byref(record), byref(namespace))
        return namespace.value

    def register_device_memory(self, driver, address, count, block_count, plane_count, planes_per_layer):
        """Planes end to end, in each the blocks end to end."""
        segment_bytes = count // (block_count * plane_count)
        segment = Segment(0, segment_bytes)
        planes = (Plane * plane_count)()
        for i, plane in enumerate(planes):
            plane.offset = i * block_count * segment_bytes
            plane.block_stride = segment_bytes
            plane.segments = ctypes.pointer(segment)
            plane.segment_count = 1
        handle = driver.export(address)
        spec = sized(RegionSpec(fd=-1, bytes=count, block_count=block_count, planes=planes, plane_count=plane_count,
                                memory=MEMORY_CUDA_IPC, handle=ctypes.cast(handle, c_void_p), device_uuid=driver.uuid,
                                allocation_bytes=count, planes_per_layer=planes_per_layer))
        region = c_uint32()
        self._check("terrace_register_region", self._client, byref(spec), byref(region))
        return region.value

    def unregister(self, region):
        self._check("terrace_unregister_region", self._client, c_uint32(region), c_uint32(30000))

    def _call(self, namespace, region, keys, blocks):
        indexes = (c_uint32 * len(blocks))(*blocks)
        part = sized(Part(ns=namespace, rule=RULE_PREFIX, keys=b"".join(keys), key_bytes=len(keys[0]),
                          key_count=len(keys), region=region, block_indexes=indexes))
        return sized(Call(tag=1, deadline_ms=60000, parts=ctypes.pointer(part), part_count=1))

    def _await(self, what):
        done = POINTER(Completion)()
        until = time.monotonic() + 90
        while self._calls.terrace_drain(self._client, byref(done), c_uint32(1), c_uint32(1000)) == 0:
            if time.monotonic() > until:
                raise Refused(f"{what}: no answer")
        try:
            if done.contents.status != 0:
                raise Refused(f"{what}: status {done.contents.status}")
            count = done.contents.key_count
            return bytes(done.contents.outcomes[:count]), bytes(done.contents.levels[:count] if done.contents.levels
                                                                else ())
        finally:
            self._calls.terrace_completion_free(done)

    def put(self, namespace, region, keys, blocks, level, parent=None):
        """All blocks reach the level, or Refused."""
        call = self._call(namespace, region, keys, blocks)
        options = sized(PutOptions(parent=parent, parent_bytes=len(parent or b""), wait_for=level))
        self._check("terrace_submit_put", self._client, byref(call), byref(options), None, c_uint64(0), None)
        outcomes, levels = self._await("put")
        if any(outcome not in (PUT_STORED, PUT_DUPLICATE) for outcome in outcomes):
            raise Refused(f"put: {sum(o not in (PUT_STORED, PUT_DUPLICATE) for o in outcomes)} blocks were not stored")
        if any(reached < level for reached in levels):
            raise Refused(f"put: {sum(reached < level for reached in levels)} blocks did not reach level {level}")

    def get(self, namespace, region, keys, blocks):
        """How many of the blocks were delivered."""
        call = self._call(namespace, region, keys, blocks)
        options = sized(GetOptions(delivery=DELIVER_REGION, wait_pending=1))
        self._check("terrace_submit_get", self._client, byref(call), byref(options), None)
        outcomes, _ = self._await("get")
        return sum(outcome == GET_OK for outcome in outcomes)


def find_built(here, packed, built):
    """A program or library, beside the script as tools/gpu/pack lays it, else of a build."""
    build = pathlib.Path(os.environ.get("TERRACE_BUILD", here.parent.parent / "build/release"))
    for path in (here / packed, build / built):
        if path.exists():
            return path
    raise Refused(f"{packed} is neither beside the script nor in {build}")


class Daemon:
    """A terraced on a private folder, with a local tier and a pool; ended with the context."""

    def __init__(self, here, folder, pool, dram_bytes, local_bytes, pool_bytes, driver):
        self._here = here
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="node.", dir=folder))
        self._log = open(self._folder / "terraced.log", "wb")
        self.runtime_dir = self._folder / "run"
        config = self._folder / "terraced.toml"
        local = f'[local]\ncapacity = "{local_bytes}B"\nmax_block = "4MiB"\n'
        config.write_text(f'{local}[dram]\ncapacity = "{dram_bytes}B"\n[metrics]\nlisten = "off"\n'
                          f'[[tier]]\nname = "g4"\nkind = "shared"\npath = "{pool}"\ncapacity = "{pool_bytes}B"\n'
                          'publish = "commit"\n')
        self._env = dict(os.environ, TERRACE_CUDA_DRIVER=driver)
        if "TERRACE_LIBRARY_PATH" in os.environ:  # of the programs, not of this process
            self._env["LD_LIBRARY_PATH"] = os.environ["TERRACE_LIBRARY_PATH"]
        program = find_built(here, "bin/terraced", "daemon/terraced")
        self._child = subprocess.Popen(
            [program, "--config", config, "--data", self._folder / "data", "--runtime", self.runtime_dir],
            env=self._env, stdout=self._log, stderr=self._log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self, library, timeout_s):
        client = Client(library, self.runtime_dir)
        until = time.monotonic() + timeout_s
        while not client.connected(200):
            if self._child.poll() is not None or time.monotonic() > until:
                client.close()
                log = (self._folder / "terraced.log").read_text(errors="replace").strip().splitlines()
                raise Refused(f"terraced did not start: {log[-1] if log else 'no word'}")
        return client

    def evict(self):
        """Whatever may go has gone from DRAM."""
        program = find_built(self._here, "bin/terracectl", "tools/terracectl")
        done = subprocess.run([program, "--runtime", self.runtime_dir, "evict", "--target", "0"], env=self._env, capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            raise Refused(f"terracectl evict: {done.stderr.strip()}")
