#include "tests/doubles/scripted_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>

namespace terrace::testing {
namespace {

constexpr uint32_t kInvalidArgument = 3;
constexpr uint32_t kUnimplemented = 12;

#ifndef F_SEAL_FUTURE_WRITE
constexpr int F_SEAL_FUTURE_WRITE = 0x10;
#endif

std::string KeyOf(const v1::Part& part, int k) {
  const size_t bytes = part.key_bytes() == 0 ? 32 : part.key_bytes();
  return part.namespace_digest() + "/" + part.salt() + "/" +
         part.keys().substr(static_cast<size_t>(k) * bytes, bytes);
}

int KeyCount(const v1::Part& part) {
  const size_t bytes = part.key_bytes() == 0 ? 32 : part.key_bytes();
  return static_cast<int>(part.keys().size() / bytes);
}

}  // namespace

ScriptedStore::ScriptedStore(uint64_t boot_id) : boot_id_(boot_id) {
  slab_fd_ = ::memfd_create("scripted-slab", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const bool sized = ::ftruncate(slab_fd_, static_cast<off_t>(kSlabBytes)) == 0;
  void* address = ::mmap(nullptr, kSlabBytes, PROT_READ | PROT_WRITE, MAP_SHARED, slab_fd_, 0);
  const bool sealed = ::fcntl(slab_fd_, F_ADD_SEALS,
                              F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
  if (!sized || address == MAP_FAILED || !sealed) {
    std::abort();
  }
  slab_ = static_cast<char*>(address);
}

ScriptedStore::~ScriptedStore() {
  ::munmap(slab_, kSlabBytes);
  ::close(slab_fd_);
  for (const auto& [name, region] : regions_) {
    ::munmap(region.memory, region.bytes);
  }
}

void ScriptedStore::EndOfSession(const void* session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(leases_, [session](const auto& lease) { return lease.first == session; });
  std::erase_if(regions_, [session](const auto& region) {
    if (region.first.first != session) {
      return false;
    }
    ::munmap(region.second.memory, region.second.bytes);
    return true;
  });
}

size_t ScriptedStore::leases() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return leases_.size();
}

size_t ScriptedStore::regions() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return regions_.size();
}

void ScriptedStore::Answer(const ScriptedServer::Exchange& exchange) {
  switch (static_cast<v1::Method>(exchange.header.method)) {
    case v1::METHOD_OPEN_NAMESPACE:
      return OpenNamespace(exchange);
    case v1::METHOD_REGISTER_REGION:
      return RegisterRegion(exchange);
    case v1::METHOD_UNREGISTER_REGION:
      return UnregisterRegion(exchange);
    case v1::METHOD_PROBE:
      return Probe(exchange);
    case v1::METHOD_GET:
      return Get(exchange);
    case v1::METHOD_PUT:
      return Put(exchange);
    case v1::METHOD_RELEASE:
      return Release(exchange);
    case v1::METHOD_DELETE:
      return Delete(exchange);
    case v1::METHOD_MAP_SLAB: {
      v1::MapSlabReply reply;
      reply.set_boot_id(boot_id_);
      reply.set_slab_bytes(kSlabBytes);
      return exchange.Reply(reply, slab_fd_);
    }
    case v1::METHOD_PING: {
      v1::PingReply reply;
      reply.set_boot_id(boot_id_);
      return exchange.Reply(reply);
    }
    default:
      return exchange.Refuse(kUnimplemented, "not scripted");
  }
}

// The digest is as good as its record: equal records have equal digests, also after a restart.
void ScriptedStore::OpenNamespace(const ScriptedServer::Exchange& exchange) const {
  const uint64_t half = std::hash<std::string>()(exchange.message);
  std::string digest(16, '\0');
  std::memcpy(digest.data(), &half, sizeof(half));
  std::memcpy(digest.data() + 8, &half, sizeof(half));
  digest[15] = 'n';
  v1::OpenNamespaceReply reply;
  reply.set_boot_id(boot_id_);
  reply.set_namespace_digest(digest);
  reply.set_family_digest(digest);
  reply.set_generation(1);
  exchange.Reply(reply);
}

void ScriptedStore::RegisterRegion(const ScriptedServer::Exchange& exchange) {
  const auto request = exchange.As<v1::RegisterRegionRequest>();
  Region region;
  region.bytes = request.bytes();
  region.geometry = request.geometry();
  void* address =
      exchange.descriptors.size() != 1
          ? MAP_FAILED
          : ::mmap(nullptr, region.bytes, request.read_only() ? PROT_READ : PROT_READ | PROT_WRITE,
                   MAP_SHARED, exchange.descriptors[0], static_cast<off_t>(request.offset()));
  if (address == MAP_FAILED) {
    return exchange.Refuse(kInvalidArgument, "descriptor: cannot be mapped");
  }
  region.memory = static_cast<char*>(address);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    regions_[{exchange.session(), request.region_id()}] = region;
  }
  v1::RegisterRegionReply reply;
  reply.set_boot_id(boot_id_);
  exchange.Reply(reply);
}

