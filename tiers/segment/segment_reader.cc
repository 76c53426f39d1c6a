#include "tiers/segment/segment_reader.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "tiers/segment/segment_scan.h"
#include "tiers/segment/tier_folder.h"

namespace terrace {
namespace {

bool AllZeros(absl::Span<const char> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

absl::Status NoSegment(const std::string& name, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(name, " is not a segment: ", why));
}

// Head and footer of a file, and what they make of it.
absl::Status Identify(File& file, SegmentSummary* summary) {
  if (summary->file_bytes == 0) {
    summary->use = SegmentUse::kBlank;
    return absl::OkStatus();
  }
  if (summary->file_bytes % kPageBytes != 0) {
    return NoSegment(summary->name,
                     absl::StrCat("its size, ", summary->file_bytes, ", is no multiple of 4096"));
  }
  const AlignedBuffer first(kPageBytes);
  const AlignedBuffer last(kPageBytes);
  absl::Status status = ReadFully(file, 0, first.span());
  if (status.ok()) {
    status = ReadFully(file, summary->file_bytes - kPageBytes, last.span());
  }
  if (!status.ok()) {
    return status;
  }
  const HeaderFault head = DecodeSegmentHead(first.span(), &summary->head);
  SegmentTrailer trailer;
  const HeaderFault tail = DecodeTrailer(last.span(), &trailer);
  if (head == HeaderFault::kNewerVersion) {
    return NoSegment(summary->name, "its format is newer than this program");
  }
  if (head != HeaderFault::kNone && tail != HeaderFault::kNone) {
    if (AllZeros(first.span()) && AllZeros(last.span())) {
      summary->use = SegmentUse::kBlank;
      return absl::OkStatus();
    }
    return NoSegment(summary->name, "it has neither a head nor a footer");
  }
  if (head != HeaderFault::kNone) {
    summary->use = SegmentUse::kHeadDamaged;
    summary->head = {trailer.tier_uuid, trailer.number, trailer.role, trailer.epoch,
                     summary->file_bytes};
  } else if (summary->head.segment_bytes % kPageBytes != 0 ||
             summary->head.segment_bytes < 2 * uint64_t{kPageBytes}) {
    return NoSegment(summary->name, "its head gives it an impossible size");
  }
  // Of a file that was cut off the footer is gone; its records are not.
  const bool cut = summary->head.segment_bytes > summary->file_bytes;
  // An empty one of another use was left where this one began.
  const bool is_earlier = tail == HeaderFault::kNone && trailer.epoch != summary->head.epoch;
  if (tail == HeaderFault::kNoRecord || cut || (is_earlier && trailer.entries == 0)) {
    summary->footer = cut ? FooterState::kDamaged : FooterState::kNone;
  } else {
    summary->footer = is_earlier ? FooterState::kEarlier
                                 : FooterState::kDamaged;  // until its entries were found sound
  }
  return absl::OkStatus();
}

void Examine(File& file,
             const SegmentSummary& summary,
             SegmentReader::Depth depth,
             const IndexedRecord& listed,
             AlignedBuffer* buffer,
             FoundRecord* found) {
  const RecordClaim claim = {summary.head.tier_uuid, summary.head.epoch, listed};
  const uint64_t bytes =
      depth == SegmentReader::Depth::kPayloads ? RecordBytes(listed) : uint64_t{kPageBytes};
  if (buffer->size() < bytes) {
    *buffer = AlignedBuffer(bytes);
  }
  const absl::Span<char> read = buffer->span().first(bytes);
  const absl::Status status = ReadFully(file, uint64_t{listed.page} * kPageBytes, read);
  found->listed = listed;
  found->unreadable = !status.ok() && !absl::IsOutOfRange(status);
  if (!status.ok()) {
    found->fault = RecordFault::kHeader;  // behind the file's end, or unreadable
  } else {
    found->fault = depth == SegmentReader::Depth::kPayloads
                       ? CheckRecord(read, claim, &found->header)
                       : CheckHeader(read, claim, &found->header);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SegmentReader>> SegmentReader::Open(FileSystem& files,
                                                                   const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Folder>> opened = files.OpenFolder(folder, FolderMode::kExisting);
  if (!opened.ok()) {
    return opened.status();
  }
  return std::unique_ptr<SegmentReader>(new SegmentReader(*std::move(opened)));
}

absl::StatusOr<std::unique_ptr<File>> SegmentReader::OpenFile(const std::string& name) {
  // Past the page cache where that is possible: it is the running tier's host, too.
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open(name, OpenMode::kRead, Caching::kDirect);
  return absl::IsInvalidArgument(file.status())
             ? folder_->Open(name, OpenMode::kRead, Caching::kBuffered)
             : std::move(file);
}

absl::StatusOr<SuperblockView> SegmentReader::ReadSuperblock() {
  absl::StatusOr<std::unique_ptr<File>> file = OpenFile(std::string(TierFolder::kSuperblockName));
  if (!file.ok()) {
    return file.status();
  }
  SuperblockView view;
  bool found = false;
  for (uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
    const AlignedBuffer page(kPageBytes);
    const absl::Status status = ReadFully(**file, uint64_t{copy} * kPageBytes, page.span());
    if (!status.ok() && !absl::IsOutOfRange(status)) {
      return status;
    }
    Superblock read;
    view.copies[copy] = status.ok() ? DecodeSuperblock(page.span(), &read) : HeaderFault::kNoRecord;
    if (view.copies[copy] == HeaderFault::kNone && (!found || read.epoch > view.superblock.epoch)) {
      found = true;
      view.superblock = read;
    }
  }
  if (!found) {
    return absl::DataLossError("neither copy of the superblock can be read");
  }
  return view;
}

absl::StatusOr<std::vector<std::string>> SegmentReader::SegmentNames() {
  const absl::StatusOr<std::vector<FolderEntry>> entries = folder_->List();
  if (!entries.ok()) {
    return entries.status();
  }
  std::vector<std::string> names;
  for (const FolderEntry& entry : *entries) {
    uint32_t number = 0;
    if (TierFolder::ParseSegmentName(entry.name, &number)) {
      names.push_back(entry.name);
    }
  }
  return names;
}

absl::StatusOr<SegmentSummary> SegmentReader::ReadSegment(
    const std::string& name, Depth depth, const std::function<bool(const FoundRecord&)>& each) {
  absl::StatusOr<std::unique_ptr<File>> file = OpenFile(name);
  if (!file.ok()) {
    return file.status();
  }
  const absl::StatusOr<uint64_t> bytes = (*file)->Size();
  if (!bytes.ok()) {
    return bytes.status();
  }
  SegmentSummary summary;
  summary.name = name;
  summary.file_bytes = *bytes;
  if (absl::Status status = Identify(**file, &summary); !status.ok()) {
    return status;
  }
  if (summary.use == SegmentUse::kBlank) {
    return summary;
  }
  ScanResult scan;
  if (absl::Status status = ScanSegment({file->get(), summary.head.tier_uuid, summary.head.number,
                                         summary.head.epoch, summary.head.segment_bytes, 1},
                                        &scan);
      !status.ok()) {
    return status;
  }
  summary.footer = scan.by_footer ? FooterState::kSound : summary.footer;
  summary.end_page = scan.end_page;
  AlignedBuffer buffer;
  for (const IndexedRecord& listed : scan.records) {
    FoundRecord found;
    Examine(**file, summary, depth, listed, &buffer, &found);
    ++summary.records;
    summary.tombstone_records += listed.kind == static_cast<uint8_t>(RecordKind::kTombstones);
    summary.notes += listed.kind == static_cast<uint8_t>(RecordKind::kNote) ? 1 : 0;
    summary.payload_bytes += listed.payload_bytes;
    summary.damaged += found.fault == RecordFault::kNone ? 0 : 1;
    if (!each(found)) {
      break;
    }
  }
  return summary;
}

}  // namespace terrace
