// C++ over terrace.h: objects that give back what they hold, and calls that wait for their own
// completion. Header-only, C++17, standard library alone.
//
//   terrace::Client client = terrace::Client::Open();
//   terrace::Namespace ns = client.OpenNamespace(record);
//   terrace::Staging staging = client.CreateStaging(block_bytes, 8);
//   terrace::Completion put = client.Put(terrace::Part(ns, keys).In(staging, blocks));
//   terrace::Completion get = client.Get(terrace::Part(ns, keys));   // get.payload(0), ...
//
// Nothing throws. An object whose making failed is false in a boolean context, and its status()
// says why; using it is a miss. What a call brings is in its Completion, per key: a missing daemon,
// a deadline or a refusal is a status other than TERRACE_OK and a miss for every key.
//
// Lifetimes: Namespace, Region, Staging and Lease point at their Client and end before it; a Client
// may be moved. Threads: Client and its const functions may be used by any thread at the same time,
// also waiting calls beside Drain; the other classes are thread-compatible.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/options.hpp"
#include "terrace/terrace.h"

namespace terrace {
// In every mangled name: programs may have classes of these names in namespace terrace.
inline namespace client_api_0 {
class Client;
class Lease;

// A namespace of a client; a value, nothing to give back.
class Namespace {
 public:
  Namespace() = default;
  explicit operator bool() const { return id_ != 0; }
  [[nodiscard]] terrace_status status() const { return status_; }
  // "" when it was opened; names the field and the limit.
  [[nodiscard]] const char* error() const { return error_.data(); }
  [[nodiscard]] terrace_namespace id() const { return id_; }

 private:
  friend class Client;
  terrace_namespace id_ = 0;
  terrace_status status_ = TERRACE_UNAVAILABLE;
  std::array<char, 160> error_{};
};

// A registered region. Its end unregisters it, waiting until the daemon cannot touch the memory any
// more, at most kReleaseTime; Release() says how that went.
class Region {
 public:
  static constexpr Milliseconds kReleaseTime{5000};

  Region() = default;
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    if (this != &other) {
      Release();
      client_ = other.client_;
      id_ = std::exchange(other.id_, 0);
      status_ = other.status_;
      staging_ = other.staging_;
      memory_ = other.memory_;
      stride_ = other.stride_;
    }
    return *this;
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { Release(); }

  explicit operator bool() const { return id_ != 0; }
  [[nodiscard]] terrace_status status() const { return status_; }
  [[nodiscard]] terrace_region id() const { return id_; }

  // TERRACE_DEADLINE_EXCEEDED: the daemon may still touch the memory, and the region is still
  // there.
  terrace_status Release(Milliseconds limit = kReleaseTime) noexcept {
    if (id_ == 0) {
      return TERRACE_OK;
    }
    const terrace_status status = staging_ ? terrace_staging_destroy(client_, id_, limit.count())
                                           : terrace_unregister_region(client_, id_, limit.count());
    if (status != TERRACE_DEADLINE_EXCEEDED) {
      id_ = 0;
    }
    return status;
  }

 protected:
  friend class Client;
  terrace_client* client_ = nullptr;
  terrace_region id_ = 0;
  terrace_status status_ = TERRACE_UNAVAILABLE;
  bool staging_ = false;
  void* memory_ = nullptr;
  uint64_t stride_ = 0;
};

// A region in memory of the library; its end also unmaps the memory.
class Staging : public Region {
 public:
  // The first byte of a block.
  [[nodiscard]] std::byte* block(uint32_t index) const {
    return static_cast<std::byte*>(memory_) + stride_ * index;
  }
  [[nodiscard]] uint64_t stride() const { return stride_; }
};

// One namespace's share of a call. Points at what it was given, which has to stay until the call
// has returned.
class Part {
 public:
  // keys: all of key_bytes, end to end.
  Part(const Namespace& ns, std::string_view keys, uint32_t key_bytes = 32) noexcept {
    part_.struct_bytes = sizeof(part_);
    part_.ns = ns.id();
    part_.rule = TERRACE_RULE_PREFIX;
    part_.keys = keys.data();
    part_.key_bytes = key_bytes;
    part_.key_count = key_bytes == 0 ? 0 : static_cast<uint32_t>(keys.size() / key_bytes);
  }
  // Source of a put, destination of a get: the k-th key uses block blocks[k] of the region.
  Part& In(const Region& region, const uint32_t* blocks) noexcept {
    part_.region = region.id();
    part_.block_indexes = blocks;
    return *this;
  }
  Part& Rule(terrace_rule rule, uint32_t window_tokens = 0) noexcept {
    part_.rule = rule;
    part_.window_tokens = window_tokens;
    return *this;
  }
  // Of a GPU's region: see after_event and progress_slot of terrace_part.
  Part& OnGpu(const void* after_event, uint32_t progress_slot = 0) noexcept {
    part_.after_event = after_event;
    part_.progress_slot = progress_slot;
    return *this;
  }
  Part& Salt(std::string_view salt) noexcept {
    part_.salt = salt.data();
    part_.salt_bytes = static_cast<uint32_t>(salt.size());
    return *this;
  }
  // Of the first key's block; where blocks differ in length, also where each ends, rising.
  Part& Tokens(uint64_t first_token, const uint32_t* end_tokens = nullptr) noexcept {
    part_.first_token = first_token;
    part_.end_tokens = end_tokens;
    return *this;
  }
  [[nodiscard]] const terrace_part& get() const noexcept { return part_; }

 private:
  terrace_part part_{};
};

// Blocks that may be read in place until this object ends.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept : client_(std::exchange(other.client_, nullptr)), id_(other.id_) {}
  Lease& operator=(Lease&& other) noexcept {
    if (this != &other) {
      Release();
      client_ = std::exchange(other.client_, nullptr);
      id_ = other.id_;
    }
    return *this;
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() { Release(); }

  explicit operator bool() const { return client_ != nullptr; }
  // The pointers of its completion are not valid after this.
  void Release() noexcept {
    if (client_ != nullptr) {
      terrace_submit_release(client_, &id_, 1, nullptr, 0, 0, nullptr);
    }
    client_ = nullptr;
  }

 private:
  friend class Completion;
  Lease(terrace_client* client, const terrace_id128& id) : client_(client), id_(id) {}
  terrace_client* client_ = nullptr;
  terrace_id128 id_{};
};

// What a call came to. Releases the lease of a get, unless that was taken.
class Completion {
 public:
  Completion() = default;
  // A call that could not be submitted.
  explicit Completion(terrace_status status) : status_(status) {}
  Completion(terrace_client* client, terrace_completion* completion)
      : completion_(completion), status_(completion->status) {
    const terrace_id128& id = completion->lease;
    bool leased = false;
    for (const uint8_t byte : id.bytes) {
      leased = leased || byte != 0;
    }
    if (leased) {
      lease_ = Lease(client, id);
    }
  }

  // Whether the call as a whole went well; single keys may still be misses.
  [[nodiscard]] bool ok() const { return status_ == TERRACE_OK; }
  [[nodiscard]] terrace_status status() const { return status_; }
  // "" when ok.
  [[nodiscard]] const char* error() const {
    return completion_ != nullptr ? completion_->error : ok() ? "" : "the call was not submitted";
  }
  // 0 when the call was not submitted, whatever it asked for.
  [[nodiscard]] uint32_t key_count() const { return completion_ ? completion_->key_count : 0; }

  [[nodiscard]] terrace_key_state state(uint32_t key) const {
    return Has(completion_ ? completion_->states : nullptr, key)
               ? static_cast<terrace_key_state>(completion_->states[key] & 15)
               : TERRACE_KEY_MISS;
  }
  // A get: whether the key was delivered.
  [[nodiscard]] bool hit(uint32_t key) const { return get_outcome(key) == TERRACE_GET_OK; }
  [[nodiscard]] terrace_get_outcome get_outcome(uint32_t key) const {
    return is_get() && key < key_count()
               ? static_cast<terrace_get_outcome>(completion_->outcomes[key])
               : TERRACE_GET_MISS;
  }
  // A put: whether the key's block is there now.
  [[nodiscard]] bool stored(uint32_t key) const {
    const terrace_put_outcome outcome = put_outcome(key);
    return outcome == TERRACE_PUT_STORED || outcome == TERRACE_PUT_DUPLICATE;
  }
  [[nodiscard]] terrace_put_outcome put_outcome(uint32_t key) const {
    return !is_get() && Has(completion_ ? completion_->outcomes : nullptr, key)
               ? static_cast<terrace_put_outcome>(completion_->outcomes[key])
               : TERRACE_PUT_NONE;
  }
  [[nodiscard]] terrace_reason reason(uint32_t key) const {
    return Has(completion_ ? completion_->reasons : nullptr, key)
               ? static_cast<terrace_reason>(completion_->reasons[key])
               : TERRACE_REASON_NONE;
  }
  // A get by lease: the payload, until the lease ends; empty for a miss.
  [[nodiscard]] std::string_view payload(uint32_t key) const {
    return hit(key) && completion_->data[key] != nullptr
               ? std::string_view(static_cast<const char*>(completion_->data[key]),
                                  completion_->payload_bytes[key])
               : std::string_view();
  }
  // A get: the number of leading keys that were delivered.
  [[nodiscard]] uint32_t delivered_prefix() const {
    uint32_t prefix = 0;
    while (prefix < key_count() && hit(prefix)) {
      ++prefix;
    }
    return prefix;
  }
  // Everything else, as terrace.h has it; nullptr when the call was not submitted.
  [[nodiscard]] const terrace_completion* get() const { return completion_.get(); }
  const terrace_completion* operator->() const { return completion_.get(); }

  // The lease, to be kept longer than this object. The payloads stay with this object's pointers.
  [[nodiscard]] Lease TakeLease() { return std::move(lease_); }

 private:
  struct Free {
    void operator()(terrace_completion* completion) const { terrace_completion_free(completion); }
  };
  [[nodiscard]] bool is_get() const {
    return completion_ != nullptr && completion_->verb == TERRACE_VERB_GET;
  }
  [[nodiscard]] bool Has(const uint8_t* array, uint32_t key) const {
    return array != nullptr && key < key_count();
  }
  std::unique_ptr<terrace_completion, Free> completion_;
  terrace_status status_ = TERRACE_UNAVAILABLE;
  Lease lease_;
};

class Client {
 public:
  // Never waits for the daemon. False when the options are wrong or the process is out of
  // descriptors.
  static Client Open(const Options& options = {}) {
    terrace_options given{};
    given.struct_bytes = sizeof(given);
    given.runtime_dir = options.runtime_dir.empty() ? nullptr : options.runtime_dir.c_str();
    given.client_name = options.client_name.empty() ? nullptr : options.client_name.c_str();
    given.default_deadline_ms = options.deadline.count();
    given.reconnect_ms = options.reconnect.count();
    given.spin_us = options.spin_us;
    given.slabs = options.slabs;
    Client client;
    client.status_ = terrace_open(&given, &client.client_);
    if (client.client_ != nullptr) {
      client.inbox_ = std::unique_ptr<Inbox>(new (std::nothrow) Inbox());
    }
    if (client.inbox_ == nullptr && client.client_ != nullptr) {
      terrace_close(std::exchange(client.client_, nullptr));
      client.status_ = TERRACE_RESOURCE_EXHAUSTED;
    }
    return client;
  }
  Client(Client&& other) noexcept
      : client_(std::exchange(other.client_, nullptr)),
        status_(other.status_),
        inbox_(std::move(other.inbox_)) {}
  Client& operator=(Client&& other) noexcept {
    if (this != &other) {
      Close();
      client_ = std::exchange(other.client_, nullptr);
      status_ = other.status_;
      inbox_ = std::move(other.inbox_);
    }
    return *this;
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { Close(); }

  explicit operator bool() const { return client_ != nullptr; }
  [[nodiscard]] terrace_status status() const { return status_; }
  // For the functions of terrace.h. Completions belong to Drain and to waiting calls; don't call
  // terrace_drain.
  [[nodiscard]] terrace_client* get() const { return client_; }

  [[nodiscard]] bool WaitConnected(Milliseconds limit) const {
    return terrace_wait_connected(client_, limit.count()) == TERRACE_OK;
  }
  [[nodiscard]] terrace_client_state State() const {
    terrace_client_state state{};
    state.struct_bytes = sizeof(state);
    terrace_state(client_, &state);
    return state;
  }

  // The record's struct_bytes is filled in.
  [[nodiscard]] Namespace OpenNamespace(terrace_namespace_record record) const {
    record.struct_bytes = sizeof(record);
    Namespace opened;
    opened.status_ = terrace_open_namespace(client_, &record, &opened.id_);
    if (opened.status_ != TERRACE_OK) {
      opened.id_ = 0;
      std::strncpy(opened.error_.data(), terrace_last_error(), opened.error_.size() - 1);
    }
    return opened;
  }
  // The spec's struct_bytes is filled in.
  [[nodiscard]] Region RegisterRegion(terrace_region_spec spec) const {
    spec.struct_bytes = sizeof(spec);
    Region region;
    region.client_ = client_;
    region.status_ = terrace_register_region(client_, &spec, &region.id_);
    return region;
  }
  [[nodiscard]] Staging CreateStaging(uint64_t block_bytes, uint32_t block_count) const {
    Staging staging;
    staging.client_ = client_;
    staging.staging_ = true;
    staging.status_ = terrace_staging_create(client_, block_bytes, block_count, &staging.id_,
                                             &staging.memory_, &staging.stride_);
    return staging;
  }

  // ---- calls that wait for their completion, at most until their deadline
  [[nodiscard]] Completion Probe(const Part& part, const ProbeOptions& options = {}) const {
    return Probe(&part.get(), 1, options);
  }
  [[nodiscard]] Completion Probe(const terrace_part* parts,
                                 uint32_t count,
                                 const ProbeOptions& options = {}) const {
    return Wait([&](uint64_t* id) {
      const terrace_call call = CallOf(parts, count, options.deadline);
      return terrace_submit_probe(client_, &call, options.hold.count(), options.prefetch ? 1 : 0,
                                  id);
    });
  }
  // By lease, or into the region that the part names.
  [[nodiscard]] Completion Get(const Part& part, const GetOptions& options = {}) const {
    return Get(&part.get(), 1,
               part.get().region != 0 ? TERRACE_DELIVER_REGION : TERRACE_DELIVER_LEASE, options);
  }
  [[nodiscard]] Completion Get(const terrace_part* parts,
                               uint32_t count,
                               terrace_delivery delivery,
                               const GetOptions& options = {}) const {
    return Wait([&](uint64_t* id) {
      const terrace_call call = CallOf(parts, count, options.deadline);
      terrace_get_options given{};
      given.struct_bytes = sizeof(given);
      given.delivery = delivery;
      given.hold = options.hold;
      given.wait_pending = options.wait_pending ? 1 : 0;
      return terrace_submit_get(client_, &call, &given, id);
    });
  }
  // From the region that the part names, or `payload`, the payloads end to end.
  [[nodiscard]] Completion Put(const Part& part, const PutOptions& options = {}) const {
    return Put(part, std::string_view(), options);
  }
  [[nodiscard]] Completion Put(const Part& part,
                               std::string_view payload,
                               const PutOptions& options = {}) const {
    return Wait([&](uint64_t* id) {
      const terrace_call call = CallOf(&part.get(), 1, options.deadline);
      terrace_put_options given{};
      given.struct_bytes = sizeof(given);
      given.payload_bytes = options.payload_bytes;
      given.parent = options.parent.empty() ? nullptr : options.parent.data();
      given.parent_bytes = static_cast<uint32_t>(options.parent.size());
      given.wait_for = options.wait_for;
      given.compute_us = static_cast<uint64_t>(std::max<int64_t>(0, options.compute_time.count()));
      return terrace_submit_put(client_, &call, &given, payload.data(), payload.size(), id);
    });
  }
  [[nodiscard]] Completion Delete(const Part& part, Milliseconds deadline = Milliseconds{0}) const {
    return Wait([&](uint64_t* id) {
      const terrace_call call = CallOf(&part.get(), 1, deadline);
      return terrace_submit_delete(client_, &call, id);
    });
  }

  // ---- calls that were submitted through terrace.h
  // The next completion of a call that nobody waits for; false: none within the time.
  bool Drain(Completion* out, Milliseconds limit) const {
    terrace_completion* taken = inbox_ == nullptr ? nullptr : inbox_->TakeOther(client_, limit);
    if (taken != nullptr) {
      *out = Completion(client_, taken);
    }
    return taken != nullptr;
  }
  [[nodiscard]] int event_fd() const { return terrace_event_fd(client_); }

 private:
  // Hands completions to the threads that wait for them. One thread at a time drains the client; it
  // keeps what is not its own for the others and wakes them.
  class Inbox {
   public:
    Inbox() = default;
    Inbox(const Inbox&) = delete;
    Inbox& operator=(const Inbox&) = delete;
    ~Inbox() {
      for (terrace_completion* completion : others_) {
        terrace_completion_free(completion);
      }
    }
    // Submits under the lock, so that the completion cannot be taken for a stranger's, and waits
    // for it.
    template <typename Submit>
    Completion SubmitAndWait(terrace_client* client, Submit submit) {
      Waiter waiter;
      std::unique_lock<std::mutex> lock(mutex_);
      const terrace_status status = submit(&waiter.call_id);
      if (status != TERRACE_OK) {
        return Completion(status);
      }
      waiter.next = waiters_;
      waiters_ = &waiter;
      while (waiter.completion == nullptr) {
        Turn(client, &lock, Clock::now() + std::chrono::seconds(1));
      }
      Waiter** link = &waiters_;
      while (*link != &waiter) {
        link = &(*link)->next;
      }
      *link = waiter.next;
      return Completion(client, waiter.completion);
    }
    // nullptr: none within the time.
    terrace_completion* TakeOther(terrace_client* client, Milliseconds limit) {
      const Clock::time_point until = Clock::now() + limit;
      std::unique_lock<std::mutex> lock(mutex_);
      for (bool again = true;; again = Clock::now() < until) {
        if (others_.empty() && again) {
          Turn(client, &lock, until);
          continue;
        }
        if (others_.empty()) {
          return nullptr;
        }
        terrace_completion* first = others_.front();
        others_.erase(others_.begin());
        return first;
      }
    }

   private:
    using Clock = std::chrono::steady_clock;
    struct Waiter {
      uint64_t call_id = 0;
      terrace_completion* completion = nullptr;
      Waiter* next = nullptr;
    };
    // Drains, or waits while another thread does.
    void Turn(terrace_client* client, std::unique_lock<std::mutex>* lock, Clock::time_point until) {
      if (draining_) {
        arrived_.wait_until(*lock, until);
        return;
      }
      draining_ = true;
      lock->unlock();
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
      std::array<terrace_completion*, 16> drained{};
      const uint32_t count = terrace_drain(client, drained.data(), drained.size(),
                                           left > 0 ? static_cast<uint32_t>(left) : 0);
      lock->lock();
      draining_ = false;
      for (uint32_t i = 0; i < count; ++i) {
        Deliver(drained[i]);
      }
      arrived_.notify_all();
    }
    void Deliver(terrace_completion* completion) {
      for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
        if (waiter->call_id == completion->call_id) {
          waiter->completion = completion;
          return;
        }
      }
      try {
        others_.push_back(completion);
      } catch (const std::bad_alloc&) {
        terrace_completion_free(completion);
      }
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    bool draining_ = false;
    Waiter* waiters_ = nullptr;
    std::vector<terrace_completion*> others_;  // in order of arrival
  };

  Client() = default;
  static terrace_call CallOf(const terrace_part* parts, uint32_t count, Milliseconds deadline) {
    terrace_call call{};
    call.struct_bytes = sizeof(call);
    call.deadline_ms = deadline.count();
    call.parts = parts;
    call.part_count = count;
    return call;
  }
  void Close() noexcept {
    inbox_.reset();
    terrace_close(std::exchange(client_, nullptr));
  }

  template <typename Submit>
  Completion Wait(Submit submit) const {
    return inbox_ == nullptr ? Completion(status_) : inbox_->SubmitAndWait(client_, submit);
  }

  terrace_client* client_ = nullptr;
  terrace_status status_ = TERRACE_UNAVAILABLE;
  std::unique_ptr<Inbox> inbox_;
};

}  // namespace client_api_0
}  // namespace terrace
