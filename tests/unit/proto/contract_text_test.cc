// The .proto files are the contract, so what they say of each field is checked like code.
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

namespace terrace {
namespace {

class Failures : public google::protobuf::compiler::MultiFileErrorCollector {
 public:
  void AddError(const std::string& file,
                int line,
                int /*column*/,
                const std::string& message) override {
    ADD_FAILURE() << file << ":" << line + 1 << ": " << message;
  }
};

// The files as text, with comments; the generated descriptors have lost them.
class ContractText : public testing::Test {
 protected:
  ContractText() { tree_.MapPath("", TERRACE_PROTO_DIR); }

  std::vector<const google::protobuf::FileDescriptor*> Files() {
    std::vector<const google::protobuf::FileDescriptor*> files;
    for (const char* name :
         {"terrace/v1/cache.proto", "terrace/v1/admin.proto", "terrace/v1/session.proto"}) {
      files.push_back(importer_.Import(name));
      EXPECT_NE(files.back(), nullptr) << name;
    }
    return files;
  }

  void ForEachMessage(const std::function<void(const google::protobuf::Descriptor&)>& visit) {
    for (const google::protobuf::FileDescriptor* file : Files()) {
      for (int i = 0; file != nullptr && i < file->message_type_count(); ++i) {
        visit(*file->message_type(i));
      }
    }
  }

  google::protobuf::compiler::DiskSourceTree tree_;
  Failures failures_;
  google::protobuf::compiler::Importer importer_{&tree_, &failures_};
};

bool HasComment(const google::protobuf::FieldDescriptor& field) {
  google::protobuf::SourceLocation location;
  if (!field.GetSourceLocation(&location)) {
    return false;
  }
  const std::string text = location.leading_comments + location.trailing_comments;
  return text.find_first_not_of(" \t\n") != std::string::npos;
}

TEST_F(ContractText, EveryFieldSaysWhatItMeans) {
  int fields = 0;
  ForEachMessage([&](const google::protobuf::Descriptor& message) {
    for (int i = 0; i < message.field_count(); ++i) {
      ++fields;
      EXPECT_TRUE(HasComment(*message.field(i)))
          << message.field(i)->full_name() << " has no comment";
    }
  });
  EXPECT_GT(fields, 200) << "the files were not read";
}

TEST_F(ContractText, EveryReplyOfTheServiceBeginsWithTheBootId) {
  std::set<std::string> replies;
  for (const google::protobuf::FileDescriptor* file : Files()) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        const google::protobuf::Descriptor* reply = file->service(s)->method(m)->output_type();
        // A stream's first message carries the whole reply.
        const bool in_header = reply->name() == "GetStreamReply";
        const google::protobuf::Descriptor* holder =
            in_header ? reply->field(0)->message_type() : reply;
        const google::protobuf::FieldDescriptor* first = holder->FindFieldByNumber(1);
        ASSERT_NE(first, nullptr) << reply->full_name();
        EXPECT_EQ(first->name(), "boot_id") << reply->full_name();
        EXPECT_EQ(first->type(), google::protobuf::FieldDescriptor::TYPE_FIXED64)
            << reply->full_name();
        replies.insert(reply->name());
      }
    }
  }
  EXPECT_GT(replies.size(), 20U);
}

TEST_F(ContractText, NoFieldNamesATenantInTheDataContract) {
  const std::set<std::string> told_to_the_client = {"terrace.v1.HelloReply.tenant"};
  ForEachMessage([&](const google::protobuf::Descriptor& message) {
    if (message.file()->name() == "terrace/v1/admin.proto") {
      return;  // operators name tenants
    }
    for (int i = 0; i < message.field_count(); ++i) {
      const google::protobuf::FieldDescriptor& field = *message.field(i);
      const bool names_tenant = field.name().find("tenant") != std::string::npos;
      EXPECT_FALSE(names_tenant && !told_to_the_client.contains(field.full_name()))
          << field.full_name();
    }
  });
}

TEST_F(ContractText, NoFieldTakesAPathAPatternAScriptOrAnAddress) {
  const std::set<std::string> refused = {"path",   "file",    "regex",   "pattern", "glob",
                                         "script", "pointer", "address", "url"};
  // What the daemon tells an operator is not what a caller makes it open.
  const std::set<std::string> told_to_operators = {"terrace.v1.StatusReply.metrics_address",
                                                   "terrace.v1.DriveStatus.path",
                                                   "terrace.v1.PoolSegment.path"};
  ForEachMessage([&](const google::protobuf::Descriptor& message) {
    for (int i = 0; i < message.field_count(); ++i) {
      const google::protobuf::FieldDescriptor& field = *message.field(i);
      std::stringstream words(field.name());
      for (std::string word; std::getline(words, word, '_');) {
        EXPECT_FALSE(refused.contains(word) && !told_to_operators.contains(field.full_name()))
            << field.full_name();
      }
    }
  });
}

TEST_F(ContractText, EveryVerbOfTheCacheHasAMethodOnTheSession) {
  const google::protobuf::FileDescriptor* cache = importer_.Import("terrace/v1/cache.proto");
  const google::protobuf::FileDescriptor* session = importer_.Import("terrace/v1/session.proto");
  ASSERT_NE(cache, nullptr);
  ASSERT_NE(session, nullptr);
  const google::protobuf::EnumDescriptor* methods = session->FindEnumTypeByName("Method");
  const std::set<std::string> grpc_only = {"PutStream", "GetStream"};
  const google::protobuf::ServiceDescriptor* service = cache->FindServiceByName("Cache");
  ASSERT_NE(service, nullptr);
  for (int m = 0; m < service->method_count(); ++m) {
    std::string wanted = "METHOD";
    for (const char c : service->method(m)->name()) {
      if (c >= 'A' && c <= 'Z') {
        wanted += '_';
      }
      wanted += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    }
    const bool on_session = methods->FindValueByName(wanted) != nullptr;
    EXPECT_EQ(on_session, !grpc_only.contains(service->method(m)->name())) << wanted;
  }
}

}  // namespace
}  // namespace terrace
