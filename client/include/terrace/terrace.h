/* libterrace: the client of terraced, C ABI.
 *
 * Shape: one object per engine process (or rank), one event descriptor, batches that are submitted and completions that
 * are drained. Nothing here throws, aborts on bad input or blocks beyond the time that the caller names. The daemon may
 * be absent, restart or hang: every call then completes as a miss or "not stored", and the library reconnects, re-opens
 * namespaces and re-registers regions by itself.
 *
 * Progress: the library has no thread of its own. Work moves on inside terrace_submit_* and terrace_drain; the event
 * descriptor (an epoll descriptor: only poll it for reading) becomes readable when terrace_drain has something to do.
 *
 * A daemon that is absent or has said nothing for a second while it owed an answer costs nothing more: calls complete at
 * once as TERRACE_UNAVAILABLE until it speaks again. Limits: 16,384 keys and 64 parts a call, messages of 4 MiB, as many
 * calls in flight as the daemon allows (256 until it has said), 16 MiB of requests that wait to be sent, 1,024 namespaces
 * and 1,024 regions a client.
 *
 * Threads: all functions may be called from any thread on one client at the same time; terrace_close must be the last.
 * A child of fork must not use its parent's client: functions return TERRACE_FAILED_PRECONDITION, terrace_drain 0,
 * terrace_event_fd -1; terrace_close frees its memory and leaves the parent's session alone.
 * Ownership: arrays given to a submit are copied before it returns, except memory of regions and staging, which must
 * stay until the completion. Pointers in a completion are valid until terrace_completion_free.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(TERRACE_BUILDING_LIBRARY)
#define TERRACE_API __attribute__((visibility("default")))
#else
#define TERRACE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct terrace_client terrace_client;

/* Call-level results; 0 is success. Per-key results are in the completion. */
typedef enum terrace_status {
  TERRACE_OK = 0,
  TERRACE_CANCELLED = 1,
  TERRACE_INVALID_ARGUMENT = 3,     /* terrace_last_error names the field and the limit */
  TERRACE_DEADLINE_EXCEEDED = 4,
  TERRACE_NOT_FOUND = 5,
  TERRACE_ALREADY_EXISTS = 6,
  TERRACE_PERMISSION_DENIED = 7,
  TERRACE_RESOURCE_EXHAUSTED = 8,
  TERRACE_FAILED_PRECONDITION = 9,
  TERRACE_UNIMPLEMENTED = 12,
  TERRACE_INTERNAL = 13,
  TERRACE_UNAVAILABLE = 14          /* no daemon now: keys are misses or not stored */
} terrace_status;

typedef enum terrace_rule {
  TERRACE_RULE_PREFIX = 1, TERRACE_RULE_WINDOW = 2, TERRACE_RULE_STATE_AT_END = 3, TERRACE_RULE_INDEPENDENT = 4
} terrace_rule;
typedef enum terrace_key_state {
  TERRACE_KEY_MISS = 0, TERRACE_KEY_READY = 1, TERRACE_KEY_PENDING = 2, TERRACE_KEY_LOWER = 3, TERRACE_KEY_INVALID = 4
} terrace_key_state;
typedef enum terrace_get_outcome {
  TERRACE_GET_MISS = 0, TERRACE_GET_OK = 1, TERRACE_GET_CORRUPT = 2, TERRACE_GET_BUSY = 3, TERRACE_GET_DEADLINE = 4,
  TERRACE_GET_INVALID = 5, TERRACE_GET_REGION_FAILED = 6, TERRACE_GET_TRIMMED = 7, TERRACE_GET_CANCELLED = 8
} terrace_get_outcome;
typedef enum terrace_put_outcome {
  TERRACE_PUT_NONE = 0 /* the call did not reach the daemon */, TERRACE_PUT_STORED = 1, TERRACE_PUT_DUPLICATE = 2,
  TERRACE_PUT_DECLINED = 3, TERRACE_PUT_FAILED = 4
} terrace_put_outcome;
typedef enum terrace_reason {
  TERRACE_REASON_NONE = 0, TERRACE_REASON_NO_SPACE = 1, TERRACE_REASON_QUOTA = 2, TERRACE_REASON_ADMISSION = 3,
  TERRACE_REASON_DRAINING = 4, TERRACE_REASON_INVALID = 5, TERRACE_REASON_REGION_FAILED = 6, TERRACE_REASON_DEADLINE = 7,
  TERRACE_REASON_CANCELLED = 8, TERRACE_REASON_CLEARED = 9, TERRACE_REASON_TIER_FAULT = 10,
  TERRACE_REASON_NOT_PRESENT = 11, TERRACE_REASON_BUSY = 12, TERRACE_REASON_TOO_LATE = 13
} terrace_reason;
typedef enum terrace_level {
  TERRACE_LEVEL_SOURCE_FREE = 1, TERRACE_LEVEL_DRAM = 2, TERRACE_LEVEL_LOCAL_WRITTEN = 3,
  TERRACE_LEVEL_LOCAL_SYNCED = 4, TERRACE_LEVEL_POOL = 5
} terrace_level;
typedef enum terrace_priority {
  TERRACE_PRIORITY_LOW = 1, TERRACE_PRIORITY_NORMAL = 2, TERRACE_PRIORITY_HIGH = 3
} terrace_priority;

