// What a daemon owes for the blocks of one namespace: kept beside it, so that it survives the
// daemon's death, and asked about everything that is found afterwards.
//
// A block's content has a version, which rises when the block is put again after it was certainly
// gone: what a daemon must not bring back has other bytes than what it must have. Between the begin
// and the end of a call either state may be found. Pure; thread-compatible.
#pragma once

#include <cstdint>
#include <vector>

namespace terrace::bench {

class BlockLedger {
 public:
  // kMayForget: more is stored than there is room for, so that nothing has to be there.
  enum class Promise : uint8_t { kKeepsAll, kMayForget };
  BlockLedger(uint32_t blocks, Promise promise) : promise_(promise), entries_(blocks) {}

  enum class Due : uint8_t {
    kAbsent,  // must not be found
    kMaybe,   // may be found, with the bytes of its version
    kThere,   // must be found, with the bytes of its version
  };
  [[nodiscard]] Due due(uint32_t block) const { return entries_[block].due; }
  [[nodiscard]] uint64_t version(uint32_t block) const { return entries_[block].version; }
  [[nodiscard]] uint32_t blocks() const { return static_cast<uint32_t>(entries_.size()); }

  // A put of the block begins, with the bytes of version() after this call.
  void BeginPut(uint32_t block);
  // It was reported to have reached a level that survives the daemon's death.
  void PutSurvives(uint32_t block);
  void BeginDelete(uint32_t block);
  void DeleteDone(uint32_t block);
  // Of all blocks.
  void BeginClear();
  void ClearDone();

 private:
  struct Entry {
    Due due = Due::kAbsent;
    uint64_t version = 0;
  };

  Promise promise_;
  std::vector<Entry> entries_;
};

}  // namespace terrace::bench
