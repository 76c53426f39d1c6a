// A tier's directory: its superblock and its files. Everything here blocks; nothing here knows
// records.
//
//   terrace.superblock         superblock_format.h
//   terrace.superblock.new     while the tier is being made
//   segment-XXXXXXXX.terrace   segment_format.h; the number in hexadecimal
//   index, index.bad           the owner's; never touched
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "tiers/os/file_system.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/superblock_format.h"

namespace terrace {

// What a segment's file is found to be at the start.
enum class FoundSegment : uint8_t {
  kUsed = 1,      // its head is ours
  kBlank = 2,     // made and never used: zeros
  kUnproven = 3,  // none of these: left alone
};
struct SegmentFile {
  uint32_t number = 0;
  FoundSegment found = FoundSegment::kUnproven;
  SegmentRole role = SegmentRole::kBlocks;
  uint64_t epoch = 0;
  uint64_t bytes = 0;
  std::shared_ptr<File> file;  // and every operation on it
};

// Thread-compatible.
class TierFolder {
 public:
  struct Options {
    std::string path;
    uint64_t segment_bytes = 0;  // of a tier that is made now
    Digest128 expected_uuid;
  };
  // Owns the directory, makes or reads the superblock, and raises its epoch durably. Errors as of
  // OpenSegmentTier.
  static absl::StatusOr<std::unique_ptr<TierFolder>> Open(FileSystem& files,
                                                          const Options& options);

  [[nodiscard]] const Superblock& superblock() const { return superblock_; }
  [[nodiscard]] const TransferFact& transfers() const { return transfers_; }

  // All segments' files, in order of number.
  absl::StatusOr<std::vector<SegmentFile>> OpenSegments();

  // Makes a segment's file, durably: ALREADY_EXISTS, RESOURCE_EXHAUSTED (also when less than the
  // reserve would be left). What it made is removed when it fails later.
  absl::StatusOr<std::shared_ptr<File>> MakeSegment(uint32_t number, uint64_t free_reserve_bytes);
  // Removes a segment's file, durably; whoever asks has proven that it is ours and holds nothing.
  absl::Status RemoveSegment(uint32_t number);
  // Writes and syncs the head of a new use. Before that, durably, an empty footer takes the place
  // of an earlier one: were the head torn, what that lists would come back, deleted meanwhile or
  // not. `epoch` and the one before it are no other use's of this file that has records.
  absl::Status BeginSegment(File& file, uint32_t number, SegmentRole role, uint64_t epoch);

  // Whether the path still leads to this directory.
  absl::StatusOr<bool> PathLeadsHere();

  static constexpr absl::string_view kSuperblockName = "terrace.superblock";
  static std::string SegmentName(uint32_t number);
  // False: not of that form.
  static bool ParseSegmentName(absl::string_view name, uint32_t* number);

 private:
  TierFolder(std::unique_ptr<Folder> folder, TransferFact transfers)
      : folder_(std::move(folder)), transfers_(std::move(transfers)) {}

  absl::Status ReadSuperblock(const Digest128& expected_uuid);
  absl::Status MakeSuperblock(uint64_t segment_bytes, const std::vector<FolderEntry>& entries);
  absl::Status RaiseEpoch();
  absl::Status Identify(SegmentFile* segment);

  const std::unique_ptr<Folder> folder_;
  const TransferFact transfers_;
  std::unique_ptr<File> superblock_file_;
  Superblock superblock_;
  uint32_t next_copy_ = 0;  // which copy of the superblock is written next
};

}  // namespace terrace
