// The least that works: store one block, read it in place. Without a daemon the read is a miss and
// nothing else happens.
#include <cstdio>
#include <string>

#include <terrace/terrace.hpp>

int main() {
  terrace_namespace_record record{};
  record.model = "example/model";
  record.weights_revision = "1";
  record.kv_dtype = "bf16";
  record.layout = "example/1";
  record.hash_algorithm = "none";
  record.block_tokens = 16;
  record.block_bytes = 4096;
  const std::string key(32, 'k');
  const std::string block(4096, 'b');

  auto client = terrace::Client::Open();
  auto ns = client.OpenNamespace(record);
  auto put = client.Put(terrace::Part(ns, key), block);
  auto get = client.Get(terrace::Part(ns, key));
  bool same = get.payload(0) == block;

  std::printf("stored: %s, read back: %s\n", put.stored(0) ? "yes" : "no",
              same         ? "the same bytes"
              : get.hit(0) ? "other bytes"
                           : "a miss");
  return get.hit(0) && !same ? 1 : 0;
}
