#include "corpus/files.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "arrow/buffer.h"
#include "arrow/io/interfaces.h"
#include "runtime/arrow_status.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/utf8.h"

namespace polystill::corpus {
namespace {

using arrow::fs::FileInfo;
using arrow::fs::FileType;

std::optional<Format> FormatOf(const std::string& name) {
  if (absl::StartsWith(name, ".")) return std::nullopt;
  if (absl::EndsWith(name, ".parquet")) return Format::kParquet;
  if (absl::EndsWith(name, ".jsonl")) return Format::kJsonLines;
  return std::nullopt;
}

// Arrow takes URIs and absolute paths.
std::string AbsolutePath(const std::string& path) {
  if (IsUri(path)) return path;
  std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  while (absolute.size() > 1 && absolute.back() == '/') absolute.pop_back();
  return absolute;
}

absl::StatusOr<std::string> NameOf(arrow::fs::FileSystem& file_system, const std::string& path) {
  if (file_system.type_name() == "local") return path;
  return FromArrow(file_system.MakeUri(path), absl::StatusCode::kInvalidArgument, path);
}

absl::StatusOr<std::vector<FileInfo>> FilesIn(arrow::fs::FileSystem& file_system, const std::string& path) {
  arrow::fs::FileSelector selector;
  selector.base_dir = path;
  ASSIGN_OR_RETURN(std::vector<FileInfo> infos,
                   FromArrow(file_system.GetFileInfo(selector), absl::StatusCode::kNotFound, path));
  std::erase_if(infos, [](const FileInfo& info) { return !info.IsFile() || !FormatOf(info.base_name()); });
  std::sort(infos.begin(), infos.end(),
            [](const FileInfo& a, const FileInfo& b) { return a.base_name() < b.base_name(); });
  if (infos.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no *.parquet or *.jsonl file in this folder (run file: corpus.path)"));
  }
  return infos;
}

}  // namespace

absl::StatusOr<std::vector<SourceFile>> ListFiles(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("corpus.path is empty: write the folder of the corpus");
  const std::string absolute = AbsolutePath(path);
  std::string inner;
  ASSIGN_OR_RETURN(std::shared_ptr<arrow::fs::FileSystem> file_system,
                   FromArrow(arrow::fs::FileSystemFromUriOrPath(absolute, &inner), absl::StatusCode::kInvalidArgument,
                             absl::StrCat(path, " (run file: corpus.path)")));
  ASSIGN_OR_RETURN(const FileInfo info,
                   FromArrow(file_system->GetFileInfo(inner), absl::StatusCode::kNotFound, absolute));
  if (info.type() == FileType::NotFound) {
    return absl::NotFoundError(absl::StrCat(absolute, ": no such file or folder (run file: corpus.path)"));
  }
  std::vector<FileInfo> infos = {info};
  if (info.type() == FileType::Directory) {
    ASSIGN_OR_RETURN(infos, FilesIn(*file_system, inner));
  } else if (!FormatOf(info.base_name())) {
    return absl::InvalidArgumentError(
        absl::StrCat(absolute, ": neither *.parquet nor *.jsonl (run file: corpus.path)"));
  }
  std::vector<SourceFile> files;
  for (const FileInfo& found : infos) {
    ASSIGN_OR_RETURN(const std::string name, NameOf(*file_system, found.path()));
    // The index, a protobuf message, holds the names.
    if (!IsUtf8(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(EscapeUnlessUtf8(name), ": the name of this file is not UTF-8; rename it"));
    }
    files.push_back({name, found.size(), *FormatOf(found.base_name()), file_system, found.path()});
  }
  return files;
}

absl::StatusOr<std::string> HashFile(const SourceFile& file) {
  constexpr int64_t kChunkBytes = 1 << 20;
  constexpr absl::StatusCode kTorn = absl::StatusCode::kDataLoss;
  ASSIGN_OR_RETURN(std::shared_ptr<arrow::io::InputStream> stream,
                   FromArrow(file.file_system->OpenInputStream(file.path), kTorn, file.name));
  Sha256 hash;
  while (true) {
    ASSIGN_OR_RETURN(const std::shared_ptr<arrow::Buffer> chunk,
                     FromArrow(stream->Read(kChunkBytes), kTorn, file.name));
    if (chunk->size() == 0) return hash.Hex();
    hash.Update(std::string_view(reinterpret_cast<const char*>(chunk->data()), chunk->size()));
  }
}

}  // namespace polystill::corpus
