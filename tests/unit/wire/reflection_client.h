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
    std::vector<std::string> names;
    for (const std::string& list : Sub(Ask(7, "*"), 6)) {  // list_services, its response
      for (const std::string& service : Sub(list, 1)) {    // service
        for (const std::string& name : Sub(service, 1)) {  // name
          names.push_back(name);
        }
      }
    }
    return names;
  }

  // Whether the server hands out the file that defines the symbol.
  bool Describes(const std::string& symbol) {
    // file_containing_symbol, its file_descriptor_response, file_descriptor_proto
    for (const std::string& response : Sub(Ask(4, symbol), 4)) {
      for (const std::string& bytes : Sub(response, 1)) {
        google::protobuf::FileDescriptorProto file;
        if (!file.ParseFromString(bytes)) {
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
  // The values of a message's field of that number.
  static std::vector<std::string> Sub(const std::string& message, int number) {
    google::protobuf::UnknownFieldSet fields;
    fields.ParseFromString(message);
    std::vector<std::string> found;
    for (int i = 0; i < fields.field_count(); ++i) {
      const google::protobuf::UnknownField& field = fields.field(i);
      if (field.number() == number &&
          field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
        found.push_back(field.length_delimited());
      }
    }
    return found;
  }

  // One request with one field; the response's bytes.
  std::string Ask(int number, const std::string& value) {
    google::protobuf::UnknownFieldSet request;
    request.AddLengthDelimited(number, value);
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
    std::string answer;
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
      answer.assign(reinterpret_cast<const char*>(out.begin()), out.size());
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
