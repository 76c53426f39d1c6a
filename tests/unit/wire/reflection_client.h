// A client of gRPC server reflection (grpc.reflection.v1alpha, as published with gRPC), whose messages the distribution
// does not ship: they are few enough to be read field by field.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/unknown_field_set.h"

namespace terrace::doubles {

class ReflectionClient {
 public:
  explicit ReflectionClient(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {}

  // Names of the services that the server lists.
  std::vector<std::string> Services() {
    google::protobuf::UnknownFieldSet request;
    request.AddLengthDelimited(7, "*");  // list_services
    std::vector<std::string> names;
    for (const auto& list : Sub(Ask(request), 6)) {      // list_services_response
      for (const auto& service : Sub(list, 1)) {         // service
        for (int i = 0; i < service.field_count(); ++i) {
          if (service.field(i).number() == 1) {          // name
            names.push_back(service.field(i).length_delimited());
          }
        }
      }
    }
    return names;
  }

  // Whether the server hands out the file that defines the symbol.
  bool Describes(const std::string& symbol) {
    google::protobuf::UnknownFieldSet request;
    request.AddLengthDelimited(4, symbol);  // file_containing_symbol
    for (const auto& response : Sub(Ask(request), 4)) {  // file_descriptor_response
      for (int i = 0; i < response.field_count(); ++i) {
        google::protobuf::FileDescriptorProto file;
        if (!file.ParseFromString(response.field(i).length_delimited())) {
          continue;
        }
        for (const auto& service : file.service()) {
          if (file.package() + "." + service.name() == symbol && service.method_size() > 0) {
            return true;
          }
        }
      }
    }
    return false;
  }

 private:
  static std::vector<google::protobuf::UnknownFieldSet> Sub(
      const google::protobuf::UnknownFieldSet& message, int number) {
    std::vector<google::protobuf::UnknownFieldSet> found;
    for (int i = 0; i < message.field_count(); ++i) {
      const google::protobuf::UnknownField& field = message.field(i);
      if (field.number() == number &&
          field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
        found.emplace_back();
        found.back().ParseFromString(field.length_delimited());
      }
    }
    return found;
  }

  google::protobuf::UnknownFieldSet Ask(const google::protobuf::UnknownFieldSet& request) {
    std::string bytes;
    request.SerializeToString(&bytes);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    grpc::CompletionQueue queue;
    const auto stream = stub_.PrepareCall(
        &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
      return ok;
    };
    google::protobuf::UnknownFieldSet answer;
    stream->StartCall(nullptr);
    bool ok = wait();
    const grpc::Slice slice(bytes);
    if (ok) {
      stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
      ok = wait();
    }
    grpc::ByteBuffer response;
    if (ok) {
      stream->Read(&response, nullptr);
      ok = wait();
    }
    grpc::Slice out;
    if (ok && response.DumpToSingleSlice(&out).ok()) {
      answer.ParseFromArray(out.begin(), static_cast<int>(out.size()));
    }
    stream->WritesDone(nullptr);
    wait();
    grpc::Status status;
    stream->Finish(&status, nullptr);
    wait();
    return answer;
  }

  grpc::GenericStub stub_;
};

}  // namespace terrace::doubles
