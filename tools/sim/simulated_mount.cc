#include "tools/sim/simulated_mount.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace terrace::sim {
namespace {

constexpr uint64_t kPage = 4096;

struct SplitPath {
  std::string folder;
  std::string name;
};

SplitPath Split(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? SplitPath{"", path}
                                    : SplitPath{path.substr(0, slash), path.substr(slash + 1)};
}

bool IsZeros(absl::Span<const char> bytes) {
  static constexpr std::array<char, kPage> kZeros{};
  return std::memcmp(bytes.data(), kZeros.data(), bytes.size()) == 0;
}

absl::Status Absent(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": absent"));
}

}  // namespace

absl::Status SimulatedMount::CheckNewName(const std::string& path) const {
  const SplitPath split = Split(path);
  const auto folder = folders_.find(split.folder);
  if (folder == folders_.end()) {
    return Absent(split.folder);
  }
  return folder->second.contains(split.name)
             ? absl::AlreadyExistsError(absl::StrCat(path, ": exists"))
             : absl::OkStatus();
}

absl::Status SimulatedMount::CheckFile(const std::string& path) const {
  if (folders_.contains(path)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a folder"));
  }
  return files_.contains(path) ? absl::OkStatus() : Absent(path);
}

SimulatedMount::File& SimulatedMount::Add(const std::string& path) {
  SplitPath split = Split(path);
  folders_.at(split.folder).insert(std::move(split.name));
  return files_[path];
}

absl::Status SimulatedMount::Make(const std::string& path, uint64_t bytes) {
  if (absl::Status status = CheckNewName(path); !status.ok()) {
    return status;
  }
  File& file = Add(path);
  file.bytes = bytes;
  file.made = true;
  made_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status SimulatedMount::Put(const std::string& path,
                                 absl::Span<const char> content,
                                 Existing existing) {
  absl::Status status = CheckNewName(path);
  if (absl::IsAlreadyExists(status) && existing == Existing::kReplace) {
    status = CheckFile(path);
  }
  if (!status.ok()) {
    return status;
  }
  File& file = Add(path);
  file = File();
  file.bytes = content.size();
  WriteTo(file, 0, content);
  return absl::OkStatus();
}

void SimulatedMount::WriteTo(File& file, uint64_t offset, absl::Span<const char> bytes) {
  for (uint64_t done = 0; done < bytes.size();) {
    const uint64_t within = (offset + done) % kPage;
    const absl::Span<const char> piece = bytes.subspan(done, kPage - within);
    const uint64_t number = (offset + done) / kPage;
    done += piece.size();
    auto page = file.pages.find(number);
    if (page == file.pages.end() && IsZeros(piece)) {
      continue;
    }
    if (page == file.pages.end()) {
      page = file.pages.try_emplace(number).first;
    }
    std::string& stored = page->second;
    stored.resize(std::max<size_t>(stored.size(), within + piece.size()));
    std::copy(piece.begin(), piece.end(), stored.begin() + static_cast<int64_t>(within));
    stored.resize(stored.find_last_not_of('\0') + 1);  // npos + 1 is 0
    stored.shrink_to_fit();
  }
}

absl::Status SimulatedMount::Write(const std::string& path,
                                   uint64_t offset,
                                   absl::Span<const char> bytes) {
  if (absl::Status status = CheckFile(path); !status.ok()) {
    return status;
  }
  File& file = files_.at(path);
  WriteTo(file, offset, bytes);
  file.bytes = std::max(file.bytes, offset + bytes.size());
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SimulatedMount::Read(const std::string& path,
                                              uint64_t offset,
                                              absl::Span<char> out) const {
  if (absl::Status status = CheckFile(path); !status.ok()) {
    return status;
  }
  const File& file = files_.at(path);
  const uint64_t bytes =
      offset >= file.bytes ? 0 : std::min<uint64_t>(out.size(), file.bytes - offset);
  std::fill_n(out.begin(), bytes, '\0');
  for (auto page = file.pages.lower_bound(offset / kPage); page != file.pages.end(); ++page) {
    const uint64_t begin = page->first * kPage;
    if (begin >= offset + bytes) {
      break;
    }
    const uint64_t from = std::max(begin, offset);
    const uint64_t end = std::min(begin + page->second.size(), offset + bytes);
    if (from < end) {
      std::copy_n(page->second.data() + (from - begin), end - from, out.data() + (from - offset));
    }
  }
  return bytes;
}

absl::Status SimulatedMount::Remove(const std::string& path) {
  if (absl::Status status = CheckFile(path); !status.ok()) {
    return status;
  }
  const File& file = files_.at(path);
  made_bytes_ -= file.made ? file.bytes : 0;
  const SplitPath split = Split(path);
  folders_.at(split.folder).erase(split.name);
  files_.erase(path);
  return absl::OkStatus();
}

absl::Status SimulatedMount::MakeFolder(const std::string& path) {
  if (folders_.contains(path)) {
    return absl::OkStatus();
  }
  if (absl::Status status = CheckNewName(path); !status.ok()) {
    return absl::IsAlreadyExists(status)
               ? absl::InvalidArgumentError(absl::StrCat(path, ": no folder"))
               : status;
  }
  SplitPath split = Split(path);
  folders_.at(split.folder).insert(std::move(split.name));
  folders_[path];
  return absl::OkStatus();
}

absl::Status SimulatedMount::RemoveFolder(const std::string& path) {
  const auto folder = folders_.find(path);
  if (folder == folders_.end()) {
    return Absent(path);
  }
  if (!folder->second.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not empty"));
  }
  folders_.erase(folder);
  const SplitPath split = Split(path);
  folders_.at(split.folder).erase(split.name);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<FolderEntry>> SimulatedMount::List(const std::string& path) const {
  const auto folder = folders_.find(path);
  if (folder == folders_.end()) {
    return Absent(path);
  }
  std::vector<FolderEntry> entries;
  for (const std::string& name : folder->second) {
    const bool is_file = files_.contains(path.empty() ? name : absl::StrCat(path, "/", name));
    entries.push_back({name, is_file ? EntryKind::kFile : EntryKind::kFolder, 0});
  }
  return entries;
}

}  // namespace terrace::sim
