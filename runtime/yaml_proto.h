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
  // `setting`: the `path=value` override that gave the value; empty when the file did.
  void Add(const std::string& path, int line, const std::string& setting = "") { places_[path] = {line, setting}; }
  void set_file(const std::string& file) { file_ = file; }
  int LineOf(const std::string& path) const;
  // How a message about a key begins: "FILE:LINE: student.epochs", or "--set student.epochs=0" when that gave the
  // value.
  std::string Locate(const std::string& path) const;

 private:
  struct Place {
    int line = 1;
    std::string setting;
  };
  // Of the path, or of its nearest parent that was written.
  Place Find(std::string path) const;

  std::string file_;
  std::map<std::string, Place> places_;
};

// Reads YAML into `message` by reflection: a key is a field's name, an enum value is written in lower case without the
// prefix of its type, and the (key) options of the fields (proto/polystill/v1/options.proto) give defaults, bounds and
// required keys. `settings` are `dotted.path=value` overrides applied before ("student.epochs=2",
// "teachers.0.replicas=1"). Every mistake found is listed, one a line, as
//   FILE:LINE: student.batch_sise: unknown key; did you mean batch_size?
// (INVALID_ARGUMENT). `file` is only for messages. On success `lines`, unless null, tells where each key stands.
absl::Status ReadYaml(const std::string& yaml, const std::string& file, const std::vector<std::string>& settings,
                      google::protobuf::Message* message, YamlLines* lines = nullptr);

// Fills the default values of every field that is not set, in every sub-message that is set; a number that is 0 counts
// as not set. For messages made in code: ReadYaml has done it already, and there a written 0 stays 0.
void FillDefaults(google::protobuf::Message* message);

// A message that ReadYaml made, as YAML that it reads back to an equal message: every key that has a default is
// written.
std::string WriteYaml(const google::protobuf::Message& message);

// How an enum value is written in YAML, e.g. "soft_label".
std::string EnumName(const google::protobuf::EnumValueDescriptor* value);

// One line a key of the message's type and its sub-messages: path, type, default, meaning.
std::string DescribeKeys(const google::protobuf::Descriptor* descriptor);

}  // namespace polystill
