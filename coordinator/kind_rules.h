#pragma once

#include <string>
#include <vector>

#include "coordinator/run_file_rules.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// Rules of messages whose keys belong to some of their kinds only: a key of another kind, written with another value
// than its default, is a mistake, as nothing would come of it. `path` is where the message stands in the run file,
// whose defaults are filled.

std::vector<Mistake> CheckModelKeys(const std::string& path, const v1::Model& model);

// `targets`: the languages of the student's records when the run file names them.
std::vector<Mistake> CheckMixtureKeys(const std::string& path, const v1::Mixture& mixture,
                                      const std::vector<std::string>& targets);

// A loss of the student, by itself.
std::vector<Mistake> CheckLossKeys(const std::string& path, const v1::Loss& loss);

// The layers of one side of a hidden loss, at `path`.layers.N.`side`: whether `model` has them, as far as its kind
// says. `who`: "the student", "teacher 'english'".
std::vector<Mistake> CheckLayers(const std::string& path, const std::string& side, const v1::Loss& loss,
                                 const std::string& who, const v1::Model& model);

}  // namespace polystill::coordinator
