#include "tiers/shared/pool_reports.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/os/file_system.h"
#include "tiers/segment/record_format.h"

namespace terrace {
namespace {

constexpr uint64_t kFirstRead = uint64_t{64} << 10;

absl::Status NoBuffer() {
  return absl::ResourceExhaustedError("pool: no buffer is free");
}

// A segment as ScanSegment reads it.
class PoolFile final : public File {
 public:
  PoolFile(const PoolAccess& access, std::string path) : access_(access), path_(std::move(path)) {}

  absl::StatusOr<uint64_t> ReadAt(uint64_t offset, absl::Span<char> out) override {
    const uint64_t wanted = std::min<uint64_t>(out.size(), access_.files->max_buffer_bytes());
    PoolCall call = access_.CallOf(PoolOp::kRead, path_);
    call.offset = offset;
    call.length = wanted;
    call.how = how_;
    call.buffer = access_.files->TakeBuffer(wanted);
    const std::shared_ptr<PoolBuffer> buffer = call.buffer;  // owners: the call and this function
    if (buffer == nullptr) {
      return NoBuffer();
    }
    const PoolReply reply = access_.files->Call(std::move(call));
    how_ = ReadHow::kKept;
    if (!reply.status.ok()) {
      return reply.status;
    }
    const uint64_t bytes = std::min(reply.bytes, wanted);
    std::memcpy(out.data(), buffer->memory().data(), bytes);
    return bytes;
  }
  absl::StatusOr<uint64_t> WriteAt(uint64_t, absl::Span<const char>) override {
    return absl::UnimplementedError("pool: read only");
  }
  absl::Status Sync() override { return absl::UnimplementedError("pool: read only"); }
  absl::Status Preallocate(uint64_t) override {
    return absl::UnimplementedError("pool: read only");
  }
  [[nodiscard]] absl::StatusOr<uint64_t> Size() const override {
    return absl::UnimplementedError("pool: its size is reported");
  }
  [[nodiscard]] int descriptor() const override { return -1; }
  [[nodiscard]] bool direct() const override { return false; }

