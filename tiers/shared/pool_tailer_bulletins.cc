// Of a large fleet: what tellers say of the nodes of their groups, and what this one says as a
// teller.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/shared/pool_bulletin.h"
#include "tiers/shared/pool_tailer.h"

namespace terrace {
namespace {

// A node that has been silent for longer is no teller: more than a heartbeat and the ways of its
// news, less than what makes it dead.
constexpr absl::Duration kTellerSilence = absl::Seconds(45);
// Of a bulletin's file, with what a seal adds to it.
constexpr uint64_t kMostBytes = kMaxReportBytes + kSealedReportHeaderBytes + kSealedReportTagBytes;
constexpr int kMissedBulletins = 3;  // until a bulletin does not count any more

}  // namespace

void PoolTailer::SetLife(const std::optional<NodeLife>& life) {
  absl::MutexLock lock(&mutex_);
  life_ = life;
}

bool PoolTailer::IsTold(const Node& node, absl::Duration now) const {
  return !tellers_.empty() && node.heard && node.told_at > absl::ZeroDuration() &&
         now - node.told_at <= kMissedBulletins * options_.bulletin_poll_interval;
}

bool PoolTailer::TellsOf(const Digest128& node) const {
  return !tellers_.empty() &&
         tellers_[GroupOf(node, options_.bulletin_groups)].node == options_.self;
}

void PoolTailer::ChooseAllTellers(absl::Duration now) {
  std::vector<Digest128> candidates;
  std::vector<NodeLife> lives;
  {
    absl::MutexLock lock(&mutex_);
    if (nodes_.size() + 1 <= options_.bulletins_from) {
      tellers_.clear();
      return;
    }
    if (life_.has_value()) {
      candidates.push_back(options_.self);
    }
    for (const auto& [digest, node] : nodes_) {
      if (node.heard && !node.ended && now - node.last_word <= kTellerSilence) {
        candidates.push_back(digest);
      }
    }
  }
  std::sort(candidates.begin(), candidates.end());
  const std::vector<Digest128> chosen = ChooseTellers(candidates, options_.bulletin_groups);
  tellers_.resize(chosen.size());
  absl::MutexLock lock(&mutex_);
  for (size_t group = 0; group < chosen.size(); ++group) {
    Teller& teller = tellers_[group];
    const auto node = nodes_.find(chosen[group]);
    const NodeLife life = node == nodes_.end() ? NodeLife() : node->second.life;
    if (!(teller.node == chosen[group]) || teller.life != life) {
      // Not all at once.
      const double part = static_cast<double>(group) / static_cast<double>(chosen.size());
      teller = {chosen[group], life, 0, kGlanceBytes, now + part * options_.bulletin_poll_interval};
    }
  }
}

absl::Status PoolTailer::ReadBulletins(TailNews* news) {
  for (Teller& teller : tellers_) {
    const absl::Duration now = access_.clock->Now();
    if (teller.life.epoch == 0 || teller.next_read > now) {
      continue;  // nobody, or this node
    }
    teller.next_read = now + options_.bulletin_poll_interval;
    const absl::Status status = ReadBulletinOf(teller, news);
    if (IsMountFault(status)) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status PoolTailer::ReadBulletinOf(Teller& teller, TailNews* news) {
  absl::StatusOr<std::string> bytes = GlanceAt(access_, BulletinPath(teller.life), teller.room);
  if (bytes.ok() && bytes->size() == teller.room && teller.room < kMostBytes) {
    teller.room = kMostBytes;
    bytes = GlanceAt(access_, BulletinPath(teller.life), teller.room);
  }
  if (!bytes.ok()) {
    return bytes.status();
  }
  // As long as it is, a bulletin is sealed as one report.
  const absl::StatusOr<std::string> opened = access_.protection->OpenReport(*std::move(bytes));
  PoolReport title;
  std::vector<PoolReport> excerpts;
  const bool sound = opened.ok() && ReadBulletin(*opened, &title, &excerpts) &&
                     title.pool == access_.pool && title.life == teller.life;
  {
    absl::MutexLock lock(&mutex_);
    ++figures_.bulletins_read;
    figures_.reports_damaged += sound ? 0 : 1;
  }
  if (!sound || title.serial <= teller.serial) {
    return absl::OkStatus();  // one that does not change says nothing of now
  }
  teller.serial = title.serial;
  for (const PoolReport& excerpt : excerpts) {
    TakeExcerpt(excerpt, access_.clock->Now(), news);
  }
  return absl::OkStatus();
}

void PoolTailer::TakeExcerpt(const PoolReport& excerpt, absl::Duration now, TailNews* news) {
  Node* node = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = nodes_.find(excerpt.life.node);
    if (found == nodes_.end() || found->second.life != excerpt.life ||
        !(excerpt.pool == access_.pool) || !found->second.heard) {
      return;
    }
    node = &found->second;  // only rounds add and remove nodes
    if (excerpt.serial > node->serial && node->serial < excerpt.since) {
      node->look_soon = true;  // what came between is told no more
      return;
    }
    node->told_at = now;
    if (excerpt.serial <= node->serial) {
      return;
    }
  }
  for (const Kill& kill : excerpt.kills) {
    catalogue_.Apply(kill);
  }
  TakeSegments(*node, nullptr, excerpt);
  absl::MutexLock lock(&mutex_);
  // That it has seen a generation, or has ended, counts when it says so itself: until then a clear
  // is pending.
  bool to_be_confirmed = excerpt.ended != node->ended;
  for (const ReportedGeneration& raised : excerpt.generations) {
    const auto known = node->generations.find(raised.namespace_digest);
    if (known == node->generations.end() || known->second < raised.generation) {
      news->generations.push_back({raised.namespace_digest, raised.generation});
      to_be_confirmed = true;
    }
  }
  node->look_soon = node->look_soon || to_be_confirmed;
  node->hearsay = true;
  node->serial = excerpt.serial;
  node->last_word = now;
  ++figures_.excerpts_taken;
}

absl::Status PoolTailer::WriteBulletin() {
  const absl::Duration now = access_.clock->Now();
  std::optional<NodeLife> life;
  {
    absl::MutexLock lock(&mutex_);
    life = life_;
  }
  const bool tells = std::any_of(tellers_.begin(), tellers_.end(), [this](const Teller& teller) {
    return teller.node == options_.self;
  });
  if (!tells || !life.has_value() || next_bulletin_ > now) {
    return absl::OkStatus();
  }
  next_bulletin_ = now + options_.bulletin_interval;
  chronicle_.Forget(now);
  PoolReport title;
  title.kind = ReportKind::kTitle;
  title.pool = access_.pool;
  title.life = *life;
  title.serial = ++bulletin_serial_;
  const absl::Status status =
      WriteSmallFile(access_, PoolOp::kReplace, BulletinPath(*life),
                     access_.protection->SealReport(chronicle_.Compose(title)));
  absl::MutexLock lock(&mutex_);
  figures_.bulletins_written += status.ok() ? 1 : 0;
  // Without one the others look at the nodes themselves.
  return IsMountFault(status) ? status : absl::OkStatus();
}

}  // namespace terrace
