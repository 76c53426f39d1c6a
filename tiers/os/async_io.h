// The door to transfers that nobody waits for: read, write and sync of open files.
//
// A buffer belongs to the operation from Submit until its completion, which carries it back: a
// deadline or Cancel asks for an early end, and the memory is free again only when `done` runs.
// Every accepted operation completes exactly once, also when the object is destroyed.
//
// Two implementations with one behaviour: io_uring (one thread submits and reaps) and a pool of
// threads over File's blocking calls, for hosts that forbid io_uring. Both finish short transfers
// and repeat what was interrupted; both begin what has the higher priority first.
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
#include "tiers/vocab/clock.h"
#include "tiers/vocab/outcome.h"

namespace terrace {

enum class IoKind : uint8_t { kRead = 1, kWrite = 2, kSync = 3 };

// Pieces of memory that one transfer moves, in the order of the file.
using IoPieces = std::vector<absl::Span<char>>;
inline constexpr uint32_t kMaxIoPieces = 64;

struct IoRequest {
  IoKind kind = IoKind::kRead;
  File* file = nullptr;  // outlives the completion
  uint64_t offset = 0;
  IoPieces pieces;  // 1 to kMaxIoPieces, none for kSync; a write leaves them as they are
  absl::Duration deadline = absl::InfiniteDuration();  // on the injected clock
  Priority priority = Priority::kNormal;
};

struct IoCompletion {
  // OK; DEADLINE_EXCEEDED or CANCELLED when ended early; else as from File. After a failed write
  // nobody knows which of its bytes are in the file.
  absl::Status status;
  uint64_t bytes = 0;  // moved; with OK fewer than asked for only where the file ended
  IoPieces pieces;     // given back
};

// What the host allows; for metrics and the operator.
struct IoFacts {
  std::string engine;           // "io_uring", "threads"
  std::string fallback_reason;  // why not io_uring; "" when it is, or was not asked for
  uint64_t registered_bytes = 0;
  std::string registration_refusal;  // the last refusal of RegisterMemory; "" when none
  uint64_t resubmitted = 0;          // short, interrupted and refused transfers that went on
};

// Thread-safe.
class AsyncIo {
 public:
  // Operations that have not begun complete as CANCELLED; waits for the others.
  virtual ~AsyncIo() = default;

  // Returns a token for Cancel. `done` runs once, on a thread of the engine, and must only hand
  // work on. Never blocks. RESOURCE_EXHAUSTED: as many as allowed are in flight. INVALID_ARGUMENT:
  // pieces. With an error `done` does not run.
  virtual absl::StatusOr<uint64_t> Submit(IoRequest request,
                                          std::function<void(IoCompletion)> done) = 0;
  // Asks for an early end; too late or unknown: nothing happens.
  virtual void Cancel(uint64_t token) = 0;

  // Pins memory, so that transfers of one piece inside it need no page table walks. Optional:
  // transfers work in any memory. Blocks: about 20 ms a GiB with small pages.
  // RESOURCE_EXHAUSTED: the limit of locked memory (RLIMIT_MEMLOCK). UNIMPLEMENTED: this engine
  // gains nothing from it. Both leave a fact and are no reason to stop.
  virtual absl::Status RegisterMemory(absl::Span<char> memory) = 0;
  // Nothing may be in flight in it. Unknown memory: nothing happens.
  virtual void UnregisterMemory(absl::Span<char> memory) = 0;

  [[nodiscard]] virtual IoFacts facts() const = 0;
};

struct AsyncIoOptions {
  uint32_t depth = 32;            // operations that the medium sees at a time; threads: at most 16
  uint32_t max_in_flight = 1024;  // accepted and not completed
  uint32_t threads = 4;           // of the pool
};

// Borrowed objects outlive the engine. Deadlines are looked at every 20 ms.
// UNAVAILABLE: the kernel or a filter forbids io_uring. RESOURCE_EXHAUSTED: memory, descriptors.
absl::StatusOr<std::unique_ptr<AsyncIo>> MakeUringIo(const AsyncIoOptions& options,
                                                     const Clock& clock);
std::unique_ptr<AsyncIo> MakeThreadedIo(const AsyncIoOptions& options, const Clock& clock);
// io_uring, else threads with the reason among the facts.
std::unique_ptr<AsyncIo> MakeAsyncIo(const AsyncIoOptions& options, const Clock& clock);

}  // namespace terrace
