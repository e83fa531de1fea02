#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "polystill/v1/options.pb.h"
#include "runtime/yaml_proto.h"

namespace polystill {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// "LossKind" -> "LOSS_KIND_": what the style guide puts before the values of an enum.
std::string PrefixOf(const EnumDescriptor* type) {
  std::string prefix;
  for (const char c : type->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  return prefix + "_";
}

// The shortest text that reads back to the same number.
std::string NumberText(double value) {
  std::array<char, 32> buffer;
  return std::string(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr);
}

// Text goes in quotes wherever some reader of YAML would take it for something else (no, 1.10, null).
void EmitText(const std::string& text, YAML::Emitter* out) {
  static constexpr std::array<const char*, 9> kWords = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  const bool plain = !text.empty() && absl::ascii_isalpha(static_cast<unsigned char>(text[0])) &&
                     std::all_of(text.begin(), text.end(), [](unsigned char c) {
                       return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.' || c == '/';
                     });
  const bool word = std::find(kWords.begin(), kWords.end(), absl::AsciiStrToLower(text)) != kWords.end();
  if (!plain || word) *out << YAML::DoubleQuoted;
  *out << text;
}

void EmitMessage(const Message& message, YAML::Emitter* out);

void EmitValue(const Message& message, const FieldDescriptor* field, int index, YAML::Emitter* out) {
  const Reflection* r = message.GetReflection();
  const bool list = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      *out << (list ? r->GetRepeatedInt32(message, field, index) : r->GetInt32(message, field));
      return;
    case FieldDescriptor::CPPTYPE_INT64:
      *out << (list ? r->GetRepeatedInt64(message, field, index) : r->GetInt64(message, field));
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      *out << (list ? r->GetRepeatedUInt64(message, field, index) : r->GetUInt64(message, field));
      return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      *out << NumberText(list ? r->GetRepeatedDouble(message, field, index) : r->GetDouble(message, field));
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      *out << (list ? r->GetRepeatedBool(message, field, index) : r->GetBool(message, field));
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      *out << EnumName(list ? r->GetRepeatedEnum(message, field, index) : r->GetEnum(message, field));
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      EmitText(list ? r->GetRepeatedString(message, field, index) : r->GetString(message, field), out);
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      EmitMessage(list ? r->GetRepeatedMessage(message, field, index) : r->GetMessage(message, field), out);
      return;
    default:
      GOOGLE_LOG(FATAL) << field->full_name() << ": a type that no YAML file of ours holds";
  }
}

// Sorted by key, so that equal messages give equal text.
void EmitMap(const Message& message, const FieldDescriptor* field, YAML::Emitter* out) {
  const FieldDescriptor* key_field = field->message_type()->map_key();
  const FieldDescriptor* value_field = field->message_type()->map_value();
  std::map<std::string, const Message*> entries;
  const Reflection* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    const Message& entry = reflection->GetRepeatedMessage(message, field, i);
    entries[entry.GetReflection()->GetString(entry, key_field)] = &entry;
  }
  *out << YAML::Flow << YAML::BeginMap;
  for (const auto& [key, entry] : entries) {
    *out << YAML::Key;
    EmitText(key, out);
    *out << YAML::Value;
    EmitValue(*entry, value_field, 0, out);
  }
  *out << YAML::EndMap;
}

void EmitList(const Message& message, const FieldDescriptor* field, YAML::Emitter* out) {
  const bool of_messages = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  *out << (of_messages ? YAML::Block : YAML::Flow) << YAML::BeginSeq;
  for (int i = 0; i < message.GetReflection()->FieldSize(message, field); ++i) EmitValue(message, field, i, out);
  *out << YAML::EndSeq;
}

// A 0 is written where leaving it out would read back as a default. An unspecified enum value has no name.
bool IsWritten(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  if (field->is_repeated()) {
    return reflection->FieldSize(message, field) > 0 || !field->options().GetExtension(v1::key).default_value().empty();
  }
  if (reflection->HasField(message, field)) return true;
  return !field->has_presence() && field->cpp_type() != FieldDescriptor::CPPTYPE_ENUM &&
         !field->options().GetExtension(v1::key).default_value().empty();
}

void EmitMessage(const Message& message, YAML::Emitter* out) {
  *out << YAML::Block << YAML::BeginMap;
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    if (!IsWritten(message, field)) continue;
    *out << YAML::Key << field->name() << YAML::Value;
    if (field->is_map()) {
      EmitMap(message, field, out);
    } else if (field->is_repeated()) {
      EmitList(message, field, out);
    } else {
      EmitValue(message, field, 0, out);
    }
  }
  *out << YAML::EndMap;
}

std::string TypeText(const FieldDescriptor* field) {
  if (field->is_map()) return "keys and values";
  std::string type = "keys";
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      type = "text";
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      type = "number";
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      type = "true or false";
      break;
    case FieldDescriptor::CPPTYPE_ENUM: {
      std::vector<std::string> names;
      for (int i = 0; i < field->enum_type()->value_count(); ++i) {
        if (field->enum_type()->value(i)->number() != 0) names.push_back(EnumName(field->enum_type()->value(i)));
      }
      type = absl::StrJoin(names, "|");
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
    default:
      type = "whole number";
  }
  return field->is_repeated() ? absl::StrCat("list of ", type) : type;
}

void Describe(const Descriptor* descriptor, const std::string& path, std::string* out) {
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    const v1::KeyRule& rule = field->options().GetExtension(v1::key);
    const std::string key = absl::StrCat(path, field->name());
    const bool has_keys = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map();
    const std::string fallback = rule.required()                            ? " (required)"
                                 : has_keys || rule.default_value().empty() ? ""
                                                                            : absl::StrCat(" = ", rule.default_value());
    absl::StrAppend(out, key, ": ", TypeText(field), fallback, rule.help().empty() ? "" : "  # ", rule.help(), "\n");
    if (has_keys) Describe(field->message_type(), absl::StrCat(key, field->is_repeated() ? ".N." : "."), out);
  }
}

}  // namespace

std::string EnumName(const EnumValueDescriptor* value) {
  const std::string prefix = PrefixOf(value->type());
  return absl::AsciiStrToLower(absl::StripPrefix(value->name(), prefix));
}

std::string WriteYaml(const Message& message) {
  YAML::Emitter out;
  EmitMessage(message, &out);
  return absl::StrCat(out.c_str(), "\n");
}

std::string DescribeKeys(const Descriptor* descriptor) {
  std::string text;
  Describe(descriptor, "", &text);
  return text;
}

}  // namespace polystill
