#include "tiers/placement/lru.h"

#include <algorithm>
#include <vector>

#include "tiers/placement/block_records.h"
#include "tiers/placement/recency_log.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

// Records looked ahead of where a loop is: about the time of a miss to DRAM.
constexpr size_t kPrefetch = 16;
// The log may have 2.25 times as many entries as there are blocks, so that more than half of what
// compaction looks at is garbage; and this many more for small pools.
constexpr uint64_t kSlackEntries = uint64_t{2} * RecencyLog::kChunkEntries;
// Entries looked at for compaction per entry appended: more than the two that it takes to keep up.
constexpr uint64_t kCompactionRate = 3;

class LruPolicy final : public EvictionPolicy {
 public:
  explicit LruPolicy(RecencySource& recency) : recency_(recency) {}

  void Insert(BlockId block, const Newcomer& /*newcomer*/) override {
    TERRACE_CHECK(block != kNoBlock && records_.Find(block) == nullptr);
    Stamp(block, records_.Add(block));
    Compact(1);
  }

  void Touch(absl::Span<const BlockId> chain) override {
    for (size_t i = chain.size(); i > 0; --i) {
      if (i > kPrefetch) {
        records_.Prefetch(chain[i - 1 - kPrefetch]);
      }
      Stamp(chain[i - 1], Get(chain[i - 1]));
    }
    Compact(chain.size());
  }

  void Remove(BlockId block) override {
    StopWaiting(Get(block));
    records_.Remove(block);
    Compact(1);
  }

  void Lock(BlockId block) override {
    BlockRecords::Record& record = Get(block);
    TERRACE_CHECK(record.locks < BlockRecords::kMaxLocks);
    ++record.locks;
  }

  void Unlock(BlockId block) override {
    BlockRecords::Record& record = Get(block);
    TERRACE_CHECK(record.locks > 0);
    --record.locks;
    if (record.locks == 0 && record.parked != 0) {
      record.parked = 0;
      record.waiting = 1;
      ++waiting_;
      PruneHeap();
      heap_.push_back({record.stamp(), block});
      std::push_heap(heap_.begin(), heap_.end(), Younger);
    }
  }

  BlockId Victim() override {
    const BlockId waiting = OldestWaiting();
    return waiting != kNoBlock ? waiting : OldestLogged();
  }

  [[nodiscard]] uint64_t Rank(BlockId block) const override {
    const uint64_t stamp = Get(block).stamp();
    uint64_t before = 0;
    records_.ForEach([&](const BlockRecords::Record& other) {
      before += other.locks == 0 && other.stamp() < stamp ? 1U : 0U;
    });
    return before;
  }

  [[nodiscard]] double Value(BlockId block) const override {
    return static_cast<double>(Get(block).stamp());
  }

  [[nodiscard]] uint64_t resident() const override { return records_.resident(); }
  [[nodiscard]] uint64_t memory_bytes() const override {
    return sizeof(*this) + records_.memory_bytes() + log_.memory_bytes() +
           heap_.capacity() * sizeof(Waiting);
  }
  [[nodiscard]] std::string_view name() const override { return "lru"; }

 private:
  struct Waiting {
    uint64_t stamp;
    BlockId block;
  };
  static bool Younger(const Waiting& a, const Waiting& b) { return a.stamp > b.stamp; }

  [[nodiscard]] BlockRecords::Record& Get(BlockId block) const {
    BlockRecords::Record* record = records_.Find(block);
    TERRACE_CHECK(record != nullptr);
    return *record;
  }

  void Stamp(BlockId block, BlockRecords::Record& record) {
    StopWaiting(record);
    record.parked = 0;
    record.set_stamp(recency_.Next());
    log_.Append({block, record.stamp_low});
  }

  // Makes the record's entry in the heap stale, if it has one.
  void StopWaiting(BlockRecords::Record& record) {
    if (record.waiting != 0) {
      record.waiting = 0;
      --waiting_;
    }
  }

  // The log keeps only 32 bits of a stamp. For a stale entry to look alive, its block must have
  // been touched again exactly a multiple of 2^32 touches later while the entry was still there:
  // the block would go too early, once.
  [[nodiscard]] bool IsLive(RecencyLog::Entry entry) const {
    const BlockRecords::Record* record = records_.Find(entry.block);
    return record != nullptr && record->stamp_low == entry.stamp_low;
  }

  // nullptr: a stale entry.
  [[nodiscard]] BlockRecords::Record* FindWaiting(const Waiting& entry) const {
    BlockRecords::Record* record = records_.Find(entry.block);
    return record != nullptr && record->waiting != 0 && record->stamp() == entry.stamp ? record
                                                                                       : nullptr;
  }

  BlockId OldestWaiting() {
    while (!heap_.empty()) {
      BlockRecords::Record* record = FindWaiting(heap_.front());
      if (record != nullptr && record->locks == 0) {
        return heap_.front().block;
      }
      if (record != nullptr) {
        StopWaiting(*record);
        record->parked = 1;
      }
      std::pop_heap(heap_.begin(), heap_.end(), Younger);
      heap_.pop_back();
    }
    return kNoBlock;
  }

  BlockId OldestLogged() {
    for (const RecencyLog::Entry* entry = log_.Front(); entry != nullptr; entry = log_.Front()) {
      if (IsLive(*entry)) {
        BlockRecords::Record& record = Get(entry->block);
        if (record.locks == 0) {
          return entry->block;
        }
        record.parked = 1;
      }
      log_.PopFront();
    }
    return kNoBlock;
  }

  void Compact(uint64_t events) {
    const uint64_t limit = records_.resident() * 9 / 4 + kSlackEntries;
    if (log_.size() <= limit) {
      credit_ = 0;
      return;
    }
    credit_ += events * kCompactionRate;
    while (credit_ >= RecencyLog::kChunkEntries && log_.size() > limit) {
      credit_ -= RecencyLog::kChunkEntries;
      log_.CompactChunk([this](RecencyLog::Entry entry) { return IsLive(entry); },
                        [this](RecencyLog::Entry entry) { records_.Prefetch(entry.block); });
    }
  }

  // Stale entries never outnumber the others by much.
  void PruneHeap() {
    if (heap_.size() < 2 * waiting_ + 256) {
      return;
    }
    heap_.erase(
        std::remove_if(heap_.begin(), heap_.end(),
                       [this](const Waiting& entry) { return FindWaiting(entry) == nullptr; }),
        heap_.end());
    std::make_heap(heap_.begin(), heap_.end(), Younger);
  }

  RecencySource& recency_;
  BlockRecords records_;
  RecencyLog log_;
  std::vector<Waiting> heap_;
  uint64_t waiting_ = 0;  // blocks whose entry in the heap counts
  uint64_t credit_ = 0;   // entries that compaction may look at
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLruPolicy(RecencySource& recency) {
  return std::make_unique<LruPolicy>(recency);
}

}  // namespace terrace
