#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// Something that jobs of a run read besides the corpus, and that a resumed run must find as it was.
struct RunInput {
  // The key of the run file that names it, e.g. "teachers.0.package".
  std::string key;
  // File, folder of a package, or address.
  std::string path;
  // Names of the jobs that read it.
  std::vector<std::string> jobs;
  // Lower-case hex SHA-256: of a file, or models::PackageDigest.
  std::string digest = {};
};

// The files and packages that the run file names, without digests. `spec` as ReadRunFile (coordinator/run_file.h)
// returns it.
std::vector<RunInput> InputsOf(const v1::RunSpec& spec);

// Reads each of them for its digest. The errors of Sha256File and PackageDigest.
absl::StatusOr<std::vector<RunInput>> WithDigests(std::vector<RunInput> inputs);

// Names of the jobs that train with the run's tokeniser.
std::vector<std::string> TrainingJobs(const v1::RunSpec& spec);

}  // namespace polystill::coordinator
