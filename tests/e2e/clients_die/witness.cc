#include "tests/e2e/clients_die/witness.h"

#include <deque>
#include <utility>
#include <vector>

#include "tests/e2e/clients_die/engine.h"

namespace terrace {
namespace {

constexpr uint32_t kDeadlineMs = 20'000;
constexpr size_t kKeptLeases = 3;

}  // namespace

// One round after the other; confined to the witness's thread.
class Witness::Work {
 public:
  explicit Work(const Options& options)
      : options_(options),
        dice_(options.seed),
        engine_(Engine::Open(options.runtime_dir, options.name, kDeadlineMs)) {
    if (engine_ == nullptr) {
      Fault("open", {});
    } else if (!engine_->WaitConnected(kDeadlineMs) && options.expects == Expects::kNoFault) {
      Fault("connect", {});
    }
  }

  void Round() {
    if (engine_ == nullptr) {
      return;
    }
    ++account_.rounds;
    std::vector<uint32_t> ids;
    for (uint32_t first = dice_.Below(options_.key_count), k = 0; k < 8; ++k) {
      ids.push_back((first + k) % options_.key_count);
    }
    const Engine::Reply probe = engine_->Probe(ids, dice_.Below(2) * 1000);
    if (Good("probe", probe)) {
      StoreMissing(ids, probe);
      if (!IsZero(probe.hold)) {
        (void)Good("release", engine_->Release({}, {probe.hold}));
      }
    }
    if (dice_.Below(2) == 0) {
      LoadAndCheck(ids);
    } else {
      LeaseAndCheck(ids);
    }
    const terrace_client_state state = engine_->State();
    account_.boot_id = state.boot_id;
    account_.reconnects = state.reconnects;
  }

  // Ends all leases, the oldest first.
  void LetGo(size_t keep) {
    while (kept_.size() > keep) {
      const Kept& kept = kept_.front();
      for (size_t k = 0; k < kept.ids.size(); ++k) {
        Check("leased", kept.ids[k], kept.payload[k], kept.payload_bytes[k]);
      }
      (void)Good("release", engine_->Release({kept.lease}, {}));
      kept_.pop_front();
    }
  }

  [[nodiscard]] const Account& account() const { return account_; }

 private:
  struct Kept {
    terrace_id128 lease{};
    std::vector<uint32_t> ids;
    std::vector<const void*> payload;
    std::vector<uint32_t> payload_bytes;
  };

  void Fault(const std::string& what, const Engine::Reply& reply) {
    ++account_.faults;
    account_.hung += reply.status == Engine::kNever ? 1 : 0;
    if (account_.first_fault.empty()) {
      account_.first_fault = what + ": status " + std::to_string(reply.status) + " " + reply.error;
    }
  }

  bool Good(const std::string& what, const Engine::Reply& reply) {
    if (reply.status != TERRACE_OK) {
      Fault(what, reply);
      return false;
    }
    return true;
  }

  void Check(const std::string& what, uint32_t id, const void* payload, uint32_t payload_bytes) {
    if (!IsPayload(id, payload, payload_bytes)) {
      ++account_.wrong_bytes;
      if (account_.first_fault.empty()) {
        account_.first_fault = what + ": wrong bytes of block " + std::to_string(id);
      }
    }
  }

  // What another client stores at the same time may be a duplicate, and a full tier may decline;
  // nothing may fail.
  void StoreMissing(const std::vector<uint32_t>& ids, const Engine::Reply& probe) {
    std::vector<uint32_t> missing;
    for (size_t k = 0; k < ids.size(); ++k) {
      if (probe.states[k] == TERRACE_KEY_MISS) {
        missing.push_back(ids[k]);
      }
    }
    if (missing.empty()) {
      return;
    }
    const Engine::Reply put = engine_->Put(missing);
    if (!Good("put", put)) {
      return;
    }
    for (size_t k = 0; k < missing.size(); ++k) {
      account_.stored += put.outcomes[k] == TERRACE_PUT_STORED ? 1 : 0;
      if (put.outcomes[k] == TERRACE_PUT_FAILED && options_.expects == Expects::kNoFault) {
        Engine::Reply failed = put;
        failed.error = "failed for reason " + std::to_string(put.reasons[k]);
        Fault("put of block " + std::to_string(missing[k]), failed);
      }
    }
  }

