// One node's door to the simulated mount: makes each call at once, and counts the calls of the
// kernel that a worker would have made for it (tiers/os/rooted_files.cc), with its files that stay
// open.
//
// Confined to the simulation's thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tiers/os/file_system.h"
#include "tiers/shared/pool_files.h"
#include "tiers/vocab/block_key.h"
#include "tools/sim/simulated_mount.h"

namespace terrace::sim {

// What a call was made for.
enum class CallPurpose : uint8_t {
  kWriting = 0,    // own segments and reports
  kFollowing = 1,  // what other nodes report
  kUpkeep = 2,     // the pool's identity, space, removals, adoption
  kReading = 3,    // blocks
};
inline constexpr size_t kCallPurposes = 4;
std::string_view NameOf(CallPurpose purpose);

enum class FileCall : uint8_t {
  kOpen = 0,
  kClose = 1,
  kRead = 2,
  kWrite = 3,
  kSync = 4,
  kRename = 5,
  kUnlink = 6,
  kMakeFolder = 7,
  kReadFolder = 8,
  kStat = 9,
  kSpace = 10,
  kAllocate = 11,
};
inline constexpr size_t kFileCalls = 12;
std::string_view NameOf(FileCall call);

struct CallCounts {
  std::array<std::array<uint64_t, kFileCalls>, kCallPurposes> calls{};
  uint64_t report_bytes = 0;  // read: heads and manifests

  [[nodiscard]] uint64_t Of(CallPurpose purpose) const;
  [[nodiscard]] uint64_t Of(FileCall call) const;
  [[nodiscard]] uint64_t All() const;
};

// Buffers that are not in use, for all nodes. Outlives them.
class BufferShelf {
 public:
  AlignedBuffer Take(uint64_t bytes);
  void Return(AlignedBuffer buffer);

 private:
  std::map<uint64_t, std::vector<AlignedBuffer>> free_;
};

class SimulatedPoolFiles final : public PoolFiles {
 public:
  static constexpr uint64_t kMaxBufferBytes = uint64_t{80} << 20;

  // `node` is this one's. The rest is borrowed.
  SimulatedPoolFiles(const Digest128& node, SimulatedMount& mount, BufferShelf& shelf);

  std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) override;
  [[nodiscard]] uint64_t max_buffer_bytes() const override { return kMaxBufferBytes; }
  void Submit(PoolCall call, std::function<void(PoolReply)> done) override;
  void Stop() override { stopped_ = true; }
  [[nodiscard]] PoolFilesFigures figures() const override { return figures_; }

  // What is submitted until the next call is for blocks that somebody reads.
  void ReadsBlocks(bool reads) { reads_blocks_ = reads; }
  [[nodiscard]] const CallCounts& counts() const { return counts_; }

 private:
  enum class Access : uint8_t { kRead, kReadWrite };
  using OpenName = std::pair<std::string, Access>;

  [[nodiscard]] CallPurpose PurposeOf(const PoolCall& call) const;
  PoolReply Make(const PoolCall& call);
  PoolReply Read(const PoolCall& call);
  absl::Status Write(const PoolCall& call);
  absl::Status Sync(const PoolCall& call);
  absl::Status MakeSegment(const PoolCall& call);
  absl::Status PutWhole(const PoolCall& call);
  absl::Status Remove(const PoolCall& call);
  absl::Status MakeFolder(const PoolCall& call);
  absl::Status RemoveFolder(const PoolCall& call);
  PoolReply List(const PoolCall& call);

  void Count(FileCall call, uint64_t times = 1);
  // Counts what it takes to have the file open.
  void Open(const OpenName& name);
  void Keep(const OpenName& name);
  void OpenFolderOf(const std::string& path);
  bool Forget(const std::string& path, Access access);
  void ForgetAll(const std::string& path);

  const std::string own_folder_;  // "nodes/NODE/"
  SimulatedMount& mount_;
  BufferShelf& shelf_;
  bool stopped_ = false;
  bool reads_blocks_ = false;
  CallPurpose purpose_ = CallPurpose::kUpkeep;  // of the call that is being made
  CallCounts counts_;
  PoolFilesFigures figures_;
  std::list<OpenName> order_;  // of open files, the last used one first
  std::map<OpenName, std::list<OpenName>::iterator> open_;
  std::list<std::string> folders_;  // that are open, likewise
};

}  // namespace terrace::sim