typedef struct terrace_id128 { uint8_t bytes[16]; } terrace_id128;

/* ---------------------------------------------------------------- the client */

/* For engines that copy to a device from leased memory by themselves: where that memory lies, so
   that they can register it with the device's driver once (CUDA: cuMemHostRegister, read-only,
   since it is mapped so) and not for every lease. `mapped` is called before the first completion
   whose data lies there is drained, `unmapping` when no lease needs it any more, terrace_close
   included; once each, with the same arguments. `memory` is aligned to pages, and `bytes` a
   multiple of their size. They run on any thread that is inside a call to the client, one at a
   time, must not call the client and must not throw; in a child of fork neither does. NULL: not
   called. */
typedef struct terrace_slab_watch {
  void (*mapped)(void* context, const void* memory, uint64_t bytes);
  void (*unmapping)(void* context, const void* memory, uint64_t bytes);
  void* context;
} terrace_slab_watch;

typedef struct terrace_options {
  uint32_t struct_bytes;         /* sizeof(terrace_options): lets the struct grow */
  const char* runtime_dir;       /* folder of session.sock; NULL: $TERRACE_RUNTIME, else /run/terrace */
  const char* client_name;       /* [A-Za-z0-9._-]{1,64}; NULL: "libterrace" */
  uint32_t default_deadline_ms;  /* for submits with deadline 0; 0: 1,000 */
  uint32_t reconnect_ms;         /* least time between attempts to reach an absent daemon; 0: 1,000 */
  uint32_t spin_us;              /* how long terrace_drain polls before it sleeps, as long as that pays: at most 1,000,
                                    and up to three times as long for a lone copy; 0: 100, where there is more than one
                                    core; TERRACE_NO_SPIN: it sleeps at once */
  terrace_slab_watch slabs;      /* all zero: nobody is told */
} terrace_options;
#define TERRACE_NO_SPIN UINT32_MAX

/* Never waits for the daemon, which may be absent. *out is NULL unless TERRACE_OK. */
TERRACE_API terrace_status terrace_open(const terrace_options* options, terrace_client** out);
/* Ends the session: leases, holds and regions are given back. Calls in flight are dropped, and what
 * is being copied for them goes on for a moment: unregister regions first whose memory is to be
 * used again. NULL is allowed. */
TERRACE_API void terrace_close(terrace_client* client);
/* Of the calling thread's last failed call, never NULL, valid until its next call. */
TERRACE_API const char* terrace_last_error(void);
TERRACE_API const char* terrace_version(void);

