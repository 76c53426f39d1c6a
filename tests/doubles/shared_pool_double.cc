#include "tests/doubles/shared_pool_double.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "tiers/vocab/clear_order.h"

namespace terrace::doubles {
namespace {

constexpr uint64_t kHeaderRoom = 4096;

}  // namespace

class SharedPoolDouble::Tier final : public SharedTier {
 public:
  Tier(SharedPoolDouble& pool, Node* node, std::string name)
      : pool_(pool), node_(node), name_(std::move(name)) {}
  Tier(const Tier&) = delete;
  Tier& operator=(const Tier&) = delete;
  ~Tier() override {
    pool_.Leave(node_);
    pool_.Remove(node_);
  }

  [[nodiscard]] std::string_view name() const override { return name_; }

  bool Lookup(const BlockIdentity& identity, LowerBlock* out) override {
    absl::MutexLock lock(&pool_.mutex_);
    const auto found = node_->found.find(NameOf(identity));
    if (!pool_.ServesLocked() || found == node_->found.end()) {
      return false;
    }
    out->payload_bytes = static_cast<uint32_t>(found->second.payload->size());
    out->checksum = found->second.checksum;
    return true;
  }

  uint64_t Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) override {
    HeldRead read;
    std::optional<ReadOutcome> outcome;
    {
      absl::MutexLock lock(&pool_.mutex_);
      const auto found = node_->found.find(NameOf(request.identity));
      read.node = node_;
      read.token = ++pool_.last_token_;
      read.destination = request.destination;
      read.done = std::move(done);
      if (!pool_.ServesLocked()) {
        outcome = ReadOutcome::kFault;
      } else if (found == node_->found.end()) {
        outcome = ReadOutcome::kGone;
      } else {
        read.record = found->second;
        if (pool_.hold_reads_) {
          pool_.reads_.push_back(std::move(read));
          return pool_.last_token_;
        }
        outcome = ReadOutcome::kVerified;
        std::memcpy(read.destination.data(), read.record.payload->data(),
                    read.record.payload->size());
      }
    }
    read.done(*outcome);
    return read.token;
  }

  void Cancel(uint64_t token) override {
    std::function<void(ReadOutcome)> done;
    {
      absl::MutexLock lock(&pool_.mutex_);
      const auto found = std::find_if(pool_.reads_.begin(), pool_.reads_.end(),
                                      [&](const HeldRead& read) { return read.token == token; });
      if (found == pool_.reads_.end()) {
        return;
      }
      done = std::move(found->done);
      pool_.reads_.erase(found);
    }
    done(ReadOutcome::kCancelled);
  }

  [[nodiscard]] absl::Duration EstimateRead(uint64_t bytes) const override {
    return absl::Microseconds(static_cast<double>(bytes) / 500.0);
  }

  [[nodiscard]] bool Holds(const BlockIdentity& identity) const override {
    absl::MutexLock lock(&pool_.mutex_);
    return node_->found.contains(NameOf(identity));
  }

  void Publish(const WriteRequest& request,
               std::function<void()> released,
               std::function<void(WriteOutcome)> done) override {
    HeldPublish publish;
    publish.node = node_;
    publish.name = NameOf(request.identity);
    publish.record.namespace_digest = request.identity.namespace_digest;
    publish.record.generation = request.identity.generation;
    publish.record.checksum = request.checksum;
    publish.source = request.slot.subspan(kHeaderRoom, request.payload_bytes);
    publish.released = std::move(released);
    publish.done = std::move(done);
    WriteOutcome outcome = WriteOutcome::kWritten;
    {
      absl::MutexLock lock(&pool_.mutex_);
      ++pool_.offered_;
      if (pool_.fail_publishes_.has_value()) {
        outcome = *pool_.fail_publishes_;
      } else if (!pool_.ServesLocked()) {
        outcome = WriteOutcome::kFault;
      } else if (node_->found.contains(publish.name)) {
        outcome = WriteOutcome::kHeld;
      } else if (pool_.hold_publishes_) {
        pool_.publishes_.push_back(std::move(publish));
        return;
      }
    }
    pool_.FinishPublish(std::move(publish), outcome);
  }

