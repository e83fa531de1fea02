#include <CLI/CLI.hpp>
#include <iostream>

#include "inference/predictor.h"
#include "inference/torchscript_export.h"

namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  polystill export --student runs/package-topics --to torchscript --out student.pt\n"
    "  python -c \"import torch; m = torch.jit.load('student.pt'); print(m(torch.tensor([[5, 9]]),\n"
    "      torch.tensor([[True, True]])))\"\n"
    "\n"
    "Exit status: 0 fine, 1 failed; wrong usage has another.";

}  // namespace

int main(int argc, char** argv) {
  std::string student, model = "distilled", to = "torchscript", out;
  CLI::App app("Writes a trained student (or any model package) in a format that other programs read.",
               "polystill export");
  app.footer(kExamples);
  app.add_option("--student", student, "a run's folder, or a model package")->required();
  app.add_option("--model", model, "which of the run's models: distilled, gold, teacher-NAME ...")
      ->capture_default_str();
  app.add_option("--to", to, "format: torchscript, forward(ids, mask) -> logits")
      ->check(CLI::IsMember({"torchscript"}))
      ->capture_default_str();
  app.add_option("--out", out, "file to write")->required();
  CLI11_PARSE(app, argc, argv);
  const auto folder = polystill::inference::FindPackage(student, model);
  const absl::Status status = folder.ok() ? polystill::inference::ExportTorchScript(*folder, out) : folder.status();
  if (status.ok()) return 0;
  std::cerr << "polystill export: " << status.message() << std::endl;
  return 1;
}
