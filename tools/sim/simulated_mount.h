// The file system of a simulated pool, in memory: honest, immediate, without permissions.
//
// Content is kept by pages, and what of a page is zeros at its end is not: payloads of zeros cost
// nothing, so that only headers, footers and reports are stored.
//
// Confined to the simulation's thread. Paths are those of RootedFiles, and so are the errors.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "tiers/os/file_system.h"

namespace terrace::sim {

class SimulatedMount {
 public:
  SimulatedMount() { folders_[""]; }

  // A new file of so many zeros.
  absl::Status Make(const std::string& path, uint64_t bytes);
  // A whole file; in the place of what is there, or only where nothing is.
  enum class Existing : uint8_t { kReplace, kKeep };
  absl::Status Put(const std::string& path, absl::Span<const char> content, Existing existing);
  absl::Status Write(const std::string& path, uint64_t offset, absl::Span<const char> bytes);
  // As far as the file goes; returns how much.
  absl::StatusOr<uint64_t> Read(const std::string& path,
                                uint64_t offset,
                                absl::Span<char> out) const;
  absl::Status Remove(const std::string& path);

  absl::Status MakeFolder(const std::string& path);
  absl::Status RemoveFolder(const std::string& path);
  [[nodiscard]] absl::StatusOr<std::vector<FolderEntry>> List(const std::string& path) const;

  [[nodiscard]] bool HasFile(const std::string& path) const { return files_.contains(path); }
  [[nodiscard]] bool HasFolder(const std::string& path) const { return folders_.contains(path); }
  // Of files that Make made: a pool's segments.
  [[nodiscard]] uint64_t made_bytes() const { return made_bytes_; }

 private:
  struct File {
    uint64_t bytes = 0;
    bool made = false;
    std::map<uint64_t, std::string> pages;  // by number; without the zeros at their ends
  };

  static void WriteTo(File& file, uint64_t offset, absl::Span<const char> bytes);
  // NOT_FOUND: its folder is absent. ALREADY_EXISTS: something has the name.
  [[nodiscard]] absl::Status CheckNewName(const std::string& path) const;
  [[nodiscard]] absl::Status CheckFile(const std::string& path) const;
  File& Add(const std::string& path);

  absl::flat_hash_map<std::string, File> files_;
  absl::flat_hash_map<std::string, std::set<std::string>> folders_;  // names in them
  uint64_t made_bytes_ = 0;
};

}  // namespace terrace::sim