 private:
  const PoolAccess& access_;
  const std::string path_;
  ReadHow how_ = ReadHow::kFresh;  // what it was when it was last open may be long ago
};

// Reads `path` from its begin; up to kMaxReportBytes, as its header says. Most are shorter than one
// glance.
absl::StatusOr<PoolReport> ReadReport(const PoolAccess& access, const std::string& path) {
  absl::StatusOr<std::string> bytes = GlanceAt(access, path, kGlanceBytes);
  if (!bytes.ok()) {
    return bytes.status();
  }
  const absl::StatusOr<uint64_t> whole = access.protection->SealedReportBytes(*bytes);
  if (!whole.ok()) {
    return whole.status();
  }
  if (bytes->size() < *whole) {
    PoolFile file(access, path);
    bytes->resize(*whole);
    for (uint64_t have = 0; have < *whole;) {
      const absl::StatusOr<uint64_t> got = file.ReadAt(have, absl::MakeSpan(*bytes).subspan(have));
      if (!got.ok()) {
        return got.status();
      }
      if (*got == 0) {
        return absl::DataLossError("pool: the report is cut off");
      }
      have += *got;
    }
  }
  bytes->resize(*whole);
  const absl::StatusOr<std::string> opened = access.protection->OpenReport(*std::move(bytes));
  if (!opened.ok()) {
    return opened.status();
  }
  PoolReport report;
  if (DecodeReport(*opened, &report) != HeaderFault::kNone) {
    return absl::DataLossError("pool: the report is damaged");
  }
  return report;
}

absl::StatusOr<PoolReport> CheckedReport(const PoolAccess& access,
                                         const NodeLife& life,
                                         const std::string& path,
                                         ReportKind kind) {
  absl::StatusOr<PoolReport> report = ReadReport(access, path);
  if (report.ok() &&
      (!(report->pool == access.pool) || report->life != life || report->kind != kind)) {
    return absl::DataLossError("pool: the report is another's");
  }
  return report;
}

}  // namespace

PoolCall PoolAccess::CallOf(PoolOp op, std::string path) const {
  PoolCall call;
  call.op = op;
  call.path = std::move(path);
  call.deadline = clock->Now() + call_deadline;
  return call;
}

absl::StatusOr<std::string> GlanceAt(const PoolAccess& access,
                                     const std::string& path,
                                     uint64_t room) {
  PoolCall call = access.CallOf(PoolOp::kRead, path);
  call.how = ReadHow::kGlance;
  call.length = std::min(room, access.files->max_buffer_bytes());
  call.buffer = access.files->TakeBuffer(call.length);
  if (call.buffer == nullptr) {
    call.length = std::min(kFirstRead, call.length);  // there may still be so much
    call.buffer = access.files->TakeBuffer(call.length);
  }
  const std::shared_ptr<PoolBuffer> buffer = call.buffer;  // owners: the call and this function
  if (buffer == nullptr) {
    return NoBuffer();
  }
  const uint64_t wanted = call.length;
  const PoolReply reply = access.files->Call(std::move(call));
  if (!reply.status.ok()) {
    return reply.status;
  }
  return std::string(buffer->memory().data(), std::min(reply.bytes, wanted));
}

absl::StatusOr<PoolReport> ReadHead(const PoolAccess& access, const NodeLife& life) {
  return CheckedReport(access, life, HeadPath(life), ReportKind::kHead);
}

absl::StatusOr<PoolReport> ReadManifest(const PoolAccess& access,
                                        const NodeLife& life,
                                        uint32_t number) {
  absl::StatusOr<PoolReport> report =
      CheckedReport(access, life, ManifestPath(life, number), ReportKind::kManifest);
  if (report.ok() && report->manifest != number) {
    return absl::DataLossError("pool: the manifest is another");
  }
  return report;
}

absl::StatusOr<ScanResult> ScanPoolSegment(const PoolAccess& access,
                                           const SegmentName& name,
                                           uint32_t file_pages,
                                           uint32_t first_page) {
  PoolFile file(access, SegmentPath(name));
  ScanRequest request;
  request.file = &file;
  request.tier_uuid = access.pool;
  request.number = name.number;
  request.epoch = LifeId(access.pool, name.life);
  request.segment_bytes = uint64_t{file_pages} * kPageBytes;
  request.first_page = first_page;
  request.sealed = access.protection->auth() != PoolAuth::kNone;
  ScanResult result;
  if (absl::Status status = ScanSegment(request, &result); !status.ok()) {
    return status;
  }
  return result;
}

absl::Status WriteReport(const PoolAccess& access,
                         PoolOp op,
                         const std::string& path,
                         const PoolReport& report) {
  return WriteSmallFile(access, op, path, access.protection->SealReport(EncodeReport(report)));
}

absl::Status WriteSmallFile(const PoolAccess& access,
                            PoolOp op,
                            const std::string& path,
                            const std::string& content) {
  PoolCall call = access.CallOf(op, path);
  call.length = content.size();
  call.buffer = access.files->TakeBuffer(content.size());
  if (call.buffer == nullptr) {
    return NoBuffer();
  }
  std::memcpy(call.buffer->memory().data(), content.data(), content.size());
  return access.files->Call(std::move(call)).status;
}

absl::StatusOr<std::string> ReadSmallFile(const PoolAccess& access, const std::string& path) {
  PoolFile file(access, path);
  std::string content(kFirstRead, '\0');
  const absl::StatusOr<uint64_t> got = file.ReadAt(0, absl::MakeSpan(content));
  if (!got.ok()) {
    return got.status();
  }
  content.resize(*got);
  return content;
}

absl::Status MakePoolFolder(const PoolAccess& access, const std::string& path) {
  return access.files->Call(access.CallOf(PoolOp::kMakeFolder, path)).status;
}

}  // namespace terrace
