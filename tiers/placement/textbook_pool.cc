#include "tiers/placement/textbook_pool.h"

#include "tiers/vocab/check.h"

namespace terrace {

void TextbookPool::Use(const ChainUse& use) {
  Began(use);
  for (size_t i = use.resident.size(); i > 0; --i) {
    TextbookBlock& block = At(use.resident[i - 1]);
    block.stamp = NextStamp();
    if (block.queue != 0) {
      ++block.uses;
      Hit(use.resident[i - 1]);
    }
  }
}

void TextbookPool::Insert(BlockId block, const Newcomer& newcomer) {
  const auto id = static_cast<uint32_t>(block);
  if (id >= blocks_.size()) {
    blocks_.resize(id + 1);
  }
  TERRACE_CHECK(!At(block).resident);
  At(block) = TextbookBlock{};
  At(block).name = newcomer.name;
  At(block).resident = true;
  At(block).fresh = true;
  At(block).stamp = NextStamp();
  At(block).depth = newcomer.parent == kNoBlock ? 1 : At(newcomer.parent).depth + 1;
  ++resident_;
}

void TextbookPool::Touch(absl::Span<const BlockId> chain) {
  for (size_t i = chain.size(); i > 0; --i) {
    TextbookBlock& block = At(chain[i - 1]);
    if (block.fresh) {
      block.fresh = false;
      block.stamp = NextStamp();
      Entered(chain[i - 1]);
    }
  }
}

void TextbookPool::Remove(BlockId block) {
  TERRACE_CHECK(At(block).resident);
  if (!At(block).fresh) {
    Left(block);
  }
  At(block) = TextbookBlock{};
  --resident_;
}

void TextbookPool::Unlock(BlockId block) {
  TERRACE_CHECK(At(block).locks > 0);
  --At(block).locks;
}

BlockId TextbookPool::Victim() {
  return Choose();
}

uint64_t TextbookPool::Rank(BlockId block) const {
  uint64_t before = 0;
  for (const TextbookBlock& other : blocks_) {
    before += other.resident && other.locks == 0 && other.stamp < At(block).stamp ? 1U : 0U;
  }
  return before;
}

void TextbookPool::PushNewest(Queue& queue, BlockId block) {
  At(block).queue = queue.id;
  At(block).newer = kNoBlock;
  At(block).older = queue.newest;
  (queue.newest == kNoBlock ? queue.oldest : At(queue.newest).newer) = block;
  queue.newest = block;
  ++queue.size;
}

void TextbookPool::Unlink(Queue& queue, BlockId block) {
  const TextbookBlock& at = At(block);
  TERRACE_CHECK(at.queue == queue.id);
  (at.newer == kNoBlock ? queue.newest : At(at.newer).older) = at.older;
  (at.older == kNoBlock ? queue.oldest : At(at.older).newer) = at.newer;
  At(block).queue = 0;
  --queue.size;
}

BlockId TextbookPool::OldestUnlocked(const Queue& queue) const {
  BlockId block = queue.oldest;
  while (block != kNoBlock && At(block).locks != 0) {
    block = At(block).newer;
  }
  return block;
}

}  // namespace terrace
