#include "tiers/index/index_format.h"

#include <cstdint>
#include <string>
#include <string_view>

#include <zlib.h>

namespace terrace {
namespace {

constexpr size_t kCrcBytes = 4;
constexpr size_t kPositionBytes = 13;
constexpr size_t kRecordBytes = 46;
constexpr size_t kVersionBytes = 20;

void Put(std::string* out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    out->push_back(static_cast<char>(value >> (8 * i)));
  }
}
void PutDigest(std::string* out, const Digest128& digest) {
  Put(out, digest.hi, 8);
  Put(out, digest.lo, 8);
}
void PutBigEndian(std::string* out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

// `in` is long enough: lengths are compared first.
uint64_t Take(std::string_view* in, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>((*in)[i])) << (8 * i);
  }
  in->remove_prefix(bytes);
  return value;
}
Digest128 TakeDigest(std::string_view* in) {
  Digest128 digest;
  digest.hi = Take(in, 8);
  digest.lo = Take(in, 8);
  return digest;
}
uint32_t TakeBigEndian(std::string_view* in) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value = value << 8 | static_cast<uint8_t>((*in)[static_cast<size_t>(i)]);
  }
  in->remove_prefix(4);
  return value;
}

uint32_t CrcOf(std::string_view key, std::string_view value) {
  uLong crc = crc32(0, reinterpret_cast<const Bytef*>(key.data()), static_cast<uInt>(key.size()));
  crc = crc32(crc, reinterpret_cast<const Bytef*>(value.data()), static_cast<uInt>(value.size()));
  return static_cast<uint32_t>(crc);
}

std::string Sealed(std::string_view key, std::string value) {
  Put(&value, CrcOf(key, value), kCrcBytes);
  return value;
}

bool Unseal(std::string_view key, std::string_view* value, size_t bytes) {
  if (value->size() != bytes + kCrcBytes) {
    return false;
  }
  std::string_view crc = value->substr(bytes);
  *value = value->substr(0, bytes);
  return Take(&crc, kCrcBytes) == CrcOf(key, *value);
}

}  // namespace

std::string VersionKey() {
  return "v";
}

std::string EncodeVersion(const Digest128& tier_uuid) {
  std::string value;
  Put(&value, kIndexVersion, 4);
  PutDigest(&value, tier_uuid);
  return Sealed(VersionKey(), std::move(value));
}

bool DecodeVersion(std::string_view value, Digest128* tier_uuid) {
  if (!Unseal(VersionKey(), &value, kVersionBytes) || Take(&value, 4) != kIndexVersion) {
    return false;
  }
  *tier_uuid = TakeDigest(&value);
  return true;
}

std::string PositionKey(uint32_t segment) {
  std::string key = "p";
  PutBigEndian(&key, segment);
  return key;
}

std::string PositionsEnd() {
  return "q";
}

std::string EncodePosition(const SegmentPosition& position) {
  std::string value;
  Put(&value, position.epoch, 8);
  Put(&value, position.complete_pages, 4);
  Put(&value, position.sealed ? 1 : 0, 1);
  return Sealed(PositionKey(position.segment), std::move(value));
}

bool DecodePosition(std::string_view key, std::string_view value, SegmentPosition* out) {
  if (key.size() != 5 || key[0] != 'p' || !Unseal(key, &value, kPositionBytes)) {
    return false;
  }
  key.remove_prefix(1);
  out->segment = TakeBigEndian(&key);
  out->epoch = Take(&value, 8);
  out->complete_pages = static_cast<uint32_t>(Take(&value, 4));
  out->sealed = Take(&value, 1) != 0;
  return true;
}

std::string RecordKey(uint32_t segment, uint32_t page) {
  std::string key = "r";
  PutBigEndian(&key, segment);
  PutBigEndian(&key, page);
  return key;
}

std::string RecordsEnd(uint32_t segment) {
  return segment == 0xffffffffU ? "s" : RecordKey(segment + 1, 0);
}

std::string EncodeRecord(const IndexedRecord& record) {
  std::string value;
  PutDigest(&value, record.fingerprint);
  PutDigest(&value, record.checksum);
  Put(&value, record.sequence, 8);
  Put(&value, record.payload_bytes, 4);
  Put(&value, record.kind, 1);
  Put(&value, record.extra_pages, 1);
  return Sealed(RecordKey(record.segment, record.page), std::move(value));
}

bool DecodeRecord(std::string_view key, std::string_view value, IndexedRecord* out) {
  if (key.size() != 9 || key[0] != 'r' || !Unseal(key, &value, kRecordBytes)) {
    return false;
  }
  key.remove_prefix(1);
  out->segment = TakeBigEndian(&key);
  out->page = TakeBigEndian(&key);
  out->fingerprint = TakeDigest(&value);
  out->checksum = TakeDigest(&value);
  out->sequence = Take(&value, 8);
  out->payload_bytes = static_cast<uint32_t>(Take(&value, 4));
  out->kind = static_cast<uint8_t>(Take(&value, 1));
  out->extra_pages = static_cast<uint8_t>(Take(&value, 1));
  return true;
}

}  // namespace terrace