typedef enum terrace_connection {
  TERRACE_CONNECTION_DOWN = 0, TERRACE_CONNECTION_CONNECTING = 1, TERRACE_CONNECTION_UP = 2,
  TERRACE_CONNECTION_DRAINING = 3
} terrace_connection;
typedef struct terrace_client_state {
  uint32_t struct_bytes;
  terrace_connection connection;
  uint64_t boot_id;          /* of the daemon last spoken to; 0: none yet */
  uint32_t reconnects;       /* sessions begun after the first */
  uint32_t calls_in_flight;
  uint64_t features;         /* bit n set: Feature n of session.proto */
  uint64_t leased_bytes;     /* held by this client now */
  uint64_t lease_limit_bytes;
  uint64_t mapped_bytes;     /* slabs mapped */
  int32_t leases_allowed;    /* 0: no pidfd was accepted */
} terrace_client_state;
TERRACE_API terrace_status terrace_state(terrace_client* client, terrace_client_state* out);
/* Waits until the connection is up or timeout_ms passed (TERRACE_DEADLINE_EXCEEDED). For tools and tests. */
TERRACE_API terrace_status terrace_wait_connected(terrace_client* client, uint32_t timeout_ms);

/* ---------------------------------------------------------------- namespaces */

typedef struct terrace_label { const char* key; const char* value; } terrace_label;
/* Fields as in message NamespaceRecord of cache.proto; NULL strings are "". */
typedef struct terrace_namespace_record {
  uint32_t struct_bytes;
  const char* model;
  const char* weights_revision;
  const char* kv_dtype;
  const char* quantization;
  const char* layout;
  const char* engine_format;
  const char* hash_algorithm;
  const char* hash_seed;
  uint32_t block_tokens;
  uint64_t block_bytes;
  uint32_t group;
  const char* group_kind;
  uint32_t shard_count;
  uint32_t shard_rank;
  uint32_t sharding;        /* 0 or 1 sharded, 2 canonical, 3 replicated */
  const char* parallel;
  const uint8_t* key_suffix;
  uint32_t key_suffix_bytes;
  const terrace_label* labels;
  uint32_t label_count;
} terrace_namespace_record;

/* Names a namespace of this client, from 1. Stays valid over restarts of the daemon. */
typedef uint32_t terrace_namespace;
/* Checks the record and remembers it; the daemon learns of it with the next frame. A record that the daemon refuses
 * shows in the completions that use the namespace (TERRACE_FAILED_PRECONDITION). Idempotent for equal records. */
TERRACE_API terrace_status terrace_open_namespace(terrace_client* client, const terrace_namespace_record* record,
                                                  terrace_namespace* out);

/* ---------------------------------------------------------------- regions */

typedef struct terrace_segment { uint64_t offset; uint64_t bytes; } terrace_segment;
typedef struct terrace_plane {
  uint64_t offset;
  uint64_t block_stride;
  const terrace_segment* segments;
  uint32_t segment_count;
} terrace_plane;
/* Where the memory of a region is. Of a GPU: named by what its allocation exports, copied by a
 * worker of the daemon's, so that the process that owns it does nothing for it. */
typedef enum terrace_memory {
  TERRACE_MEMORY_HOST = 0,
  TERRACE_MEMORY_CUDA_IPC = 2, /* by a legacy handle, of cuIpcGetMemHandle */
  TERRACE_MEMORY_CUDA_VMM = 3  /* by a descriptor, of cuMemExportToShareableHandle */
} terrace_memory;
#define TERRACE_CUDA_HANDLE_BYTES 64

