#include "tiers/shared/pool_format.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

#include "tiers/segment/crc32c.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/little_endian.h"

namespace terrace {
namespace {

constexpr std::string_view kSuperblockMagic = "TRRCPOL\n";
constexpr std::string_view kSealedReportMagic = "TRRCRPS\n";
constexpr uint16_t kSealedReportVersion = 1;
constexpr std::string_view kReportMagic = "TRRCRPT\n";
constexpr std::string_view kClaimSuffix = ".claimed";
constexpr size_t kCrcAt = 12;
constexpr size_t kNodeDigits = 32;
constexpr size_t kEpochDigits = 16;
constexpr size_t kSegmentBytes = 56;
constexpr size_t kRecordBytes = 60;
constexpr size_t kKillBytes = 48;
constexpr size_t kGenerationBytes = 24;
constexpr size_t kHeatBytes = 32;

std::string Hex(uint64_t value, size_t digits) {
  std::string text(digits, '0');
  for (size_t i = digits; i > 0; --i) {
    text[i - 1] = "0123456789abcdef"[value & 0xfU];
    value >>= 4U;
  }
  return text;
}

bool ParseHex(std::string_view text, uint64_t* out) {
  *out = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) {
      return false;
    }
    *out = *out << 4U | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return true;
}

std::optional<uint32_t> ParseNumber(std::string_view name, char kind) {
  uint64_t number = 0;
  return name.size() == 9 && name.front() == kind && ParseHex(name.substr(1), &number)
             ? std::optional<uint32_t>(static_cast<uint32_t>(number))
             : std::nullopt;
}

void WriteName(const SegmentName& name, FieldWriter* writer) {
  writer->Digest(name.life.node);
  writer->U64(name.life.epoch);
  writer->U32(name.number);
}

SegmentName ReadName(FieldReader* reader) {
  SegmentName name;
  name.life.node = reader->Digest();
  name.life.epoch = reader->U64();
  name.number = reader->U32();
  return name;
}

uint64_t BytesOf(
    uint64_t segments, uint64_t records, uint64_t kills, uint64_t generations, uint64_t heats) {
  return kReportHeaderBytes + segments * kSegmentBytes + records * kRecordBytes +
         kills * kKillBytes + generations * kGenerationBytes + heats * kHeatBytes;
}

void WriteLists(const PoolReport& report, FieldWriter* writer) {
  for (const ReportedSegment& segment : report.segments) {
    WriteName(segment.name, writer);
    writer->U8(static_cast<uint8_t>(segment.state));
    writer->ZerosUpTo(writer->position() + 3);
    writer->U32(segment.file_pages);
    writer->U32(segment.end_page);
    writer->U32(segment.listed_from_page);
    writer->U32(segment.records);
    writer->ZerosUpTo(writer->position() + 8);
  }
  for (const ReportedRecord& listed : report.records) {
    writer->U32(listed.position);
    writer->Digest(listed.record.fingerprint);
    writer->Digest(listed.record.checksum);
    writer->U64(listed.record.sequence);
    writer->U32(listed.record.page);
    writer->U32(listed.record.payload_bytes);
    writer->U8(listed.record.kind);
    writer->U8(listed.record.extra_pages);
    writer->ZerosUpTo(writer->position() + 6);
  }
  for (const Kill& kill : report.kills) {
    writer->Digest(kill.fingerprint);
    WriteName(kill.segment, writer);
    writer->U32(kill.page);
  }
  for (const ReportedGeneration& raised : report.generations) {
    writer->Digest(raised.namespace_digest);
    writer->U64(raised.generation);
  }
  for (const ReportedHeat& heat : report.heats) {
    WriteName(heat.segment, writer);
    writer->U32(heat.reads);
  }
}

// Pages are bounded, so that arithmetic with them cannot overflow.
bool ReadSegment(FieldReader* reader, ReportedSegment* out) {
  out->name = ReadName(reader);
  const uint8_t state = reader->U8();
  bool sound = reader->ZerosUpTo(reader->position() + 3);
  out->file_pages = reader->U32();
  out->end_page = reader->U32();
  out->listed_from_page = reader->U32();
  out->records = reader->U32();
  sound = sound && reader->ZerosUpTo(reader->position() + 8);
  out->state = static_cast<ReportedState>(state);
  return sound && state >= 1 && state <= 4 && !out->name.life.node.IsZero() && out->end_page >= 1 &&
         out->end_page <= out->file_pages && out->listed_from_page >= 1 &&
         out->listed_from_page <= out->end_page && out->records < out->end_page;
}

bool ReadRecord(FieldReader* reader, const PoolReport& report, ReportedRecord* out) {
  out->position = reader->U32();
  IndexedRecord& record = out->record;
  record.fingerprint = reader->Digest();
  record.checksum = reader->Digest();
  record.sequence = reader->U64();
  record.page = reader->U32();
  record.payload_bytes = reader->U32();
  record.kind = reader->U8();
  record.extra_pages = reader->U8();
  if (!reader->ZerosUpTo(reader->position() + 6) || out->position >= report.segments.size()) {
    return false;
  }
  const ReportedSegment& segment = report.segments[out->position];
  const uint64_t pages = 1 + uint64_t{PagesOf(record.payload_bytes)} + record.extra_pages;
  return record.payload_bytes > 0 && record.payload_bytes <= kMaxPayloadBytes &&
         record.kind == static_cast<uint8_t>(RecordKind::kBlock) && record.extra_pages <= 3 &&
         record.page >= segment.listed_from_page && record.page + pages <= segment.end_page;
}

// The counts have been compared with the length.
bool ReadLists(FieldReader* reader, const std::array<uint32_t, 5>& counts, PoolReport* out) {
  out->segments.resize(counts[0]);
  for (ReportedSegment& segment : out->segments) {
    if (!ReadSegment(reader, &segment)) {
      return false;
    }
  }
  out->records.resize(counts[1]);
  for (ReportedRecord& record : out->records) {
    if (!ReadRecord(reader, *out, &record)) {
      return false;
    }
  }
  out->kills.resize(counts[2]);
  for (Kill& kill : out->kills) {
    kill.fingerprint = reader->Digest();
    kill.segment = ReadName(reader);
    kill.page = reader->U32();
  }
  out->generations.resize(counts[3]);
  for (ReportedGeneration& raised : out->generations) {
    raised.namespace_digest = reader->Digest();
    raised.generation = reader->U64();
  }
  out->heats.resize(counts[4]);
  for (ReportedHeat& heat : out->heats) {
    heat.segment = ReadName(reader);
    heat.reads = reader->U32();
  }
  return reader->ok();
}

}  // namespace

