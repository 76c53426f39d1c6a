// A folder of the test's own, gone with it.
#pragma once

#include <system_error>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace terrace::doubles {

class PrivateFolder {
 public:
  // Below `parent`, or where temporary files go.
  explicit PrivateFolder(const std::filesystem::path& parent = {}) {
    std::string pattern =
        ((parent.empty() ? std::filesystem::temp_directory_path() : parent) / "terrace-XXXXXX")
            .string();
    path_ = mkdtemp(pattern.data());
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  ~PrivateFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace terrace::doubles