void ScriptedStore::UnregisterRegion(const ScriptedServer::Exchange& exchange) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found =
        regions_.find({exchange.session(), exchange.As<v1::UnregisterRegionRequest>().region_id()});
    if (found != regions_.end()) {
      ::munmap(found->second.memory, found->second.bytes);
      regions_.erase(found);
    }
  }
  v1::UnregisterRegionReply reply;
  reply.set_boot_id(boot_id_);
  exchange.Reply(reply);
}

void ScriptedStore::Probe(const ScriptedServer::Exchange& exchange) const {
  const auto request = exchange.As<v1::ProbeRequest>();
  v1::ProbeReply reply;
  reply.set_boot_id(boot_id_);
  for (const v1::Part& part : request.parts()) {
    uint32_t hits = 0;
    bool whole = true;
    for (int k = 0; k < KeyCount(part); ++k) {
      whole = whole && blocks_.contains(KeyOf(part, k));
      hits += whole ? 1 : 0;
      reply.mutable_states()->push_back(
          static_cast<char>(whole ? v1::KEY_STATE_READY : v1::KEY_STATE_MISS));
    }
    reply.add_part_hits(hits);
    reply.add_part_boundary_keys(hits);
    reply.set_boundary_tokens(reply.boundary_tokens() + hits * 16);
  }
  if (request.hold_ms() > 0) {
    reply.set_hold_id("hold-of-16-bytes");
    reply.set_hold_ms(request.hold_ms());
  }
  exchange.Reply(reply);
}

void ScriptedStore::CopyBlock(
    const Region& region, uint32_t index, char* slot, uint32_t bytes, bool out) const {
  for (const v1::Plane& plane : region.geometry.planes()) {
    for (const v1::Segment& segment : plane.segments()) {
      const auto step = static_cast<uint32_t>(std::min<uint64_t>(segment.bytes(), bytes));
      char* at = region.memory + plane.offset() + plane.block_stride() * index + segment.offset();
      std::memcpy(out ? at : slot, out ? slot : at, step);
      slot += step;
      bytes -= step;
    }
  }
}

