#include "coordinator/run_config.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace polystill::coordinator {
namespace {

constexpr char kGenerations[] = "gen/";

}  // namespace

std::string StorePrefixOf(int64_t generation) { return absl::StrCat(kGenerations, generation); }

std::function<bool(const std::string& key)> OfEarlierGenerations(int64_t generation) {
  return [generation](const std::string& key) {
    absl::string_view rest = key;
    int64_t number = 0;
    return absl::ConsumePrefix(&rest, kGenerations) && absl::SimpleAtoi(rest.substr(0, rest.find('/')), &number) &&
           number < generation;
  };
}

}  // namespace polystill::coordinator