uint64_t LifeId(const Digest128& pool, const NodeLife& life) {
  std::array<char, 40> bytes{};
  FieldWriter writer(absl::MakeSpan(bytes));
  writer.Digest(pool);
  writer.Digest(life.node);
  writer.U64(life.epoch);
  return PayloadChecksum(bytes).lo;
}

std::string MemberName(const NodeLife& life) {
  return life.node.ToHex() + "." + Hex(life.epoch, kEpochDigits);
}

std::optional<MemberFile> ParseMemberName(std::string_view name) {
  MemberFile member;
  if (name.size() > kClaimSuffix.size() &&
      name.substr(name.size() - kClaimSuffix.size()) == kClaimSuffix) {
    member.claimed = true;
    name.remove_suffix(kClaimSuffix.size());
  }
  if (name.size() != kNodeDigits + 1 + kEpochDigits || name[kNodeDigits] != '.' ||
      !ParseHex(name.substr(0, 16), &member.life.node.hi) ||
      !ParseHex(name.substr(16, 16), &member.life.node.lo) ||
      !ParseHex(name.substr(kNodeDigits + 1), &member.life.epoch) || member.life.node.IsZero()) {
    return std::nullopt;
  }
  return member;
}

std::string MemberPath(const NodeLife& life) {
  return std::string(kMembersName) + "/" + MemberName(life);
}
std::string ClaimPath(const NodeLife& life) {
  return MemberPath(life) + std::string(kClaimSuffix);
}
std::string NodePath(const Digest128& node) {
  return std::string(kNodesName) + "/" + node.ToHex();
}
std::string LifePath(const NodeLife& life) {
  return NodePath(life.node) + "/" + Hex(life.epoch, kEpochDigits);
}
std::string HeadPath(const NodeLife& life) {
  return LifePath(life) + "/head";
}
std::string BulletinPath(const NodeLife& life) {
  return LifePath(life) + "/bulletin";
}
std::string ManifestPath(const NodeLife& life, uint32_t number) {
  return LifePath(life) + "/m" + Hex(number, 8);
}
std::optional<uint32_t> ParseManifestName(std::string_view name) {
  return ParseNumber(name, 'm');
}
std::optional<uint32_t> ParseSegmentName(std::string_view name) {
  return ParseNumber(name, 's');
}
std::optional<uint32_t> ParseGroupName(std::string_view name) {
  uint64_t number = 0;
  return name.size() == 6 && ParseHex(name, &number)
             ? std::optional<uint32_t>(static_cast<uint32_t>(number))
             : std::nullopt;
}
std::optional<uint64_t> ParseEpochName(std::string_view name) {
  uint64_t epoch = 0;
  return name.size() == kEpochDigits && ParseHex(name, &epoch) ? std::optional<uint64_t>(epoch)
                                                               : std::nullopt;
}
std::string SegmentGroupPath(const SegmentName& name) {
  return LifePath(name.life) + "/" + Hex(name.number / kSegmentsAFolder, 6);
}
std::string SegmentPath(const SegmentName& name) {
  return SegmentGroupPath(name) + "/s" + Hex(name.number, 8);
}

