// What lies in a pool beside the segments, and under which names. Pure.
//
//   terrace.pool                      the superblock; made once, by whichever node is first
//   members/NODE.EPOCH                empty: this life of the node is, or was, here
//   members/NODE.EPOCH.claimed        the same life is dead, and what it published is another's now
//   nodes/NODE/EPOCH/head             a report: what changed since the manifest that it names
//   nodes/NODE/EPOCH/bulletin         reports about other nodes (pool_bulletin.h)
//   nodes/NODE/EPOCH/mNUMBER          a report: everything; never changed once it is there
//   nodes/NODE/EPOCH/GROUP/sNUMBER    a segment (tiers/segment/segment_format.h)
//
// NODE is 32 hexadecimal digits, EPOCH 16, NUMBER 8; GROUP is NUMBER / 1024, so that no folder has
// more than 1,024 segments. An epoch is one life of a node's daemon. Only that life writes below
// its folder, and no name is ever used for a second segment or manifest, so that a write that comes
// late harms nothing.
//
//   superblock = 4096 bytes, little-endian:
//          0    8  magic "TRRCPOL\n"
//          8    2  version: 1 of a pool that is not protected, else 2
//         10    1  auth: 0, or 1 mac, 2 encrypt (pool_protection.h)
//         11    1  zero
//         12    4  CRC-32C of the page, these four bytes as zeros
//         16   16  UUID of the pool
//         32   32  proof of the secret; zeros of a pool that is not protected
//         64       zeros
//   report     = header of 128 bytes, then its lists in the order of their counts
//          0    8  magic "TRRCRPT\n"
//          8    2  version, 1
//         10    1  kind: 1 head, 2 manifest, 3 excerpt, 4 title of a bulletin
//         11    1  1: this life has ended in good order
//         12    4  CRC-32C of the whole report, these four bytes as zeros
//         16   16  UUID of the pool
//         32   16  node
//         48    8  epoch
//         56    8  serial: rises with every report of this life
//         64    4  number of the manifest that a head builds on; of a manifest its own
//         68    4  bytes of the whole report
//         72   20  counts of segments, records, kills, generations, heats: u32 each
//         92    8  of an excerpt: the serial that it builds on; else 0
//        100       zeros
//   segment    = 56 bytes: node, epoch, u32 number, u8 state, 3 zeros, u32 pages of the file, u32
//   end page,
//                u32 first page that `records` cover, u32 records, 8 zeros
//   record     = 60 bytes: u32 position of its segment in the list, then an entry as of a footer
//   kill       = 48 bytes: fingerprint, node, epoch, u32 number, u32 page
//   generation = 24 bytes: namespace digest, u64 generation
//   heat       = 32 bytes: node, epoch, u32 number, u32 reads
//
// In a protected pool reports are sealed as a whole: whoever has no secret reads their lengths.
//
//   sealed     = 64 bytes, the report as ciphertext, a tag of 16 bytes
//          0    8  magic "TRRCRPS\n"
//          8    2  version, 1
//         10    2  zeros
//         12    4  CRC-32C of all of it, these four bytes as zeros
//         16    4  bytes of all of it
//         20   12  zeros
//         32   32  salt: random, of this file alone
//
// A record's header names the pool as its tier, and as the epoch of its segment LifeId of its
// writer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

#include "tiers/segment/record_format.h"
#include "tiers/shared/pool_protection.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint16_t kPoolVersion = 1;
inline constexpr uint16_t kProtectedPoolVersion = 2;
// What a report may have of each; together they stay below kMaxReportBytes.
inline constexpr uint32_t kMaxReportedSegments = 32768;
inline constexpr uint32_t kMaxReportedRecords = 8192;
inline constexpr uint32_t kMaxKills = 16384;
inline constexpr uint32_t kMaxGenerations = 16384;
inline constexpr uint32_t kMaxReportedHeats = 1024;
inline constexpr uint64_t kMaxReportBytes = uint64_t{4} << 20;
inline constexpr uint32_t kReportHeaderBytes = 128;
inline constexpr uint32_t kSegmentsAFolder = 1024;

inline constexpr std::string_view kPoolSuperblockName = "terrace.pool";
inline constexpr std::string_view kMembersName = "members";
inline constexpr std::string_view kNodesName = "nodes";

// One life of a node's daemon.
struct NodeLife {
  Digest128 node;
  uint64_t epoch = 0;
  friend bool operator==(const NodeLife&, const NodeLife&) = default;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the zero of <=> for a pointer
  friend auto operator<=>(const NodeLife&, const NodeLife&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const NodeLife& life) {
    return H::combine(std::move(h), life.node, life.epoch);
  }
};

// A segment of the pool.
struct SegmentName {
  NodeLife life;
  uint32_t number = 0;
  friend bool operator==(const SegmentName&, const SegmentName&) = default;
  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the zero of <=> for a pointer
  friend auto operator<=>(const SegmentName&, const SegmentName&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const SegmentName& name) {
    return H::combine(std::move(h), name.life, name.number);
  }
};