  // True: the block was delivered. An outcome that no healthy daemon gives is a fault.
  bool Delivered(const std::string& what, uint8_t outcome, const Engine::Reply& reply) {
    if (outcome == TERRACE_GET_OK) {
      ++account_.hits;
      return true;
    }
    if (outcome != TERRACE_GET_MISS && outcome != TERRACE_GET_BUSY &&
        options_.expects == Expects::kNoFault) {
      Engine::Reply failed = reply;
      failed.error = "outcome " + std::to_string(outcome);
      Fault(what, failed);
    }
    return false;
  }

  void LoadAndCheck(const std::vector<uint32_t>& ids) {
    const Engine::Reply load = engine_->Load(ids);
    if (!Good("load", load)) {
      return;
    }
    for (uint32_t k = 0; k < ids.size(); ++k) {
      if (Delivered("load", load.outcomes[k], load) &&
          !engine_->Loaded(k, ids[k], load.payload_bytes[k])) {
        Check("loaded", ids[k], nullptr, 0);
      }
    }
  }

  void LeaseAndCheck(const std::vector<uint32_t>& ids) {
    const Engine::Reply get = engine_->Lease(ids);
    if (!Good("lease", get)) {
      return;
    }
    Kept kept;
    kept.lease = get.lease;
    for (uint32_t k = 0; k < ids.size(); ++k) {
      if (Delivered("lease", get.outcomes[k], get)) {
        Check("leased", ids[k], get.payload[k], get.payload_bytes[k]);
        kept.ids.push_back(ids[k]);
        kept.payload.push_back(get.payload[k]);
        kept.payload_bytes.push_back(get.payload_bytes[k]);
      }
    }
    if (!IsZero(kept.lease)) {
      kept_.push_back(std::move(kept));
    }
    LetGo(kKeptLeases);
  }

  const Options& options_;
  Dice dice_;
  std::unique_ptr<Engine> engine_;
  std::deque<Kept> kept_;
  Account account_;
};

Witness::Witness(Options options) : options_(std::move(options)), thread_([this] { Run(); }) {}

Witness::~Witness() {
  {
    const absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void Witness::Run() {
  Work work(options_);
  while (true) {
    bool pause = false;
    {
      const absl::MutexLock lock(&mutex_);
      account_ = work.account();
      if (stop_) {
        break;
      }
      pause = pause_;
    }
    if (!pause) {
      work.Round();
      continue;
    }
    work.LetGo(0);
    const absl::MutexLock lock(&mutex_);
    account_ = work.account();
    paused_ = true;
    const auto go_on = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !pause_; };
    mutex_.Await(absl::Condition(&go_on));
    paused_ = false;
  }
  work.LetGo(0);
  const absl::MutexLock lock(&mutex_);
  account_ = work.account();
}

Witness::Account Witness::account() const {
  const absl::MutexLock lock(&mutex_);
  return account_;
}

bool Witness::Pause(absl::Duration limit) {
  const absl::MutexLock lock(&mutex_);
  pause_ = true;
  return mutex_.AwaitWithTimeout(absl::Condition(&paused_), limit);
}

void Witness::Resume() {
  const absl::MutexLock lock(&mutex_);
  pause_ = false;
}

bool Witness::WaitUntil(const std::function<bool(const Account&)>& enough,
                        absl::Duration limit) const {
  const absl::MutexLock lock(&mutex_);
  const auto is_enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return enough(account_); };
  return mutex_.AwaitWithTimeout(absl::Condition(&is_enough), limit);
}

}  // namespace terrace
