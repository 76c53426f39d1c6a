// The directory of kept blocks: what is read is what was written, whenever the writer was killed.
#include "tiers/dram/slab_directory.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/from_environment.h"
#include "tests/doubles/seeded.h"
#include "tiers/dram/arena.h"

namespace terrace {
namespace {

using doubles::FromEnvironment;
using doubles::Seeded;

constexpr DirectoryGeometry kSmall{.slabs = 4, .slots = 32, .scopes = 8, .namespaces = 4};
constexpr uint32_t kSlots = 20;

DirectoryEntry EntryOf(uint64_t n) {
  DirectoryEntry entry;
  entry.scope = static_cast<uint32_t>(n % 2);
  entry.payload_bytes = static_cast<uint32_t>(n % 4000 + 1);
  entry.first_token = static_cast<uint32_t>(n * 16);
  entry.sequence = n + 1;
  entry.parent_sequence = n;
  entry.checksum = {n * 3, n * 5};
  entry.key = std::string(16 + n % 49, static_cast<char>('a' + n % 26));
  return entry;
}

bool Same(const DirectoryEntry& a, const DirectoryEntry& b) {
  return a.scope == b.scope && a.payload_bytes == b.payload_bytes &&
         a.first_token == b.first_token && a.sequence == b.sequence &&
         a.parent_sequence == b.parent_sequence && a.checksum == b.checksum && a.key == b.key;
}

// Memory as another process would find it.
class DirectoryTest : public ::testing::Test {
 protected:
  DirectoryTest()
      : memory_(static_cast<char*>(mmap(nullptr,
                                        kSmall.bytes(),
                                        PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS,
                                        -1,
                                        0)),
                kSmall.bytes()),
        directory_(memory_, kSmall, 7, 5) {
    for (int i = 0; i < 2; ++i) {
      DirectorySlab slab{.inode = 40U + static_cast<uint64_t>(i),
                         .bytes = kSlots * uint64_t{8192},
                         .slot_bytes = 8192,
                         .tenant = "a"};
      directory_.AddSlab(slab);
    }
    directory_.NoteNamespace(1, {"record", 3});
    directory_.NoteScope(0, {1, 3, ""});
    directory_.NoteScope(1, {1, 3, "salt"});
    directory_.MarkComplete();
  }
  ~DirectoryTest() override { munmap(memory_.data(), memory_.size()); }

  [[nodiscard]] std::map<std::pair<uint32_t, uint32_t>, DirectoryEntry> Read(
      absl::Span<const char> memory) const {
    std::map<std::pair<uint32_t, uint32_t>, DirectoryEntry> out;
    const absl::StatusOr<DirectoryContent> content = ReadSlabDirectory(memory);
    if (content.ok()) {
      for (const DirectoryBlock& block : content->blocks) {
        const auto slab = static_cast<uint32_t>(content->slabs[block.slab].serial - 5);
        out[{slab, block.slot}] = block.entry;
      }
    }
    return out;
  }

