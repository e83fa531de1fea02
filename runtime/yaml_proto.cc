#include "runtime/yaml_proto.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "polystill/v1/options.pb.h"
#include "runtime/nearest_name.h"
#include "runtime/yaml_tree.h"

namespace polystill {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Kind = YamlTree::Kind;

// More mistakes than these are only counted.
constexpr size_t kMaxMistakes = 50;

const v1::KeyRule& RuleOf(const FieldDescriptor* field) { return field->options().GetExtension(v1::key); }

std::string Join(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

// "FILE:LINE: path", or "--set SETTING" with the path only where the setting names another.
std::string PlaceOf(const std::string& file, int line, const std::string& setting, const std::string& path) {
  const std::string start = setting.empty() ? absl::StrCat(file, ":", line) : absl::StrCat("--set ", setting);
  const bool said = path.empty() || (!setting.empty() && setting.substr(0, setting.find('=')) == path);
  return said ? start : absl::StrCat(start, ": ", path);
}

// "'abc'", "a list": what came instead of what was expected.
std::string Shown(const YamlTree& tree) {
  constexpr size_t kMaxShown = 60;
  switch (tree.kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "keys and values";
    case Kind::kScalar:
      break;
  }
  return tree.scalar.size() <= kMaxShown ? absl::StrCat("'", tree.scalar, "'")
                                         : absl::StrCat("'", tree.scalar.substr(0, kMaxShown), "...'");
}

// Reads a tree into a message and collects what is wrong with it.
class Reader {
 public:
  Reader(const std::string& file, YamlLines* lines) : file_(file), lines_(lines) {}

  void ReadMessage(const YamlTree& tree, const std::string& path, Message* message);
  // Fills fields that `unset` holds of. Defaults are part of the schema, so that a mistake in one is a bug.
  template <typename Predicate>
  void FillUnset(Message* message, const Predicate& unset);
  absl::Status Finish();

 private:
  void Mistake(const YamlTree& tree, const std::string& path, const std::string& what) {
    mistakes_.emplace_back(tree.setting.empty() ? tree.line : std::numeric_limits<int>::max(),
                           absl::StrCat(PlaceOf(file_, tree.line, tree.setting, path), ": ", what));
  }
  void Expected(const YamlTree& tree, const std::string& path, const std::string& what) {
    Mistake(tree, path, absl::StrCat("expected ", what, ", got ", Shown(tree)));
  }
  void ReadField(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field);
  void ReadList(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field);
  void ReadMap(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field);
  void ReadValue(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field);
  void CheckRequired(const YamlTree& tree, const std::string& path, const Message& message,
                     const FieldDescriptor* field);
  template <typename Number>
  std::optional<Number> ReadWhole(const YamlTree& tree, const std::string& path, const FieldDescriptor* field);
  std::optional<double> ReadDouble(const YamlTree& tree, const std::string& path, const FieldDescriptor* field);
  std::optional<bool> ReadBool(const YamlTree& tree, const std::string& path);
  const EnumValueDescriptor* ReadEnum(const YamlTree& tree, const std::string& path, const FieldDescriptor* field);
  bool CheckBounds(const YamlTree& tree, const std::string& path, const FieldDescriptor* field, double value);

  const std::string& file_;
  YamlLines* lines_;
  // Line (that sorts) and text.
  std::vector<std::pair<int, std::string>> mistakes_;
};

std::vector<std::string> KeysOf(const Descriptor* descriptor) {
  std::vector<std::string> keys;
  for (int i = 0; i < descriptor->field_count(); ++i) keys.push_back(descriptor->field(i)->name());
  return keys;
}

void Reader::ReadMessage(const YamlTree& tree, const std::string& path, Message* message) {
  if (tree.kind != Kind::kNull && tree.kind != Kind::kMap) return Expected(tree, path, "keys and values (key: value)");
  const Descriptor* descriptor = message->GetDescriptor();
  std::map<std::string, const YamlTree*> written;
  for (const auto& [key, child] : tree.children) {
    const std::string child_path = Join(path, key);
    const auto [first, is_first] = written.emplace(key, &child);
    const FieldDescriptor* field = descriptor->FindFieldByName(key);
    if (!is_first) {
      Mistake(child, child_path, absl::StrCat("is written twice, first in line ", first->second->line));
    } else if (field == nullptr) {
      Mistake(child, child_path, absl::StrCat("unknown key", Suggestion(key, KeysOf(descriptor))));
    } else {
      if (lines_ != nullptr) lines_->Add(child_path, child.line, child.setting);
      ReadField(child, child_path, message, field);
    }
  }
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (!RuleOf(field).required()) continue;
    const std::string child_path = Join(path, field->name());
    if (const auto at = written.find(field->name()); at != written.end()) {
      CheckRequired(*at->second, child_path, *message, field);
    } else {
      Mistake(tree, child_path, absl::StrCat("is missing; write ", RuleOf(field).help()));
    }
  }
  FillUnset(message, [&](const FieldDescriptor* field) { return written.count(field->name()) == 0; });
}

template <typename Predicate>
void Reader::FillUnset(Message* message, const Predicate& unset) {
  const Descriptor* descriptor = message->GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (RuleOf(field).default_value().empty() || !unset(field)) continue;
    const std::string where = absl::StrCat("default of ", field->full_name());
    const absl::StatusOr<YamlTree> value = ParseYaml(RuleOf(field).default_value(), where);
    GOOGLE_CHECK(value.ok()) << value.status().ToString();
    Reader reader(where, nullptr);
    reader.ReadField(*value, field->name(), message, field);
    GOOGLE_CHECK(reader.mistakes_.empty()) << reader.Finish().ToString();
  }
}

