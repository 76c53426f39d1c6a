#include "tiers/placement/phl.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tiers/placement/chain_tree.h"
#include "tiers/placement/hazard_lesson.h"
#include "tiers/placement/hazard_model.h"
#include "tiers/placement/instance_price.h"
#include "tiers/placement/lru_guard.h"
#include "tiers/placement/phl_features.h"
#include "tiers/placement/rank_order.h"
#include "tiers/placement/run_list.h"
#include "tiers/placement/shadow_lru.h"
#include "tiers/placement/shadow_phl.h"
#include "tiers/placement/use_order.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kAppChildren = 16;
constexpr uint32_t kTurnsACall = 1024;
constexpr int kForgetSteps = 8;

class PhlPolicy final : public EvictionPolicy {
 public:
  explicit PhlPolicy(const PhlOptions& options) : options_(options) {}

  [[nodiscard]] bool learns() const override { return true; }

  void Use(const ChainUse& use) override {
    Advance(use.now);
    if (use.names.empty()) {
      return;
    }
    for (const BlockId block : use.resident) {
      tree_.PrefetchPlace(block);  // its owner touches and locks it next
    }
    const uint32_t covered = Walk(use.names);
    Judge(use);
    const RequestFacts facts = FactsOf(use, covered);
    for (const RunId id : path_) {
      LearnUse(id);
    }
    JoinPath();
    if (covered < use.names.size()) {
      const RunId above = path_.empty() ? kRootRun : path_.back();
      path_.push_back(AddRun(above, use.names.subspan(covered)));
    }
    tree_.EndOf(path_.back()) = {now_s_, facts};
    for (size_t i = path_.size(); i > 0; --i) {
      Renew(path_[i - 1], facts, i == path_.size() ? Part::kLast : Part::kInner);
    }
    shadow_.Shrink(tree_, capacity_);
    if (use.resident.size() == use.names.size()) {  // or Extend follows, and knows more
      StoreInShadow(path_);
    }
    Forget();
  }

  GrowthTicket Extend(const ChainGrowth& growth) override {
    Advance(growth.now);
    if (growth.names.empty()) {
      return {};
    }
    const Spot begin = tree_.BehindParent(growth.parent);
    const uint32_t depth = tree_.At(begin.run).depth + begin.position;
    const RunId end = Grow(begin, growth);
    TakeHints(end, growth.hints);
    shadow_.Shrink(tree_, capacity_);
    StoreGrowthInShadow(end);
    return {end, depth};
  }

  void Advance(absl::Duration now) override {
    now_s_ = std::max(now_s_, absl::ToDoubleSeconds(now));
    const UseOrder& order = shadow_.order();
    uint32_t turns = 0;
    for (uint32_t age = 0; age + 1 < kAges; ++age) {
      const double end = HazardModel::BucketBegin(BucketOfAge(age + 1));
      while (now_s_ - order.OldestUse(age) >= end && turns < kTurnsACall) {
        const RunId id = order.Oldest(age);
        ++turns;
        Note(id, {.first = static_cast<uint8_t>(BucketOfAge(age)),
                  .end = static_cast<uint8_t>(BucketOfAge(age + 1)),
                  .used = false});
        shadow_.Turn(tree_, age);
        GrowOlder(id);
      }
    }
  }

  Lesson* BeginLesson() override {
    TERRACE_CHECK(!in_lesson_);
    in_lesson_ = true;
    lesson_.Begin(seen_, instances_);
    return &lesson_;
  }
  void EndLesson() override {
    TERRACE_CHECK(in_lesson_);
    in_lesson_ = false;
    instances_ += lesson_.End(model_);
    lesson_bytes_ = lesson_.memory_bytes();
  }