  void Delete(absl::Span<const BlockIdentity> identities,
              std::function<void(WriteOutcome)> done) override {
    bool taken = false;
    {
      absl::MutexLock lock(&pool_.mutex_);
      taken = !pool_.fail_records_ && pool_.ServesLocked();
      for (const BlockIdentity& identity : identities) {
        if (taken) {
          pool_.DoLocked({node_, NameOf(identity), std::nullopt, std::nullopt});
        } else {
          node_->found.erase(NameOf(identity));
        }
      }
    }
    done(taken ? WriteOutcome::kWritten : WriteOutcome::kFault);
  }

  void RaiseGeneration(const RaisedGeneration& raised,
                       std::function<void(absl::Status)> done) override {
    bool taken = false;
    {
      absl::MutexLock lock(&pool_.mutex_);
      taken = !pool_.fail_records_ && pool_.ServesLocked();
      if (taken) {
        pool_.DoLocked({node_, "", std::nullopt, raised});
      }
    }
    done(taken ? absl::OkStatus() : absl::UnavailableError("the pool cannot be written"));
    pool_.Tell();
  }

  [[nodiscard]] bool SeenByAll(const RaisedGeneration& raised) const override {
    absl::MutexLock lock(&pool_.mutex_);
    return std::all_of(pool_.nodes_.begin(), pool_.nodes_.end(), [&](const auto& node) {
      const auto found = node->generations.find(raised.namespace_digest);
      return found != node->generations.end() && HasLearned(found->second, raised.generation);
    });
  }

  void WatchGenerations(LearnGenerations learn) override {
    {
      absl::MutexLock lock(&pool_.mutex_);
      pool_.mutex_.Await(absl::Condition(
          +[](bool* telling) { return !*telling; }, &pool_.telling_));
      node_->learn = std::move(learn);
      node_->untold.clear();
      for (const auto& [digest, generation] : node_->generations) {
        node_->untold.push_back({digest, generation});
      }
    }
    pool_.Tell();
  }

  void Tick() override {}

  void Close(absl::Duration /*deadline*/, std::function<void(absl::Status)> done) override {
    pool_.Leave(node_);
    done(absl::OkStatus());
  }

  [[nodiscard]] SharedTierFigures figures() const override {
    absl::MutexLock lock(&pool_.mutex_);
    SharedTierFigures figures;
    figures.state = pool_.state_;
    figures.nodes = pool_.nodes_.size();
    figures.records = node_->found.size();
    return figures;
  }

  [[nodiscard]] std::vector<PoolNodeView> Nodes() const override {
    absl::MutexLock lock(&pool_.mutex_);
    std::vector<PoolNodeView> views(pool_.nodes_.size());
    for (size_t i = 0; i < views.size(); ++i) {
      views[i].node.lo = i + 1;
      views[i].self = pool_.nodes_[i].get() == node_;
    }
    return views;
  }
  [[nodiscard]] std::vector<PoolSegmentView> ReclaimOrder() const override {
    return {{"nodes/1/s1", 4096, 1, 0.5}};
  }

 private:
  SharedPoolDouble& pool_;
  Node* const node_;
  const std::string name_;
};

SharedPoolDouble::~SharedPoolDouble() = default;

std::unique_ptr<SharedTier> SharedPoolDouble::Join(std::string name) {
  absl::MutexLock lock(&mutex_);
  nodes_.push_back(std::make_unique<Node>());
  Node* node = nodes_.back().get();
  node->found = records_;
  node->generations = raised_;
  return std::make_unique<Tier>(*this, node, std::move(name));
}

void SharedPoolDouble::SetNews(News news) {
  absl::MutexLock lock(&mutex_);
  news_ = news;
}

