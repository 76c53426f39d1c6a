// A pool in memory: what several nodes published, and each node's tier over it. Slowness, faults
// and the time that news takes are as the test says.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "tiers/shared/shared_tier.h"

namespace terrace::doubles {

// Thread-safe. Callbacks run on the thread that makes them due, without a lock of the pool; a
// generation is told to one node at a time. Outlives its tiers.
class SharedPoolDouble {
 public:
  SharedPoolDouble() = default;
  ~SharedPoolDouble();
  SharedPoolDouble(const SharedPoolDouble&) = delete;
  SharedPoolDouble& operator=(const SharedPoolDouble&) = delete;

  // The tier of another node.
  std::unique_ptr<SharedTier> Join(std::string name = "g4");

  // kAtOnce: nodes know at once what one of them did. kWhenSpread: when Spread is called.
  enum class News : uint8_t { kAtOnce, kWhenSpread };
  void SetNews(News news);
  void Spread();

  // Of all nodes. kOnline at first.
  void SetState(PoolState state);

  // Held: what is published keeps its slot until ReleaseOne and ends with EndOne. Those of them
  // that wait go on doing so when the pool is not held any more.
  void HoldPublishes(bool held);
  // The oldest one gives its slot back. False: none keeps one.
  bool ReleaseOne();
  // The oldest one ends, and gives its slot back first where it keeps one. False: there is none.
  bool EndOne(WriteOutcome outcome = WriteOutcome::kWritten);
  // Publishes that begin from now on end so, at once; nullopt: no more.
  void FailPublishes(std::optional<WriteOutcome> outcome);

  void HoldReads(bool held);
  bool EndOneRead(ReadOutcome outcome = ReadOutcome::kVerified);

  // Deletions and generations cannot be recorded.
  void FailRecords(bool fail);

  // The pool gave all blocks up.
  void Forget();

  [[nodiscard]] size_t publishes_held() const;
  [[nodiscard]] size_t reads_held() const;
  [[nodiscard]] uint64_t published() const;  // so far
  [[nodiscard]] uint64_t offered() const;    // Publish was called
  // Of the pool, whether or not a node has learned of it.
  [[nodiscard]] uint64_t GenerationOf(const Digest128& namespace_digest) const;

 private:
  class Tier;
  friend class Tier;
  struct Record {
    Digest128 namespace_digest;
    uint64_t generation = 0;
    std::shared_ptr<const std::string> payload;  // owners: every node that found it
    Digest128 checksum;
  };
  struct Node {
    std::map<std::string, Record> found;
    std::map<Digest128, uint64_t> generations;
    SharedTier::LearnGenerations learn;
    std::vector<RaisedGeneration> untold;
  };
  // What one node did, until the others know.
  struct Deed {
    Node* by = nullptr;
    std::string name;
    std::optional<Record> published;  // nullopt: deleted, or a generation raised
    std::optional<RaisedGeneration> raised;
  };
  struct HeldPublish {
    Node* node = nullptr;
    std::string name;
    Record record;
    absl::Span<const char> source;
    std::function<void()> released;  // nullptr: it has been
    std::function<void(WriteOutcome)> done;
  };
  struct HeldRead {
    Node* node = nullptr;
    uint64_t token = 0;
    Record record;
    absl::Span<char> destination;
    std::function<void(ReadOutcome)> done;
  };

  static std::string NameOf(const BlockIdentity& identity);
  [[nodiscard]] bool ServesLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  static void ApplyLocked(const Deed& deed, Node& node);
  void DoLocked(Deed deed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SpreadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lets nodes hear of generations.
  void Tell() ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishPublish(HeldPublish publish, WriteOutcome outcome) ABSL_LOCKS_EXCLUDED(mutex_);
  // What it has under way ends.
  void Leave(const Node* node) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(const Node* node) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable absl::Mutex mutex_;
  bool telling_ ABSL_GUARDED_BY(mutex_) = false;  // a thread is; it tells what comes meanwhile, too
  std::vector<std::unique_ptr<Node>> nodes_ ABSL_GUARDED_BY(mutex_);
  std::vector<Deed> deeds_ ABSL_GUARDED_BY(mutex_);  // that others do not know of
  std::map<std::string, Record> records_ ABSL_GUARDED_BY(mutex_);
  std::map<Digest128, uint64_t> raised_ ABSL_GUARDED_BY(mutex_);
  std::deque<HeldPublish> publishes_ ABSL_GUARDED_BY(mutex_);
  std::deque<HeldRead> reads_ ABSL_GUARDED_BY(mutex_);
  PoolState state_ ABSL_GUARDED_BY(mutex_) = PoolState::kOnline;
  News news_ ABSL_GUARDED_BY(mutex_) = News::kAtOnce;
  bool hold_publishes_ ABSL_GUARDED_BY(mutex_) = false;
  bool hold_reads_ ABSL_GUARDED_BY(mutex_) = false;
  bool fail_records_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<WriteOutcome> fail_publishes_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_token_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t published_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t offered_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace terrace::doubles
