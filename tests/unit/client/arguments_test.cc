// Bad arguments are refused before anything is sent, and terrace_last_error names field and limit.
#include <functional>

#include "tests/unit/client/client_case.h"

namespace terrace::testing {
namespace {

class Arguments : public LonelyClientCase {
 protected:
  void SetUp() override {
    LonelyClientCase::SetUp();
    client_ = Open();
    ns_ = OpenNamespace();
    keys_ = Keys("k", 2);
    part_ = PartOf(ns_, keys_);
  }
  void ExpectRefused(terrace_status status, const std::string& field) {
    EXPECT_EQ(status, TERRACE_INVALID_ARGUMENT) << field;
    EXPECT_EQ(std::string(terrace_last_error()).rfind(field, 0), 0U)
        << "says: " << terrace_last_error() << ", expected: " << field;
    EXPECT_EQ(Peek(), nullptr) << "no completion follows";
  }
  terrace_status Probe(const terrace_part& part) {
    const terrace_call call = CallOf(part);
    return terrace_submit_probe(client_, &call, 0, 0, nullptr);
  }
  void ExpectPartRefused(const std::function<void(terrace_part*)>& change,
                         const std::string& field) {
    terrace_part part = part_;
    change(&part);
    ExpectRefused(Probe(part), field);
  }
  void ExpectRecordRefused(const std::function<void(terrace_namespace_record*)>& change,
                           const std::string& field) {
    terrace_namespace_record record = Record();
    change(&record);
    terrace_namespace ns = 0;
    ExpectRefused(terrace_open_namespace(client_, &record, &ns), field);
  }
  void ExpectRegionRefused(const std::function<void(terrace_region_spec*)>& change,
                           const std::string& field) {
    terrace_region_spec spec{};
    spec.struct_bytes = sizeof(spec);
    spec.fd = 0;
    spec.bytes = 8192;
    spec.block_count = 2;
    spec.block_bytes = 4096;
    change(&spec);
    terrace_region region = 0;
    ExpectRefused(terrace_register_region(client_, &spec, &region), field);
  }
  void ExpectPutRefused(const std::function<void(terrace_put_options*)>& change,
                        const std::string& payload,
                        const std::string& field) {
    terrace_put_options options{};
    options.struct_bytes = sizeof(options);
    change(&options);
    const terrace_call call = CallOf(part_);
    ExpectRefused(
        terrace_submit_put(client_, &call, &options, payload.data(), payload.size(), nullptr),
        field);
  }
  terrace_namespace ns_ = 0;
  std::string keys_;
  terrace_part part_{};
};

TEST_F(Arguments, OptionsAreChecked) {
  terrace_client* client = nullptr;
  terrace_options options{};
  ExpectRefused(terrace_open(&options, &client), "struct_bytes");
  options.struct_bytes = sizeof(options);
  const std::string long_folder(120, 'x');
  options.runtime_dir = long_folder.c_str();
  ExpectRefused(terrace_open(&options, &client), "runtime_dir");
  options.runtime_dir = nullptr;
  for (const char* name : {"", "with space", "\xc3\xa4", "slash/"}) {
    options.client_name = name;
    ExpectRefused(terrace_open(&options, &client), "client_name");
  }
  const std::string long_name(65, 'n');
  options.client_name = long_name.c_str();
  ExpectRefused(terrace_open(&options, &client), "client_name");
  options.client_name = nullptr;
  options.spin_us = 1001;
  ExpectRefused(terrace_open(&options, &client), "spin_us");
  ExpectRefused(terrace_open(nullptr, nullptr), "out");
  EXPECT_EQ(client, nullptr);
}

TEST_F(Arguments, NullIsNeverFollowed) {
  const terrace_call call = CallOf(part_);
  const terrace_namespace_record record = Record();
  terrace_namespace ns = 0;
  terrace_region region = 0;
  void* memory = nullptr;
  uint64_t stride = 0;
  terrace_client_state state{};
  ExpectRefused(terrace_submit_probe(nullptr, &call, 0, 0, nullptr), "client");
  ExpectRefused(terrace_submit_probe(client_, nullptr, 0, 0, nullptr), "struct_bytes");
  ExpectRefused(terrace_submit_get(client_, &call, nullptr, nullptr), "struct_bytes");
  ExpectRefused(terrace_submit_release(nullptr, nullptr, 0, nullptr, 0, 0, nullptr), "client");
  ExpectRefused(terrace_submit_release(client_, nullptr, 1, nullptr, 0, 0, nullptr), "leases");
  ExpectRefused(terrace_submit_release(client_, nullptr, 0, nullptr, 1, 0, nullptr), "holds");
  ExpectRefused(terrace_open_namespace(nullptr, &record, &ns), "client");
  ExpectRefused(terrace_open_namespace(client_, nullptr, &ns), "struct_bytes");
  ExpectRefused(terrace_open_namespace(client_, &record, nullptr), "client, out");
  ExpectRefused(terrace_register_region(client_, nullptr, &region), "struct_bytes");
  ExpectRefused(terrace_unregister_region(nullptr, 1, 0), "client");
  ExpectRefused(terrace_staging_create(client_, 1, 1, &region, nullptr, &stride),
                "client, region, data");
  ExpectRefused(terrace_staging_create(nullptr, 1, 1, &region, &memory, &stride), "client, region");
  ExpectRefused(terrace_state(client_, nullptr), "out");
  ExpectRefused(terrace_state(client_, &state), "out");
  ExpectRefused(terrace_wait_connected(nullptr, 0), "client");
  ExpectRefused(terrace_submit_cancel(nullptr, 1, 0, 0, nullptr), "client");
  EXPECT_EQ(terrace_event_fd(nullptr), -1);
  EXPECT_EQ(terrace_drain(nullptr, nullptr, 0, 0), 0U);
  EXPECT_EQ(terrace_drain(client_, nullptr, 1, 0), 0U);
  terrace_close(nullptr);
  terrace_completion_free(nullptr);
}

TEST_F(Arguments, PartsAreChecked) {
  ExpectPartRefused([](terrace_part* p) { p->struct_bytes = 0; }, "struct_bytes");
  ExpectPartRefused([](terrace_part* p) { p->ns = 0; }, "parts.ns");
  ExpectPartRefused([](terrace_part* p) { p->ns = 99; }, "parts.ns");
  ExpectPartRefused([](terrace_part* p) { p->key_bytes = 15; }, "parts.key_bytes");
  ExpectPartRefused([](terrace_part* p) { p->key_bytes = 65; }, "parts.key_bytes");
  ExpectPartRefused([](terrace_part* p) { p->key_count = 16385; }, "parts: more than 16384 keys");
  ExpectPartRefused([](terrace_part* p) { p->keys = nullptr; }, "parts.keys");
  ExpectPartRefused(
      [](terrace_part* p) {
        p->salt = "s";
        p->salt_bytes = 257;
      },
      "parts.salt");
  ExpectPartRefused([](terrace_part* p) { p->salt_bytes = 1; }, "parts.salt");
  ExpectPartRefused([](terrace_part* p) { p->rule = static_cast<terrace_rule>(5); }, "parts.rule");
  ExpectPartRefused([](terrace_part* p) { p->rule = TERRACE_RULE_WINDOW; }, "parts.window_tokens");
  ExpectPartRefused([](terrace_part* p) { p->window_tokens = 1; }, "parts.window_tokens");
  static const uint32_t falling[] = {5, 5};
  ExpectPartRefused([](terrace_part* p) { p->end_tokens = falling; }, "parts.end_tokens");
}

TEST_F(Arguments, CallsAreChecked) {
  terrace_call call = CallOf(part_);
  call.struct_bytes = 0;
  ExpectRefused(terrace_submit_probe(client_, &call, 0, 0, nullptr), "struct_bytes");
  call = CallOf(part_);
  call.part_count = 0;
  ExpectRefused(terrace_submit_probe(client_, &call, 0, 0, nullptr), "parts: must be 1 to 64");
  const std::vector<terrace_part> many(65, part_);
  call.parts = many.data();
  call.part_count = 65;
  ExpectRefused(terrace_submit_probe(client_, &call, 0, 0, nullptr), "parts: must be 1 to 64");
  call.part_count = 2;
  ExpectRefused(terrace_submit_delete(client_, &call, nullptr), "parts: must be 1 to 1");
  ExpectRefused(terrace_submit_pin(client_, &call, 0, nullptr), "parts: must be 1 to 1");
  ExpectRefused(terrace_submit_unpin(client_, &call, nullptr), "parts: must be 1 to 1");
  call = CallOf(part_);
  call.request_id = "x";
  call.request_id_bytes = 65;
  ExpectRefused(terrace_submit_probe(client_, &call, 0, 0, nullptr), "request_id");
  // As a caller in C could: the number is no value of the enum.
  const auto prefetch =
      reinterpret_cast<terrace_status (*)(terrace_client*, const terrace_call*, uint32_t, uint32_t,
                                          uint64_t*)>(&terrace_submit_prefetch);
  ExpectRefused(prefetch(client_, &call, 77, 0, nullptr), "priority");
  ExpectRefused(terrace_submit_ticket(client_, 0, 0, 0, nullptr), "ticket");
  ExpectRefused(terrace_submit_ticket(client_, 1, 10001, 0, nullptr), "ticket");
  ExpectRefused(terrace_submit_cancel(client_, 0, 0, 0, nullptr), "target_call_id");
  ExpectRefused(terrace_submit_cancel(client_, 1, 1, 0, nullptr), "target_call_id");
  ExpectRefused(terrace_submit_clear_namespace(client_, 99, 0, 0, nullptr), "ns");
}

TEST_F(Arguments, KeysCountOverAllParts) {
  const std::string keys = Keys("k", 9000);
  const std::vector<terrace_part> parts(2, PartOf(ns_, keys));
  terrace_call call = CallOf(parts[0]);
  call.parts = parts.data();
  call.part_count = 2;
  ExpectRefused(terrace_submit_probe(client_, &call, 0, 0, nullptr), "parts: more than 16384 keys");
}

TEST_F(Arguments, GetsAndPutsAreChecked) {
  terrace_get_options options = Delivery(static_cast<terrace_delivery>(1));
  const terrace_call call = CallOf(part_);
  ExpectRefused(terrace_submit_get(client_, &call, &options, nullptr), "delivery");
  options = Delivery(TERRACE_DELIVER_REGION);
  ExpectRefused(terrace_submit_get(client_, &call, &options, nullptr), "parts.region");
  terrace_part in_region = part_;
  in_region.region = 5;
  const terrace_call region_call = CallOf(in_region);
  ExpectRefused(terrace_submit_get(client_, &region_call, &options, nullptr),
                "parts.block_indexes");
  const uint32_t blocks[] = {0, 1};
  in_region.block_indexes = blocks;
  const terrace_call unknown_region = CallOf(in_region);
  ExpectRefused(terrace_submit_get(client_, &unknown_region, &options, nullptr),
                "parts.region: not a region");
  ExpectRefused(terrace_submit_put(client_, &call, nullptr, nullptr, 0, nullptr), "parts.region");
  ExpectPutRefused([](terrace_put_options* o) { o->struct_bytes = 0; }, "p", "struct_bytes");
  ExpectPutRefused(
      [](terrace_put_options* o) {
        o->parent_bytes = 65;
        o->parent = "p";
      },
      "p", "parent");
  ExpectPutRefused([](terrace_put_options* o) { o->parent_bytes = 32; }, "p", "parent");
  ExpectPutRefused([](terrace_put_options* o) { o->wait_for = static_cast<terrace_level>(6); }, "p",
                   "wait_for");
  ExpectPutRefused(
      [](terrace_put_options* o) { o->stop_reason = "123456789012345678901234567890123"; }, "p",
      "stop_reason");
  static const uint32_t sizes[] = {1, 1};
  ExpectPutRefused([](terrace_put_options* o) { o->payload_bytes = sizes; }, "ppp",
                   "payload_bytes");
  ExpectPutRefused([](terrace_put_options*) {}, std::string((3 << 20) + 1, 'p'), "payload");
}

TEST_F(Arguments, RecordsAreChecked) {
  using R = terrace_namespace_record;
  static const std::string long_text(257, 'x');
  ExpectRecordRefused([](R* r) { r->struct_bytes = 0; }, "struct_bytes");
  ExpectRecordRefused([](R* r) { r->model = nullptr; }, "model: required");
  ExpectRecordRefused([](R* r) { r->model = long_text.c_str(); }, "model: longer than 256");
  ExpectRecordRefused([](R* r) { r->weights_revision = ""; }, "weights_revision");
  ExpectRecordRefused([](R* r) { r->kv_dtype = ""; }, "kv_dtype");
  ExpectRecordRefused([](R* r) { r->layout = ""; }, "layout");
  ExpectRecordRefused([](R* r) { r->hash_algorithm = ""; }, "hash_algorithm");
  ExpectRecordRefused([](R* r) { r->parallel = long_text.c_str(); }, "parallel");
  ExpectRecordRefused([](R* r) { r->block_tokens = 65537; }, "block_tokens");
  ExpectRecordRefused([](R* r) { r->block_bytes = 0; }, "block_bytes");
  ExpectRecordRefused([](R* r) { r->block_bytes = (64U << 20) + 1; }, "block_bytes");
  ExpectRecordRefused([](R* r) { r->group = 256; }, "group");
  ExpectRecordRefused([](R* r) { r->shard_count = 4097; }, "shard_count");
  ExpectRecordRefused([](R* r) { r->shard_rank = 1; }, "shard_rank");
  ExpectRecordRefused([](R* r) { r->sharding = 4; }, "sharding");
  ExpectRecordRefused(
      [](R* r) {
        r->sharding = 2;
        r->shard_count = 4;
        r->shard_rank = 1;
      },
      "shard_rank");
  ExpectRecordRefused([](R* r) { r->key_suffix_bytes = 4; }, "key_suffix");
  ExpectRecordRefused([](R* r) { r->label_count = 1; }, "labels");
  static const terrace_label twice[] = {{"a", "1"}, {"a", "2"}};
  ExpectRecordRefused(
      [](R* r) {
        r->labels = twice;
        r->label_count = 2;
      },
      "labels: the same key twice");
  static const terrace_label null_label[] = {{"a", nullptr}};
  ExpectRecordRefused(
      [](R* r) {
        r->labels = null_label;
        r->label_count = 1;
      },
      "labels");
}

TEST_F(Arguments, RegionsAreChecked) {
  using S = terrace_region_spec;
  ExpectRegionRefused([](S* s) { s->struct_bytes = 0; }, "struct_bytes");
  ExpectRegionRefused([](S* s) { s->fd = -1; }, "fd");
  ExpectRegionRefused([](S* s) { s->fd = 1'000'000; }, "fd");
  ExpectRegionRefused([](S* s) { s->offset = 1; }, "offset");
  ExpectRegionRefused([](S* s) { s->bytes = 0; }, "bytes");
  ExpectRegionRefused([](S* s) { s->bytes = 8191; }, "bytes");
  ExpectRegionRefused([](S* s) { s->block_count = 0; }, "block_count");
  ExpectRegionRefused([](S* s) { s->block_bytes = 0; }, "block_bytes");
  static const terrace_plane no_segments[] = {{0, 0, nullptr, 1}};
  ExpectRegionRefused(
      [](S* s) {
        s->planes = no_segments;
        s->plane_count = 1;
      },
      "planes.segment_count");
  ExpectRegionRefused(
      [](S* s) {
        s->planes = no_segments;
        s->plane_count = 0;
      },
      "plane_count");
  static const terrace_segment empty[] = {{0, 0}};
  static const terrace_plane empty_plane[] = {{0, 0, empty, 1}};
  ExpectRegionRefused(
      [](S* s) {
        s->planes = empty_plane;
        s->plane_count = 1;
      },
      "planes.segments.bytes");
  terrace_region region = 0;
  void* memory = nullptr;
  uint64_t stride = 0;
  ExpectRefused(terrace_staging_create(client_, 0, 1, &region, &memory, &stride), "block_bytes");
  ExpectRefused(terrace_staging_create(client_, 1, 0, &region, &memory, &stride), "block_count");
  EXPECT_EQ(terrace_unregister_region(client_, 77, 0), TERRACE_NOT_FOUND);
}

TEST_F(Arguments, StagingThatNoMemoryCanHoldIsRefusedHere) {
  terrace_region region = 0;
  void* memory = nullptr;
  uint64_t stride = 0;
  EXPECT_EQ(terrace_staging_create(client_, 64U << 20, 1U << 20, &region, &memory, &stride),
            TERRACE_RESOURCE_EXHAUSTED)
      << "64 TiB";
  EXPECT_EQ(memory, nullptr);
}

TEST_F(Arguments, EqualRecordsAreOneNamespace) {
  const terrace_namespace first = OpenNamespace("a");
  EXPECT_EQ(OpenNamespace("a"), first);
  EXPECT_NE(OpenNamespace("b"), first);
}

TEST_F(Arguments, NamespacesAreBounded) {
  terrace_status status = TERRACE_OK;
  int opened = 1;
  for (; status == TERRACE_OK && opened < 2000; ++opened) {
    const std::string model = "model-" + std::to_string(opened);
    const terrace_namespace_record record = Record(model.c_str());
    terrace_namespace ns = 0;
    status = terrace_open_namespace(client_, &record, &ns);
  }
  EXPECT_EQ(status, TERRACE_RESOURCE_EXHAUSTED);
  EXPECT_EQ(opened, 1025);
}

// A caller that was compiled with an older header passes shorter structs, and its parts lie closer
// together.
TEST_F(Arguments, ShorterStructsOfAnOlderHeaderAreUnderstood) {
  struct OldPart {
    uint32_t struct_bytes;
    terrace_namespace ns;
    terrace_rule rule;
    const void* salt;
    uint32_t salt_bytes;
    const void* keys;
    uint32_t key_bytes;
    uint32_t key_count;
  };
  static_assert(offsetof(OldPart, key_count) == offsetof(terrace_part, key_count));
  const std::string first = Keys("a", 3);
  const std::string second = Keys("b", 4);
  const OldPart parts[] = {
      {sizeof(OldPart), ns_, TERRACE_RULE_PREFIX, nullptr, 0, first.data(), 32, 3},
      {sizeof(OldPart), ns_, TERRACE_RULE_PREFIX, nullptr, 0, second.data(), 32, 4},
  };
  terrace_call call = CallOf(part_);
  call.parts = reinterpret_cast<const terrace_part*>(parts);
  call.part_count = 2;
  ASSERT_EQ(terrace_submit_probe(client_, &call, 0, 0, nullptr), TERRACE_OK)
      << terrace_last_error();
  const Completed probe = Peek();
  EXPECT_EQ(probe->part_count, 2U);
  EXPECT_EQ(probe->key_count, 7U);

  terrace_client_state state;
  std::memset(&state, 0xee, sizeof(state));
  state.struct_bytes = 16;
  ASSERT_EQ(terrace_state(client_, &state), TERRACE_OK);
  EXPECT_EQ(state.connection, TERRACE_CONNECTION_DOWN);
  EXPECT_EQ(state.reconnects, 0xeeeeeeeeU) << "behind the caller's struct";
}

TEST_F(Arguments, ErrorsBelongToTheirThread) {
  ExpectPartRefused([](terrace_part* p) { p->ns = 0; }, "parts.ns");
  std::string other;
  std::thread([&] { other = terrace_last_error(); }).join();
  EXPECT_EQ(other, "");
  EXPECT_STREQ(terrace_version(), TERRACE_TEST_VERSION);
}

}  // namespace
}  // namespace terrace::testing
