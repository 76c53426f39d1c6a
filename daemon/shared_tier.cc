#include "daemon/shared_tier.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/synchronization/notification.h"

#include "daemon/concat.h"
#include "daemon/identity_files.h"
#include "daemon/kept_index.h"
#include "daemon/protection/sealed_protection.h"
#include "daemon/protection/secret_file.h"
#include "daemon/settings.h"
#include "daemon/thread_executor.h"

namespace terrace {
namespace {

constexpr int kMaintenanceThreads = 3;
// Room for the blocks of a few calls under way, at least.
constexpr uint64_t kLeastBufferBytes = uint64_t{128} << 20;
constexpr uint64_t kBufferedBlocks = 6;
// What a close may take beyond its limit to say how it ended.
constexpr absl::Duration kCloseSlack = absl::Milliseconds(200);

constexpr std::array<std::string_view, 7> kStates = {
    "", "opening", "catching up", "online", "suspended", "foreign", "closed"};

class OpenedPoolHost final : public PoolHost {
 public:
  OpenedPoolHost(Options options, const Parts& parts)
      : options_(std::move(options)),
        log_(*parts.log),
        clock_(*parts.clock),
        index_(Concat(options_.data_dir, "/pool-index-", options_.tier.name),
               Concat("the shared tier ", options_.tier.name),
               *parts.log) {}
  OpenedPoolHost(const OpenedPoolHost&) = delete;
  OpenedPoolHost& operator=(const OpenedPoolHost&) = delete;
  ~OpenedPoolHost() override {
    if (files_ != nullptr) {
      files_->Stop();
    }
    tier_.reset();  // before the threads that it uses
  }

  absl::Status Build(const Parts& parts) {
    if (absl::Status status = MakeSecret(); !status.ok()) {
      return Named(status);
    }
    if (absl::Status status = MakeParts(parts); !status.ok()) {
      return Named(status);
    }
    SharedTierParts tier_parts;
    tier_parts.files = files_.get();
    tier_parts.clock = parts.clock;
    tier_parts.hashing = parts.hashing;
    tier_parts.maintenance = maintenance_.get();
    tier_parts.secret = secret_.get();
    tier_parts.open_index = [this](const Digest128& pool) { return index_.Open(pool); };
    tier_parts.opened = [this](const Digest128& pool) { Remember(pool); };
    const absl::StatusOr<SharedTierOptions> options = TierOptions();
    if (!options.ok()) {
      return Named(options.status());
    }
    absl::StatusOr<std::unique_ptr<SharedTier>> opened = OpenSharedTier(*options, tier_parts);
    if (!opened.ok()) {
      return Named(opened.status());
    }
    tier_ = *std::move(opened);
    LogChanges();
    return absl::OkStatus();
  }

  SharedTier& tier() override { return *tier_; }

  void LogChanges() override {
    const SharedTierFigures now = tier_->figures();
    if (now.state == logged_state_ && now.last_fault == logged_fault_) {
      return;
    }
    const auto fields = {LogField{"tier", options_.tier.name},
                         LogField{"state", std::string(kStates[static_cast<size_t>(now.state)])},
                         LogField{"path", options_.tier.path}, LogField{"fault", now.last_fault}};
    const bool changed = now.state != logged_state_;
    const bool sick = now.state == PoolState::kSuspended || now.state == PoolState::kForeign;
    if (changed && sick) {
      log_.Error("a shared tier is away; what lies in it is missed until it is back", fields);
    } else if (changed) {
      log_.Info("shared tier", fields);
    } else if (!now.last_fault.empty()) {
      log_.Warning("a shared tier has a fault", fields);
    }
    logged_state_ = now.state;
    logged_fault_ = now.last_fault;
  }

  absl::Status Close(absl::Duration limit) override {
    // Shared with the callback, which may run after the limit.
    struct Ending {
      absl::Notification done;
      absl::Status status;
    };
    const auto ending = std::make_shared<Ending>();
    tier_->Close(clock_.Now() + limit, [ending](absl::Status status) {
      ending->status = std::move(status);
      ending->done.Notify();
    });
    return ending->done.WaitForNotificationWithTimeout(limit + kCloseSlack)
               ? ending->status
               : absl::DeadlineExceededError("not closed yet");
  }

