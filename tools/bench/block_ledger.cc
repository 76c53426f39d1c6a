#include "tools/bench/block_ledger.h"

namespace terrace::bench {

void BlockLedger::BeginPut(uint32_t block) {
  Entry& entry = entries_[block];
  if (entry.due == Due::kAbsent) {
    ++entry.version;
    entry.due = Due::kMaybe;
  }
}

void BlockLedger::PutSurvives(uint32_t block) {
  entries_[block].due = promise_ == Promise::kKeepsAll ? Due::kThere : Due::kMaybe;
}

void BlockLedger::BeginDelete(uint32_t block) {
  Entry& entry = entries_[block];
  if (entry.due == Due::kThere) {
    entry.due = Due::kMaybe;
  }
}

void BlockLedger::DeleteDone(uint32_t block) {
  entries_[block].due = Due::kAbsent;
}

void BlockLedger::BeginClear() {
  for (uint32_t block = 0; block < blocks(); ++block) {
    BeginDelete(block);
  }
}

void BlockLedger::ClearDone() {
  for (Entry& entry : entries_) {
    entry.due = Due::kAbsent;
  }
}

}  // namespace terrace::bench