  absl::Span<char> memory_;
  SlabDirectory directory_;
};

TEST_F(DirectoryTest, ReadsWhatWasWritten) {
  DirectoryEntry entry = EntryOf(9);
  directory_.Publish(1, 3, entry);
  directory_.AddLease(1, 2);
  const absl::StatusOr<DirectoryContent> content = ReadSlabDirectory(memory_);
  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ(content->life, 7U);
  EXPECT_EQ(content->next_serial, 7U);
  ASSERT_EQ(content->slabs.size(), 2U);
  EXPECT_EQ(content->slabs[1].serial, 6U);
  EXPECT_EQ(content->slabs[1].inode, 41U);
  EXPECT_EQ(content->slabs[1].tenant, "a");
  EXPECT_EQ(content->slabs[1].leases, 2U);
  EXPECT_EQ(content->namespaces[1]->record, "record");
  EXPECT_EQ(content->namespaces[1]->generation, 3U);
  EXPECT_EQ(content->scopes[1]->salt, "salt");
  ASSERT_EQ(content->blocks.size(), 1U);
  EXPECT_EQ(content->blocks[0].slot, 3U);
  EXPECT_TRUE(Same(content->blocks[0].entry, EntryOf(9)));
  EXPECT_EQ(directory_.SequenceAt(1, 3), 10U);
  EXPECT_EQ(content->damaged, 0U);
}

TEST_F(DirectoryTest, IsNoneBeforeItIsCompleteAndAfterItIsReplaced) {
  std::vector<uint64_t> fresh(kSmall.bytes() / 8, 0);
  const absl::Span<char> bytes(reinterpret_cast<char*>(fresh.data()), kSmall.bytes());
  EXPECT_FALSE(ReadSlabDirectory(bytes).ok());
  SlabDirectory directory(bytes, kSmall, 1, 1);
  EXPECT_FALSE(ReadSlabDirectory(bytes).ok());
  directory.MarkComplete();
  EXPECT_TRUE(ReadSlabDirectory(bytes).ok());
  EXPECT_FALSE(ReadSlabDirectory(bytes.first(8192)).ok());
  SupersedeSlabDirectory(bytes);
  EXPECT_FALSE(ReadSlabDirectory(bytes).ok());
}

TEST_F(DirectoryTest, ARaiseThatIsUnderWayEndsItsBlocks) {
  DirectoryEntry entry = EntryOf(2);
  directory_.Publish(0, 0, entry);
  std::vector<char> before(memory_.begin(), memory_.end());
  directory_.RaiseNamespace(1, 4);
  EXPECT_EQ(ReadSlabDirectory(memory_)->namespaces[1]->generation, 4U);
  for (size_t at = 0; at < before.size(); at += 8) {  // the first of its two stores alone
    if (std::memcmp(before.data() + at, memory_.data() + at, 8) != 0) {
      std::memcpy(before.data() + at, memory_.data() + at, 8);
      break;
    }
  }
  const absl::StatusOr<DirectoryContent> content =
      ReadSlabDirectory({before.data(), before.size()});
  EXPECT_FALSE(content->namespaces[1].has_value());
}

TEST_F(DirectoryTest, AScopeThatIsWrittenOverEndsItsEntries) {
  DirectoryEntry entry = EntryOf(1);
  directory_.Publish(0, 0, entry);
  directory_.NoteScope(1, {1, 4, "other"});
  EXPECT_TRUE(Read(memory_).empty());
}

TEST_F(DirectoryTest, EntriesOfASlabThatIsGoneAreNotThoseOfTheNext) {
  DirectoryEntry entry = EntryOf(1);
  directory_.Publish(0, 0, entry);
  directory_.RemoveSlab(0);
  DirectorySlab slab{
      .inode = 99, .bytes = kSlots * uint64_t{8192}, .slot_bytes = 8192, .tenant = "b"};
  EXPECT_EQ(directory_.AddSlab(slab), 0U);
  EXPECT_TRUE(Read(memory_).empty());
}

// Of each change every 8-byte word that it stores may be missing, whatever their order: a slot then
// holds what it held, or what it was to hold, or nothing.
TEST_F(DirectoryTest, TornChangesAreOldNewOrNone) {
  Seeded random(FromEnvironment("TERRACE_KEEP_SEED", 1));
  for (uint64_t n = 0; n < 4000; ++n) {
    const auto slab = static_cast<uint32_t>(random.Below(2));
    const auto slot = static_cast<uint32_t>(random.Below(kSlots));
    const std::vector<char> before(memory_.begin(), memory_.end());
    const auto old = Read(memory_);
    if (random.OneIn(3)) {
      directory_.Invalidate(slab, slot);
    } else {
      DirectoryEntry entry = EntryOf(n);
      directory_.Publish(slab, slot, entry);
    }
    std::vector<char> torn = before;
    for (size_t at = 0; at < torn.size(); at += 8) {
      if (std::memcmp(torn.data() + at, memory_.data() + at, 8) != 0 && random.OneIn(2)) {
        std::memcpy(torn.data() + at, memory_.data() + at, 8);
      }
    }
    const auto now = Read(memory_);
    for (const auto& [place, entry] : Read({torn.data(), torn.size()})) {
      const bool is_old = old.contains(place) && Same(old.at(place), entry);
      const bool is_new = now.contains(place) && Same(now.at(place), entry);
      ASSERT_TRUE(is_old || is_new) << n;
      ASSERT_TRUE(place == std::make_pair(slab, slot) || (is_old && is_new)) << n;
    }
  }
}

// A process that is killed somewhere: all that it had finished is there, and of the rest one change
// at most.
TEST_F(DirectoryTest, AKillLeavesWhatWasFinished) {
  const uint64_t rounds = FromEnvironment("TERRACE_KEEP_KILLS", 20);
  auto* const done = static_cast<uint64_t*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Seeded random(FromEnvironment("TERRACE_KEEP_SEED", 2));
  for (uint64_t round = 0; round < rounds; ++round) {
    const uint64_t seed = random.Next();
    const auto change = [&](uint64_t n, SlabDirectory* directory, auto* model) {
      Seeded steps(seed + n);
      const auto slab = static_cast<uint32_t>(steps.Below(2));
      const auto slot = static_cast<uint32_t>(steps.Below(kSlots));
      DirectoryEntry entry = EntryOf(n);
      const bool take_back = steps.OneIn(3);
      if (directory != nullptr) {
        take_back ? directory->Invalidate(slab, slot) : directory->Publish(slab, slot, entry);
      } else if (take_back) {
        model->erase({slab, slot});
      } else {
        (*model)[{slab, slot}] = entry;
      }
    };
    auto model = Read(memory_);
    *done = 0;
    const pid_t child = fork();
    if (child == 0) {
      for (uint64_t n = 0;; ++n) {
        change(n, &directory_, &model);
        __atomic_store_n(done, n + 1, __ATOMIC_RELEASE);
      }
    }
    while (__atomic_load_n(done, __ATOMIC_ACQUIRE) < random.Below(5000)) {
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    for (uint64_t n = 0; n < *done; ++n) {
      change(n, nullptr, &model);
    }
    auto next = model;
    change(*done, nullptr, &next);
    for (uint32_t slab = 0; slab < 2; ++slab) {
      for (uint32_t slot = 0; slot < kSlots; ++slot) {
        const auto found = Read(memory_);
        const std::pair<uint32_t, uint32_t> place{slab, slot};
        const bool changes = model.contains(place) != next.contains(place) ||
                             (model.contains(place) && !Same(model[place], next[place]));
        if (!changes) {
          ASSERT_EQ(found.contains(place), model.contains(place));
          ASSERT_TRUE(!found.contains(place) || Same(found.at(place), model[place]));
        } else if (found.contains(place)) {
          ASSERT_TRUE((model.contains(place) && Same(found.at(place), model[place])) ||
                      (next.contains(place) && Same(found.at(place), next[place])));
        }
      }
    }
  }
  munmap(done, 4096);
}

// Any bytes are read without harm; a flip is never another entry.
TEST_F(DirectoryTest, FlippedBytesAreNeverAnotherEntry) {
  for (uint64_t n = 0; n < 20; ++n) {
    DirectoryEntry entry = EntryOf(n);
    directory_.Publish(static_cast<uint32_t>(n % 2), static_cast<uint32_t>(n), entry);
  }
  const auto right = Read(memory_);
  Seeded random(FromEnvironment("TERRACE_FUZZ_SEED", 1));
  const uint64_t rounds = FromEnvironment("TERRACE_FUZZ_ITERATIONS", 20'000) / 10;
  std::vector<char> bytes(memory_.begin(), memory_.end());
  std::vector<size_t> used;
  for (size_t at = 0; at < bytes.size(); ++at) {
    if (bytes[at] != 0 || at < 128) {
      used.push_back(at);
    }
  }
  for (uint64_t round = 0; round < rounds; ++round) {
    std::vector<std::pair<size_t, char>> undo;
    for (uint64_t i = random.Below(6) + 1; i > 0; --i) {
      const size_t at = used[random.Below(used.size())];
      undo.emplace_back(at, bytes[at]);
      bytes[at] = static_cast<char>(random.Next());
    }
    for (const auto& [place, entry] : Read({bytes.data(), bytes.size()})) {
      ASSERT_TRUE(right.contains(place) && Same(right.at(place), entry));
    }
    for (auto at = undo.rbegin(); at != undo.rend(); ++at) {
      bytes[at->first] = at->second;
    }
  }
}

}  // namespace
}  // namespace terrace
