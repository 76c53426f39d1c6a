#include "tests/doubles/memory_rooted_files.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <numeric>

#include "absl/strings/str_cat.h"

#include "tiers/vocab/check.h"

namespace terrace::doubles {
namespace {

std::string ParentOf(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == absl::string_view::npos ? "" : std::string(path.substr(0, slash));
}

absl::Status Absent(absl::string_view path) {
  return absl::NotFoundError(absl::StrCat(path, ": absent"));
}

absl::Status WrongKind(absl::string_view path) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": of another kind"));
}

}  // namespace

// ---- PagedContent ---------------------------------------------------------------------------

uint64_t PagedContent::stored_bytes() const {
  return pages_.size() * kPageBytes;
}

void PagedContent::Resize(uint64_t bytes) {
  if (bytes < size_) {
    pages_.erase(pages_.lower_bound((bytes + kPageBytes - 1) / kPageBytes), pages_.end());
    const uint64_t kept = bytes % kPageBytes;
    const auto last = pages_.find(bytes / kPageBytes);
    if (kept != 0 && last != pages_.end()) {
      last->second = std::make_shared<std::string>(last->second->substr(0, kept));
      last->second->resize(kPageBytes, '\0');
    }
  }
  size_ = bytes;
}

uint64_t PagedContent::Read(uint64_t offset, absl::Span<char> out) const {
  const uint64_t bytes = offset >= size_ ? 0 : std::min<uint64_t>(out.size(), size_ - offset);
  for (uint64_t done = 0; done < bytes;) {
    const uint64_t within = (offset + done) % kPageBytes;
    const uint64_t piece = std::min(kPageBytes - within, bytes - done);
    const auto page = pages_.find((offset + done) / kPageBytes);
    if (page == pages_.end()) {
      std::fill_n(out.data() + done, piece, '\0');
    } else {
      std::copy_n(page->second->data() + within, piece, out.data() + done);
    }
    done += piece;
  }
  return bytes;
}

void PagedContent::Write(uint64_t offset, absl::Span<const char> bytes) {
  for (uint64_t done = 0; done < bytes.size();) {
    const uint64_t within = (offset + done) % kPageBytes;
    const uint64_t piece = std::min<uint64_t>(kPageBytes - within, bytes.size() - done);
    std::shared_ptr<std::string>& page = pages_[(offset + done) / kPageBytes];
    if (page == nullptr) {
      page = std::make_shared<std::string>(kPageBytes, '\0');
    } else if (page.use_count() > 1) {
      page = std::make_shared<std::string>(*page);
    }
    std::copy_n(bytes.data() + done, piece, page->data() + within);
    done += piece;
  }
  size_ = std::max<uint64_t>(size_, offset + bytes.size());
}

// ---- MemoryMount ----------------------------------------------------------------------------

void MemoryMount::FlipBit(const std::string& path, uint64_t offset, int bit) {
  absl::MutexLock lock(&mutex_);
  PagedContent& content = names_.at(path)->content;
  char byte = 0;
  TERRACE_CHECK(content.Read(offset, {&byte, 1}) == 1);
  byte = static_cast<char>(byte ^ (1 << bit));
  content.Write(offset, {&byte, 1});
}

void MemoryMount::Truncate(const std::string& path, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  names_.at(path)->content.Resize(bytes);
}

void MemoryMount::Plant(const std::string& path, absl::string_view content) {
  absl::MutexLock lock(&mutex_);
  for (std::string folder = ParentOf(path); !folder.empty(); folder = ParentOf(folder)) {
    names_[folder] = nullptr;
  }
  auto inode = std::make_shared<Inode>();
  inode->content.Write(0, {content.data(), content.size()});
  names_[path] = std::move(inode);
}

void MemoryMount::Erase(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  names_.erase(path);
}

void MemoryMount::Rename(const std::string& from, const std::string& to) {
  absl::MutexLock lock(&mutex_);
  names_[to] = names_.at(from);
  names_.erase(from);
}

bool MemoryMount::Exists(const std::string& path) const {
  absl::MutexLock lock(&mutex_);
  return names_.contains(path);
}

std::string MemoryMount::Content(const std::string& path) const {
  absl::MutexLock lock(&mutex_);
  const auto found = names_.find(path);
  std::string content;
  if (found != names_.end() && found->second != nullptr) {
    content.resize(found->second->content.size());
    found->second->content.Read(0, absl::MakeSpan(content));
  }
  return content;
}

