#include "cli/check_command.h"

#include "cli/exit_codes.h"
#include "cli/summary.h"
#include "coordinator/run_file.h"
#include "runtime/yaml_proto.h"

namespace polystill::cli {

int CheckRunFile(const std::string& path, const std::vector<std::string>& settings, std::ostream& out,
                 std::ostream& err) {
  const absl::StatusOr<coordinator::RunFile> run = coordinator::ReadRunFile(path, settings);
  if (!run.ok()) {
    err << run.status().message() << "\n";
    return kExitUsage;
  }
  out << path << ": fine\n" << Summary(run->spec);
  return kExitFine;
}

int PrintKeys(std::ostream& out) {
  out << DescribeKeys(v1::RunSpec::descriptor());
  return kExitFine;
}

}  // namespace polystill::cli