typedef struct terrace_region_spec {
  uint32_t struct_bytes;
  int fd; /* memfd, or a file on tmpfs or hugetlbfs; CUDA_VMM: the exported descriptor; duplicated,
             the caller keeps its own. CUDA_IPC: not looked at */
  uint64_t
      offset; /* of the region in the file or allocation; a multiple of 4,096, of a GPU's of 4 */
  uint64_t bytes;
  uint32_t block_count;
  const terrace_plane* planes;  /* NULL: one plane of blocks of block_bytes end to end */
  uint32_t plane_count;
  uint64_t block_bytes;   /* when planes is NULL */
  int32_t read_only;      /* source of puts only; not of GPUs */
  terrace_memory memory;
  const void* handle;        /* CUDA_IPC: TERRACE_CUDA_HANDLE_BYTES */
  uint8_t device_uuid[16];   /* GPUs: of cuDeviceGetUuid */
  uint64_t allocation_bytes; /* GPUs: of the whole allocation, as cuMemGetAddressRange has it */
  uint32_t
      planes_per_layer;  /* GPUs: consecutive planes that make up a layer; 0: all of them are one */
  uint32_t canary_block; /* GPUs: 1 + index of a block that holds nothing yet: a pattern goes out to
                            it and back when the region is registered for the first time. 0: none */
} terrace_region_spec;
typedef uint32_t terrace_region; /* from 1 */
TERRACE_API terrace_status terrace_register_region(terrace_client* client, const terrace_region_spec* spec,
                                                   terrace_region* out);
/* Returns once the daemon cannot touch the memory any more, at most timeout_ms; TERRACE_DEADLINE_EXCEEDED: it still may.
 * A dead daemon cannot, once its workers have ended, which for memory of a GPU is waited for: TERRACE_OK. */
TERRACE_API terrace_status terrace_unregister_region(terrace_client* client, terrace_region region, uint32_t timeout_ms);

/* Progress of gets into a region of a GPU: counters of 32 bits, one a slot
 * (terrace_part.progress_slot), which say how many layers have landed. They count where all blocks
 * of the part are copied together, that is, where they lay in DRAM.
 *
 * Waits until that many have, at most timeout_ms: TERRACE_OK, TERRACE_DEADLINE_EXCEEDED.
 * TERRACE_NOT_FOUND: the call has ended, and its completion says what became of it. */
TERRACE_API terrace_status terrace_wait_layers(terrace_client* client,
                                               uint64_t call_id,
                                               terrace_region region,
                                               uint32_t progress_slot,
                                               uint32_t layers,
                                               uint32_t timeout_ms);
/* A descriptor of the page that holds the counters, slot 1 first, for the caller to map and close:
 * a GPU that has it registered can wait for them by itself (cuStreamWaitValue32). Another one after
 * every reconnect. TERRACE_UNAVAILABLE: the region is not registered now. */
TERRACE_API terrace_status terrace_progress_page(terrace_client* client,
                                                 terrace_region region,
                                                 int* fd);

/* Staging: memory of the library (a memfd), registered as a region of block_count blocks of block_bytes, for buffers
 * that have no descriptor. *data points at block 0; blocks lie end to end at *stride bytes. */
TERRACE_API terrace_status terrace_staging_create(terrace_client* client, uint64_t block_bytes, uint32_t block_count,
                                                  terrace_region* region, void** data, uint64_t* stride);
/* Unregisters and unmaps. */
TERRACE_API terrace_status terrace_staging_destroy(terrace_client* client, terrace_region region, uint32_t timeout_ms);

/* ---------------------------------------------------------------- calls */

typedef struct terrace_part {
  uint32_t struct_bytes;
  terrace_namespace ns;
  terrace_rule rule;
  const void* salt;
  uint32_t salt_bytes;
  const void* keys;           /* key_count keys of key_bytes end to end */
  uint32_t key_bytes;         /* 16 to 64 */
  uint32_t key_count;
  uint64_t first_token;
  const uint32_t* end_tokens; /* NULL, or key_count rising positions */
  uint32_t window_tokens;
  terrace_region region;              /* get into and put from a region */
  const uint32_t* block_indexes;      /* key_count indexes into the region */
  const void*
      after_event; /* regions of GPUs: NULL, or TERRACE_CUDA_HANDLE_BYTES of cuIpcGetEventHandle: no
                      byte is copied before this event, which was recorded before the call */
  uint32_t progress_slot; /* get into a region of a GPU: 1 to 1,024, of the caller's choice, and of
                             no other get that runs; the library sets it to 0. 0: none */
} terrace_part;

