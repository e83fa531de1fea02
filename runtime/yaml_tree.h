#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill {

// A YAML document as a plain tree that remembers where everything stood; aliases are copied out.
struct YamlTree {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  // kScalar: the text as written, quotes resolved. No type is guessed from it, so that `no` and `1.10` stay what they
  // are.
  std::string scalar;
  // kMap: in the order of the file, doubles included. kList: the keys are the positions "0", "1", ...
  std::vector<std::pair<std::string, YamlTree>> children;
  // Where the key (or, without one, the value) stands; counts from 1.
  int line = 1;
  // The `path=value` that put this value here; empty when the file did.
  std::string setting;

  // Elsewhere, where a child is a complete type: clang wants that of the vector's constexpr members.
  YamlTree();
  YamlTree(const YamlTree&);
  YamlTree(YamlTree&&) noexcept;
  YamlTree& operator=(const YamlTree&);
  YamlTree& operator=(YamlTree&&) noexcept;
  ~YamlTree();

  // The first child of that key; null when there is none.
  YamlTree* Find(const std::string& key);
};

// Parses one document of at most 1 MiB, UTF-8, nested at most 64 deep, of at most 100,000 values with aliases copied
// out. An error is "FILE:LINE: what is wrong".
absl::StatusOr<YamlTree> ParseYaml(const std::string& yaml, const std::string& file);

// Applies `dotted.path=value` (a position in a list is a number): replaces the value or adds the key. Whether the key
// is a known one is not asked here. An error is "--set SETTING: what is wrong".
absl::Status ApplySetting(const std::string& setting, YamlTree* tree);

}  // namespace polystill
