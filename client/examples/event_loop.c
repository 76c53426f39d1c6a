/* The C ABI in an event loop: submit, poll the event descriptor, drain. Nothing here waits for the
 * daemon. */
#include <poll.h>

#include <stdio.h>
#include <string.h>
#include <terrace/terrace.h>

enum { kBlockBytes = 4096, kTagPut = 1, kTagGet = 2 };

static terrace_status Submit(terrace_client* client,
                             terrace_namespace ns,
                             const char* key,
                             uint64_t tag,
                             const char* payload) {
  terrace_part part;
  terrace_call call;
  memset(&part, 0, sizeof(part));
  part.struct_bytes = sizeof(part);
  part.ns = ns;
  part.rule = TERRACE_RULE_PREFIX;
  part.keys = key;
  part.key_bytes = 32;
  part.key_count = 1;
  memset(&call, 0, sizeof(call));
  call.struct_bytes = sizeof(call);
  call.tag = tag;
  call.deadline_ms = 2000;
  call.parts = &part;
  call.part_count = 1;
  if (tag == kTagPut) {
    return terrace_submit_put(client, &call, NULL, payload, kBlockBytes, NULL);
  }
  {
    terrace_get_options options;
    memset(&options, 0, sizeof(options));
    options.struct_bytes = sizeof(options);
    options.delivery = TERRACE_DELIVER_LEASE;
    return terrace_submit_get(client, &call, &options, NULL);
  }
}

int main(void) {
  static const char key[33] = "0123456789abcdef0123456789abcdef";
  char payload[kBlockBytes];
  terrace_client* client = NULL;
  terrace_namespace ns = 0;
  terrace_namespace_record record;
  struct pollfd polled;
  int running = 1;
  int result = 0;

  memset(payload, 'p', sizeof(payload));
  memset(&record, 0, sizeof(record));
  record.struct_bytes = sizeof(record);
  record.model = "example/model";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "example/1";
  record.hash_algorithm = "none";
  record.block_tokens = 16;
  record.block_bytes = kBlockBytes;
  if (terrace_open(NULL, &client) != TERRACE_OK ||
      terrace_open_namespace(client, &record, &ns) != TERRACE_OK ||
      Submit(client, ns, key, kTagPut, payload) != TERRACE_OK) {
    fprintf(stderr, "%s\n", terrace_last_error());
    terrace_close(client);
    return 1;
  }

  polled.fd = terrace_event_fd(client);
  polled.events = POLLIN;
  while (running) {
    terrace_completion* done[8];
    uint32_t count;
    uint32_t i;
    poll(&polled, 1, -1); /* an engine polls its own descriptors here too */
    count = terrace_drain(client, done, 8, 0);
    for (i = 0; i < count; ++i) {
      const int hit = done[i]->status == TERRACE_OK && done[i]->key_count == 1;
      if (done[i]->tag == kTagPut) {
        printf("put: %s\n",
               hit && done[i]->outcomes[0] != TERRACE_PUT_NONE ? "answered" : "not stored");
        running = Submit(client, ns, key, kTagGet, NULL) == TERRACE_OK;
      } else if (done[i]->tag == kTagGet) {
        if (hit && done[i]->outcomes[0] == TERRACE_GET_OK) {
          const int same = memcmp(done[i]->data[0], payload, kBlockBytes) == 0;
          printf("get: %s\n", same ? "the same bytes" : "other bytes");
          result = same ? 0 : 1;
          terrace_submit_release(client, &done[i]->lease, 1, NULL, 0, 0, NULL);
        } else {
          printf("get: a miss\n");
        }
        running = 0;
      }
      terrace_completion_free(done[i]);
    }
  }
  terrace_close(client);
  return result;
}
