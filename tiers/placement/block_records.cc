#include "tiers/placement/block_records.h"

namespace terrace {

BlockRecords::Record& BlockRecords::Add(BlockId block) {
  const auto id = static_cast<uint32_t>(block);
  const size_t page = id / kPageRecords;
  if (page >= pages_.size()) {
    pages_.resize(page + 1);
  }
  if (pages_[page] == nullptr) {
    pages_[page] = std::make_unique<Page>();
    ++used_pages_;
  }
  Record& record = pages_[page]->records[id % kPageRecords];
  record = Record{};
  record.resident = 1;
  ++pages_[page]->resident;
  ++resident_;
  return record;
}

void BlockRecords::Remove(BlockId block) {
  const auto id = static_cast<uint32_t>(block);
  std::unique_ptr<Page>& page = pages_[id / kPageRecords];
  page->records[id % kPageRecords] = Record{};
  --resident_;
  if (--page->resident == 0) {
    page.reset();
    --used_pages_;
  }
}

}  // namespace terrace
