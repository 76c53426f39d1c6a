// A session with one daemon, and a region from which blocks of one small size are put.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include <gtest/gtest.h>

#include "tools/bench/client_session.h"
#include "tools/bench/memory.h"
#include "tools/bench/payload.h"

namespace terrace {

class PoolClient {
 public:
  static constexpr uint32_t kBytes = 16 << 10;  // of a block
  static constexpr uint32_t kKeyBytes = 32;
  static constexpr uint32_t kMost = 64;  // keys of one call

  static std::string KeysOf(absl::Span<const uint64_t> names) {
    return bench::PayloadSource(0).Keys(names, kKeyBytes);
  }

  explicit PoolClient(std::string runtime_dir) : runtime_dir_(std::move(runtime_dir)) {
    absl::StatusOr<bench::SharedMemory> memory =
        bench::SharedMemory::Create(uint64_t{kMost} * kBytes);
    EXPECT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    indexes_.resize(kMost);
    std::iota(indexes_.begin(), indexes_.end(), 0U);
    Connect();
  }

  // A new session, as after the daemon's death.
  void Connect() {
    session_.reset();
    absl::StatusOr<std::unique_ptr<bench::ClientSession>> session =
        bench::ClientSession::Connect(runtime_dir_);
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    absl::StatusOr<terrace_namespace> ns = session_->OpenNamespace("clients", kBytes, 16);
    ASSERT_TRUE(ns.ok()) << ns.status();
    ns_ = *ns;
    absl::StatusOr<terrace_region> region = session_->RegisterRegion(memory_.fd(), kBytes, kMost);
    ASSERT_TRUE(region.ok()) << region.status();
    region_ = *region;
  }

  // Of these keys, with the bytes that `source` gives them. How many reached the level.
  absl::StatusOr<uint32_t> Put(const bench::PayloadSource& source,
                               std::string_view keys,
                               std::string_view parent,
                               terrace_level level) {
    const bench::KeyChain chain = ChainOf(keys);
    for (uint32_t i = 0; i < chain.count(); ++i) {
      source.Fill(chain.Key(i), memory_.bytes().subspan(size_t{i} * kBytes, kBytes));
    }
    absl::StatusOr<bench::Completion> put = session_->Put(chain, kBytes, parent, level);
    if (!put.ok()) {
      return put.status();
    }
    uint32_t reached = 0;
    for (uint32_t i = 0; i < chain.count(); ++i) {
      reached += (*put)->levels[i] >= level ? 1 : 0;
    }
    return reached;
  }

  // Hands out what is delivered of a prefix of these keys; how many that were.
  absl::StatusOr<uint32_t> Get(
      std::string_view keys,
      const std::function<void(std::string_view key, absl::Span<const char> payload)>& take) {
    const bench::KeyChain chain = ChainOf(keys);
    absl::StatusOr<bench::Completion> got =
        session_->GetLease(chain, {}, bench::ClientSession::Pending::kWait);
    if (!got.ok()) {
      return got.status();
    }
    const uint32_t delivered = bench::DeliveredPrefix(**got);
    for (uint32_t i = 0; i < delivered; ++i) {
      take(chain.Key(i), {static_cast<const char*>((*got)->data[i]), (*got)->payload_bytes[i]});
    }
    if (absl::Status status = session_->Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
    return delivered;
  }

 private:
  [[nodiscard]] bench::KeyChain ChainOf(std::string_view keys) const {
    bench::KeyChain chain;
    chain.ns = ns_;
    chain.keys = keys;
    chain.key_bytes = kKeyBytes;
    chain.region = region_;
    chain.block_indexes = absl::MakeConstSpan(indexes_).first(keys.size() / kKeyBytes);
    return chain;
  }

  const std::string runtime_dir_;
  bench::SharedMemory memory_;
  std::vector<uint32_t> indexes_;
  std::unique_ptr<bench::ClientSession> session_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
};

}  // namespace terrace
