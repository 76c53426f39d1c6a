// A generic gRPC client, as far as grpcurl goes: knows no contract but the reflection service.
//
//   generic_client SOCKET list                   the services, one a line
//   generic_client SOCKET describe SYMBOL        the definition of a service or message
//   generic_client SOCKET call SERVICE/METHOD    unary; the request as protobuf JSON on standard
//   input, the reply on
//                                                standard output
//
// Exit 0; 1 with "CODE: message" on standard error when the call failed; 2 for wrong usage.
#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>
#include <set>
#include <string>

#include "server_reflection.grpc.pb.h"
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor_database.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

namespace terrace {
namespace {

namespace reflection = grpc::reflection::v1alpha;
using google::protobuf::FileDescriptorProto;

std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(20);
}

// Descriptors by reflection, each file asked for once.
class ReflectedDescriptors final : public google::protobuf::DescriptorDatabase {
 public:
  explicit ReflectedDescriptors(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(reflection::ServerReflection::NewStub(channel)) {}

  // One request on a stream of its own; what was answered last is in `error`.
  bool Ask(const reflection::ServerReflectionRequest& request,
           reflection::ServerReflectionResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    const auto stream = stub_->ServerReflectionInfo(&context);
    const bool answered = stream->Write(request) && stream->Read(response);
    stream->WritesDone();
    const grpc::Status status = stream->Finish();
    if (!answered || !status.ok()) {
      std::cerr << status.error_code() << ": " << status.error_message() << "\n";
      return false;
    }
    return !response->has_error_response();
  }

  bool FindFileByName(const std::string& name, FileDescriptorProto* out) override {
    if (known_.FindFileByName(name, out)) {
      return true;
    }
    reflection::ServerReflectionRequest request;
    request.set_file_by_filename(name);
    return Fetch(request) && known_.FindFileByName(name, out);
  }
  bool FindFileContainingSymbol(const std::string& symbol, FileDescriptorProto* out) override {
    if (known_.FindFileContainingSymbol(symbol, out)) {
      return true;
    }
    reflection::ServerReflectionRequest request;
    request.set_file_containing_symbol(symbol);
    return Fetch(request) && known_.FindFileContainingSymbol(symbol, out);
  }
  bool FindFileContainingExtension(const std::string&, int, FileDescriptorProto*) override {
    return false;
  }

 private:
  bool Fetch(const reflection::ServerReflectionRequest& request) {
    reflection::ServerReflectionResponse response;
    if (!Ask(request, &response)) {
      return false;
    }
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      FileDescriptorProto file;
      if (file.ParseFromString(bytes) && names_.insert(file.name()).second) {
        known_.Add(file);
      }
    }
    return true;
  }

  std::unique_ptr<reflection::ServerReflection::Stub> stub_;
  google::protobuf::SimpleDescriptorDatabase known_;
  std::set<std::string> names_;
};

int List(ReflectedDescriptors& descriptors) {
  reflection::ServerReflectionRequest request;
  request.set_list_services("*");
  reflection::ServerReflectionResponse response;
  if (!descriptors.Ask(request, &response)) {
    return 1;
  }
  for (const reflection::ServiceResponse& service : response.list_services_response().service()) {
    std::cout << service.name() << "\n";
  }
  return 0;
}

int Describe(const google::protobuf::DescriptorPool& pool, const std::string& symbol) {
  if (const auto* service = pool.FindServiceByName(symbol)) {
    std::cout << service->DebugString();
  } else if (const auto* message = pool.FindMessageTypeByName(symbol)) {
    std::cout << message->DebugString();
  } else {
    std::cerr << "5: the server does not describe " << symbol << "\n";
    return 1;
  }
  return 0;
}

// A unary call of raw bytes.
grpc::Status CallUnary(const std::shared_ptr<grpc::Channel>& channel,
                       const std::string& method,
                       const std::string& request,
                       std::string* reply) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  grpc::CompletionQueue queue;
  const grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer received;
  grpc::Status status;
  const auto call = stub.PrepareUnaryCall(&context, method, sent, &queue);
  call->StartCall();
  call->Finish(&received, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (status.ok()) {
    std::vector<grpc::Slice> slices;
    (void)received.Dump(&slices);
    for (const grpc::Slice& piece : slices) {
      reply->append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    }
  }
  return status;
}

int Call(const std::shared_ptr<grpc::Channel>& channel,
         const google::protobuf::DescriptorPool& pool,
         const std::string& path,
         const std::string& input) {
  const size_t slash = path.find('/');
  const auto* service =
      slash == std::string::npos ? nullptr : pool.FindServiceByName(path.substr(0, slash));
  const auto* method =
      service == nullptr ? nullptr : service->FindMethodByName(path.substr(slash + 1));
  if (method == nullptr) {
    std::cerr << "5: the server does not describe " << path << "\n";
    return 1;
  }
  google::protobuf::DynamicMessageFactory factory;
  const std::unique_ptr<google::protobuf::Message> request(
      factory.GetPrototype(method->input_type())->New());
  const std::unique_ptr<google::protobuf::Message> reply(
      factory.GetPrototype(method->output_type())->New());
  const auto parsed = google::protobuf::util::JsonStringToMessage(input, request.get());
  if (!parsed.ok()) {
    std::cerr << "3: the request is not " << method->input_type()->full_name() << ": "
              << parsed.ToString() << "\n";
    return 2;
  }
  std::string bytes;
  const grpc::Status status = CallUnary(channel, "/" + path, request->SerializeAsString(), &bytes);
  if (!status.ok()) {
    std::cerr << status.error_code() << ": " << status.error_message() << "\n";
    return 1;
  }
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  if (!reply->ParseFromString(bytes) ||
      !google::protobuf::util::MessageToJsonString(*reply, &json, options).ok()) {
    std::cerr << "13: the reply is not " << method->output_type()->full_name() << "\n";
    return 1;
  }
  std::cout << json << "\n";
  return 0;
}

int Run(int argc, char** argv) {
  const std::string verb = argc >= 3 ? argv[2] : "";
  if (argc != (verb == "list" ? 3 : 4)) {
    std::cerr << "usage: generic_client SOCKET list | describe SYMBOL | call SERVICE/METHOD\n";
    return 2;
  }
  const auto channel =
      grpc::CreateChannel(std::string("unix:") + argv[1], grpc::InsecureChannelCredentials());
  ReflectedDescriptors descriptors(channel);
  const google::protobuf::DescriptorPool pool(&descriptors);
  if (verb == "list") {
    return List(descriptors);
  }
  if (verb == "describe") {
    return Describe(pool, argv[3]);
  }
  const std::string input{std::istreambuf_iterator<char>(std::cin),
                          std::istreambuf_iterator<char>()};
  return Call(channel, pool, argv[3], input);
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  return terrace::Run(argc, argv);
}