// 64 bits that tell lives of all nodes of a pool apart.
uint64_t LifeId(const Digest128& pool, const NodeLife& life);

std::string MemberName(const NodeLife& life);  // below "members/"
// nullopt: the name is not one.
struct MemberFile {
  NodeLife life;
  bool claimed = false;
};
std::optional<MemberFile> ParseMemberName(std::string_view name);
std::string MemberPath(const NodeLife& life);
std::string ClaimPath(const NodeLife& life);
std::string NodePath(const Digest128& node);
std::string LifePath(const NodeLife& life);
std::string HeadPath(const NodeLife& life);
std::string BulletinPath(const NodeLife& life);
std::string ManifestPath(const NodeLife& life, uint32_t number);
// Last components of these paths; nullopt: the name is none.
std::optional<uint32_t> ParseManifestName(std::string_view name);
std::optional<uint32_t> ParseSegmentName(std::string_view name);
std::optional<uint32_t> ParseGroupName(std::string_view name);
std::optional<uint64_t> ParseEpochName(std::string_view name);
std::string SegmentGroupPath(const SegmentName& name);
std::string SegmentPath(const SegmentName& name);

struct PoolSuperblock {
  Digest128 pool;
  PoolAuth auth = PoolAuth::kNone;
  PoolSecret::Proof proof{};  // zeros with kNone
};
void EncodePoolSuperblock(const PoolSuperblock& superblock, absl::Span<char> page);
HeaderFault DecodePoolSuperblock(absl::Span<const char> page, PoolSuperblock* out);

enum class ReportedState : uint8_t {
  kOpen = 1,    // more may follow
  kSealed = 2,  // with a footer
  kCut = 3,     // nothing follows, and there is no footer
  kGone = 4,    // about to be removed: nobody reads it any more
};

struct ReportedSegment {
  SegmentName name;
  ReportedState state = ReportedState::kOpen;
  uint32_t file_pages = 0;
  uint32_t end_page = 1;  // behind the last record that is published
  // The report lists the records that begin from here on; where it lists none, end_page.
  uint32_t listed_from_page = 1;
  uint32_t records = 0;  // published
  friend bool operator==(const ReportedSegment&, const ReportedSegment&) = default;
};
struct ReportedRecord {
  uint32_t position = 0;  // of its segment in the report
  IndexedRecord record;
  friend bool operator==(const ReportedRecord&, const ReportedRecord&) = default;
};
// One record that a node deleted, whoever wrote it.
struct Kill {
  Digest128 fingerprint;
  SegmentName segment;
  uint32_t page = 0;
  friend bool operator==(const Kill&, const Kill&) = default;
};
struct ReportedGeneration {
  Digest128 namespace_digest;
  uint64_t generation = 0;
  friend bool operator==(const ReportedGeneration&, const ReportedGeneration&) = default;
};
// How often this node read from a segment of another.
struct ReportedHeat {
  SegmentName segment;
  uint32_t reads = 0;
  friend bool operator==(const ReportedHeat&, const ReportedHeat&) = default;
};

enum class ReportKind : uint8_t { kHead = 1, kManifest = 2, kExcerpt = 3, kTitle = 4 };

struct PoolReport {
  ReportKind kind = ReportKind::kHead;
  bool ended = false;
  Digest128 pool;
  NodeLife life;
  uint64_t serial = 0;
  uint32_t manifest = 0;
  uint64_t since = 0;  // at most the serial
  std::vector<ReportedSegment> segments;
  std::vector<ReportedRecord> records;  // in the order of their segments, and of pages in them
  std::vector<Kill> kills;
  std::vector<ReportedGeneration> generations;
  std::vector<ReportedHeat> heats;
  friend bool operator==(const PoolReport&, const PoolReport&) = default;
};

std::string EncodeReport(const PoolReport& report);
// What the first kReportHeaderBytes say of the whole; kField also where it is over kMaxReportBytes.
// The checksum is not looked at.
HeaderFault ReportBytes(absl::Span<const char> header, uint64_t* bytes);
inline constexpr uint32_t kSealedReportHeaderBytes = 64;
inline constexpr uint32_t kSealedReportSaltAt = 32;
inline constexpr uint32_t kSealedReportSaltBytes = 32;
inline constexpr uint32_t kSealedReportTagBytes = 16;
// All of the header but CRC and salt, for so many bytes in all.
void BeginSealedReport(uint64_t bytes, absl::Span<char> header);
// Adds the CRC, when the rest is there.
void FinishSealedReport(absl::Span<char> whole);
// What the first kSealedReportHeaderBytes say of the whole, as ReportBytes.
HeaderFault SealedReportBytes(absl::Span<const char> header, uint64_t* bytes);
// That it is all there, and undamaged.
bool IsWholeSealedReport(absl::Span<const char> whole);

// Never reads beyond `bytes`; *out is complete only with kNone. The numbers of all records'
// segments are 0: their positions say where they lie.
HeaderFault DecodeReport(absl::Span<const char> bytes, PoolReport* out);

}  // namespace terrace