 private:
  [[nodiscard]] absl::Status Named(const absl::Status& status) const {
    return absl::Status(status.code(), Concat("the shared tier ", options_.tier.name, ": ",
                                              std::string(status.message())));
  }

  absl::Status MakeSecret() {
    const TierConfig& tier = options_.tier;
    if (tier.auth == PoolAuth::kNone) {
      return absl::OkStatus();
    }
    absl::StatusOr<SecretBytes> bytes =
        ReadSecret({tier.key_file, tier.key_credential, options_.credentials_dir});
    if (!bytes.ok()) {
      return bytes.status();
    }
    absl::StatusOr<std::unique_ptr<PoolSecret>> secret =
        MakePoolSecret(tier.auth, *std::move(bytes));
    if (!secret.ok()) {
      return secret.status();
    }
    secret_ = *std::move(secret);
    return absl::OkStatus();
  }

  absl::Status MakeParts(const Parts& parts) {
    absl::StatusOr<std::unique_ptr<Executor>> maintenance =
        MakeThreadExecutor({.threads = kMaintenanceThreads, .name = options_.tier.name});
    if (!maintenance.ok()) {
      return maintenance.status();
    }
    maintenance_ = *std::move(maintenance);
    FilesOptions options;
    options.name = options_.tier.name;
    options.root = options_.tier.path;
    options.buffer_bytes =
        std::max(kLeastBufferBytes, kBufferedBlocks * options_.max_payload_bytes);
    options.clock = parts.clock;
    options.say = [&log = log_, name = options_.tier.name](const std::string& event) {
      log.Info("worker of a shared tier", {{"tier", name}, {"event", event}});
    };
    absl::StatusOr<std::unique_ptr<PoolFiles>> files = parts.make_files(options);
    if (!files.ok()) {
      return files.status();
    }
    files_ = *std::move(files);
    return absl::OkStatus();
  }

  absl::StatusOr<SharedTierOptions> TierOptions() const {
    const absl::StatusOr<Digest128> expected =
        RememberedPool(options_.data_dir, options_.tier.name);
    if (!expected.ok()) {
      return expected.status();
    }
    SharedTierOptions options;
    options.name = options_.tier.name;
    options.node = options_.node;
    options.expected_pool = *expected;
    options.capacity_bytes = options_.tier.capacity_bytes;
    options.node_share_bytes = options_.tier.node_share_bytes;
    options.free_reserve_bytes = options_.tier.free_reserve_bytes;
    options.segment_bytes = options_.tier.segment_bytes;
    options.max_payload_bytes = options_.max_payload_bytes;
    options.grace = options_.tier.grace;
    options.dead_after = options_.tier.dead_after;
    return options;
  }

  void Remember(const Digest128& pool) {
    log_.Info("shared tier found its pool", {{"tier", options_.tier.name},
                                             {"pool", pool.ToHex()},
                                             {"node", options_.node.ToHex()},
                                             {"auth", std::string(AuthText(options_.tier.auth))}});
    if (absl::Status status = RememberPool(options_.data_dir, options_.tier.name, pool);
        !status.ok()) {
      log_.Warning("which pool it is cannot be remembered; a next start takes any",
                   {{"tier", options_.tier.name}, {"error", std::string(status.message())}});
    }
  }

  const Options options_;
  Log& log_;
  const Clock& clock_;
  KeptIndex index_;
  std::unique_ptr<PoolSecret> secret_;  // nullptr: the pool is not protected
  std::unique_ptr<PoolFiles> files_;
  std::unique_ptr<Executor> maintenance_;
  std::unique_ptr<SharedTier> tier_;
  PoolState logged_state_ = PoolState::kClosed;
  std::string logged_fault_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PoolHost>> PoolHost::Open(const Options& options,
                                                         const Parts& parts) {
  auto host = std::make_unique<OpenedPoolHost>(options, parts);
  if (absl::Status status = host->Build(parts); !status.ok()) {
    return status;
  }
  return host;
}

}  // namespace terrace