void Reader::CheckRequired(const YamlTree& tree, const std::string& path, const Message& message,
                           const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  // What is of the wrong kind has been said already.
  const bool empty_list = tree.kind == Kind::kNull || (tree.kind == Kind::kList && tree.children.empty());
  const bool empty = field->is_repeated()
                         ? empty_list
                         : field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && tree.kind == Kind::kScalar &&
                               reflection->GetString(message, field).empty();
  if (empty) Mistake(tree, path, absl::StrCat("must not be empty; write ", RuleOf(field).help()));
}

void Reader::ReadField(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field) {
  if (field->is_map()) return ReadMap(tree, path, message, field);
  if (field->is_repeated()) return ReadList(tree, path, message, field);
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return ReadMessage(tree, path, message->GetReflection()->MutableMessage(message, field));
  }
  ReadValue(tree, path, message, field);
}

void Reader::ReadList(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field) {
  if (tree.kind == Kind::kNull) return;
  if (tree.kind == Kind::kScalar) return Expected(tree, path, absl::StrCat("a list (write [", tree.scalar, "])"));
  if (tree.kind != Kind::kList) return Expected(tree, path, "a list (write each entry after a dash)");
  for (const auto& [position, child] : tree.children) {
    const std::string child_path = Join(path, position);
    if (lines_ != nullptr) lines_->Add(child_path, child.line, child.setting);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ReadMessage(child, child_path, message->GetReflection()->AddMessage(message, field));
    } else {
      ReadValue(child, child_path, message, field);
    }
  }
}

// The bounds of the map's rule are those of its values.
void Reader::ReadMap(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field) {
  if (tree.kind == Kind::kNull) return;
  if (tree.kind != Kind::kMap) return Expected(tree, path, "keys and values ({key: value})");
  const FieldDescriptor* value_field = field->message_type()->map_value();
  const bool numbers = value_field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE;
  GOOGLE_CHECK(numbers || value_field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) << field->full_name();
  std::map<std::string, int> written;
  for (const auto& [key, child] : tree.children) {
    const std::string child_path = Join(path, key);
    if (const auto [first, is_first] = written.emplace(key, child.line); !is_first) {
      Mistake(child, child_path, absl::StrCat("is written twice, first in line ", first->second));
      continue;
    }
    if (lines_ != nullptr) lines_->Add(child_path, child.line, child.setting);
    if (child.kind != Kind::kScalar) {
      Expected(child, child_path, "one value");
      continue;
    }
    const std::optional<double> number = numbers ? ReadDouble(child, child_path, field) : 0.0;
    if (!number.has_value()) continue;
    Message* entry = message->GetReflection()->AddMessage(message, field);
    const Reflection* reflection = entry->GetReflection();
    reflection->SetString(entry, field->message_type()->map_key(), key);
    if (numbers) {
      reflection->SetDouble(entry, value_field, *number);
    } else {
      reflection->SetString(entry, value_field, child.scalar);
    }
  }
}