std::vector<std::string> MemoryMount::Paths() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, inode] : names_) {
    if (inode != nullptr) {
      paths.push_back(path);
    }
  }
  return paths;
}

uint64_t MemoryMount::stored_bytes() const {
  absl::MutexLock lock(&mutex_);
  return std::accumulate(
      names_.begin(), names_.end(), uint64_t{0}, [](uint64_t sum, const auto& name) {
        return sum + (name.second ? name.second->content.stored_bytes() : uint64_t{0});
      });
}

void MemoryMount::SetTotalBytes(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  total_bytes_ = bytes;
}

uint64_t MemoryMount::FreeBytesLocked() const {
  uint64_t used = 0;
  for (const auto& [path, inode] : names_) {
    used += inode == nullptr ? 0 : inode->content.size();
  }
  return used >= total_bytes_ ? 0 : total_bytes_ - used;
}

bool MemoryMount::HasParentLocked(absl::string_view path) const {
  const std::string parent = ParentOf(path);
  const auto found = names_.find(parent);
  return parent.empty() || (found != names_.end() && found->second == nullptr);
}

// ---- MemoryRootedFiles: what a test says -----------------------------------------------------

void MemoryRootedFiles::Fail(PoolOp op, uint64_t nth, absl::Status status, uint64_t times) {
  absl::MutexLock lock(&mutex_);
  faults_[op] = {counts_[static_cast<size_t>(op)] + nth, times, std::move(status)};
}

void MemoryRootedFiles::FlipReadsOf(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  flipped_ = path;
}

void MemoryRootedFiles::Heal() {
  absl::MutexLock lock(&mutex_);
  faults_.clear();
  flipped_.clear();
  swapped_ = false;
}

uint64_t MemoryRootedFiles::calls(PoolOp op) const {
  absl::MutexLock lock(&mutex_);
  return counts_[static_cast<size_t>(op)];
}

uint64_t MemoryRootedFiles::calls() const {
  absl::MutexLock lock(&mutex_);
  return std::accumulate(std::begin(counts_), std::end(counts_), uint64_t{0});
}

void MemoryRootedFiles::KeepWhatIsOpened(bool keep) {
  absl::MutexLock lock(&mutex_);
  keeps_opened_ = keep;
  opened_.clear();
}

void MemoryRootedFiles::FreezeNames() {
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  frozen_ = std::make_unique<MemoryMount::Names>(mount_.names_);
}

void MemoryRootedFiles::ThawNames() {
  absl::MutexLock lock(&mutex_);
  frozen_.reset();
}

void MemoryRootedFiles::HoldWritesUntilSync(bool hold) {
  absl::MutexLock lock(&mutex_);
  holds_writes_ = hold;
}

void MemoryRootedFiles::LoseUnsynced() {
  absl::MutexLock lock(&mutex_);
  unsynced_.clear();
  opened_.clear();
}

void MemoryRootedFiles::SwapRoot(bool swapped) {
  absl::MutexLock lock(&mutex_);
  swapped_ = swapped;
}

// ---- MemoryRootedFiles: the calls ------------------------------------------------------------

