#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill {

// Where each key of a YAML file stands, by its dotted path ("student.losses.0.kind"); lines count from 1. A key that
// was not written has the line of the nearest parent that was.
class YamlLines {
 public:
  void Add(const std::string& path, int line) { lines_[path] = line; }
  int LineOf(std::string path) const;

 private:
  std::map<std::string, int> lines_;
};

// Reads YAML into `message` by reflection: a key is a field's name, an enum value is written in lower case without the
// prefix of its type, and the (key) options of the fields (proto/polystill/v1/options.proto) give defaults, bounds and
// required keys. `settings` are `dotted.path=value` overrides applied before ("student.epochs=2", "teachers.0.replicas=1").
// Every mistake found is listed, one a line, as
//   FILE:LINE: student.batch_sise: unknown key; did you mean batch_size?
// (INVALID_ARGUMENT). `file` is only for messages. On success `lines`, unless null, tells where each key stands.
absl::Status ReadYaml(const std::string& yaml, const std::string& file, const std::vector<std::string>& settings,
                      google::protobuf::Message* message, YamlLines* lines = nullptr);

// Fills the default values of every field that is not set, in every sub-message that is set. ReadYaml does it already.
void FillDefaults(google::protobuf::Message* message);

// The message as YAML that ReadYaml reads back to an equal message.
std::string WriteYaml(const google::protobuf::Message& message);

// How an enum value is written in YAML, e.g. "soft_label".
std::string EnumName(const google::protobuf::EnumValueDescriptor* value);

// One line a key of the message's type and its sub-messages: path, type, default, meaning.
std::string DescribeKeys(const google::protobuf::Descriptor* descriptor);

}  // namespace polystill
