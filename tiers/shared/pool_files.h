// The door to a pool's mount for code that must never hang: the calls of RootedFiles, handed to
// somebody else, each with a deadline.
//
// Implemented over threads of this process (MakeThreadedPoolFiles: tests, the simulation), and by
// the daemon over a worker process (daemon/worker), which is abandoned when it does not answer.
//
// A buffer belongs to a call from Submit until `done`. After DEADLINE_EXCEEDED, UNAVAILABLE and
// CANCELLED a call may still happen, at any later time, because whoever was making it may: so
// nothing that is named again may be written by one, and a buffer that was in one is never used for
// another.
//
// Thread-safe; nothing here blocks but Call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/os/file_system.h"
#include "tiers/os/rooted_files.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/outcome.h"

namespace terrace {

// Memory that calls read into and write from: 4096-aligned, of the bounded room that the other side
// can see. Owned by who took it and by the call that it is in.
class PoolBuffer {
 public:
  virtual ~PoolBuffer() = default;
  [[nodiscard]] virtual absl::Span<char> memory() const = 0;
};

enum class PoolOp : uint8_t {
  kRead = 1,          // path, offset, length, buffer; how
  kWrite = 2,         // path, offset, length, buffer
  kSync = 3,          // path
  kMake = 4,          // path, length
  kCreate = 5,        // path, length, buffer
  kReplace = 6,       // path, length, buffer
  kRemove = 7,        // path
  kMakeFolder = 8,    // path
  kRemoveFolder = 9,  // path
  kList = 10,         // path
  kSpace = 11,
  kCheckRoot = 12,
};
inline constexpr uint32_t kPoolOps = 12;

struct PoolCall {
  PoolOp op = PoolOp::kCheckRoot;
  std::string path;  // IsRootedPath
  uint64_t offset = 0;
  uint64_t length = 0;
  std::shared_ptr<PoolBuffer> buffer;  // at least `length` bytes of it are used, from its begin
  ReadHow how = ReadHow::kKept;
  Priority priority = Priority::kNormal;
  absl::Duration deadline = absl::InfiniteDuration();  // on the injected clock
};

struct PoolReply {
  // As of RootedFiles. DEADLINE_EXCEEDED: see above. UNAVAILABLE also where nobody can make the
  // call now: the other side is being started again, or is given up for a while (suspended).
  absl::Status status;
  uint64_t bytes = 0;  // kRead
  std::vector<FolderEntry> entries;
  FolderSpace space;
};

// Whether the mount itself did not answer, so that another call would fare no better now.
bool IsMountFault(const absl::Status& status);

// What an operator sees of the other side.
struct PoolFilesFigures {
  bool serving = false;
  bool suspended = false;
  std::string last_fault;  // "": none
  uint64_t pid = 0;        // of the worker that serves; 0: none, or no process
  uint64_t starts = 0;
  uint64_t abandoned = 0;  // workers that did not answer
  uint32_t stuck = 0;      // of them, still there
  uint64_t calls_in_flight = 0;
  uint64_t calls[kPoolOps + 1] = {};  // by PoolOp
  uint64_t faults = 0;  // calls that ended with an error other than a documented outcome
  uint64_t deadlines = 0;
  uint64_t buffer_bytes = 0;       // of the room
  uint64_t buffer_bytes_used = 0;  // taken now
};

class PoolFiles {
 public:
  // Calls that have not been answered end as CANCELLED.
  virtual ~PoolFiles() = default;

  // At least so many bytes; nullptr: the room is used up for now, or never has so much.
  virtual std::shared_ptr<PoolBuffer> TakeBuffer(uint64_t bytes) = 0;
  [[nodiscard]] virtual uint64_t max_buffer_bytes() const = 0;

  // `done` runs once, on a thread of the implementation or before Submit returns; it must only hand
  // work on.
  virtual void Submit(PoolCall call, std::function<void(PoolReply)> done) = 0;

  // Every call that has not been answered ends as CANCELLED, soon and whatever the mount does, and
  // so does every later one. Their buffers are not used again. Idempotent; for the end of who uses
  // them.
  virtual void Stop() = 0;

  [[nodiscard]] virtual PoolFilesFigures figures() const = 0;

  // Submits and waits. For threads of a maintenance executor.
  PoolReply Call(PoolCall call);
};

// Calls are made by so many threads. `files` and `clock` are borrowed. Deadlines are looked at when
// a call's turn comes, and while it runs not at all: for files that do not hang.
struct ThreadedPoolFilesOptions {
  int threads = 4;
  uint64_t buffer_bytes = uint64_t{64} << 20;
};
std::unique_ptr<PoolFiles> MakeThreadedPoolFiles(const ThreadedPoolFilesOptions& options,
                                                 RootedFiles& files,
                                                 const Clock& clock);

}  // namespace terrace
