#include "tiers/dram/slab_directory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string_view>

#include "absl/status/status.h"
#include <xxhash.h>

#include "tiers/dram/arena.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are written as they lie");

constexpr std::string_view kMagic = "TerrDir1";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kHeaderSealed = 40;
constexpr uint64_t kStateAt = 64;
constexpr uint64_t kNextSerialAt = 72;
constexpr uint64_t kNamespacesEndAt = 80;
constexpr uint64_t kScopesEndAt = 88;
constexpr uint32_t kComplete = 0x4b656570;
constexpr uint32_t kSuperseded = 0x476f6e65;

constexpr uint64_t kSealBytes = sizeof(uint64_t);
constexpr uint64_t kSlabBytes = 256;
constexpr uint64_t kNamespaceBytes = 16384;
constexpr uint64_t kScopeBytes = 512;
constexpr uint64_t kEntryBytes = 128;
constexpr size_t kMaxTenantBytes = 128;
constexpr uint32_t kMaxTable = 1U << 24;

// Of a slab's record: behind what is sealed.
constexpr uint64_t kLeasesAt = kSlabBytes - 8;
// Of a namespace's: the generation and its complement are not sealed, because they change.
constexpr uint64_t kGenerationAt = kNamespaceBytes - 16;

enum class Table : uint64_t { kHeader = 1, kSlabs, kNamespaces, kScopes, kEntries };

