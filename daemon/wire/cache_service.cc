#include "daemon/wire/cache_service.h"

#include <functional>
#include <utility>

#include "terrace/v1/cache.grpc.pb.h"

#include "daemon/wire/grpc_streams.h"
#include "daemon/wire/grpc_watch.h"

namespace terrace {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using v1::Cache;

// Each layer makes one more verb take raw bytes.
using RawOpenNamespace = Cache::WithRawCallbackMethod_OpenNamespace<Cache::Service>;
using RawClearNamespace = Cache::WithRawCallbackMethod_ClearNamespace<RawOpenNamespace>;
using RawProbe = Cache::WithRawCallbackMethod_Probe<RawClearNamespace>;
using RawPrefetch = Cache::WithRawCallbackMethod_Prefetch<RawProbe>;
using RawTicket = Cache::WithRawCallbackMethod_Ticket<RawPrefetch>;
using RawGet = Cache::WithRawCallbackMethod_Get<RawTicket>;
using RawRelease = Cache::WithRawCallbackMethod_Release<RawGet>;
using RawPut = Cache::WithRawCallbackMethod_Put<RawRelease>;
using RawFlush = Cache::WithRawCallbackMethod_Flush<RawPut>;
using RawDelete = Cache::WithRawCallbackMethod_Delete<RawFlush>;
using RawPin = Cache::WithRawCallbackMethod_Pin<RawDelete>;
using RawUnpin = Cache::WithRawCallbackMethod_Unpin<RawPin>;
using RawCancel = Cache::WithRawCallbackMethod_Cancel<RawUnpin>;
using RawPutStream = Cache::WithRawCallbackMethod_PutStream<RawCancel>;
using RawGetStream = Cache::WithRawCallbackMethod_GetStream<RawPutStream>;
using RawWatch = Cache::WithRawCallbackMethod_Watch<RawGetStream>;

class CacheService final : public RawWatch {
 public:
  CacheService(GrpcCallTable& table, TenantId tenant) : table_(table), tenant_(tenant) {}

  ServerUnaryReactor* OpenNamespace(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::OpenNamespaceRequest, v1::OpenNamespaceReply>(
        {context, request, response}, v1::METHOD_OPEN_NAMESPACE, &Calls::OpenNamespace);
  }
  ServerUnaryReactor* ClearNamespace(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ClearNamespaceRequest, v1::ClearNamespaceReply>(
        {context, request, response}, v1::METHOD_CLEAR_NAMESPACE, &Calls::ClearNamespace);
  }
  ServerUnaryReactor* Probe(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ProbeRequest, v1::ProbeReply>(
        {context, request, response}, v1::METHOD_PROBE, &Calls::Probe);
  }
  ServerUnaryReactor* Prefetch(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::PrefetchRequest, v1::PrefetchReply>(
        {context, request, response}, v1::METHOD_PREFETCH, &Calls::Prefetch);
  }
  ServerUnaryReactor* Ticket(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::TicketRequest, v1::TicketReply>(
        {context, request, response}, v1::METHOD_TICKET, &Calls::Ticket);
  }
  ServerUnaryReactor* Get(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::GetRequest, v1::GetReply>(
        {context, request, response}, v1::METHOD_GET, &Calls::Get);
  }
  ServerUnaryReactor* Release(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::ReleaseRequest, v1::ReleaseReply>(
        {context, request, response}, v1::METHOD_RELEASE, &Calls::Release);
  }
  ServerUnaryReactor* Put(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::PutRequest, v1::PutReply>(
        {context, request, response}, v1::METHOD_PUT, &Calls::Put);
  }
  ServerUnaryReactor* Flush(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::FlushRequest, v1::FlushReply>(
        {context, request, response}, v1::METHOD_FLUSH, &Calls::Flush);
  }
  ServerUnaryReactor* Delete(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::DeleteRequest, v1::DeleteReply>(
        {context, request, response}, v1::METHOD_DELETE, &Calls::Delete);
  }
  ServerUnaryReactor* Pin(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::PinRequest, v1::PinReply>(
        {context, request, response}, v1::METHOD_PIN, &Calls::Pin);
  }
  ServerUnaryReactor* Unpin(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::UnpinRequest, v1::UnpinReply>(
        {context, request, response}, v1::METHOD_UNPIN, &Calls::Unpin);
  }
  ServerUnaryReactor* Cancel(CallbackServerContext* context,
                          const ByteBuffer* request,
                          ByteBuffer* response) override {
    return Run<v1::CancelRequest, v1::CancelReply>(
        {context, request, response}, v1::METHOD_CANCEL, &Calls::Cancel);
  }
  grpc::ServerReadReactor<ByteBuffer>* PutStream(CallbackServerContext* context,
                                                 ByteBuffer* response) override {
    return RunPutStream(table_, Site({context, nullptr, response}, "PutStream", v1::METHOD_PUT));
  }
  grpc::ServerWriteReactor<ByteBuffer>* GetStream(CallbackServerContext* context,
                                                  const ByteBuffer* request) override {
    return RunGetStream(table_, Site({context, request}, "GetStream", v1::METHOD_GET));
  }
  grpc::ServerWriteReactor<ByteBuffer>* Watch(CallbackServerContext* context,
                                              const ByteBuffer* request) override {
    GrpcCallSite site = Site({context, request}, VerbName(v1::METHOD_WATCH), v1::METHOD_WATCH);
    site.cap = absl::InfiniteDuration();
    site.endless = true;
    return RunWatch(table_, std::move(site));
  }

 private:
  // alike: the unary verb whose deadline a stream shares.
  GrpcCallSite Site(GrpcCallSite site, std::string_view verb, v1::Method alike) {
    site.tenant = tenant_;
    site.verb = verb;
    site.cap = table_.shared()->calls.CapOf(alike);
    return site;
  }

  template <typename Request, typename Reply, typename Verb>
  ServerUnaryReactor* Run(const GrpcCallSite& site, v1::Method method, Verb verb) {
    Calls& calls = table_.shared()->calls;
    return RunGrpcCall<Request, Reply>(
        table_, Site(site, VerbName(method), method), [&calls, verb](CallContext& context, Request& request, CallDone<Reply> done) {
          std::invoke(verb, calls, context, request, std::move(done));
        });
  }

  GrpcCallTable& table_;
  const TenantId tenant_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCacheService(GrpcCallTable& table, TenantId tenant) {
  return std::make_unique<CacheService>(table, tenant);
}

}  // namespace terrace