  [[nodiscard]] bool Admits(const Newcomer& newcomer) override {
    const Spot spot = tree_.SpotOf(newcomer);
    if (guard_.lru_rules() || spot.run == kNoRun) {
      return true;
    }
    const RunId victim = LowestRun();
    if (victim == kNoRun) {
      return true;
    }
    const uint32_t bar = tree_.InstanceOf(victim).Rank();
    for (const Pricing pricing : {Pricing::kAtLeast, Pricing::kExact}) {
      PriceInOrder(spot.run, pricing);
      if (tree_.InstanceOf(spot.run).Rank() >= bar) {
        return true;
      }
    }
    return false;
  }

  void Insert(BlockId block, const Newcomer& newcomer) override {
    Spot spot = tree_.SpotOf(newcomer);
    if (spot.run == kNoRun) {
      spot = {tree_.AddAnonymous(newcomer.name), 0};
      tree_.InstanceOf(spot.run).last_s = now_s_;
      shadow_.Know(tree_, spot.run);
      Describe(spot.run, {}, Part::kLast);
    }
    tree_.Attach(block, spot.run, spot.position);
    ++unlocked_;
    Reconsider(spot.run);
    // Its parent is no leaf any more; that is found out when it comes up as a victim.
  }

  void Touch(absl::Span<const BlockId> /*chain*/) override {}

  void Remove(BlockId block) override {
    const ChainTree::Place place = tree_.PlaceOf(block);
    unlocked_ -= place.is_locked == 0 ? 1 : 0;
    tree_.Detach(block, [this](RunId quiet) { Reconsider(quiet); });
    if (tree_.At(place.run).resident == 0) {
      LeaveOrder(place.run);
    } else {
      Reconsider(place.run);
    }
  }

  void Lock(BlockId block) override { unlocked_ -= tree_.Lock(block) ? 1 : 0; }
  void Unlock(BlockId block) override {
    if (tree_.Unlock(block)) {
      ++unlocked_;
      const ChainTree::Place place = tree_.PlaceOf(block);
      if (place.position + 1U == tree_.At(place.run).resident_end) {  // or it changes nothing
        Reconsider(place.run);
      }
    }
  }

  BlockId Victim() override {
    capacity_ = tree_.resident();
    const RunId run = LowestRun();
    if (run != kNoRun) {
      PrefetchBehind(run);
      return Tail(tree_.At(run));
    }
    return unlocked_ == 0 ? kNoBlock : tree_.AnyUnlocked();
  }

  [[nodiscard]] uint64_t Rank(BlockId block) const override {
    const RunId own = tree_.PlaceOf(block).run;
    const double value = Value(block);
    uint64_t before = 0;
    for (RunId id = 1; id < tree_.id_limit(); ++id) {
      const bool sooner =
          tree_.At(id).resident > 0 &&
          (guard_.lru_rules() ? tree_.InstanceOf(id).last_s < tree_.InstanceOf(own).last_s
                              : pricer_.Priced(id, Pricing::kAtLeast).Rank() < value);
      before += sooner ? tree_.At(id).resident : 0;
    }
    return before;
  }

  [[nodiscard]] double Value(BlockId block) const override {
    return pricer_.Priced(tree_.PlaceOf(block).run, Pricing::kExact).Rank();
  }
  [[nodiscard]] std::optional<double> ReuseChance(BlockId block,
                                                  absl::Duration within) const override {
    const RunId run = tree_.PlaceOf(block).run;
    const Instance& instance = tree_.InstanceOf(run);
    return model_.ChanceOfUse(tree_.RowsOf(run), now_s_ - instance.last_s,
                              absl::ToDoubleSeconds(within));
  }
  [[nodiscard]] uint64_t resident() const override { return tree_.resident(); }
  [[nodiscard]] uint64_t memory_bytes() const override {
    return sizeof(*this) + tree_.memory_bytes() + model_.memory_bytes() + lesson_bytes_ +
           seen_.capacity() * sizeof(HazardOutcome);
  }
  [[nodiscard]] std::string_view name() const override { return "phl"; }

 private:
  using Spot = ChainTree::Spot;
  enum class Part : uint8_t { kInner, kLast };  // of a request's chain