typedef struct terrace_call {
  uint32_t struct_bytes;
  uint64_t tag;            /* handed back in the completion */
  uint32_t deadline_ms;    /* from now; 0: default_deadline_ms */
  const terrace_part* parts;
  uint32_t part_count;     /* put, delete, pin: exactly 1 */
  const void* request_id;
  uint32_t request_id_bytes;
} terrace_call;

/* deadline_ms is the caller's: at it the call completes with TERRACE_DEADLINE_EXCEEDED whatever the
 * daemon does. A lease in an answer that comes later is given back by itself. A get into or put
 * from a region that ends so is cancelled at the daemon, which may still be copying: don't reuse
 * its blocks before terrace_unregister_region has returned TERRACE_OK, or before a
 * terrace_submit_cancel of the call has completed with TERRACE_OK.
 *
 * Every submit that returns TERRACE_OK is followed by exactly one completion; *call_id (may be
 * NULL) names it for terrace_submit_cancel. Other results: nothing was submitted, no completion
 * follows; TERRACE_RESOURCE_EXHAUSTED: too many calls in flight. An absent daemon is no such
 * result: its completion comes with TERRACE_UNAVAILABLE. So does that of a call whose session has
 * ended, whoever ended it, and then nothing can touch its blocks any more. */
TERRACE_API terrace_status terrace_submit_probe(terrace_client* client, const terrace_call* call, uint32_t hold_ms,
                                                int prefetch, uint64_t* call_id);
/* deadline_ms also bounds the movement that the prefetch starts, up to 60,000; 0: 10,000. */
TERRACE_API terrace_status terrace_submit_prefetch(terrace_client* client, const terrace_call* call,
                                                   terrace_priority priority, uint32_t hold_ms, uint64_t* call_id);
TERRACE_API terrace_status terrace_submit_ticket(terrace_client* client, uint64_t ticket, uint32_t wait_ms, uint64_t tag,
                                                 uint64_t* call_id);

typedef enum terrace_delivery { TERRACE_DELIVER_LEASE = 2, TERRACE_DELIVER_REGION = 3 } terrace_delivery;
typedef struct terrace_get_options {
  uint32_t struct_bytes;
  terrace_delivery delivery;
  terrace_id128 hold;     /* zero: none */
  int32_t wait_pending;
} terrace_get_options;
TERRACE_API terrace_status terrace_submit_get(terrace_client* client, const terrace_call* call,
                                              const terrace_get_options* options, uint64_t* call_id);

typedef struct terrace_put_options {
  uint32_t struct_bytes;
  const uint32_t* payload_bytes;  /* NULL: block_bytes of the namespace; else key_count values */
  const void* parent;             /* key before the first; NULL: the first key begins a chain */
  uint32_t parent_bytes;
  terrace_level wait_for;         /* 0: TERRACE_LEVEL_DRAM */
  uint32_t output_tokens;         /* hints; 0 and NULL: unknown */
  const char* stop_reason;
  int32_t session_end;
  uint32_t expected_return_ms;
  uint64_t compute_us;            /* what computing the blocks took, alone */
} terrace_put_options;
/* From the part's region, or inline when part.region is 0 and `payload` holds the payloads end to end (3 MiB at most). */
TERRACE_API terrace_status terrace_submit_put(terrace_client* client, const terrace_call* call,
                                              const terrace_put_options* options, const void* payload,
                                              uint64_t payload_bytes, uint64_t* call_id);
/* Gives back at most 1,024 leases and 1,024 holds. tag 0: no completion is delivered. The leases end here at once, also
 * without a daemon: their data pointers are not valid any more. */
TERRACE_API terrace_status terrace_submit_release(terrace_client* client, const terrace_id128* leases,
                                                  uint32_t lease_count, const terrace_id128* holds, uint32_t hold_count,
                                                  uint64_t tag, uint64_t* call_id);
TERRACE_API terrace_status terrace_submit_delete(terrace_client* client, const terrace_call* call, uint64_t* call_id);
TERRACE_API terrace_status terrace_submit_clear_namespace(terrace_client* client, terrace_namespace ns,
                                                          uint32_t deadline_ms, uint64_t tag, uint64_t* call_id);
