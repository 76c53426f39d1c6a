#include "tiers/index/rocksdb_block_index.h"

#include <system_error>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "tiers/index/index_format.h"

namespace terrace {
namespace {

// Few segments' worth of positions and records sit in one write buffer; more would only make the
// log that opening replays longer.
constexpr uint64_t kMaxLogBytes = uint64_t{16} << 20;
constexpr int kMaxOpenFiles = 64;

std::string_view View(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

absl::Status FromRocksdb(const rocksdb::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  const std::string text = absl::StrCat("index: ", status.ToString());
  return status.IsCorruption() ? absl::DataLossError(text) : absl::UnavailableError(text);
}

class RocksdbBlockIndex final : public BlockIndex {
 public:
  explicit RocksdbBlockIndex(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

  absl::Status Apply(const Batch& batch) override {
    rocksdb::WriteBatch writes;
    rocksdb::Status status;
    const auto add = [&status](const rocksdb::Status& added) {
      status = status.ok() ? added : status;
    };
    for (const uint32_t segment : batch.forgotten_segments) {
      add(writes.DeleteRange(RecordKey(segment, 0), RecordsEnd(segment)));
      add(writes.Delete(PositionKey(segment)));
    }
    for (const IndexedRecord& record : batch.records) {
      add(writes.Put(RecordKey(record.segment, record.page), EncodeRecord(record)));
    }
    for (const SegmentPosition& position : batch.positions) {
      add(writes.Put(PositionKey(position.segment), EncodePosition(position)));
    }
    return FromRocksdb(status.ok() ? db_->Write(rocksdb::WriteOptions(), &writes) : status);
  }

  absl::StatusOr<std::vector<SegmentPosition>> Positions() override {
    std::vector<SegmentPosition> positions;
    absl::Status status =
        Scan(PositionKey(0), PositionsEnd(), [&](std::string_view key, std::string_view value) {
          positions.emplace_back();
          return DecodePosition(key, value, &positions.back());
        });
    if (!status.ok()) {
      return status;
    }
    return positions;
  }

  absl::Status Load(uint32_t segment,
                    const std::function<void(const IndexedRecord&)>& visit) override {
    return Scan(RecordKey(segment, 0), RecordsEnd(segment),
                [&](std::string_view key, std::string_view value) {
                  IndexedRecord record;
                  if (!DecodeRecord(key, value, &record)) {
                    return false;
                  }
                  visit(record);
                  return true;
                });
  }

  absl::Status Sync() override { return FromRocksdb(db_->SyncWAL()); }

 private:
  absl::Status Scan(const std::string& from,
                    const std::string& end,
                    const std::function<bool(std::string_view, std::string_view)>& take) {
    const rocksdb::Slice bound(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &bound;
    options.fill_cache = false;
    const std::unique_ptr<rocksdb::Iterator> at(db_->NewIterator(options));
    for (at->Seek(from); at->Valid(); at->Next()) {
      if (!take(View(at->key()), View(at->value()))) {
        return absl::DataLossError("index: an entry makes no sense");
      }
    }
    return FromRocksdb(at->status());
  }

  const std::unique_ptr<rocksdb::DB> db_;
};

rocksdb::Options OptionsFor(const RocksdbBlockIndexOptions& options) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.memory_bytes / 2);
  rocksdb::Options chosen;
  chosen.create_if_missing = true;
  chosen.write_buffer_size = options.memory_bytes / 4;
  chosen.max_write_buffer_number = 2;
  chosen.max_total_wal_size = kMaxLogBytes;
  chosen.max_open_files = kMaxOpenFiles;
  chosen.paranoid_checks = true;
  chosen.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  chosen.keep_log_file_num = 2;
  chosen.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  chosen.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return chosen;
}

// Whether everything in the folder is what RocksDB makes, so that it may be set aside.
bool HoldsNothingElse(const std::string& path) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    const bool known = name == "CURRENT" || name == "IDENTITY" || name == "LOCK" ||
                       name.rfind("LOG", 0) == 0 || name.rfind("MANIFEST-", 0) == 0 ||
                       name.rfind("OPTIONS-", 0) == 0 || name.find(".sst") != std::string::npos ||
                       name.find(".log") != std::string::npos ||
                       name.find(".dbtmp") != std::string::npos;
    if (!known || entry.is_symlink(error) || !entry.is_regular_file(error)) {
      return false;
    }
  }
  return !error;
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> TryOpen(const RocksdbBlockIndexOptions& options) {
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(OptionsFor(options), options.path, &opened);
  std::unique_ptr<rocksdb::DB> db(opened);
  if (!status.ok()) {
    const std::string text = status.ToString();
    return text.find("lock") != std::string::npos && status.IsIOError()
               ? absl::UnavailableError(absl::StrCat("index: ", text))
               : absl::DataLossError(absl::StrCat("index: ", text));
  }
  return db;
}

// OK; NOT_FOUND: it was never used; DATA_LOSS: of another tier, version, or damaged.
absl::Status CheckVersion(rocksdb::DB& db, const Digest128& tier_uuid) {
  std::string value;
  const rocksdb::Status got = db.Get(rocksdb::ReadOptions(), VersionKey(), &value);
  if (got.IsNotFound()) {
    const std::unique_ptr<rocksdb::Iterator> any(db.NewIterator(rocksdb::ReadOptions()));
    any->SeekToFirst();
    return any->Valid() || !any->status().ok()
               ? absl::DataLossError("index: entries without a version")
               : absl::NotFoundError("");
  }
  Digest128 found;
  if (!got.ok() || !DecodeVersion(value, &found)) {
    return absl::DataLossError("index: its version cannot be read");
  }
  return found == tier_uuid ? absl::OkStatus() : absl::DataLossError("index: of another tier");
}

absl::Status SetAside(const std::string& path) {
  const std::string aside = path + ".bad";
  std::error_code error;
  if (std::filesystem::exists(aside, error) && !HoldsNothingElse(aside)) {
    return absl::FailedPreconditionError(absl::StrCat(aside, " holds something else"));
  }
  std::filesystem::remove_all(aside, error);
  std::filesystem::rename(path, aside, error);
  return error ? absl::UnavailableError(absl::StrCat("index: ", error.message()))
               : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<rocksdb::DB>> OpenChecked(const RocksdbBlockIndexOptions& options) {
  absl::StatusOr<std::unique_ptr<rocksdb::DB>> db = TryOpen(options);
  if (!db.ok()) {
    return db.status();
  }
  absl::Status version = CheckVersion(**db, options.tier_uuid);
  if (absl::IsNotFound(version)) {
    rocksdb::WriteOptions synced;
    synced.sync = true;
    version = FromRocksdb((*db)->Put(synced, VersionKey(), EncodeVersion(options.tier_uuid)));
  }
  if (!version.ok()) {
    return version;
  }
  return db;
}

}  // namespace

absl::StatusOr<OpenedBlockIndex> OpenRocksdbBlockIndex(const RocksdbBlockIndexOptions& options) {
  std::error_code error;
  if (std::filesystem::exists(options.path, error) && !HoldsNothingElse(options.path)) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.path, " holds something that is no index's"));
  }
  OpenedBlockIndex opened;
  absl::StatusOr<std::unique_ptr<rocksdb::DB>> db = OpenChecked(options);
  if (db.status().code() == absl::StatusCode::kDataLoss) {
    opened.rebuilt_because = std::string(db.status().message());
    if (absl::Status aside = SetAside(options.path); !aside.ok()) {
      return aside;
    }
    db = OpenChecked(options);
  }
  if (!db.ok()) {
    return db.status();
  }
  opened.index = std::make_unique<RocksdbBlockIndex>(*std::move(db));
  return opened;
}

}  // namespace terrace
