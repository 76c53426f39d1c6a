#include "tiers/segment/tier_folder.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "tiers/os/descriptor.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"

namespace terrace {
namespace {

constexpr absl::string_view kUnfinishedName = "terrace.superblock.new";
constexpr absl::string_view kSegmentPrefix = "segment-";
constexpr absl::string_view kSegmentSuffix = ".terrace";
constexpr uint64_t kSuperblockBytes = uint64_t{kSuperblockCopies} * kPageBytes;

bool AllZeros(const AlignedBuffer& buffer) {
  return std::all_of(buffer.bytes(), buffer.bytes() + buffer.size(),
                     [](char byte) { return byte == 0; });
}

bool Has(const std::vector<FolderEntry>& entries, absl::string_view name) {
  return std::any_of(entries.begin(), entries.end(),
                     [name](const FolderEntry& entry) { return entry.name == name; });
}

// What may lie in a directory in which a tier is made: nothing of anybody's.
bool MayLieInANewTier(const FolderEntry& entry) {
  return entry.name == "lost+found" || absl::StartsWith(entry.name, kScratchPrefix) ||
         (entry.name == kUnfinishedName && entry.kind == EntryKind::kFile &&
          entry.bytes <= kSuperblockBytes);
}

}  // namespace

std::string TierFolder::SegmentName(uint32_t number) {
  return absl::StrCat(kSegmentPrefix, absl::Hex(number, absl::kZeroPad8), kSegmentSuffix);
}

bool TierFolder::ParseSegmentName(absl::string_view name, uint32_t* number) {
  return absl::StartsWith(name, kSegmentPrefix) && absl::EndsWith(name, kSegmentSuffix) &&
         name.size() == SegmentName(0).size() &&
         absl::SimpleHexAtoi(
             name.substr(kSegmentPrefix.size(),
                         name.size() - kSegmentPrefix.size() - kSegmentSuffix.size()),
             number) &&
         SegmentName(*number) == name;
}

absl::StatusOr<std::unique_ptr<TierFolder>> TierFolder::Open(FileSystem& files,
                                                             const Options& options) {
  absl::StatusOr<std::unique_ptr<Folder>> folder =
      files.OpenFolder(options.path, FolderMode::kCreate);
  if (!folder.ok()) {
    return folder.status();
  }
  if (absl::Status owned = (*folder)->OwnExclusively(); !owned.ok()) {
    return owned;
  }
  const absl::StatusOr<std::vector<FolderEntry>> entries = (*folder)->List();
  if (!entries.ok()) {
    return entries.status();
  }
  const bool made = Has(*entries, kSuperblockName);
  for (const FolderEntry& entry : *entries) {
    if (!made && !MayLieInANewTier(entry)) {
      return absl::FailedPreconditionError(absl::StrCat(options.path, " holds ", entry.name,
                                                        " and no superblock: it is not a tier's"));
    }
  }
  absl::StatusOr<TransferFact> transfers = (*folder)->ProbeTransfers();
  if (!transfers.ok()) {
    return transfers.status();
  }
  std::unique_ptr<TierFolder> tier(new TierFolder(*std::move(folder), *std::move(transfers)));
  absl::Status status = made ? tier->ReadSuperblock(options.expected_uuid)
                        : options.expected_uuid.IsZero()
                            ? tier->MakeSuperblock(options.segment_bytes, *entries)
                            : absl::FailedPreconditionError(absl::StrCat(
                                  options.path, " is empty, and a certain tier is expected"));
  if (status.ok()) {
    status = tier->RaiseEpoch();
  }
  if (!status.ok()) {
    return status;
  }
  return tier;
}

absl::Status TierFolder::ReadSuperblock(const Digest128& expected_uuid) {
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open(kSuperblockName, OpenMode::kReadWrite, transfers_.caching);
  if (!file.ok()) {
    return file.status();
  }
  superblock_file_ = *std::move(file);
  bool found = false;
  for (uint32_t copy = 0; copy < kSuperblockCopies; ++copy) {
    const AlignedBuffer page(kPageBytes);
    absl::Status status = ReadFully(*superblock_file_, uint64_t{copy} * kPageBytes, page.span());
    if (!status.ok() && !absl::IsOutOfRange(status)) {
      return status;
    }
    Superblock read;
    const HeaderFault fault =
        status.ok() ? DecodeSuperblock(page.span(), &read) : HeaderFault::kNoRecord;
    if (fault == HeaderFault::kNewerVersion) {
      return absl::FailedPreconditionError("the superblock's format is newer than this program");
    }
    if (fault == HeaderFault::kNone && (!found || read.epoch > superblock_.epoch)) {
      found = true;
      superblock_ = read;
      next_copy_ = 1 - copy;
    }
  }
  if (!found) {
    return absl::DataLossError("neither copy of the superblock can be read");
  }
  if (!expected_uuid.IsZero() && !(expected_uuid == superblock_.uuid)) {
    return absl::FailedPreconditionError(absl::StrCat("tier ", superblock_.uuid.ToHex(),
                                                      " is here, and ", expected_uuid.ToHex(),
                                                      " is expected"));
  }
  return absl::OkStatus();
}

absl::Status TierFolder::MakeSuperblock(uint64_t segment_bytes,
                                        const std::vector<FolderEntry>& entries) {
  FillRandom({reinterpret_cast<char*>(&superblock_.uuid), sizeof(superblock_.uuid)});
  superblock_.segment_bytes = segment_bytes;
  const bool unfinished = Has(entries, kUnfinishedName);
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open(kUnfinishedName, unfinished ? OpenMode::kReadWrite : OpenMode::kCreateNew,
                    transfers_.caching);
  if (!file.ok()) {
    return file.status();
  }
  const AlignedBuffer copies(kSuperblockBytes);
  EncodeSuperblock(superblock_, copies.span().first(kPageBytes));
  EncodeSuperblock(superblock_, copies.span().subspan(kPageBytes));
  absl::Status status = WriteFully(**file, 0, copies.span());
  if (status.ok()) {
    status = (*file)->Sync();
  }
  if (status.ok()) {
    status = folder_->Rename(kUnfinishedName, kSuperblockName);
  }
  if (status.ok()) {
    status = folder_->Sync();
  }
  superblock_file_ = *std::move(file);
  return status;
}

absl::Status TierFolder::RaiseEpoch() {
  if (superblock_.epoch == kMaxTierEpoch) {
    return absl::FailedPreconditionError("the tier has been opened as often as its format allows");
  }
  ++superblock_.epoch;
  const AlignedBuffer page(kPageBytes);
  EncodeSuperblock(superblock_, page.span());
  absl::Status status =
      WriteFully(*superblock_file_, uint64_t{next_copy_} * kPageBytes, page.span());
  next_copy_ = 1 - next_copy_;
  return status.ok() ? superblock_file_->Sync() : status;
}

absl::StatusOr<std::vector<SegmentFile>> TierFolder::OpenSegments() {
  const absl::StatusOr<std::vector<FolderEntry>> entries = folder_->List();
  if (!entries.ok()) {
    return entries.status();
  }
  std::vector<SegmentFile> segments;
  for (const FolderEntry& entry : *entries) {
    SegmentFile segment;
    if (!ParseSegmentName(entry.name, &segment.number)) {
      continue;
    }
    segment.bytes = entry.bytes;
    absl::StatusOr<std::unique_ptr<File>> file =
        folder_->Open(entry.name, OpenMode::kReadWrite, transfers_.caching);
    if (file.ok()) {
      segment.file = *std::move(file);
      if (absl::Status status = Identify(&segment); !status.ok()) {
        segment.found = FoundSegment::kUnproven;  // unreadable: it may be ours, but who knows
      }
    }
    segments.push_back(std::move(segment));
  }
  return segments;
}

absl::Status TierFolder::Identify(SegmentFile* segment) {
  const uint64_t last_page = superblock_.segment_bytes - kPageBytes;
  AlignedBuffer page(kPageBytes);
  absl::Status status = ReadFully(*segment->file, 0, page.span());
  if (absl::IsOutOfRange(status)) {
    // Shorter than a page: made and not yet grown when the power went.
    segment->found = segment->bytes == 0 ? FoundSegment::kBlank : FoundSegment::kUnproven;
    return absl::OkStatus();
  }
  SegmentHead head;
  if (status.ok() && DecodeSegmentHead(page.span(), &head) == HeaderFault::kNone) {
    const bool ours = head.tier_uuid == superblock_.uuid && head.number == segment->number &&
                      head.segment_bytes == superblock_.segment_bytes;
    segment->found = ours ? FoundSegment::kUsed : FoundSegment::kUnproven;
    segment->role = head.role;
    segment->epoch = head.epoch;
    return absl::OkStatus();
  }
  const bool blank_head = status.ok() && AllZeros(page);
  status.Update(ReadFully(*segment->file, last_page, page.span()));
  SegmentTrailer trailer;
  if (status.ok() && DecodeTrailer(page.span(), &trailer) == HeaderFault::kNone &&
      trailer.tier_uuid == superblock_.uuid && trailer.number == segment->number) {
    // The head is damaged, and the footer is that of its use; or it was torn while the file was
    // taken into use again, and the footer says that nothing is left of the use before.
    segment->found = FoundSegment::kUsed;
    segment->role = trailer.role;
    segment->epoch = trailer.epoch;
    return absl::OkStatus();
  }
  segment->found = blank_head && (absl::IsOutOfRange(status) || AllZeros(page))
                       ? FoundSegment::kBlank
                       : FoundSegment::kUnproven;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<File>> TierFolder::MakeSegment(uint32_t number,
                                                              uint64_t free_reserve_bytes) {
  const absl::StatusOr<FolderSpace> space = folder_->Space();
  if (!space.ok()) {
    return space.status();
  }
  if (space->available_bytes < superblock_.segment_bytes ||
      space->available_bytes - superblock_.segment_bytes < free_reserve_bytes) {
    return absl::ResourceExhaustedError("less than the reserve would be left free");
  }
  const std::string name = SegmentName(number);
  absl::StatusOr<std::unique_ptr<File>> file =
      folder_->Open(name, OpenMode::kCreateNew, transfers_.caching);
  if (!file.ok()) {
    return file.status();
  }
  absl::Status status = (*file)->Preallocate(superblock_.segment_bytes);
  if (status.ok()) {
    status = (*file)->Sync();
  }
  if (status.ok()) {
    status = folder_->Sync();
  }
  if (!status.ok()) {
    folder_->Remove(name).IgnoreError();  // it was made three lines above
    return status;
  }
  return std::shared_ptr<File>(*std::move(file));
}

absl::Status TierFolder::RemoveSegment(uint32_t number) {
  absl::Status status = folder_->Remove(SegmentName(number));
  if (absl::IsNotFound(status)) {
    status = absl::OkStatus();
  }
  return status.ok() ? folder_->Sync() : status;
}

absl::Status TierFolder::BeginSegment(File& file,
                                      uint32_t number,
                                      SegmentRole role,
                                      uint64_t epoch) {
  const AlignedBuffer page(kPageBytes);
  const AlignedBuffer last_page(kPageBytes);
  EncodeSegmentHead({superblock_.uuid, number, role, epoch, superblock_.segment_bytes},
                    page.span());
  SegmentTrailer empty;
  empty.tier_uuid = superblock_.uuid;
  empty.number = number;
  empty.role = role;
  empty.epoch = epoch - 1;
  empty.entries_page = static_cast<uint32_t>(superblock_.segment_bytes / kPageBytes - 1);
  empty.end_page = 1;
  empty.entries_checksum = PayloadChecksum({});
  EncodeTrailer(empty, last_page.span());
  // A power loss may have left the file short of what it was made with.
  absl::Status status = file.Preallocate(superblock_.segment_bytes);
  if (status.ok()) {
    status = WriteFully(file, superblock_.segment_bytes - kPageBytes, last_page.span());
  }
  if (status.ok()) {
    status = file.Sync();
  }
  if (status.ok()) {
    status = WriteFully(file, 0, page.span());
  }
  return status.ok() ? file.Sync() : status;
}

absl::StatusOr<bool> TierFolder::PathLeadsHere() {
  const absl::StatusOr<FolderIdentity> here = folder_->Identity();
  if (!here.ok()) {
    return here.status();
  }
  const absl::StatusOr<FolderIdentity> there = folder_->IdentityAtPath();
  if (absl::IsNotFound(there.status())) {
    return false;
  }
  if (!there.ok()) {
    return there.status();
  }
  return *here == *there;
}

}  // namespace terrace