// Sets a singular field, or adds to a repeated one.
void Reader::ReadValue(const YamlTree& tree, const std::string& path, Message* message, const FieldDescriptor* field) {
  const Reflection* r = message->GetReflection();
  const bool add = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      if (const auto v = ReadWhole<int32_t>(tree, path, field)) {
        add ? r->AddInt32(message, field, *v) : r->SetInt32(message, field, *v);
      }
      return;
    case FieldDescriptor::CPPTYPE_INT64:
      if (const auto v = ReadWhole<int64_t>(tree, path, field)) {
        add ? r->AddInt64(message, field, *v) : r->SetInt64(message, field, *v);
      }
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (const auto v = ReadWhole<uint64_t>(tree, path, field)) {
        add ? r->AddUInt64(message, field, *v) : r->SetUInt64(message, field, *v);
      }
      return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      if (const auto v = ReadDouble(tree, path, field)) {
        add ? r->AddDouble(message, field, *v) : r->SetDouble(message, field, *v);
      }
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (const auto v = ReadBool(tree, path)) {
        add ? r->AddBool(message, field, *v) : r->SetBool(message, field, *v);
      }
      return;
    case FieldDescriptor::CPPTYPE_ENUM:
      if (const EnumValueDescriptor* v = ReadEnum(tree, path, field)) {
        add ? r->AddEnum(message, field, v) : r->SetEnum(message, field, v);
      }
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      if (tree.kind != Kind::kScalar) return Expected(tree, path, "text");
      add ? r->AddString(message, field, tree.scalar) : r->SetString(message, field, tree.scalar);
      return;
    default:
      GOOGLE_LOG(FATAL) << field->full_name() << ": a type that no YAML file of ours holds";
  }
}

template <typename Number>
std::optional<Number> Reader::ReadWhole(const YamlTree& tree, const std::string& path, const FieldDescriptor* field) {
  Number value = 0;
  if (tree.kind == Kind::kScalar && absl::SimpleAtoi(tree.scalar, &value)) {
    return CheckBounds(tree, path, field, static_cast<double>(value)) ? std::optional(value) : std::nullopt;
  }
  const bool all_digits = !tree.scalar.empty() && tree.scalar.find_first_not_of("0123456789", 1) == std::string::npos &&
                          tree.scalar.find_first_of("-0123456789") == 0 && tree.scalar != "-";
  Expected(tree, path,
           all_digits ? absl::StrCat("a whole number from ", std::numeric_limits<Number>::min(), " to ",
                                     std::numeric_limits<Number>::max())
                      : "a whole number");
  return std::nullopt;
}

std::optional<double> Reader::ReadDouble(const YamlTree& tree, const std::string& path, const FieldDescriptor* field) {
  double value = 0;
  if (tree.kind == Kind::kScalar && absl::SimpleAtod(tree.scalar, &value) && std::isfinite(value)) {
    return CheckBounds(tree, path, field, value) ? std::optional(value) : std::nullopt;
  }
  Expected(tree, path, "a number");
  return std::nullopt;
}

std::optional<bool> Reader::ReadBool(const YamlTree& tree, const std::string& path) {
  if (tree.kind == Kind::kScalar && tree.scalar == "true") return true;
  if (tree.kind == Kind::kScalar && tree.scalar == "false") return false;
  Expected(tree, path, "true or false");
  return std::nullopt;
}