constexpr uint64_t PageUp(uint64_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

struct Offsets {
  uint64_t slabs, namespaces, scopes, entries, end;
};
Offsets OffsetsOf(const DirectoryGeometry& g) {
  Offsets at{};
  at.slabs = kPage;
  at.namespaces = at.slabs + PageUp(kSlabBytes * g.slabs);
  at.scopes = at.namespaces + kNamespaceBytes * g.namespaces;
  at.entries = at.scopes + PageUp(kScopeBytes * g.scopes);
  at.end = at.entries + PageUp(kEntryBytes * g.slots) * g.slabs;
  return at;
}

// A hash of the sealed bytes and of their place; never 0, which is no record.
uint64_t SealOf(absl::Span<const char> bytes, Table table, uint64_t number) {
  const uint64_t seed = number * 8 + static_cast<uint64_t>(table);
  const uint64_t hash = XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
  return hash == 0 ? 1 : hash;
}

uint64_t LoadWord(const char* at) {
  uint64_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// The stores before it stand before it, those after it after it, in memory that outlives the
// process. A kill comes between two instructions, so only the compiler's order counts: a fence for
// a signal is enough.
void StoreWord(char* at, uint64_t value) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  std::atomic_ref<uint64_t>(*reinterpret_cast<uint64_t*>(at))
      .store(value, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Taken back before anything that follows is stored.
void Unseal(char* record) {
  if (LoadWord(record) != 0) {
    StoreWord(record, 0);
  }
}

// Fields one after the other in a record's image.
class Writer {
 public:
  explicit Writer(absl::Span<char> image) : image_(image) {}
  template <typename T>
  void Put(T value) {
    std::memcpy(image_.data() + at_, &value, sizeof(value));
    at_ += sizeof(value);
  }
  void Bytes(std::string_view bytes) {
    Put(static_cast<uint32_t>(bytes.size()));
    std::memcpy(image_.data() + at_, bytes.data(), bytes.size());
    at_ += bytes.size();
  }

 private:
  absl::Span<char> image_;
  size_t at_ = 0;
};

class Reader {
 public:
  explicit Reader(absl::Span<const char> image) : image_(image) {}
  template <typename T>
  T Get() {
    T value{};
    std::memcpy(&value, image_.data() + at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }
  // "" and not ok() where there are more than `most`.
  std::string Bytes(size_t most) {
    const auto size = Get<uint32_t>();
    if (size > most || size > image_.size() - at_) {
      ok_ = false;
      return "";
    }
    std::string bytes(image_.data() + at_, size);
    at_ += size;
    return bytes;
  }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  absl::Span<const char> image_;
  size_t at_ = 0;
  bool ok_ = true;
};

constexpr uint64_t kEntryBody = kEntryBytes - kSealBytes;
constexpr uint64_t kSlabBody = kLeasesAt - kSealBytes;
constexpr uint64_t kScopeBody = kScopeBytes - kSealBytes;
constexpr uint64_t kNamespaceBody = kGenerationAt - kSealBytes;

// The image with its seal, as one record that is not valid before it is whole.
uint64_t StoreSealed(char* record, absl::Span<const char> body, Table table, uint64_t number) {
  Unseal(record);
  std::memcpy(record + kSealBytes, body.data(), body.size());
  const uint64_t seal = SealOf(body, table, number);
  StoreWord(record, seal);
  return seal;
}

enum class Found : uint8_t { kNone, kValid, kDamaged };
Found Check(const char* record, uint64_t body_bytes, Table table, uint64_t number) {
  const uint64_t seal = LoadWord(record);
  if (seal == 0) {
    return Found::kNone;
  }
  return seal == SealOf({record + kSealBytes, body_bytes}, table, number) ? Found::kValid
                                                                          : Found::kDamaged;
}

DirectoryGeometry ReadGeometry(const char* header) {
  Reader reader({header + 12, 16});
  DirectoryGeometry g;
  g.slabs = reader.Get<uint32_t>();
  g.slots = reader.Get<uint32_t>();
  g.scopes = reader.Get<uint32_t>();
  g.namespaces = reader.Get<uint32_t>();
  return g;
}

bool IsSane(const DirectoryGeometry& g) {
  return g.slabs > 0 && g.slabs < kMaxTable && g.slots > 0 && g.slots < kMaxTable &&
         g.scopes < kMaxTable && g.namespaces < kMaxTable;
}

// By the slab's serial, so that an entry of a slab that is gone is none of the one that has its
// place.
uint64_t EntryNumber(uint64_t serial, uint32_t slot) {
  return serial << 24U | slot;
}

// The end of a table that has been used, for readers, who would otherwise touch all of its pages.
void RaiseEnd(char* at, uint32_t number) {
  if (LoadWord(at) <= number) {
    StoreWord(at, uint64_t{number} + 1);
  }
}

}  // namespace

DirectoryGeometry DirectoryGeometry::For(uint64_t capacity_bytes) {
  DirectoryGeometry g;
  g.slabs = static_cast<uint32_t>(capacity_bytes / kMinSlabBytes) * 2 + 16;
  return g;
}

uint64_t DirectoryGeometry::bytes() const {
  return OffsetsOf(*this).end;
}

// ---------------------------------------------------------------- writing

SlabDirectory::SlabDirectory(absl::Span<char> memory,
                             const DirectoryGeometry& geometry,
                             uint64_t life,
                             uint64_t first_serial)
    : memory_(memory),
      geometry_(geometry),
      next_serial_(first_serial),
      serials_(geometry.slabs, 0),
      scope_seals_(geometry.scopes, 0) {
  TERRACE_CHECK(IsSane(geometry) && memory.size() >= geometry.bytes());
  std::array<char, kHeaderSealed> header{};
  std::memcpy(header.data(), kMagic.data(), kMagic.size());
  Writer writer({header.data() + 8, header.size() - 8});
  writer.Put(kVersion);
  writer.Put(geometry.slabs);
  writer.Put(geometry.slots);
  writer.Put(geometry.scopes);
  writer.Put(geometry.namespaces);
  writer.Put(uint32_t{0});
  writer.Put(life);
  std::memcpy(memory_.data(), header.data(), header.size());
  StoreWord(memory_.data() + kHeaderSealed,
            SealOf({header.data(), header.size()}, Table::kHeader, 0));
  StoreWord(memory_.data() + kNextSerialAt, next_serial_);
}

void SlabDirectory::MarkComplete() {
  StoreWord(memory_.data() + kStateAt, kComplete);
}

char* SlabDirectory::Record(uint64_t table, uint32_t number, uint64_t record_bytes) const {
  return memory_.data() + table + number * record_bytes;
}

char* SlabDirectory::Entry(uint32_t slab, uint32_t slot) const {
  return memory_.data() + OffsetsOf(geometry_).entries +
         slab * PageUp(kEntryBytes * geometry_.slots) + slot * kEntryBytes;
}

uint32_t SlabDirectory::AddSlab(DirectorySlab& slab) {
  const auto free = std::find(serials_.begin(), serials_.end(), 0);
  if (free == serials_.end() || slab.tenant.size() > kMaxTenantBytes) {
    return kNone;
  }
  const auto index = static_cast<uint32_t>(free - serials_.begin());
  if (slab.serial == 0) {
    slab.serial = next_serial_++;
    StoreWord(memory_.data() + kNextSerialAt, next_serial_);
  }
  *free = slab.serial;
  std::array<char, kSlabBody> body{};
  Writer writer({body.data(), body.size()});
  writer.Put(slab.serial);
  writer.Put(slab.inode);
  writer.Put(slab.bytes);
  writer.Put(slab.slot_bytes);
  writer.Bytes(slab.tenant);
  char* const record = Record(OffsetsOf(geometry_).slabs, index, kSlabBytes);
  Unseal(record);
  StoreWord(record + kLeasesAt, slab.leases);
  StoreSealed(record, {body.data(), body.size()}, Table::kSlabs, index);
  return index;
}

void SlabDirectory::RemoveSlab(uint32_t index) {
  Unseal(Record(OffsetsOf(geometry_).slabs, index, kSlabBytes));
  serials_[index] = 0;
}

void SlabDirectory::SetSlotBytes(uint32_t index, uint64_t slot_bytes) {
  char* const record = Record(OffsetsOf(geometry_).slabs, index, kSlabBytes);
  std::array<char, kSlabBody> body{};
  std::memcpy(body.data(), record + kSealBytes, body.size());
  std::memcpy(body.data() + 3 * sizeof(uint64_t), &slot_bytes, sizeof(slot_bytes));
  StoreSealed(record, {body.data(), body.size()}, Table::kSlabs, index);
}

void SlabDirectory::AddLease(uint32_t index, int change) {
  char* const at = Record(OffsetsOf(geometry_).slabs, index, kSlabBytes) + kLeasesAt;
  StoreWord(at, LoadWord(at) + static_cast<uint64_t>(int64_t{change}));
}

bool SlabDirectory::NoteNamespace(uint32_t number, const DirectoryNamespace& ns) {
  if (number >= geometry_.namespaces || ns.record.size() + sizeof(uint32_t) > kNamespaceBody) {
    return false;
  }
  RaiseEnd(memory_.data() + kNamespacesEndAt, number);
  std::vector<char> body(kNamespaceBody);
  Writer(absl::MakeSpan(body)).Bytes(ns.record);
  char* const record = Record(OffsetsOf(geometry_).namespaces, number, kNamespaceBytes);
  Unseal(record);
  StoreWord(record + kGenerationAt, ns.generation);
  StoreWord(record + kGenerationAt + 8, ~ns.generation);
  StoreSealed(record, body, Table::kNamespaces, number);
  return true;
}

void SlabDirectory::RaiseNamespace(uint32_t number, uint64_t generation) {
  char* const record = Record(OffsetsOf(geometry_).namespaces, number, kNamespaceBytes);
  StoreWord(record + kGenerationAt, generation);
  StoreWord(record + kGenerationAt + 8, ~generation);
}

bool SlabDirectory::NoteScope(uint32_t number, const DirectoryScope& scope) {
  if (number >= geometry_.scopes || scope.salt.size() > kMaxSaltBytes) {
    return false;
  }
  RaiseEnd(memory_.data() + kScopesEndAt, number);
  std::array<char, kScopeBody> body{};
  Writer writer({body.data(), body.size()});
  writer.Put(scope.ns);
  writer.Put(scope.generation);
  writer.Bytes(scope.salt);
  scope_seals_[number] = StoreSealed(Record(OffsetsOf(geometry_).scopes, number, kScopeBytes),
                                     {body.data(), body.size()}, Table::kScopes, number);
  return true;
}

void SlabDirectory::Publish(uint32_t slab, uint32_t slot, DirectoryEntry& entry) {
  if (slot >= geometry_.slots || entry.key.size() > kMaxKeyBytes) {
    return;
  }
  if (entry.sequence == 0) {
    entry.sequence = next_sequence_;
  }
  next_sequence_ = std::max(next_sequence_, entry.sequence + 1);
  std::array<char, kEntryBody> body{};
  Writer writer({body.data(), body.size()});
  writer.Put(static_cast<uint32_t>(scope_seals_[entry.scope]));
  writer.Put(entry.scope);
  writer.Put(entry.payload_bytes);
  writer.Put(entry.first_token);
  writer.Put(entry.sequence);
  writer.Put(entry.parent_sequence);
  writer.Put(entry.checksum.hi);
  writer.Put(entry.checksum.lo);
  writer.Put(static_cast<uint8_t>(entry.key.size()));
  std::memcpy(body.data() + kEntryBody - kMaxKeyBytes, entry.key.data(), entry.key.size());
  StoreSealed(Entry(slab, slot), {body.data(), body.size()}, Table::kEntries,
              EntryNumber(serials_[slab], slot));
}

void SlabDirectory::Invalidate(uint32_t slab, uint32_t slot) {
  if (slot < geometry_.slots) {
    Unseal(Entry(slab, slot));
  }
}

uint64_t SlabDirectory::SequenceAt(uint32_t slab, uint32_t slot) const {
  if (slot >= geometry_.slots) {
    return 0;
  }
  const char* const entry = Entry(slab, slot);
  return LoadWord(entry) == 0 ? 0 : LoadWord(entry + kSealBytes + 16);
}

// ---------------------------------------------------------------- reading

namespace {

// Reads tables one after the other. Lives for one call.
class DirectoryReader {
 public:
  DirectoryReader(absl::Span<const char> memory, const DirectoryGeometry& geometry)
      : memory_(memory), geometry_(geometry), at_(OffsetsOf(geometry)) {}

  void Slabs() {
    for (uint32_t i = 0; i < geometry_.slabs; ++i) {
      const char* const record = memory_.data() + at_.slabs + i * kSlabBytes;
      if (!IsValid(record, kSlabBody, Table::kSlabs, i)) {
        continue;
      }
      Reader reader({record + kSealBytes, kSlabBody});
      DirectorySlab slab;
      slab.serial = reader.Get<uint64_t>();
      slab.inode = reader.Get<uint64_t>();
      slab.bytes = reader.Get<uint64_t>();
      slab.slot_bytes = reader.Get<uint64_t>();
      slab.tenant = reader.Bytes(kMaxTenantBytes);
      slab.leases =
          static_cast<uint32_t>(std::min<uint64_t>(LoadWord(record + kLeasesAt), UINT32_MAX));
      if (!reader.ok() || slab.slot_bytes <= kSlotHeaderBytes || slab.slot_bytes > slab.bytes) {
        ++out.damaged;
        continue;
      }
      Entries(i, slab);
      out.slabs.push_back(std::move(slab));
    }
    std::sort(out.blocks.begin(), out.blocks.end(),
              [](const DirectoryBlock& a, const DirectoryBlock& b) {
                return a.entry.sequence < b.entry.sequence;
              });
  }

  void Namespaces() {
    out.namespaces.resize(End(kNamespacesEndAt, geometry_.namespaces));
    for (uint32_t i = 0; i < out.namespaces.size(); ++i) {
      const char* const record = memory_.data() + at_.namespaces + i * kNamespaceBytes;
      if (!IsValid(record, kNamespaceBody, Table::kNamespaces, i)) {
        continue;
      }
      const uint64_t generation = LoadWord(record + kGenerationAt);
      Reader reader({record + kSealBytes, kNamespaceBody});
      DirectoryNamespace ns{reader.Bytes(kNamespaceBody), generation};
      // Killed between the two, a raise is under way, and its blocks are not to be found again.
      if (!reader.ok() || LoadWord(record + kGenerationAt + 8) != ~generation) {
        ++out.damaged;
        continue;
      }
      out.namespaces[i] = std::move(ns);
    }
  }

  void Scopes() {
    out.scopes.resize(End(kScopesEndAt, geometry_.scopes));
    seals_.resize(out.scopes.size());
    for (uint32_t i = 0; i < out.scopes.size(); ++i) {
      const char* const record = memory_.data() + at_.scopes + i * kScopeBytes;
      if (!IsValid(record, kScopeBody, Table::kScopes, i)) {
        continue;
      }
      Reader reader({record + kSealBytes, kScopeBody});
      DirectoryScope scope;
      scope.ns = reader.Get<uint32_t>();
      scope.generation = reader.Get<uint64_t>();
      scope.salt = reader.Bytes(kMaxSaltBytes);
      if (!reader.ok()) {
        ++out.damaged;
        continue;
      }
      seals_[i] = static_cast<uint32_t>(LoadWord(record));
      out.scopes[i] = std::move(scope);
    }
  }

  DirectoryContent out;

 private:
  [[nodiscard]] size_t End(uint64_t at, uint32_t most) const {
    return static_cast<size_t>(std::min<uint64_t>(LoadWord(memory_.data() + at), most));
  }
  bool IsValid(const char* record, uint64_t body_bytes, Table table, uint64_t number) {
    const Found found = Check(record, body_bytes, table, number);
    out.damaged += found == Found::kDamaged ? 1 : 0;
    return found == Found::kValid;
  }

  void Entries(uint32_t index, const DirectorySlab& slab) {
    const char* const first =
        memory_.data() + at_.entries + index * PageUp(kEntryBytes * geometry_.slots);
    const uint64_t slots = std::min<uint64_t>(geometry_.slots, slab.bytes / slab.slot_bytes);
    for (uint32_t slot = 0; slot < slots; ++slot) {
      const char* const record = first + slot * kEntryBytes;
      if (!IsValid(record, kEntryBody, Table::kEntries, EntryNumber(slab.serial, slot))) {
        continue;
      }
      Reader reader({record + kSealBytes, kEntryBody});
      DirectoryBlock block;
      block.slab = static_cast<uint32_t>(out.slabs.size());
      block.slot = slot;
      const auto scope_seal = reader.Get<uint32_t>();
      DirectoryEntry& entry = block.entry;
      entry.scope = reader.Get<uint32_t>();
      entry.payload_bytes = reader.Get<uint32_t>();
      entry.first_token = reader.Get<uint32_t>();
      entry.sequence = reader.Get<uint64_t>();
      entry.parent_sequence = reader.Get<uint64_t>();
      entry.checksum.hi = reader.Get<uint64_t>();
      entry.checksum.lo = reader.Get<uint64_t>();
      const size_t key_bytes = reader.Get<uint8_t>();
      const bool scoped = entry.scope < out.scopes.size() && out.scopes[entry.scope].has_value() &&
                          seals_[entry.scope] == scope_seal;
      if (!scoped || key_bytes < kMinKeyBytes || key_bytes > kMaxKeyBytes || entry.sequence == 0) {
        ++out.damaged;
        continue;
      }
      entry.key.assign(record + kEntryBytes - kMaxKeyBytes, key_bytes);
      out.blocks.push_back(std::move(block));
    }
  }

  const absl::Span<const char> memory_;
  const DirectoryGeometry geometry_;
  const Offsets at_;
  std::vector<uint32_t> seals_;
};

}  // namespace

absl::StatusOr<DirectoryContent> ReadSlabDirectory(absl::Span<const char> memory) {
  if (memory.size() < kPage || std::string_view(memory.data(), kMagic.size()) != kMagic ||
      LoadWord(memory.data() + kHeaderSealed) !=
          SealOf(memory.first(kHeaderSealed), Table::kHeader, 0)) {
    return absl::InvalidArgumentError("no directory of slabs");
  }
  Reader version(memory.subspan(8, sizeof(uint32_t)));
  const DirectoryGeometry geometry = ReadGeometry(memory.data());
  if (version.Get<uint32_t>() != kVersion || !IsSane(geometry) ||
      geometry.bytes() > memory.size()) {
    return absl::InvalidArgumentError("a directory of slabs of another version");
  }
  const uint64_t state = LoadWord(memory.data() + kStateAt);
  if (state != kComplete) {
    return absl::InvalidArgumentError(state == kSuperseded
                                          ? "a directory of slabs that another one has replaced"
                                          : "a directory of slabs that was not completed");
  }
  DirectoryReader reader(memory, geometry);
  reader.Namespaces();
  reader.Scopes();
  reader.Slabs();
  reader.out.life = LoadWord(memory.data() + 32);
  reader.out.next_serial = LoadWord(memory.data() + kNextSerialAt);
  for (const DirectorySlab& slab : reader.out.slabs) {
    reader.out.next_serial = std::max(reader.out.next_serial, slab.serial + 1);
  }
  return std::move(reader.out);
}

void SupersedeSlabDirectory(absl::Span<char> header) {
  StoreWord(header.data() + kStateAt, kSuperseded);
}

}  // namespace terrace
