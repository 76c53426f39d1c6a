#include "daemon/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "daemon/concat.h"
#include "daemon/config_rules.h"
#include "daemon/config_toml.h"
#include "daemon/quoted_text.h"
#include "daemon/settings.h"
#include "tiers/os/descriptor.h"

namespace terrace {
namespace {

LoadedConfig Defaults() {
  LoadedConfig loaded;
  loaded.origins.assign(Settings().size(), "default");
  return loaded;
}

absl::Status Refuse(std::string_view origin, std::string_view what) {
  return absl::InvalidArgumentError(Concat(origin, ": ", what));
}

std::string ErrorText(int error) {
  return std::system_category().message(error);
}

// Whoever can write the file, or put another in its place, decides who reads whose cache.
absl::Status CheckNotWorldWritable(const struct stat& status,
                                   std::string_view origin,
                                   std::string_view what) {
  if ((status.st_mode & S_IWOTH) == 0) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(
      Concat(origin, ": ", what, " is writable by everyone; chmod o-w it"));
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  // Not blocking: a FIFO must not keep the daemon from starting.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    return absl::NotFoundError(Concat(path, ": cannot be opened: ", ErrorText(errno)));
  }
  struct stat status = {};
  if (fstat(file.get(), &status) != 0) {
    return absl::NotFoundError(Concat(path, ": ", ErrorText(errno)));
  }
  if (!S_ISREG(status.st_mode)) {
    return Refuse(path, "is not a regular file");
  }
  if (absl::Status ok = CheckNotWorldWritable(status, path, "the file"); !ok.ok()) {
    return ok;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  struct stat parent = {};
  if (stat(folder.empty() ? "." : folder.c_str(), &parent) != 0) {
    return absl::NotFoundError(Concat(path, ": ", ErrorText(errno)));
  }
  if (absl::Status ok = CheckNotWorldWritable(parent, path, "its folder"); !ok.ok()) {
    return ok;
  }

  std::string text;
  char buffer[16384];
  while (text.size() <= kMaxConfigBytes) {
    const ssize_t got = read(file.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return absl::NotFoundError(Concat(path, ": cannot be read: ", ErrorText(errno)));
    }
    if (got == 0) {
      return text;
    }
    text.append(buffer, static_cast<size_t>(got));
  }
  return Refuse(path, Concat("is larger than ", SizeText(kMaxConfigBytes)));
}

absl::Status ApplyText(std::string_view text, std::string_view file, LoadedConfig* loaded) {
  if (text.size() > kMaxConfigBytes) {
    return Refuse(file, Concat("is larger than ", SizeText(kMaxConfigBytes)));
  }
  const absl::StatusOr<std::vector<TomlEntry>> entries = ParseToml(text, file);
  if (!entries.ok()) {
    return entries.status();
  }
  return ApplyEntries(*entries, file, loaded);
}

absl::Status AssignFrom(std::string_view name,
                        const TomlValue& value,
                        std::string_view origin,
                        LoadedConfig* loaded) {
  const auto index = static_cast<size_t>(FindSetting(name));
  if (absl::Status status = AssignSetting(Settings()[index], value, &loaded->config);
      !status.ok()) {
    return Refuse(origin, Concat(name, ": ", std::string(status.message())));
  }
  loaded->origins[index] = std::string(origin);
  return absl::OkStatus();
}

// A folder named by option or environment may be relative to where the daemon was started.
absl::Status AssignFolder(std::string_view name,
                          const std::string& folder,
                          std::string_view origin,
                          LoadedConfig* loaded) {
  if (folder.empty()) {
    return Refuse(origin, "must not be empty");
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(folder, error);
  if (error) {
    return Refuse(origin, error.message());
  }
  std::string text = absolute.lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') {
    text.pop_back();
  }
  return AssignFrom(name, text, origin, loaded);
}

// SECTION.KEY=VALUE, the value without TOML's quotes.
absl::Status ApplyOverride(const std::string& text, LoadedConfig* loaded) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) {
    return Refuse("--set", Concat("must be SECTION.KEY=VALUE, not ", ShownValue(text)));
  }
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const int index = FindSetting(name);
  if (index < 0) {
    return Refuse("--set", Concat("unknown setting ", ShownValue(name)));
  }
  TomlValue typed = value;
  switch (Settings()[static_cast<size_t>(index)].kind) {
    case SettingKind::kInteger:
    case SettingKind::kBoolean:
    case SettingKind::kShare: {
      const bool one_line = value.find_first_of("\r\n") == std::string::npos;
      const auto entries = ParseToml(one_line ? Concat("x = ", value) : "", "");
      if (entries.ok() && entries->size() == 1) {
        typed = entries->front().value;
      }
      break;
    }
    case SettingKind::kFolder:
      return AssignFolder(name, value, "--set", loaded);
    case SettingKind::kFolderOrNone:
      return value.empty() ? AssignFrom(name, typed, "--set", loaded)
                           : AssignFolder(name, value, "--set", loaded);
    default:
      break;
  }
  return AssignFrom(name, typed, "--set", loaded);
}