const EnumValueDescriptor* Reader::ReadEnum(const YamlTree& tree, const std::string& path,
                                            const FieldDescriptor* field) {
  std::vector<std::string> names;
  for (int i = 0; i < field->enum_type()->value_count(); ++i) {
    const EnumValueDescriptor* value = field->enum_type()->value(i);
    if (value->number() == 0) continue;  // unspecified is what nobody writes
    names.push_back(EnumName(value));
    if (tree.kind == Kind::kScalar && tree.scalar == names.back()) return value;
  }
  const std::string known = absl::StrJoin(names, ", ");
  if (tree.kind != Kind::kScalar) {
    Expected(tree, path, absl::StrCat("one of: ", known));
    return nullptr;
  }
  const std::string nearest = NearestName(tree.scalar, names);
  Mistake(tree, path,
          absl::StrCat("unknown value ", Shown(tree), "; known: ", known,
                       nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
  return nullptr;
}

bool Reader::CheckBounds(const YamlTree& tree, const std::string& path, const FieldDescriptor* field, double value) {
  const v1::KeyRule& rule = RuleOf(field);
  std::string bound;
  if (rule.has_min() && (value < rule.min() || (rule.above_min() && value == rule.min()))) {
    bound = absl::StrCat(rule.above_min() ? "above " : "at least ", rule.min());
  } else if (rule.has_max() && value > rule.max()) {
    bound = absl::StrCat("at most ", absl::SixDigits(rule.max()));
    if (rule.max() == std::floor(rule.max())) bound = absl::StrCat("at most ", static_cast<int64_t>(rule.max()));
  }
  if (bound.empty()) return true;
  Mistake(tree, path, absl::StrCat("must be ", bound, ", got ", tree.scalar));
  return false;
}

absl::Status Reader::Finish() {
  if (mistakes_.empty()) return absl::OkStatus();
  std::stable_sort(mistakes_.begin(), mistakes_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> texts;
  for (const auto& [line, text] : mistakes_) {
    if (texts.size() < kMaxMistakes) texts.push_back(text);
  }
  if (mistakes_.size() > kMaxMistakes) texts.push_back(absl::StrCat("and ", mistakes_.size() - kMaxMistakes, " more"));
  return absl::InvalidArgumentError(absl::StrJoin(texts, "\n"));
}

}  // namespace

YamlLines::Place YamlLines::Find(std::string path) const {
  while (true) {
    if (const auto found = places_.find(path); found != places_.end()) return found->second;
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) return Place();
    path.resize(dot);
  }
}

int YamlLines::LineOf(const std::string& path) const { return Find(path).line; }

std::string YamlLines::Locate(const std::string& path) const {
  const Place place = Find(path);
  return PlaceOf(file_, place.line, place.setting, path);
}

absl::Status ReadYaml(const std::string& yaml, const std::string& file, const std::vector<std::string>& settings,
                      Message* message, YamlLines* lines) {
  absl::StatusOr<YamlTree> tree = ParseYaml(yaml, file);
  if (!tree.ok()) return tree.status();
  for (const std::string& setting : settings) {
    if (absl::Status status = ApplySetting(setting, &*tree); !status.ok()) return status;
  }
  message->Clear();
  if (lines != nullptr) lines->set_file(file);
  Reader reader(file, lines);
  reader.ReadMessage(*tree, "", message);
  return reader.Finish();
}

void FillDefaults(Message* message) {
  const Reflection* reflection = message->GetReflection();
  std::vector<const FieldDescriptor*> set;
  reflection->ListFields(*message, &set);
  Reader("", nullptr).FillUnset(message, [&](const FieldDescriptor* field) {
    return std::find(set.begin(), set.end(), field) == set.end();
  });
  for (const FieldDescriptor* field : set) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
    if (!field->is_repeated()) FillDefaults(reflection->MutableMessage(message, field));
    for (int i = 0; field->is_repeated() && i < reflection->FieldSize(*message, field); ++i) {
      FillDefaults(reflection->MutableRepeatedMessage(message, field, i));
    }
  }
}

}  // namespace polystill