void EncodePoolSuperblock(const PoolSuperblock& superblock, absl::Span<char> page) {
  TERRACE_CHECK(page.size() == kPageBytes);
  FieldWriter writer(page);
  writer.Bytes(kSuperblockMagic);
  writer.U16(superblock.auth == PoolAuth::kNone ? kPoolVersion : kProtectedPoolVersion);
  writer.U8(static_cast<uint8_t>(superblock.auth));
  writer.U8(0);
  writer.U32(0);
  writer.Digest(superblock.pool);
  writer.Bytes({superblock.proof.data(), superblock.proof.size()});
  writer.ZerosUpTo(kPageBytes);
  FieldWriter crc(page.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(page, kCrcAt));
}

HeaderFault DecodePoolSuperblock(absl::Span<const char> page, PoolSuperblock* out) {
  FieldReader reader(page);
  if (page.size() != kPageBytes || reader.Bytes(kSuperblockMagic.size()) != kSuperblockMagic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  const uint8_t auth = reader.U8();
  const uint8_t zero = reader.U8();
  if (reader.U32() != PageCrc32c(page, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  if (version > kProtectedPoolVersion) {
    return HeaderFault::kNewerVersion;
  }
  PoolSuperblock found;
  found.auth = static_cast<PoolAuth>(auth);
  found.pool = reader.Digest();
  const std::string_view proof = reader.Bytes(found.proof.size());
  std::copy(proof.begin(), proof.end(), found.proof.begin());
  const bool plain = auth == 0 && version == kPoolVersion && found.proof == PoolSecret::Proof{};
  const bool sealed = (auth == 1 || auth == 2) && version == kProtectedPoolVersion;
  if (zero != 0 || !(plain || sealed) || !reader.ZerosUpTo(kPageBytes) || found.pool.IsZero()) {
    return HeaderFault::kField;
  }
  *out = found;
  return HeaderFault::kNone;
}

void BeginSealedReport(uint64_t bytes, absl::Span<char> header) {
  FieldWriter writer(header);
  writer.Bytes(kSealedReportMagic);
  writer.U16(kSealedReportVersion);
  writer.U16(0);
  writer.U32(0);
  writer.U32(static_cast<uint32_t>(bytes));
  writer.ZerosUpTo(kSealedReportSaltAt);
}

void FinishSealedReport(absl::Span<char> whole) {
  FieldWriter crc(whole.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(whole, kCrcAt));
}

HeaderFault SealedReportBytes(absl::Span<const char> header, uint64_t* bytes) {
  FieldReader reader(header);
  if (header.size() < kSealedReportHeaderBytes ||
      reader.Bytes(kSealedReportMagic.size()) != kSealedReportMagic) {
    return HeaderFault::kNoRecord;
  }
  const uint16_t version = reader.U16();
  if (version != kSealedReportVersion) {
    return version > kSealedReportVersion ? HeaderFault::kNewerVersion : HeaderFault::kField;
  }
  const bool zeros = reader.U16() == 0;
  reader.SkipTo(kCrcAt + 4);
  *bytes = reader.U32();
  constexpr uint64_t kAround = kSealedReportHeaderBytes + kSealedReportTagBytes;
  return zeros && reader.ZerosUpTo(kSealedReportSaltAt) && *bytes >= kAround + kReportHeaderBytes &&
                 *bytes <= kAround + kMaxReportBytes
             ? HeaderFault::kNone
             : HeaderFault::kField;
}

bool IsWholeSealedReport(absl::Span<const char> whole) {
  uint64_t bytes = 0;
  if (SealedReportBytes(whole, &bytes) != HeaderFault::kNone || bytes != whole.size()) {
    return false;
  }
  FieldReader reader(whole);
  reader.SkipTo(kCrcAt);
  return reader.U32() == PageCrc32c(whole, kCrcAt);
}

std::string EncodeReport(const PoolReport& report) {
  const uint64_t bytes = BytesOf(report.segments.size(), report.records.size(), report.kills.size(),
                                 report.generations.size(), report.heats.size());
  TERRACE_CHECK(bytes <= kMaxReportBytes);
  std::string out(bytes, '\0');
  const absl::Span<char> span(out.data(), out.size());
  FieldWriter writer(span);
  writer.Bytes(kReportMagic);
  writer.U16(kPoolVersion);
  writer.U8(static_cast<uint8_t>(report.kind));
  writer.U8(report.ended ? 1 : 0);
  writer.U32(0);
  writer.Digest(report.pool);
  writer.Digest(report.life.node);
  writer.U64(report.life.epoch);
  writer.U64(report.serial);
  writer.U32(report.manifest);
  writer.U32(static_cast<uint32_t>(bytes));
  writer.U32(static_cast<uint32_t>(report.segments.size()));
  writer.U32(static_cast<uint32_t>(report.records.size()));
  writer.U32(static_cast<uint32_t>(report.kills.size()));
  writer.U32(static_cast<uint32_t>(report.generations.size()));
  writer.U32(static_cast<uint32_t>(report.heats.size()));
  writer.U64(report.since);
  writer.ZerosUpTo(kReportHeaderBytes);
  WriteLists(report, &writer);
  FieldWriter crc(span.subspan(kCrcAt, 4));
  crc.U32(PageCrc32c(span, kCrcAt));
  return out;
}

HeaderFault ReportBytes(absl::Span<const char> header, uint64_t* bytes) {
  FieldReader reader(header);
  if (header.size() < kReportHeaderBytes || reader.Bytes(kReportMagic.size()) != kReportMagic) {
    return HeaderFault::kNoRecord;
  }
  if (reader.U16() > kPoolVersion) {
    return HeaderFault::kNewerVersion;
  }
  reader.SkipTo(68);
  *bytes = reader.U32();
  return *bytes >= kReportHeaderBytes && *bytes <= kMaxReportBytes ? HeaderFault::kNone
                                                                   : HeaderFault::kField;
}

HeaderFault DecodeReport(absl::Span<const char> bytes, PoolReport* out) {
  uint64_t announced = 0;
  if (const HeaderFault fault = ReportBytes(bytes, &announced); fault != HeaderFault::kNone) {
    return fault;
  }
  if (announced > bytes.size()) {
    return HeaderFault::kChecksum;
  }
  bytes = bytes.first(announced);
  FieldReader reader(bytes);
  reader.SkipTo(kReportMagic.size());
  const uint16_t version = reader.U16();
  const uint8_t kind = reader.U8();
  const uint8_t ended = reader.U8();
  if (reader.U32() != PageCrc32c(bytes, kCrcAt)) {
    return HeaderFault::kChecksum;
  }
  PoolReport report;
  report.kind = static_cast<ReportKind>(kind);
  report.ended = ended == 1;
  report.pool = reader.Digest();
  report.life.node = reader.Digest();
  report.life.epoch = reader.U64();
  report.serial = reader.U64();
  report.manifest = reader.U32();
  reader.SkipTo(72);
  std::array<uint32_t, 5> counts{};
  for (uint32_t& count : counts) {
    count = reader.U32();
  }
  report.since = reader.U64();
  const bool builds =
      report.kind == ReportKind::kExcerpt ? report.since <= report.serial : report.since == 0;
  const bool sound = version == kPoolVersion && kind >= 1 && kind <= 4 && builds && ended <= 1 &&
                     reader.ZerosUpTo(kReportHeaderBytes) &&
                     BytesOf(counts[0], counts[1], counts[2], counts[3], counts[4]) == announced;
  if (!sound || !ReadLists(&reader, counts, &report)) {
    return HeaderFault::kField;
  }
  *out = std::move(report);
  return HeaderFault::kNone;
}

}  // namespace terrace