// The folders of a daemon without a file lie below the one that was named; its metrics must not
// collide with those of a daemon of the machine.
void ApplyEmbedded(const ConfigRequest& request, LoadedConfig* loaded) {
  loaded->config.metrics_listen = "127.0.0.1:0";
  loaded->origins[static_cast<size_t>(FindSetting("metrics.listen"))] = "default without a file";
  std::optional<std::string> runtime = request.runtime_dir;
  if (!runtime) {
    runtime = request.environment_runtime;
  }
  if (request.data_dir && !runtime) {
    loaded->config.runtime_dir = Concat(loaded->config.data_dir, "/run");
    loaded->origins[static_cast<size_t>(FindSetting("daemon.runtime_dir"))] =
        "default below --data";
  } else if (runtime && !request.data_dir) {
    loaded->config.data_dir = Concat(loaded->config.runtime_dir, "/data");
    loaded->origins[static_cast<size_t>(FindSetting("daemon.data_dir"))] =
        "default below --runtime";
  }
}

absl::Status ApplyFolders(const ConfigRequest& request, LoadedConfig* loaded) {
  if (request.runtime_dir) {
    if (absl::Status s =
            AssignFolder("daemon.runtime_dir", *request.runtime_dir, "--runtime", loaded);
        !s.ok()) {
      return s;
    }
  } else if (request.environment_runtime) {
    absl::Status s =
        AssignFolder("daemon.runtime_dir", *request.environment_runtime, "TERRACE_RUNTIME", loaded);
    if (!s.ok()) {
      return s;
    }
  }
  if (request.data_dir) {
    return AssignFolder("daemon.data_dir", *request.data_dir, "--data", loaded);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadedConfig> ParseConfig(std::string_view text, std::string_view file) {
  LoadedConfig loaded = Defaults();
  loaded.file = std::string(file);
  if (absl::Status status = ApplyText(text, file, &loaded); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckTogether(&loaded); !status.ok()) {
    return status;
  }
  return loaded;
}

absl::StatusOr<LoadedConfig> LoadConfig(const ConfigRequest& request) {
  LoadedConfig loaded = Defaults();
  if (request.config_file) {
    loaded.file = *request.config_file;
  } else if (request.environment_config) {
    loaded.file = *request.environment_config;
  }
  if ((request.config_file || request.environment_config) && loaded.file.empty()) {
    return Refuse(request.config_file ? "--config" : "TERRACE_CONFIG", "must not be empty");
  }
  if (!loaded.file.empty()) {
    const absl::StatusOr<std::string> text = ReadConfigFile(loaded.file);
    if (!text.ok()) {
      return text.status();
    }
    if (absl::Status status = ApplyText(*text, loaded.file, &loaded); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = ApplyFolders(request, &loaded); !status.ok()) {
    return status;
  }
  if (loaded.file.empty()) {
    ApplyEmbedded(request, &loaded);
  }
  for (const std::string& text : request.overrides) {
    if (absl::Status status = ApplyOverride(text, &loaded); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = CheckTogether(&loaded); !status.ok()) {
    return status;
  }
  return loaded;
}

}  // namespace terrace