TERRACE_API terrace_status terrace_submit_pin(terrace_client* client, const terrace_call* call, uint32_t ttl_s,
                                              uint64_t* call_id);
TERRACE_API terrace_status terrace_submit_unpin(terrace_client* client, const terrace_call* call, uint64_t* call_id);
/* Cancels a call or (call 0) a ticket; the target completes too, when no copy can touch its memory
 * any more. A call that has expired here may still be named: the cancel completes with TERRACE_OK
 * when the daemon has let go of it, or, where its session is over, when nothing can touch its
 * memory any more. */
TERRACE_API terrace_status terrace_submit_cancel(terrace_client* client, uint64_t target_call_id, uint64_t ticket,
                                                 uint64_t tag, uint64_t* call_id);

/* ---------------------------------------------------------------- completions */

typedef enum terrace_verb {
  TERRACE_VERB_PROBE = 6, TERRACE_VERB_PREFETCH = 7, TERRACE_VERB_TICKET = 8, TERRACE_VERB_GET = 9,
  TERRACE_VERB_RELEASE = 10, TERRACE_VERB_PUT = 11, TERRACE_VERB_DELETE = 13, TERRACE_VERB_PIN = 14,
  TERRACE_VERB_UNPIN = 15, TERRACE_VERB_CANCEL = 16, TERRACE_VERB_CLEAR_NAMESPACE = 3
} terrace_verb;

typedef struct terrace_completion {
  uint64_t call_id;
  uint64_t tag;
  terrace_verb verb;
  terrace_status status;          /* not OK: per-key arrays say miss or not stored throughout */
  uint32_t key_count;             /* over all parts; length of the per-key arrays */
  const uint8_t* states;          /* probe: terrace_key_state (low 4 bits), tier index (high 4 bits) */
  const uint8_t* outcomes;        /* get: terrace_get_outcome; put: terrace_put_outcome */
  const uint8_t* reasons;         /* put, pin: terrace_reason */
  const uint8_t* levels;          /* put: terrace_level reached */
  const uint32_t* payload_bytes;  /* get */
  const void* const* data;        /* get by lease: the payload, read-only, until the lease is released; else NULL */
  terrace_id128 lease;            /* get by lease: for terrace_submit_release */
  uint32_t part_count;
  const uint32_t* part_hits;           /* probe */
  const uint32_t* part_boundary_keys;  /* probe */
  uint64_t boundary_tokens;
  uint64_t load_us;
  uint64_t hit_bytes;
  terrace_id128 hold;             /* probe, prefetch: zero: none */
  uint32_t hold_ms;
  uint64_t ticket;                /* probe, prefetch */
  uint32_t ticket_state;          /* ticket: 1 running, 2 done, 3 cancelled, 4 expired */
  uint32_t keys_total;
  uint32_t keys_arrived;
  uint32_t keys_failed;
  uint64_t bytes_arrived;
  uint32_t count;                 /* release: released; delete: deleted; unpin: unpinned; cancel: 1 found */
  uint64_t generation;            /* clear */
  const char* error;              /* "" when OK */
  uint64_t recompute_us;          /* probe: to compute what lies under boundary_tokens; 0: not known */
  uint64_t worth_tokens;          /* probe: up to here loading is worth it, at most boundary_tokens; 0: none of it is */
} terrace_completion;

/* For poll, epoll, asyncio: readable when terrace_drain has something to do. */
TERRACE_API int terrace_event_fd(terrace_client* client);
/* Moves work on and takes up to `max` completions, waiting at most timeout_ms for the first (0: not at all). Returns
 * their number. Each must go to terrace_completion_free. */
TERRACE_API uint32_t terrace_drain(terrace_client* client, terrace_completion** out, uint32_t max, uint32_t timeout_ms);
/* A completion of a get by lease does not release the lease. NULL is allowed. */
TERRACE_API void terrace_completion_free(terrace_completion* completion);

#ifdef __cplusplus
}
#endif

