#pragma once

#include <string>

namespace polystill {

// A name that nothing else has: 128 random bits from the system, as four groups of eight lower-case hex digits.
std::string RandomId();

}  // namespace polystill