void SharedPoolDouble::Spread() {
  {
    absl::MutexLock lock(&mutex_);
    SpreadLocked();
  }
  Tell();
}

void SharedPoolDouble::SetState(PoolState state) {
  {
    absl::MutexLock lock(&mutex_);
    state_ = state;
  }
  Tell();
}

void SharedPoolDouble::HoldPublishes(bool held) {
  absl::MutexLock lock(&mutex_);
  hold_publishes_ = held;
}

bool SharedPoolDouble::ReleaseOne() {
  std::function<void()> released;
  {
    absl::MutexLock lock(&mutex_);
    const auto found =
        std::find_if(publishes_.begin(), publishes_.end(),
                     [](const HeldPublish& publish) { return publish.released != nullptr; });
    if (found == publishes_.end()) {
      return false;
    }
    found->record.payload =
        std::make_shared<const std::string>(found->source.data(), found->source.size());
    released = std::exchange(found->released, nullptr);
  }
  released();
  return true;
}

bool SharedPoolDouble::EndOne(WriteOutcome outcome) {
  HeldPublish publish;
  {
    absl::MutexLock lock(&mutex_);
    if (publishes_.empty()) {
      return false;
    }
    publish = std::move(publishes_.front());
    publishes_.pop_front();
  }
  FinishPublish(std::move(publish), outcome);
  return true;
}

void SharedPoolDouble::FinishPublish(HeldPublish publish, WriteOutcome outcome) {
  if (publish.released != nullptr) {
    publish.record.payload =
        std::make_shared<const std::string>(publish.source.data(), publish.source.size());
    publish.released();
  }
  if (outcome == WriteOutcome::kWritten) {
    absl::MutexLock lock(&mutex_);
    ++published_;
    DoLocked({publish.node, publish.name, publish.record, std::nullopt});
  }
  publish.done(outcome);
}

void SharedPoolDouble::FailPublishes(std::optional<WriteOutcome> outcome) {
  absl::MutexLock lock(&mutex_);
  fail_publishes_ = outcome;
}

void SharedPoolDouble::HoldReads(bool held) {
  absl::MutexLock lock(&mutex_);
  hold_reads_ = held;
}

bool SharedPoolDouble::EndOneRead(ReadOutcome outcome) {
  HeldRead read;
  {
    absl::MutexLock lock(&mutex_);
    if (reads_.empty()) {
      return false;
    }
    read = std::move(reads_.front());
    reads_.pop_front();
  }
  if (outcome == ReadOutcome::kVerified) {
    std::memcpy(read.destination.data(), read.record.payload->data(), read.record.payload->size());
  }
  read.done(outcome);
  return true;
}

void SharedPoolDouble::FailRecords(bool fail) {
  absl::MutexLock lock(&mutex_);
  fail_records_ = fail;
}

void SharedPoolDouble::Forget() {
  absl::MutexLock lock(&mutex_);
  records_.clear();
  for (const std::unique_ptr<Node>& node : nodes_) {
    node->found.clear();
  }
}

size_t SharedPoolDouble::publishes_held() const {
  absl::MutexLock lock(&mutex_);
  return publishes_.size();
}

size_t SharedPoolDouble::reads_held() const {
  absl::MutexLock lock(&mutex_);
  return reads_.size();
}

uint64_t SharedPoolDouble::published() const {
  absl::MutexLock lock(&mutex_);
  return published_;
}

uint64_t SharedPoolDouble::offered() const {
  absl::MutexLock lock(&mutex_);
  return offered_;
}

uint64_t SharedPoolDouble::GenerationOf(const Digest128& namespace_digest) const {
  absl::MutexLock lock(&mutex_);
  const auto found = raised_.find(namespace_digest);
  return found == raised_.end() ? 1 : found->second;
}

std::string SharedPoolDouble::NameOf(const BlockIdentity& identity) {
  return absl::StrCat(identity.namespace_digest.ToHex(), "/", identity.generation, "/",
                      identity.salt.size(), "/", std::string(identity.salt),
                      std::string(identity.key));
}

