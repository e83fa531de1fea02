#pragma once

#include <array>

namespace polystill::corpus {

// Roles of columns that a `where` may name. Not the label: a selection must not depend on it.
inline constexpr std::array kWhereRoles = {"language", "split", "pool", "group", "id"};

}  // namespace polystill::corpus
