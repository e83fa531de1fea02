#include "runtime/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/utf8.h"

namespace polystill {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr size_t kMaxDepth = 64;
constexpr int kMaxValues = 100'000;

int LineOf(const YAML::Mark& mark) { return std::max(mark.line, 0) + 1; }

absl::Status Wrong(const std::string& file, int line, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ":", line, ": ", what));
}

// Line of the first byte that is no UTF-8 (or is NUL); 0 when all is well.
int LineOfBadByte(std::string_view text) {
  int line = 1;
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0 || text[0] == '\0') return line;
    if (text[0] == '\n') ++line;
    text.remove_prefix(length);
  }
  return 0;
}

// Builds the tree from the parser's events; throws YAML::ParserException at what is out of bounds. (yaml-cpp's own
// nodes are not used: its loader never ends on some malformed texts, and neither depth nor aliases are bounded there.)
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& yaml) : yaml_(yaml) {}
  YamlTree Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ == 1) return;
    const bool marked = mark.pos >= 0 && yaml_.compare(static_cast<size_t>(mark.pos), 3, "---") == 0;
    throw YAML::ParserException(
        mark, marked ? "a second document begins (---); write one only" : "what stands here belongs to no key");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Begin(mark, YamlTree::Kind::kNull, anchor);
    End();
  }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, const std::string& value) override {
    if (AtKey()) return BeginKey(mark, value);
    Begin(mark, YamlTree::Kind::kScalar, anchor);
    open_.back().tree.scalar = value;
    End();
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto named = anchors_.find(anchor);
    if (named == anchors_.end()) throw YAML::ParserException(mark, "an anchor cannot hold itself");
    Begin(mark, YamlTree::Kind::kNull, 0);
    Count(mark, named->second.second);
    const int line = open_.back().tree.line;
    open_.back().tree = named->second.first;
    open_.back().tree.line = line;
    End();
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Begin(mark, YamlTree::Kind::kList, anchor);
  }
  void OnSequenceEnd() override { End(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Begin(mark, YamlTree::Kind::kMap, anchor);
  }
  void OnMapEnd() override { End(); }

 private:
  // A value under construction.
  struct Open {
    YamlTree tree;
    YAML::anchor_t anchor = 0;
    // Values counted before it.
    int before = 0;
    // kMap: the key whose value comes next, and its line; 0 when a key comes next.
    std::string key;
    int key_line = 0;
  };

  bool AtKey() const {
    return !open_.empty() && open_.back().tree.kind == YamlTree::Kind::kMap && open_.back().key_line == 0;
  }
  void BeginKey(const YAML::Mark& mark, const std::string& key) {
    open_.back().key = key;
    open_.back().key_line = LineOf(mark);
  }
  void Count(const YAML::Mark& mark, int values) {
    values_ += values;
    if (values_ > kMaxValues) throw YAML::ParserException(mark, absl::StrCat("more than ", kMaxValues, " values"));
  }
  void Begin(const YAML::Mark& mark, YamlTree::Kind kind, YAML::anchor_t anchor) {
    if (AtKey()) throw YAML::ParserException(mark, "a key must be a plain word");
    if (open_.size() > kMaxDepth)
      throw YAML::ParserException(mark, absl::StrCat("nested more than ", kMaxDepth, " deep"));
    Open value;
    value.tree.kind = kind;
    const bool has_key = !open_.empty() && open_.back().tree.kind == YamlTree::Kind::kMap;
    value.tree.line = has_key ? open_.back().key_line : LineOf(mark);
    value.anchor = anchor;
    value.before = values_;
    Count(mark, 1);
    open_.push_back(std::move(value));
  }
  void End() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.anchor != 0) anchors_[done.anchor] = {done.tree, values_ - done.before};
    if (open_.empty()) {
      root_ = std::move(done.tree);
      return;
    }
    Open& parent = open_.back();
    const bool in_list = parent.tree.kind == YamlTree::Kind::kList;
    const std::string key = in_list ? std::to_string(parent.tree.children.size()) : parent.key;
    parent.tree.children.emplace_back(key, std::move(done.tree));
    parent.key_line = 0;
  }

  const std::string& yaml_;
  YamlTree root_;
  std::vector<Open> open_;
  // What each anchor names, and how many values that is.
  std::map<YAML::anchor_t, std::pair<YamlTree, int>> anchors_;
  int values_ = 0;
  int documents_ = 0;
};

void MarkSetting(const std::string& setting, YamlTree* tree) {
  tree->setting = setting;
  for (auto& [key, child] : tree->children) MarkSetting(setting, &child);
}

}  // namespace

YamlTree::YamlTree() = default;
YamlTree::YamlTree(const YamlTree&) = default;
YamlTree::YamlTree(YamlTree&&) noexcept = default;
YamlTree& YamlTree::operator=(const YamlTree&) = default;
YamlTree& YamlTree::operator=(YamlTree&&) noexcept = default;
YamlTree::~YamlTree() = default;

YamlTree* YamlTree::Find(const std::string& key) {
  for (auto& [name, child] : children) {
    if (name == key) return &child;
  }
  return nullptr;
}

absl::StatusOr<YamlTree> ParseYaml(const std::string& yaml, const std::string& file) {
  if (yaml.size() > kMaxBytes) {
    return Wrong(file, 1, absl::StrCat("has ", yaml.size(), " bytes, at most ", kMaxBytes, " are read"));
  }
  if (const int line = LineOfBadByte(yaml); line > 0) return Wrong(file, line, "is not UTF-8 text");
  try {
    std::istringstream stream(yaml);
    YAML::Parser parser(stream);
    Builder builder(yaml);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.Take();
  } catch (const YAML::Exception& error) {
    return Wrong(file, LineOf(error.mark), absl::StrCat("cannot be read as YAML: ", error.msg));
  }
}

absl::Status ApplySetting(const std::string& setting, YamlTree* tree) {
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", setting, ": ", what));
  };
  const size_t equals = setting.find('=');
  if (equals == std::string::npos) return wrong("write it as key=value, e.g. student.epochs=2");
  absl::StatusOr<YamlTree> value = ParseYaml(setting.substr(equals + 1), "value");
  if (!value.ok()) return wrong(std::string(value.status().message()));
  const std::vector<std::string> keys = absl::StrSplit(setting.substr(0, equals), '.');
  for (const std::string& key : keys) {
    if (key.empty()) return wrong("the key must be words with single dots between, e.g. student.epochs=2");
    if (tree->kind == YamlTree::Kind::kScalar) return wrong(absl::StrCat("there is no ", key, " in a single value"));
    YamlTree* child = tree->Find(key);
    if (child == nullptr && tree->kind == YamlTree::Kind::kList) {
      return wrong(
          absl::StrCat("there is no entry ", key, " in a list of ", tree->children.size(), " (the first is 0)"));
    }
    if (child == nullptr) {
      tree->kind = YamlTree::Kind::kMap;
      child = &tree->children.emplace_back(key, YamlTree()).second;
      child->line = tree->line;
      child->setting = setting;
    }
    tree = child;
  }
  const int line = tree->line;
  *tree = *std::move(value);
  MarkSetting(setting, tree);
  tree->line = line;
  return absl::OkStatus();
}

}  // namespace polystill
