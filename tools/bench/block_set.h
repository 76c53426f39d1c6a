// Blocks of known content in a daemon, and a region to put them from and get them into. What the
// scenarios on fixed sets of blocks share. Confined to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/client_session.h"
#include "tools/bench/memory.h"
#include "tools/bench/payload.h"
#include "tools/bench/report.h"

namespace terrace::bench {

inline constexpr uint32_t kBenchKeyBytes = 36;  // as vLLM's: a 32-byte hash and a 4-byte group
inline constexpr uint32_t kBenchBlockTokens = 16;

class BlockSet {
 public:
  struct Options {
    std::string name;  // of the namespace: sets of one name hold the same blocks
    uint64_t seed = 1;
    uint64_t first =
        0;  // number of the first block: sets of one name with other numbers hold others
    uint32_t count = 0;
    uint64_t block_bytes = 0;
  };
  // `session` must outlive the set. Registers a region of `count` blocks, filled with the set's
  // content; it is the session's until the set ends.
  static absl::StatusOr<std::unique_ptr<BlockSet>> Create(ClientSession& session,
                                                          const Options& options);
  ~BlockSet();
  BlockSet(const BlockSet&) = delete;
  BlockSet& operator=(const BlockSet&) = delete;

  // Becomes a set of other blocks, from number `first` on, in the same region: as an engine, whose
  // region lives as long as itself.
  void Renew(uint64_t first);

  // `count` blocks from `begin` as a chain whose place in the region is where Create put them.
  [[nodiscard]] KeyChain Chain(uint32_t begin, uint32_t count) const;
  // The content that the set's blocks have, as Create left it, unless something was got into the
  // region.
  [[nodiscard]] absl::Span<char> Place(uint32_t i) const;
  // Writes the content of all blocks into the region.
  void Fill();

  // Puts blocks from the region; an error unless all are stored.
  absl::Status Put(uint32_t begin, uint32_t count, terrace_level wait_for = TERRACE_LEVEL_DRAM);
  // Puts blocks that are stored already, so that they reach the level; an error unless all do.
  absl::Status Raise(uint32_t begin, uint32_t count, terrace_level level);
  absl::Status Delete(uint32_t begin, uint32_t count);
  // Gets all blocks by lease, some at a time, and compares every byte. What is missing is an error
  // of the report.
  absl::Status Verify(Report& report);
  // Wrong bytes of what was delivered as block `i`.
  [[nodiscard]] uint64_t WrongBytes(uint32_t i, absl::Span<const char> payload) const {
    return source_.WrongBytes(Key(i), payload);
  }
  // Wrong bytes in the place of block `i` in the region.
  [[nodiscard]] uint64_t WrongBytesInRegion(uint32_t i) const;

  [[nodiscard]] uint32_t count() const { return options_.count; }
  [[nodiscard]] uint64_t block_bytes() const { return options_.block_bytes; }
  [[nodiscard]] uint64_t bytes() const { return options_.block_bytes * options_.count; }
  // Blocks that one get by lease may ask for, so that it stays well below the session's limit.
  [[nodiscard]] uint32_t lease_batch() const { return lease_batch_; }
  [[nodiscard]] std::string_view Key(uint32_t i) const {
    return std::string_view(keys_).substr(size_t{i} * kBenchKeyBytes, kBenchKeyBytes);
  }
  [[nodiscard]] ClientSession& session() const { return session_; }

 private:
  absl::Status PutAll(uint32_t begin, uint32_t count, terrace_level wait_for, uint8_t outcome);
  BlockSet(ClientSession& session, const Options& options)
      : session_(session), options_(options), source_(options.seed) {}
  void MakeKeys(uint64_t first);

  ClientSession& session_;
  const Options options_;
  const PayloadSource source_;
  SharedMemory memory_;
  std::string keys_;
  std::vector<uint32_t> indexes_;
  terrace_namespace ns_ = 0;
  terrace_region region_ = 0;
  uint32_t lease_batch_ = 1;
};

}  // namespace terrace::bench