void ScriptedStore::Get(const ScriptedServer::Exchange& exchange) {
  const auto request = exchange.As<v1::GetRequest>();
  v1::GetReply reply;
  reply.set_boot_id(boot_id_);
  bool any = false;
  for (int p = 0; p < request.parts_size(); ++p) {
    const v1::Part& part = request.parts(p);
    for (int k = 0; k < KeyCount(part); ++k) {
      const auto found = blocks_.find(KeyOf(part, k));
      const bool hit = found != blocks_.end();
      any = any || hit;
      reply.mutable_outcomes()->push_back(
          static_cast<char>(hit ? v1::GET_OUTCOME_OK : v1::GET_OUTCOME_MISS));
      reply.add_payload_bytes(hit ? found->second.bytes : 0);
      if (request.delivery() == v1::DELIVERY_LEASE) {
        reply.add_slab_ids(hit ? kSlabId : 0);
        reply.add_slab_offsets(hit ? found->second.offset : 0);
      } else if (hit) {
        const v1::RegionBlocks& blocks = request.regions(p);
        CopyBlock(regions_.at({exchange.session(), blocks.region_id()}), blocks.block_indexes(k),
                  slab_ + found->second.offset, found->second.bytes, true);
      }
    }
  }
  if (any && request.delivery() == v1::DELIVERY_LEASE) {
    std::string lease(16, '\0');
    std::memcpy(lease.data(), &next_lease_, sizeof(next_lease_));
    ++next_lease_;
    lease[15] = 'l';
    reply.set_lease_id(lease);
    const std::lock_guard<std::mutex> lock(mutex_);
    leases_.insert({exchange.session(), lease});
  }
  exchange.Reply(reply);
}

void ScriptedStore::Put(const ScriptedServer::Exchange& exchange) {
  const auto request = exchange.As<v1::PutRequest>();
  v1::PutReply reply;
  reply.set_boot_id(boot_id_);
  size_t inline_at = 0;
  for (int k = 0; k < KeyCount(request.part()); ++k) {
    const uint32_t bytes = request.payload_bytes_size() > 0 ? request.payload_bytes(k) : 4096;
    const auto [block, added] = blocks_.try_emplace(KeyOf(request.part(), k));
    const bool room = slab_used_ + bytes <= kSlabBytes;
    if (added && room) {
      block->second = {slab_used_, bytes};
      char* slot = slab_ + slab_used_;
      slab_used_ += (bytes + 4095) / 4096 * 4096;
      if (request.has_region()) {
        CopyBlock(regions_.at({exchange.session(), request.region().region_id()}),
                  request.region().block_indexes(k), slot, bytes, false);
      } else {
        std::memcpy(slot, request.payload().data() + inline_at, bytes);
      }
    } else if (added) {
      blocks_.erase(block);
    }
    inline_at += bytes;
    const bool stored = added && room;
    reply.mutable_outcomes()->push_back(static_cast<char>(stored  ? v1::PUT_OUTCOME_STORED
                                                          : added ? v1::PUT_OUTCOME_DECLINED
                                                                  : v1::PUT_OUTCOME_DUPLICATE));
    reply.mutable_reasons()->push_back(
        static_cast<char>(added && !room ? v1::REASON_NO_SPACE : v1::REASON_NONE));
    reply.mutable_levels()->push_back(static_cast<char>(stored ? v1::LEVEL_DRAM : 0));
  }
  exchange.Reply(reply);
}

void ScriptedStore::Release(const ScriptedServer::Exchange& exchange) {
  const auto request = exchange.As<v1::ReleaseRequest>();
  v1::ReleaseReply reply;
  reply.set_boot_id(boot_id_);
  uint32_t released = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const v1::LeaseRelease& lease : request.leases()) {
      released += static_cast<uint32_t>(leases_.erase({exchange.session(), lease.lease_id()}));
    }
  }
  released += static_cast<uint32_t>(request.hold_ids_size());
  reply.set_released(released);
  exchange.Reply(reply);
}

void ScriptedStore::Delete(const ScriptedServer::Exchange& exchange) {
  const auto request = exchange.As<v1::DeleteRequest>();
  v1::DeleteReply reply;
  reply.set_boot_id(boot_id_);
  for (int k = 0; k < KeyCount(request.part()); ++k) {
    reply.set_deleted(reply.deleted() +
                      static_cast<uint32_t>(blocks_.erase(KeyOf(request.part(), k))));
  }
  exchange.Reply(reply);
}

}  // namespace terrace::testing
