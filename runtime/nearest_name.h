#pragma once

#include <string>
#include <vector>

namespace polystill {

// The name that `word` was probably meant to be: the one with the smallest edit distance (an exchange of neighbours
// counts one), if that is at most a third of the word's length, or one. Empty when none is that near. Of equals the
// first.
std::string NearestName(const std::string& word, const std::vector<std::string>& names);

// What to write after "unknown ...": "; did you mean X?" or, when nothing is near, "; known: A, B, C".
std::string Suggestion(const std::string& word, const std::vector<std::string>& names);

}  // namespace polystill