absl::Status MemoryRootedFiles::Begin(PoolOp op, absl::string_view path) {
  absl::MutexLock lock(&mutex_);
  const uint64_t number = ++counts_[static_cast<size_t>(op)];
  const bool without_path = op == PoolOp::kSpace || op == PoolOp::kCheckRoot;
  const bool root = op == PoolOp::kList && path.empty();
  if (!without_path && !root && !IsRootedPath(path)) {
    return absl::InvalidArgumentError("path: not one below the root");
  }
  const auto fault = faults_.find(op);
  if (fault != faults_.end() && number >= fault->second.first &&
      number - fault->second.first < fault->second.times) {
    return fault->second.status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<MemoryRootedFiles::Inode>> MemoryRootedFiles::FindLocked(
    const std::string& path) {
  const auto found = mount_.names_.find(path);
  if (found == mount_.names_.end() || (frozen_ != nullptr && !frozen_->contains(path))) {
    return Absent(path);
  }
  if (found->second == nullptr) {
    return WrongKind(path);
  }
  return found->second;
}

absl::Status MemoryRootedFiles::CheckNewNameLocked(const std::string& path) const {
  if (!mount_.HasParentLocked(path)) {
    return Absent(ParentOf(path));
  }
  return mount_.names_.contains(path) ? absl::AlreadyExistsError(absl::StrCat(path, ": exists"))
                                      : absl::OkStatus();
}

void MemoryRootedFiles::PutLocked(const std::string& path, std::shared_ptr<Inode> inode) {
  if (frozen_ != nullptr) {
    (*frozen_)[path] = inode;
  }
  opened_.erase(path);
  mount_.names_[path] = std::move(inode);
}

const PagedContent& MemoryRootedFiles::SeenLocked(const std::string& path,
                                                  const std::shared_ptr<Inode>& inode,
                                                  ReadHow how) {
  if (const auto own = unsynced_.find(inode); own != unsynced_.end()) {
    return own->second;
  }
  if (!keeps_opened_ || how == ReadHow::kGlance) {
    return inode->content;
  }
  Opened& opened = opened_[path];
  if (opened.inode == nullptr || how == ReadHow::kFresh) {
    opened = {inode, inode->content};
  }
  return opened.as_opened;
}

absl::StatusOr<uint64_t> MemoryRootedFiles::Read(absl::string_view path,
                                                 uint64_t offset,
                                                 absl::Span<char> out,
                                                 ReadHow how) {
  if (absl::Status begun = Begin(PoolOp::kRead, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  std::shared_ptr<Inode> inode;
  if (const auto opened = opened_.find(name); opened != opened_.end() && how == ReadHow::kKept) {
    inode = opened->second.inode;  // also when its name is gone
  } else {
    absl::StatusOr<std::shared_ptr<Inode>> found = FindLocked(name);
    if (!found.ok()) {
      return found.status();
    }
    inode = *std::move(found);
  }
  const uint64_t got = SeenLocked(name, inode, how).Read(offset, out);
  if (got > 0 && name == flipped_) {
    out[got / 2] = static_cast<char>(out[got / 2] ^ 1);
  }
  return got;
}

absl::Status MemoryRootedFiles::Write(absl::string_view path,
                                      uint64_t offset,
                                      absl::Span<const char> bytes) {
  if (absl::Status begun = Begin(PoolOp::kWrite, path); !begun.ok()) {
    return begun;
  }
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  const absl::StatusOr<std::shared_ptr<Inode>> inode = FindLocked(std::string(path));
  if (!inode.ok()) {
    return inode.status();
  }
  PagedContent* content = &(*inode)->content;
  if (holds_writes_) {
    content = &unsynced_.try_emplace(*inode, *content).first->second;
  }
  const uint64_t end = offset + bytes.size();
  if (end > content->size() && end - content->size() > mount_.FreeBytesLocked()) {
    return absl::ResourceExhaustedError("no space is left");
  }
  content->Write(offset, bytes);
  opened_.erase(std::string(path));
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::Sync(absl::string_view path) {
  if (absl::Status begun = Begin(PoolOp::kSync, path); !begun.ok()) {
    return begun;
  }
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  const absl::StatusOr<std::shared_ptr<Inode>> inode = FindLocked(std::string(path));
  if (!inode.ok()) {
    return inode.status();
  }
  if (const auto own = unsynced_.find(*inode); own != unsynced_.end()) {
    (*inode)->content = std::move(own->second);
    unsynced_.erase(own);
  }
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::Make(absl::string_view path, uint64_t bytes) {
  if (absl::Status begun = Begin(PoolOp::kMake, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  if (absl::Status free = CheckNewNameLocked(name); !free.ok()) {
    return free;
  }
  if (bytes > mount_.FreeBytesLocked()) {
    return absl::ResourceExhaustedError("no space is left");
  }
  auto inode = std::make_shared<Inode>();
  inode->content.Resize(bytes);
  PutLocked(name, std::move(inode));
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::Create(absl::string_view path, absl::Span<const char> content) {
  if (absl::Status begun = Begin(PoolOp::kCreate, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  if (content.size() > kMaxSmallFileBytes) {
    return absl::InvalidArgumentError("content: at most 4 MiB");
  }
  if (absl::Status free = CheckNewNameLocked(name); !free.ok()) {
    return free;
  }
  if (content.size() > mount_.FreeBytesLocked()) {
    return absl::ResourceExhaustedError("no space is left");
  }
  auto inode = std::make_shared<Inode>();
  inode->content.Write(0, content);
  PutLocked(name, std::move(inode));
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::Replace(absl::string_view path, absl::Span<const char> content) {
  if (absl::Status begun = Begin(PoolOp::kReplace, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  if (content.size() > kMaxSmallFileBytes) {
    return absl::InvalidArgumentError("content: at most 4 MiB");
  }
  if (absl::Status free = CheckNewNameLocked(name); absl::IsNotFound(free)) {
    return free;
  }
  const auto old = mount_.names_.find(name);
  if (old != mount_.names_.end() && old->second == nullptr) {
    return WrongKind(name);
  }
  if (content.size() > mount_.FreeBytesLocked()) {
    return absl::ResourceExhaustedError("no space is left");
  }
  auto inode = std::make_shared<Inode>();
  inode->content.Write(0, content);
  PutLocked(name, std::move(inode));
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::Remove(absl::string_view path) {
  if (absl::Status begun = Begin(PoolOp::kRemove, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  if (const absl::StatusOr<std::shared_ptr<Inode>> inode = FindLocked(name); !inode.ok()) {
    return inode.status();
  }
  mount_.names_.erase(name);
  opened_.erase(name);
  if (frozen_ != nullptr) {
    frozen_->erase(name);
  }
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::MakeFolder(absl::string_view path) {
  if (absl::Status begun = Begin(PoolOp::kMakeFolder, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  const absl::Status free = CheckNewNameLocked(name);
  if (absl::IsNotFound(free)) {
    return free;
  }
  if (absl::IsAlreadyExists(free) && mount_.names_.at(name) != nullptr) {
    return WrongKind(name);
  }
  PutLocked(name, nullptr);
  return absl::OkStatus();
}

absl::Status MemoryRootedFiles::RemoveFolder(absl::string_view path) {
  if (absl::Status begun = Begin(PoolOp::kRemoveFolder, path); !begun.ok()) {
    return begun;
  }
  const std::string name(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  const auto found = mount_.names_.find(name);
  if (found == mount_.names_.end()) {
    return Absent(name);
  }
  if (found->second != nullptr) {
    return WrongKind(name);
  }
  const auto first_within = mount_.names_.lower_bound(name + "/");
  if (first_within != mount_.names_.end() && first_within->first.starts_with(name + "/")) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": not empty"));
  }
  mount_.names_.erase(found);
  if (frozen_ != nullptr) {
    frozen_->erase(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<FolderEntry>> MemoryRootedFiles::List(absl::string_view path) {
  if (absl::Status begun = Begin(PoolOp::kList, path); !begun.ok()) {
    return begun;
  }
  const std::string folder(path);
  absl::MutexLock lock(&mutex_);
  absl::MutexLock mount_lock(&mount_.mutex_);
  const MemoryMount::Names& names = frozen_ == nullptr ? mount_.names_ : *frozen_;
  const auto found = names.find(folder);
  if (!folder.empty() && found == names.end()) {
    return Absent(folder);
  }
  if (!folder.empty() && found->second != nullptr) {
    return WrongKind(folder);
  }
  const std::string prefix = folder.empty() ? "" : folder + "/";
  std::vector<FolderEntry> entries;
  for (auto name = names.lower_bound(prefix); name != names.end(); ++name) {
    if (!name->first.starts_with(prefix)) {
      break;
    }
    std::string within = name->first.substr(prefix.size());
    if (within.find('/') != std::string::npos) {
      continue;
    }
    if (entries.size() == kMaxEntries) {
      return absl::ResourceExhaustedError("the folder has too many entries");
    }
    const bool is_file = name->second != nullptr;
    entries.push_back({std::move(within), is_file ? EntryKind::kFile : EntryKind::kFolder, 0});
  }
  // The names of a folder's own folders come between: "a-b" before "a/b" before "ab".
  std::sort(entries.begin(), entries.end(),
            [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
  return entries;
}

absl::StatusOr<FolderSpace> MemoryRootedFiles::Space() {
  if (absl::Status begun = Begin(PoolOp::kSpace, ""); !begun.ok()) {
    return begun;
  }
  absl::MutexLock mount_lock(&mount_.mutex_);
  return FolderSpace{mount_.total_bytes_, mount_.FreeBytesLocked()};
}

absl::Status MemoryRootedFiles::CheckRoot() {
  if (absl::Status begun = Begin(PoolOp::kCheckRoot, ""); !begun.ok()) {
    return begun;
  }
  absl::MutexLock lock(&mutex_);
  return swapped_ ? absl::UnavailableError("the root's path leads to another folder")
                  : absl::OkStatus();
}

}  // namespace terrace::doubles
