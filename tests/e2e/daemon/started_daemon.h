// A real terraced on a private folder: started, stopped, killed, restarted. Everything that it made
// goes with it. Thread-compatible; Status may be called from several threads.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "terrace/v1/admin.grpc.pb.h"

namespace terrace {

class StartedDaemon {
 public:
  struct Options {
    std::string dram = "256MiB";
    std::string more_config;  // appended to the configuration file: whole sections
  };
  // Returns when the daemon answers Status.
  static absl::StatusOr<std::unique_ptr<StartedDaemon>> Start(const Options& options);
  StartedDaemon(const StartedDaemon&) = delete;
  StartedDaemon& operator=(const StartedDaemon&) = delete;
  // Kills what still runs and removes the folder.
  ~StartedDaemon();

  [[nodiscard]] std::string runtime_dir() const { return dir_ + "/run"; }
  [[nodiscard]] std::string config_path() const { return dir_ + "/terraced.toml"; }
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // What it wrote to standard error so far.
  [[nodiscard]] std::string Log() const;

  // SIGKILL; returns when it is gone.
  void Kill();
  // SIGTERM; the exit status, or -1 when it has not ended within 15 s.
  int Stop();
  // After Kill or Stop: the same folders and configuration again.
  absl::Status StartAgain();
  [[nodiscard]] bool Running() const;

  absl::StatusOr<v1::StatusReply> Status() const;
  // Status, but open_descriptors leaves out the files of tiers, which come and go by themselves.
  // Errors: those of Status; UNAVAILABLE when they came and went at every try.
  absl::StatusOr<v1::StatusReply> StatusBesideTiers() const;
  std::shared_ptr<grpc::Channel> AdminChannel() const;
  std::shared_ptr<grpc::Channel> CacheChannel() const;

 private:
  explicit StartedDaemon(std::string dir) : dir_(std::move(dir)) {}
  [[nodiscard]] uint64_t OpenTierFiles() const;

  std::string dir_;
  pid_t pid_ = -1;
};

}  // namespace terrace