bool SharedPoolDouble::ServesLocked() const {
  return state_ == PoolState::kOnline || state_ == PoolState::kCatchingUp;
}

void SharedPoolDouble::ApplyLocked(const Deed& deed, Node& node) {
  if (deed.raised.has_value()) {
    const RaisedGeneration& raised = *deed.raised;
    uint64_t& known = node.generations[raised.namespace_digest];
    if (raised.generation > known) {
      known = raised.generation;
      if (deed.by != &node) {
        node.untold.push_back(raised);
      }
    }
    std::erase_if(node.found, [&raised](const auto& entry) {
      return entry.second.namespace_digest == raised.namespace_digest &&
             entry.second.generation < raised.generation;
    });
  } else if (deed.published.has_value()) {
    const auto known = node.generations.find(deed.published->namespace_digest);
    if (known == node.generations.end() || known->second <= deed.published->generation) {
      node.found.insert_or_assign(deed.name, *deed.published);
    }
  } else {
    node.found.erase(deed.name);
  }
}

void SharedPoolDouble::DoLocked(Deed deed) {
  if (deed.raised.has_value()) {
    uint64_t& raised = raised_[deed.raised->namespace_digest];
    raised = std::max(raised, deed.raised->generation);
  } else if (deed.published.has_value()) {
    records_.insert_or_assign(deed.name, *deed.published);
  } else {
    records_.erase(deed.name);
  }
  if (deed.by != nullptr) {
    ApplyLocked(deed, *deed.by);
  }
  deeds_.push_back(std::move(deed));
  if (news_ == News::kAtOnce) {
    SpreadLocked();
  }
}

void SharedPoolDouble::SpreadLocked() {
  for (const Deed& deed : deeds_) {
    for (const std::unique_ptr<Node>& node : nodes_) {
      if (node.get() != deed.by) {
        ApplyLocked(deed, *node);
      }
    }
  }
  deeds_.clear();
}

void SharedPoolDouble::Tell() {
  for (bool first = true;; first = false) {
    std::vector<RaisedGeneration> news;
    SharedTier::LearnGenerations learn;
    {
      absl::MutexLock lock(&mutex_);
      if (first && telling_) {
        return;
      }
      const auto node = std::find_if(nodes_.begin(), nodes_.end(), [](const auto& candidate) {
        return candidate->learn != nullptr && !candidate->untold.empty();
      });
      telling_ = ServesLocked() && node != nodes_.end();
      if (!telling_) {
        return;
      }
      news.swap((*node)->untold);
      learn = (*node)->learn;
    }
    learn(news);
  }
}

void SharedPoolDouble::Leave(const Node* node) {
  std::vector<HeldPublish> publishes;
  std::vector<HeldRead> reads;
  {
    absl::MutexLock lock(&mutex_);
    for (auto at = publishes_.begin(); at != publishes_.end();) {
      if (at->node == node) {
        publishes.push_back(std::move(*at));
        at = publishes_.erase(at);
      } else {
        ++at;
      }
    }
    for (auto at = reads_.begin(); at != reads_.end();) {
      if (at->node == node) {
        reads.push_back(std::move(*at));
        at = reads_.erase(at);
      } else {
        ++at;
      }
    }
  }
  for (HeldPublish& publish : publishes) {
    FinishPublish(std::move(publish), WriteOutcome::kClosed);
  }
  for (const HeldRead& read : reads) {
    read.done(ReadOutcome::kCancelled);
  }
}

void SharedPoolDouble::Remove(const Node* node) {
  absl::MutexLock lock(&mutex_);
  for (Deed& deed : deeds_) {
    deed.by = deed.by == node ? nullptr : deed.by;
  }
  std::erase_if(nodes_, [node](const auto& candidate) { return candidate.get() == node; });
}

}  // namespace terrace::doubles
