#pragma once

#include <string>

namespace polystill {

// The Python to run: what POLYSTILL_PYTHON names, else .venv/bin/python in `programs` (a folder) or the nearest folder
// around it, else python3 of PATH.
std::string PythonInterpreter(const std::string& programs);

// The folder to search modules in that holds Polystill's Python package `package`: share/polystill/python or python, in
// `programs` or the nearest folder around it. Empty when there is none.
std::string PythonModules(const std::string& programs, const std::string& package);

}  // namespace polystill
