"""What vLLM's offloading spec says of its chunks, as namespaces of Terrace.

Read, where it is there, from OffloadingSpec.config (OffloadingConfig: model, cache, parallel,
groups, replicated_layout, canonical_layout, kv_cache_layout), as vLLM's own file tier does
(file_mapper.py at commit 0078e9d2b020), and from vllm_config, which older builds pass. Every field
is looked for and none relied upon: what is missing is open (see Facts), or comes from the tier's
configuration.
"""
import hashlib
import os
from typing import Any, Dict, List, NamedTuple, Optional

from terrace.abi import Sharding
from terrace.record import Facts, NamespaceRecord

GROUP_BYTES = 4  # the group's index, big-endian, at the end of every OffloadKey


class Given(NamedTuple):
    """What the tier's configuration says, which wins over what vLLM says."""

    model: Optional[str] = None
    weights_revision: Optional[str] = None
    kv_dtype: Optional[str] = None
    quantization: Optional[str] = None
    layout: Optional[str] = None
    engine_format: Optional[str] = None
    hash_algorithm: Optional[str] = None


class ChunkFacts:
    """Makes the record of each KV-cache group."""

    def __init__(self, spec: Any, vllm_config: Any, row_bytes: int, given: Given) -> None:
        self._config = _at(spec, "config")
        self._vllm = vllm_config if vllm_config is not None else _at(spec, "vllm_config")
        self._row_bytes = row_bytes
        self._spec = spec
        self._given = given
        facts = Facts("vLLM")
        self._fields = self._gather(facts)
        self._fields["labels"] = facts.seal()
        self.shared = facts.shared

    def fields(self) -> Dict[str, Any]:
        """Of a NamespaceRecord, as far as they are the same for all that the engine stores."""
        return {**self._fields, "labels": dict(self._fields["labels"])}

    def record(self, group: int) -> NamespaceRecord:
        """Of a group; its keys end in its index."""
        return NamespaceRecord(
            group=group,
            key_suffix=group.to_bytes(GROUP_BYTES, "big"),
            block_tokens=self.chunk_tokens(group),
            block_bytes=self._row_bytes,
            **self._fields,
        )

    def chunk_tokens(self, group: int) -> int:
        """Tokens of a chunk; 0: not known."""
        groups = _at(self._config, "groups") or ()
        tokens = _at(groups[group], "tokens_per_block") if group < len(groups) else None
        factor = _at(self._config, "cache", "blocks_per_chunk")
        factor = factor or _at(self._spec, "blocks_per_chunk")
        product = (tokens or 0) * (factor or 1)
        return product if isinstance(product, int) and 0 < product <= 65536 else 0

    def _gather(self, facts: Facts) -> Dict[str, Any]:
        given, config, vllm = self._given, self._config, self._vllm
        revision = _at(vllm, "model_config", "revision")
        if revision == "main":
            revision = None  # a branch: what it names changes
        fields = {
            "model": facts.need(
                "model",
                given.model or _at(config, "model", "name") or _at(vllm, "model_config", "model"),
            ),
            "weights_revision": facts.need("weights_revision", given.weights_revision or revision),
            "kv_dtype": facts.need(
                "kv_dtype",
                given.kv_dtype or _at(config, "model", "dtype") or _cache_dtype(vllm),
            ),
            "layout": facts.need("layout", given.layout or self._layout()),
            "engine_format": facts.need("engine_format", given.engine_format or _vllm_version()),
            "quantization": given.quantization or _at(vllm, "model_config", "quantization") or "",
            # Keys of another algorithm are other keys; nothing is confused where it is not known.
            "hash_algorithm": given.hash_algorithm
            or _at(vllm, "cache_config", "prefix_caching_hash_algo")
            or "unknown",
            "hash_seed": os.environ.get("PYTHONHASHSEED", ""),
        }
        fields.update(self._sharding(facts))
        facts.label("blocks_per_chunk", _at(config, "cache", "blocks_per_chunk"))
        facts.label("tokens_per_hash", _at(config, "cache", "tokens_per_hash"))
        facts.label("layers", self._layers_digest())
        return fields

    def _layout(self) -> Optional[str]:
        named = _at(self._config, "kv_cache_layout")
        named = named or _at(self._vllm, "cache_config", "kv_cache_layout")
        if not named:
            return None
        parts = ["vllm", str(named)]
        parts += [str(self._spec.storage_format)] if _at(self._spec, "storage_format") else []
        parts += ["canonical"] if _at(self._config, "canonical_layout") else []
        parts += ["replicated"] if _at(self._config, "replicated_layout") else []
        return "-".join(parts)

    def _sharding(self, facts: Facts) -> Dict[str, Any]:
        """A row holds the bytes of all workers, one after the other or as one."""
        parallel = _at(self._config, "parallel")
        if parallel is not None and (
            _at(parallel, "is_parallelism_agnostic") or _at(self._config, "replicated_layout")
        ):
            return {"sharding": Sharding.CANONICAL, "parallel": ""}
        sizes: List[str] = []
        for short, here, there in _PARALLEL_SIZES:
            size = _at(parallel, here) or _at(self._vllm, "parallel_config", there)
            if size is not None:
                sizes.append(f"{short}={size}")
        parallel_sizes = facts.need("parallel sizes", ",".join(sizes))
        return {"sharding": Sharding.SHARDED, "parallel": parallel_sizes}

    def _layers_digest(self) -> Optional[str]:
        groups = _at(self._config, "groups")
        names = [list(_at(group, "layer_names") or ()) for group in groups or ()]
        if not any(names):
            return None
        return hashlib.blake2b(repr(names).encode(), digest_size=16).hexdigest()


_PARALLEL_SIZES = (
    ("tp", "tp_size", "tensor_parallel_size"),
    ("pp", "pp_size", "pipeline_parallel_size"),
    ("pcp", "pcp_size", "prefill_context_parallel_size"),
    ("dcp", "dcp_size", "decode_context_parallel_size"),
)


def _cache_dtype(vllm: Any) -> Optional[str]:
    dtype = _at(vllm, "cache_config", "cache_dtype")
    return _at(vllm, "model_config", "dtype") if dtype in (None, "auto") else dtype


def _vllm_version() -> Optional[str]:
    try:
        from vllm import __version__
    except ImportError:
        return None
    return f"vllm-{__version__}"


def _at(thing: Any, *names: str) -> Any:
    """The attribute at the end of the path; None where there is none."""
    for name in names:
        thing = getattr(thing, name, None)
        if thing is None:
            return None
    return thing
