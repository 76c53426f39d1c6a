/* libterrace: what a node holds, as it changes, for routers and whoever keeps a picture of it.
 *
 * A watch has a connection of its own, so that neither it nor the calls of a terrace_client ever wait for each other. It
 * is told of the blocks of the tenant that this process belongs to, in the node's DRAM and on its local drives; what lies
 * in pools is not told. It connects by itself, again and again, and goes on where it was: nothing is left out without
 * one of GAP, SNAPSHOT_BEGIN or DOWN before it.
 *
 *     terrace_watch_options options = {sizeof(options)};
 *     options.snapshots = 1;
 *     terrace_watch_open(&options, &watch);
 *     for (;;) {
 *       const terrace_event* events;
 *       uint32_t count = terrace_watch_next(watch, &events, 1000);
 *       ... SNAPSHOT_BEGIN: forget everything; STORED, MOVED, REMOVED, CLEARED: note it;
 *           DOWN: nothing of it can be had until UP
 *     }
 *
 * Threads: one at a time; the library has none of its own, so that nothing moves on but inside terrace_watch_next. Whoever
 * does not call it for long costs nobody anything, and is told of a GAP. In a child of fork terrace_watch_next returns 0,
 * and terrace_watch_close frees memory.
 */
#pragma once

#include "terrace/terrace.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct terrace_watch terrace_watch;

/* The first five as enum EventKind of cache.proto. */
typedef enum terrace_event_kind {
  TERRACE_EVENT_STORED = 1,  /* keys, of one chain, lie on `tier` now */
  TERRACE_EVENT_REMOVED = 2, /* keys lie nowhere on this node any more; `tier` is where they were last */
  TERRACE_EVENT_MOVED = 3,   /* keys are nearest on `tier` now */
  TERRACE_EVENT_CLEARED = 4, /* all of the namespace is gone */
  TERRACE_EVENT_GAP = 5,     /* something was not told: what was known may be wrong. With `snapshots` a snapshot
                                follows by itself */
  TERRACE_EVENT_SNAPSHOT_END = 7,
  /* The library's own. */
  TERRACE_EVENT_UP = 64,             /* the daemon answers; what follows goes on from before, or begins with GAP or
                                        SNAPSHOT_BEGIN */
  TERRACE_EVENT_DOWN = 65,           /* no daemon answers any more: nothing can be had from it until UP */
  TERRACE_EVENT_SNAPSHOT_BEGIN = 66, /* forget everything: what is held follows as STORED, up to SNAPSHOT_END */
  TERRACE_EVENT_NAMESPACE = 67       /* `record` and `family` of a namespace, before its first event of a connection */
} terrace_event_kind;

/* What does not belong to its kind is zero. */
typedef struct terrace_event {
  terrace_event_kind kind;
  uint32_t key_count;
  uint64_t publisher_id; /* of the daemon's life */
  uint64_t sequence;     /* of the tenant's events of that life */
  terrace_id128 ns;      /* digest of the namespace */
  const void* keys;      /* key_count of key_bytes, end to end; of STORED each the parent of the next */
  uint32_t key_bytes;
  uint32_t parent_bytes;
  const void* parent; /* STORED: the key before the first; NULL: a chain begins, or it is unknown */
  const void* salt;   /* of the keys; NULL: none */
  uint32_t salt_bytes;
  uint32_t block_tokens; /* STORED: that a block covers */
  uint64_t first_token;  /* STORED: position at which the first block begins */
  const char* tier;      /* as in the daemon's configuration; "g2" is DRAM */
  const terrace_namespace_record* record; /* NAMESPACE */
  terrace_id128 family;                   /* NAMESPACE: digest of those that differ in shard and group alone */
} terrace_event;

typedef struct terrace_watch_options {
  uint32_t struct_bytes;
  const char* runtime_dir; /* as in terrace_options, as are the next two */
  const char* client_name;
  uint32_t reconnect_ms;
  int32_t snapshots;           /* 1: a snapshot first, and one after each GAP */
  uint64_t publisher_id;       /* to go on where an earlier watch ended (terrace_watch_state): its publisher, */
  uint64_t after_sequence;     /* and sequence. 0: with `snapshots` by one, else from now on */
  const uint8_t* namespaces;   /* digests, 16 bytes each: only these. NULL: all of the tenant's */
  uint32_t namespace_count;    /* at most 1,024 */
  uint32_t heartbeat_ms;       /* the daemon says something at least so often, or counts as gone after three times
                                  that; 0: 1,000; at most 60,000 */
} terrace_watch_options;

/* Never waits for the daemon, which may be absent. *out is NULL unless TERRACE_OK. */
TERRACE_API terrace_status terrace_watch_open(const terrace_watch_options* options, terrace_watch** out);
/* NULL is allowed. */
TERRACE_API void terrace_watch_close(terrace_watch* watch);

/* Waits at most timeout_ms for events. Returns their number, of those that came together; 0: none came. *events and all
 * that they point to are the watch's, and valid until the next call. */
TERRACE_API uint32_t terrace_watch_next(terrace_watch* watch, const terrace_event** events, uint32_t timeout_ms);
/* For poll, epoll, asyncio: readable when terrace_watch_next has something to do, which need not be events. */
TERRACE_API int terrace_watch_event_fd(terrace_watch* watch);

typedef struct terrace_watch_state {
  uint32_t struct_bytes;
  terrace_connection connection; /* DOWN, CONNECTING or UP */
  uint64_t publisher_id;         /* to go on from here later: of all events that terrace_watch_next has returned; */
  uint64_t sequence;             /* 0: nothing to go on from */
  int32_t complete;              /* with `snapshots`: one has come to its end, and there was no GAP since */
  uint32_t reconnects;           /* connections that served after the first */
  char error[160];               /* why there is no connection; "": there is one, or it was not tried yet */
} terrace_watch_state;
TERRACE_API terrace_status terrace_watch_get_state(terrace_watch* watch, terrace_watch_state* out);

#ifdef __cplusplus
}
#endif