  static BlockId Tail(const Run& run) {
    return run.resident_end == 0 ? kNoBlock : run.blocks[run.resident_end - 1];
  }
  // Its deepest block could go now.
  [[nodiscard]] bool Evictable(const Run& run) const {
    return run.resident > 0 && run.live_children == 0 && tree_.PlaceOf(Tail(run)).is_locked == 0;
  }
  // A longer run decides about more blocks.
  static float WeightOf(const Run& run) {
    return std::min(8.0F, std::sqrt(static_cast<float>(run.length)));
  }

  // ---- the tree
  // Leaves in path_ the runs that names begin with, cut so that each is used whole. Returns the
  // blocks that they cover.
  uint32_t Walk(absl::Span<const uint64_t> names) {
    path_.clear();
    RunId at = kRootRun;
    uint32_t done = 0;
    while (done < names.size()) {
      RunId next = tree_.Child(at, ChainTree::PrintOf(names[done]));
      if (next == kNoRun) {
        break;
      }
      const uint32_t match = tree_.Match(next, names.subspan(done));
      if (match < tree_.At(next).length) {
        next = CutRun(next, match);
      }
      path_.push_back(next);
      done += match;
      at = next;
    }
    return done;
  }
  RunId CutRun(RunId id, uint32_t position) {
    const RunId head_id = tree_.Split(id, position);
    const Run& tail = tree_.At(id);
    tree_.CopyInstance(id, head_id);
    shadow_.Split(tree_, head_id, id);
    if (tail.resident == 0) {
      LeaveOrder(id);
    }
    if (guard_.lru_rules() && !ShadowPhl::Evictable(tail)) {
      order_.Remove(tree_, id);
    }
    Reconsider(head_id);
    return head_id;
  }
  // A run of names that are new, used now. It has no price yet.
  RunId AddRun(RunId parent, absl::Span<const uint64_t> names) {
    const RunId id = tree_.Add(parent, names);
    tree_.InstanceOf(id).last_s = now_s_;
    shadow_.Know(tree_, id);
    return id;
  }
  // Makes sure that all names are known behind `at`; returns the run that the last one is in.
  RunId Grow(Spot at, const ChainGrowth& growth) {
    absl::Span<const uint64_t> names = growth.names;
    while (!names.empty()) {
      Run& run = tree_.At(at.run);
      if (at.position == run.length) {
        const RunId next = tree_.Child(at.run, ChainTree::PrintOf(names.front()));
        if (next == kNoRun) {
          return AddGrown(at.run, names, growth.hints);
        }
        at = {next, 0};
        continue;
      }
      if (run.prints[at.position] == ChainTree::PrintOf(names.front())) {
        ++at.position;
        names.remove_prefix(1);
        continue;
      }
      if (at.position == 0 || run.anonymous) {  // two names with one print
        break;
      }
      at = {CutRun(at.run, at.position), at.position};
    }
    return at.run;
  }
  // What a request stores behind the end of what it asked for: as if it had asked for that too.
  RunId AddGrown(RunId parent, absl::Span<const uint64_t> names, const RequestHints& hints) {
    TakeHints(parent, hints);
    const RequestEnd& before = tree_.EndOf(parent);
    RequestFacts facts = before.at_s < 0 ? RequestFacts{} : before.facts;
    facts.new_blocks += static_cast<uint32_t>(names.size());
    facts.chain_blocks += static_cast<uint32_t>(names.size());
    const RunId id = AddRun(parent, names);
    tree_.EndOf(id) = {now_s_, facts};
    Renew(id, facts, Part::kLast);
    return id;
  }
  // What is known only now of the request that ended at the run.
  void TakeHints(RunId id, const RequestHints& hints) {
    RequestEnd& end = tree_.EndOf(id);
    if (end.at_s < 0) {
      return;
    }
    RequestFacts facts = end.facts;
    ApplyHints(hints, facts);
    if (facts == end.facts) {
      return;
    }
    const double used_s = end.at_s;
    end = {now_s_, facts};
    for (RunId at = id; at != kRootRun && tree_.InstanceOf(at).last_s == used_s;) {
      Rewrite(at, facts, at == id ? Part::kLast : Part::kInner);
      at = tree_.At(at).parent;
    }
  }
  // ---- instances
  [[nodiscard]] RequestFacts FactsOf(const ChainUse& use, uint32_t covered) const {
    RequestFacts facts;
    ApplyHints(use.hints, facts);
    facts.chain_blocks = static_cast<uint32_t>(use.names.size());
    facts.new_blocks = static_cast<uint32_t>(use.names.size() - covered);
    for (size_t i = path_.size(); i > 0; --i) {
      const RequestEnd& end = tree_.EndOf(path_[i - 1]);
      if (end.at_s >= 0) {
        const RequestFacts& before = end.facts;
        facts.turn = static_cast<uint16_t>(std::min(before.turn + 1, 60'000));
        facts.gap_s = static_cast<float>(now_s_ - end.at_s);
        const uint64_t told = uint64_t{before.input_tokens} + before.output_tokens;
        facts.user_tokens =
            facts.input_tokens > told ? static_cast<uint32_t>(facts.input_tokens - told) : 0;
        break;
      }
    }
    for (const RunId id : path_) {
      if (tree_.At(id).children >= kAppChildren) {
        facts.app = std::max(1U, tree_.At(id).Prints().back());  // 0: none
      }
    }
    return facts;
  }

  // To be learnt from in the next lesson.
  void Note(RunId id, HazardOutcome outcome) {
    const Instance& instance = tree_.InstanceOf(id);
    if (instance.learning && seen_.size() < HazardLesson::kMaxOutcomes) {
      const absl::Span<const HazardModel::Row> rows = tree_.RowsOf(id);
      std::copy(rows.begin(), rows.end(), outcome.rows.begin());
      outcome.rows_used = static_cast<uint8_t>(rows.size());
      outcome.weight = WeightOf(tree_.At(id));
      seen_.push_back(outcome);
    }
  }
  // The run was used: the instance that it had is over.
  void LearnUse(RunId id) {
    Instance& instance = tree_.InstanceOf(id);
    const uint32_t first = BucketOfAge(tree_.InstanceOf(id).age);
    const uint32_t bucket = std::max(first, HazardModel::BucketOf(now_s_ - instance.last_s));
    Note(id,
         {.first = static_cast<uint8_t>(first), .end = static_cast<uint8_t>(bucket), .used = true});
    if (instance.hits < Instance::kMostHits) {
      ++instance.hits;
    }
  }
  // A new instance for a run that was used now.
  void Renew(RunId id, const RequestFacts& facts, Part part) {
    ++instances_;
    tree_.InstanceOf(id).learning = instances_ % options_.LearnOneIn(instances_) == 0 ? 1 : 0;
    Rewrite(id, facts, part);
  }
  // The instance begins now, with these facts.
  void Rewrite(RunId id, const RequestFacts& facts, Part part) {
    shadow_.Take(tree_, id);
    tree_.InstanceOf(id).last_s = now_s_;
    Describe(id, facts, part);
    shadow_.Use(tree_, id);
    if (RankOrder::Has(tree_, id)) {
      PriceInOrder(id, Pricing::kAtLeast);
    }
    if (tree_.At(id).in_lru) {
      lru_order_.Remove(tree_, id);
      lru_order_.PushBack(tree_, id);
    }
  }
  void Describe(RunId id, const RequestFacts& facts, Part part) {
    const Run& run = tree_.At(id);
    const RunFacts of_run{tree_.InstanceOf(id).hits, run.children, run.depth, run.length,
                          part == Part::kLast};
    tree_.Describe(id, FeatureRows(facts, of_run));
  }
  void PriceInOrder(RunId id, Pricing pricing) {
    pricer_.Price(id, pricing);
    if (RankOrder::Has(tree_, id)) {
      order_.RankAgain(tree_, id);
    }
  }

  // Runs of the path that are alike become one.
  void JoinPath() {
    for (size_t i = path_.size(); i > 1; --i) {
      const RunId id = path_[i - 2];
      const RunId child_id = path_[i - 1];
      const Run& run = tree_.At(id);
      if (run.children != 1 || run.anonymous ||
          tree_.InstanceOf(id).hits != tree_.InstanceOf(child_id).hits) {
        continue;
      }
      LeaveLists(child_id);
      tree_.Join(id);
      path_.erase(path_.begin() + static_cast<std::ptrdiff_t>(i) - 1);
      Reconsider(id);
    }
  }

  // Drops ghosts while there are too many. The hand goes round among runs that LRU would not hold
  // any more: the oldest may be what PHL keeps longest.
  void Forget() {
    const uint64_t ghosts = std::max<uint64_t>(
        options_.least_ghosts, options_.ghosts_per_four_blocks * tree_.resident() / 4);
    for (int steps = 0; steps < kForgetSteps && tree_.prints() > ghosts + tree_.resident();
         ++steps) {
      const RunId id = shadow_.order().hand();
      if (id == kNoRun) {
        return;
      }
      const Run& run = tree_.At(id);
      shadow_.MoveHand(run.shadow > 0 ? kNoRun : UseOrder::After(tree_, id));
      tree_.Prefetch(shadow_.order().hand());
      if (run.children == 0 && run.resident == 0 && run.shadow == 0 && run.phl_shadow == 0) {
        LeaveLists(id);
        tree_.Drop(id);
      }
    }
  }
  void LeaveLists(RunId id) {
    shadow_.Take(tree_, id);
    LeaveOrder(id);
    order_.Remove(tree_, id);
  }

  // ---- who rules
  // Counts a request, before anything is made of it.
  void Judge(const ChainUse& use) {
    if (!options_.guarded) {
      return;
    }
    const LruGuard::Hits hits = {use.names.size(), use.resident.size(),
                                 ShadowLru::Hits(tree_, path_), ShadowPhl::Hits(tree_, path_)};
    if (guard_.Count(hits, model_.skill())) {
      ChangeRuler();
    }
  }
  // Makes all orders anew. Takes time for each run known; the guard sees to it that it is rare.
  void ChangeRuler() {
    for (RunId id = 1; id < tree_.id_limit(); ++id) {
      order_.Remove(tree_, id);
      LeaveOrder(id);
    }
    guard_.lru_rules() ? phl_shadow_.Begin(tree_) : phl_shadow_.End(tree_);
    for (RunId id = shadow_.order().front(); id != kNoRun; id = UseOrder::After(tree_, id)) {
      Run& run = tree_.At(id);
      if (guard_.lru_rules() ? ShadowPhl::Evictable(run) : Evictable(run)) {
        pricer_.Price(id, Pricing::kAtLeast);
        order_.PushBack(tree_, id);
      }
      if (guard_.lru_rules() && run.resident > 0) {
        lru_order_.PushBack(tree_, id);
        run.in_lru = true;
      }
    }
  }
  void StoreInShadow(absl::Span<const RunId> path) {
    if (guard_.lru_rules()) {
      for (const RunId id : path) {
        order_.Remove(tree_, id);
      }
      phl_shadow_.Store(tree_, path, capacity_, order_, pricer_);
    }
  }

  // All that was used together with the run that a request ends in, as far as it would be found.
  void StoreGrowthInShadow(RunId end) {
    if (!guard_.lru_rules() || end == kRootRun) {
      return;
    }
    path_.clear();
    const double used_s = tree_.InstanceOf(end).last_s;
    RunId at = end;
    for (; at != kRootRun && tree_.InstanceOf(at).last_s == used_s; at = tree_.At(at).parent) {
      path_.push_back(at);
    }
    if (at == kRootRun || tree_.At(at).phl_shadow == tree_.At(at).length) {
      std::reverse(path_.begin(), path_.end());
      StoreInShadow(path_);
    }
  }

  // ---- the order of eviction: order_ while PHL rules; while LRU rules, lru_order_, and order_ is
  // the shadow's
  // The run has reached another age.
  void GrowOlder(RunId id) {
    if (RankOrder::Has(tree_, id)) {
      tree_.InstanceOf(id).IsStale() ? PriceInOrder(id, Pricing::kAtLeast) : order_.Fall(tree_, id);
    }
  }
  void LeaveOrder(RunId id) {
    Run& run = tree_.At(id);
    if (run.in_lru) {
      lru_order_.Remove(tree_, id);
      run.in_lru = false;
    }
    if (!guard_.lru_rules()) {
      order_.Remove(tree_, id);
    }
  }
  // The run may have become one that can be evicted from.
  void Reconsider(RunId id) {
    Run& run = tree_.At(id);
    if (id == kRootRun) {
      return;
    }
    if (guard_.lru_rules()) {
      ShadowPhl::Enter(tree_, id, order_, pricer_);
      if (!run.in_lru && Evictable(run)) {
        InsertByUse(tree_, lru_order_, id);
        run.in_lru = true;
      }
    } else if (!RankOrder::Has(tree_, id) && Evictable(run)) {
      pricer_.Price(id, Pricing::kAtLeast);
      order_.Insert(tree_, id);
    }
  }
  // The run from which a block goes next; those that turn out to be no leaves leave the order until
  // they are, and those that were priced at an earlier age are priced again, by what is known now.
  RunId LowestRun() {
    if (guard_.lru_rules()) {
      while (lru_order_.front() != kNoRun && !Evictable(tree_.At(lru_order_.front()))) {
        LeaveOrder(lru_order_.front());
      }
      return lru_order_.front();
    }
    return order_.Lowest(tree_, [this](RunId id) {
      const bool goes = Evictable(tree_.At(id));
      const Instance& instance = tree_.InstanceOf(id);
      if (goes && (instance.exact == 0 || instance.priced_age != instance.age)) {
        pricer_.PriceNow(id, Pricing::kExact);
      }
      return goes;
    });
  }

  // Brings into the cache what goes next, a step with each block that goes now.
  void PrefetchBehind(RunId id) const {
    const Run& run = tree_.At(id);
    const RunId next = guard_.lru_rules() ? tree_.LinkOf<RunChain::kLru>(id).after
                                          : tree_.LinkOf<RunChain::kRank>(id).after;
    if (next == kNoRun) {
      return;
    }
    if (run.resident > 2) {
      tree_.Prefetch(next);
    } else if (run.resident == 2) {
      tree_.PrefetchTail(next);
    } else if (const BlockId tail = Tail(tree_.At(next)); tail != kNoBlock) {
      tree_.PrefetchPlace(tail);
    }
  }

  const PhlOptions options_;
  ChainTree tree_;
  HazardModel model_;  // to price by
  RunPricer pricer_{tree_, model_};
  HazardLesson lesson_{model_};
  std::vector<HazardOutcome> seen_;  // since the last lesson began
  bool in_lesson_ = false;
  uint64_t lesson_bytes_ = sizeof(HazardLesson);  // when the last one ended
  ShadowLru shadow_;
  ShadowPhl phl_shadow_;
  LruGuard guard_;
  double now_s_ = 0;
  uint64_t unlocked_ = 0;
  uint64_t instances_ = 0;          // made so far
  uint64_t capacity_ = UINT64_MAX;  // residents when room was last asked for
  RankOrder order_;
  RunList<RunChain::kLru> lru_order_;
  std::vector<RunId> path_;                                  // of the request at hand
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakePhlPolicy(const PhlOptions& options) {
  return std::make_unique<PhlPolicy>(options);
}

}  // namespace terrace
