"""What the transformer of ttft_transformer.py asks of the daemon and of the CUDA driver: the client is that of the package
`terrace` (client/python), of which tools/gpu/pack lays a copy beside this file.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint8, c_uint64, c_void_p

HERE = pathlib.Path(__file__).resolve().parent
if not (HERE / "terrace").exists():
    sys.path.insert(0, str(HERE.parent.parent / "client/python"))

import terrace  # noqa: E402
from terrace import abi  # noqa: E402

LEVEL_DRAM, LEVEL_LOCAL_SYNCED, LEVEL_POOL = terrace.Level.DRAM, terrace.Level.LOCAL_SYNCED, terrace.Level.POOL
DEADLINE_S = 60


class Refused(Exception):
    """Something said no, or is not there; the message says who and why."""


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
        handle = (c_uint8 * abi.HANDLE_BYTES)()
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
            self._session = terrace.Session(os.fspath(runtime_dir), "ttft", DEADLINE_S, library=os.fspath(library))
        except OSError as error:
            raise Refused(str(error)) from None

    def close(self):
        self._session.close()

    def connected(self, timeout_ms):
        return self._session.wait_connected(timeout_ms / 1000)

    def open_namespace(self, model, block_tokens, block_bytes, kv_dtype):
        record = terrace.NamespaceRecord(model, "random", kv_dtype, "keys first", "blake2b", block_bytes,
                                         block_tokens=block_tokens, engine_format="1")
        try:
            return self._session.namespace(record)
        except ValueError as error:
            raise Refused(f"namespace: {error}") from None

    def register_device_memory(self, driver, address, count, block_count, plane_count, planes_per_layer):
        """Planes end to end, in each the blocks end to end."""
        segment_bytes = count // (block_count * plane_count)
        segment = abi.Segment(0, segment_bytes)
        planes = (abi.Plane * plane_count)()
        for i, plane in enumerate(planes):
            plane.offset = i * block_count * segment_bytes
            plane.block_stride = segment_bytes
            plane.segments = ctypes.pointer(segment)
            plane.segment_count = 1
        handle = driver.export(address)
        spec = abi.RegionSpec(fd=-1, bytes=count, block_count=block_count, planes=planes, plane_count=plane_count,
                              memory=int(abi.Memory.CUDA_IPC), handle=ctypes.cast(handle, c_void_p),
                              device_uuid=driver.uuid, allocation_bytes=count, planes_per_layer=planes_per_layer)
        try:
            return self._session.region_of(spec)
        except ValueError as error:
            raise Refused(f"region: {error}") from None

    def unregister(self, region):
        if not self._session.unregister(region, 30):
            raise Refused("unregister: the daemon may still touch the region")

    def _part(self, namespace, region, keys, blocks):
        return terrace.Part(namespace, keys, terrace.Rule.PREFIX, region=region, blocks=list(blocks))

    def finish(self, what, call):
        """The answer, or Refused."""
        if not self._session.wait(call, DEADLINE_S + 30):
            raise Refused(f"{what}: no answer")
        if not call.answer.ok:
            raise Refused(f"{what}: status {int(call.answer.status)}: {call.answer.error}")
        return call.answer

    def put(self, namespace, region, keys, blocks, level, parent=None):
        """All blocks reach the level, or Refused."""
        part = self._part(namespace, region, keys, blocks)
        call = self._session.put(part, parent=parent or b"", wait_for=level, deadline_s=DEADLINE_S)
        answer = self.finish("put", call)
        if not all(answer.kept()):
            raise Refused(f"put: {answer.kept().count(False)} blocks were not stored")
        if any(reached < level for reached in answer.levels):
            raise Refused(f"put: {sum(reached < level for reached in answer.levels)} blocks did not reach level {level}")

    def submit_get(self, namespace, region, keys, blocks):
        return self._session.get([self._part(namespace, region, keys, blocks)], deadline_s=DEADLINE_S)

    def get(self, namespace, region, keys, blocks):
        """How many of the blocks were delivered."""
        call = self.submit_get(namespace, region, keys, blocks)
        return sum(self.finish("get", call).delivered())


def find_built(here, packed, built):
    """A program or library, beside the script as tools/gpu/pack lays it, else of a build."""
    build = pathlib.Path(os.environ.get("TERRACE_BUILD", here.parent.parent / "build/release"))
    for path in (here / packed, build / built):
        if path.exists():
            return path
    raise Refused(f"{packed} is neither beside the script nor in {build}")


class Daemon:
    """A terraced on a private folder, with a local tier (local_bytes 0: none) and a pool (None: none); ended with the
    context."""

    def __init__(self, here, folder, pool, dram_bytes, local_bytes, pool_bytes, driver):
        self._here = here
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="node.", dir=folder))
        self._log = open(self._folder / "terraced.log", "wb")
        self.runtime_dir = self._folder / "run"
        config = self._folder / "terraced.toml"
        local = f'[local]\ncapacity = "{local_bytes}B"\nmax_block = "4MiB"\n'
        shared = (f'[[tier]]\nname = "g4"\nkind = "shared"\npath = "{pool}"\ncapacity = "{pool_bytes}B"\n'
                  'publish = "commit"\n')
        config.write_text(f'{local}[dram]\ncapacity = "{dram_bytes}B"\n[metrics]\nlisten = "off"\n'
                          f'{"" if pool is None else shared}')
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
