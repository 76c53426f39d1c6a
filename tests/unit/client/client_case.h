// What the tests of libterrace share: a scripted daemon on a private folder, a client of it, and
// calls written in one line.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "terrace/terrace.h"
#include <gtest/gtest.h>
#include <stdlib.h>

#include "tests/doubles/scripted_server.h"

namespace terrace::testing {

struct FreeCompletion {
  void operator()(terrace_completion* completion) const { terrace_completion_free(completion); }
};
using Completed = std::unique_ptr<terrace_completion, FreeCompletion>;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "terrace-client-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data()) == nullptr ? "" : pattern;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// `count` keys of 32 bytes that begin with `name`.
inline std::string Keys(const std::string& name, uint32_t count, uint32_t key_bytes = 32) {
  std::string keys;
  for (uint32_t i = 0; i < count; ++i) {
    std::string key = name + "#" + std::to_string(i);
    key.resize(key_bytes, '.');
    keys += key;
  }
  return keys;
}

class ClientCase : public ::testing::Test {
 protected:
  static constexpr uint32_t kBlockBytes = 4096;
  static constexpr uint32_t kPatienceMs = 30'000;

  void SetUp() override {
    ASSERT_FALSE(folder_.path().empty());
    if (server_wanted_) {
      server_ = std::make_unique<ScriptedServer>(folder_.path());
    }
  }
  // Scripts use what the test has; none runs on when that goes.
  void TearDown() override {
    terrace_close(client_);
    if (server_ != nullptr) {
      server_->Stop();
    }
  }

  terrace_client* Open(uint32_t reconnect_ms = 20, uint32_t default_deadline_ms = kPatienceMs) {
    terrace_options options{};
    options.struct_bytes = sizeof(options);
    options.runtime_dir = folder_.path().c_str();
    options.reconnect_ms = reconnect_ms;
    options.default_deadline_ms = default_deadline_ms;
    options.slabs = slabs_;
    terrace_client* client = nullptr;
    EXPECT_EQ(terrace_open(&options, &client), TERRACE_OK) << terrace_last_error();
    return client;
  }
  void OpenConnected(uint32_t reconnect_ms = 20) {
    client_ = Open(reconnect_ms);
    ASSERT_EQ(terrace_wait_connected(client_, kPatienceMs), TERRACE_OK) << terrace_last_error();
  }

  static terrace_namespace_record Record(const char* model = "model") {
    terrace_namespace_record record{};
    record.struct_bytes = sizeof(record);
    record.model = model;
    record.weights_revision = "r1";
    record.kv_dtype = "bf16";
    record.layout = "test/1";
    record.hash_algorithm = "none";
    record.block_tokens = 16;
    record.block_bytes = kBlockBytes;
    return record;
  }
  terrace_namespace OpenNamespace(const char* model = "model") {
    const terrace_namespace_record record = Record(model);
    terrace_namespace ns = 0;
    EXPECT_EQ(terrace_open_namespace(client_, &record, &ns), TERRACE_OK) << terrace_last_error();
    return ns;
  }

  static terrace_part PartOf(terrace_namespace ns,
                             const std::string& keys,
                             uint32_t key_bytes = 32) {
    terrace_part part{};
    part.struct_bytes = sizeof(part);
    part.ns = ns;
    part.rule = TERRACE_RULE_PREFIX;
    part.keys = keys.data();
    part.key_bytes = key_bytes;
    part.key_count = static_cast<uint32_t>(keys.size() / key_bytes);
    return part;
  }
  terrace_call CallOf(const terrace_part& part, uint32_t deadline_ms = 0) {
    terrace_call call{};
    call.struct_bytes = sizeof(call);
    call.tag = ++tag_;
    call.deadline_ms = deadline_ms;
    call.parts = &part;
    call.part_count = 1;
    return call;
  }
  static terrace_get_options Delivery(terrace_delivery delivery) {
    terrace_get_options options{};
    options.struct_bytes = sizeof(options);
    options.delivery = delivery;
    return options;
  }

  uint64_t SubmitProbe(terrace_namespace ns, const std::string& keys, uint32_t deadline_ms = 0) {
    const terrace_part part = PartOf(ns, keys);
    const terrace_call call = CallOf(part, deadline_ms);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_probe(client_, &call, 0, 0, &id), TERRACE_OK) << terrace_last_error();
    return id;
  }
  uint64_t SubmitLeaseGet(terrace_namespace ns, const std::string& keys, uint32_t deadline_ms = 0) {
    const terrace_part part = PartOf(ns, keys);
    const terrace_call call = CallOf(part, deadline_ms);
    const terrace_get_options options = Delivery(TERRACE_DELIVER_LEASE);
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_get(client_, &call, &options, &id), TERRACE_OK)
        << terrace_last_error();
    return id;
  }
  uint64_t SubmitPut(terrace_namespace ns,
                     const std::string& keys,
                     const std::string& payload,
                     uint32_t deadline_ms = 0) {
    const terrace_part part = PartOf(ns, keys);
    const terrace_call call = CallOf(part, deadline_ms);
    const std::vector<uint32_t> sizes(part.key_count,
                                      static_cast<uint32_t>(payload.size() / part.key_count));
    terrace_put_options options{};
    options.struct_bytes = sizeof(options);
    options.payload_bytes = sizes.data();
    uint64_t id = 0;
    EXPECT_EQ(terrace_submit_put(client_, &call, &options, payload.data(), payload.size(), &id),
              TERRACE_OK)
        << terrace_last_error();
    return id;
  }

  // The next completion, within kPatienceMs.
  Completed Next() {
    terrace_completion* completion = nullptr;
    EXPECT_EQ(terrace_drain(client_, &completion, 1, kPatienceMs), 1U);
    return Completed(completion);
  }
  // What is there now.
  Completed Peek() {
    terrace_completion* completion = nullptr;
    terrace_drain(client_, &completion, 1, 0);
    return Completed(completion);
  }
  Completed Probe(terrace_namespace ns, const std::string& keys) {
    SubmitProbe(ns, keys);
    return Next();
  }
  Completed LeaseGet(terrace_namespace ns, const std::string& keys) {
    SubmitLeaseGet(ns, keys);
    return Next();
  }
  Completed Put(terrace_namespace ns, const std::string& keys, const std::string& payload) {
    SubmitPut(ns, keys, payload);
    return Next();
  }
  terrace_status Release(const terrace_id128& lease) {
    return terrace_submit_release(client_, &lease, 1, nullptr, 0, 0, nullptr);
  }

  terrace_client_state State() {
    terrace_client_state state{};
    state.struct_bytes = sizeof(state);
    EXPECT_EQ(terrace_state(client_, &state), TERRACE_OK);
    return state;
  }
  // Moves work on until the condition holds; completions that come up meanwhile are dropped.
  bool Advance(const std::function<bool()>& condition) {
    return ScriptedServer::Eventually([&] {
      Peek();
      return condition();
    });
  }
  static bool Readable(int fd, int timeout_ms) {
    pollfd polled{fd, POLLIN, 0};
    return ::poll(&polled, 1, timeout_ms) == 1;
  }
  // Whether this descriptor number or address range is still there is asked of the kernel.
  static size_t OpenDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  TemporaryFolder folder_;
  bool server_wanted_ = true;
  std::unique_ptr<ScriptedServer> server_;
  terrace_client* client_ = nullptr;
  terrace_slab_watch slabs_{};  // of clients that are opened later
  uint64_t tag_ = 0;
};

// No daemon at first.
class LonelyClientCase : public ClientCase {
 protected:
  LonelyClientCase() { server_wanted_ = false; }
};

}  // namespace terrace::testing
