#include "daemon/learnt_file.h"

#include <utility>

#include "daemon/concat.h"
#include "daemon/store/learnt_format.h"
#include "tiers/placement/eviction_policy.h"

namespace terrace {
namespace {

constexpr absl::string_view kNewName = "learnt.new";

}  // namespace

absl::StatusOr<std::vector<LearntPolicy>> LearntFile::ReadAll() {
  const auto folder = options_.files->OpenFolder(options_.folder, FolderMode::kExisting);
  if (!folder.ok()) {
    return folder.status();
  }
  const auto file = (*folder)->Open(kName, OpenMode::kRead, Caching::kBuffered);
  if (!file.ok()) {
    return file.status();
  }
  const absl::StatusOr<uint64_t> size = (*file)->Size();
  if (!size.ok()) {
    return size.status();
  }
  if (*size > kMaxLearntBytes) {
    return absl::DataLossError("is too long");
  }
  std::string bytes(*size, '\0');
  if (absl::Status s = ReadFully(**file, 0, absl::MakeSpan(bytes.data(), bytes.size())); !s.ok()) {
    return s;
  }
  return DecodeLearnt(bytes);
}

std::vector<LearntPolicy> LearntFile::Read() {
  absl::StatusOr<std::vector<LearntPolicy>> read = ReadAll();
  if (!read.ok()) {
    if (!absl::IsNotFound(read.status())) {
      Count(&LearntFigures::refused);
      options_.log->Warning("placement begins anew: what it had learnt cannot be read",
                            {{"file", Concat(options_.folder, "/", std::string(kName))},
                             {"error", std::string(read.status().message())}});
    }
    return {};
  }
  std::vector<LearntPolicy> sound;
  for (LearntPolicy& policy : *read) {
    const absl::Status status = CheckLearnt(options_.policy, policy.bytes);
    if (status.ok()) {
      Count(&LearntFigures::loaded);
      sound.push_back(std::move(policy));
      continue;
    }
    Count(&LearntFigures::refused);
    options_.log->Warning("placement begins anew: what it had learnt is of no use",
                          {{"tenant", policy.tenant},
                           {"slot_bytes", policy.slot_bytes},
                           {"error", std::string(status.message())}});
  }
  return sound;
}

absl::Status LearntFile::WriteAll(absl::string_view bytes) {
  const auto folder = options_.files->OpenFolder(options_.folder, FolderMode::kExisting);
  if (!folder.ok()) {
    return folder.status();
  }
  // One that a crash left is not written over: nobody knows what else has it open.
  if (absl::Status s = (*folder)->Remove(kNewName); !s.ok() && !absl::IsNotFound(s)) {
    return s;
  }
  const auto file = (*folder)->Open(kNewName, OpenMode::kCreateNew, Caching::kBuffered);
  if (!file.ok()) {
    return file.status();
  }
  absl::Status status = WriteFully(**file, 0, absl::MakeConstSpan(bytes.data(), bytes.size()));
  if (status.ok()) {
    status = (*file)->Sync();
  }
  if (status.ok()) {
    status = (*folder)->Rename(kNewName, kName);
  }
  return status.ok() ? (*folder)->Sync() : status;
}

void LearntFile::Write(const std::vector<LearntPolicy>& policies) {
  const absl::Status status = WriteAll(EncodeLearnt(policies));
  Count(status.ok() ? &LearntFigures::saves : &LearntFigures::failed_saves);
  if (!status.ok()) {
    options_.log->Warning("what placement has learnt cannot be kept",
                          {{"folder", options_.folder}, {"error", std::string(status.message())}});
  }
}

LearntFigures LearntFile::figures() const {
  absl::MutexLock lock(&mutex_);
  return figures_;
}

void LearntFile::Count(uint64_t LearntFigures::*figure) {
  absl::MutexLock lock(&mutex_);
  ++(figures_.*figure);
}

LearntKeeper::LearntKeeper(LearntFile& file,
                           std::function<std::vector<LearntPolicy>()> save,
                           absl::Duration interval)
    : file_(file), save_(std::move(save)) {
  thread_ = std::thread([this, interval] {
    while (!stop_.WaitForNotificationWithTimeout(interval)) {
      file_.Write(save_());
    }
    file_.Write(save_());
  });
}

void LearntKeeper::Stop() {
  if (thread_.joinable()) {
    stop_.Notify();
    thread_.join();
  }
}

}  // namespace terrace
