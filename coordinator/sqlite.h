#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill::coordinator {

// A value bound to a statement: a number, a text, or bytes.
struct Blob {
  std::string bytes;
};
using SqlValue = std::variant<int64_t, std::string, Blob>;

// A row: every column as text or bytes; numbers in decimal.
using SqlRow = std::vector<std::string>;

// One open SQLite file. Errors name it. Not thread-safe.
class Sqlite {
 public:
  explicit Sqlite(std::string path) : path_(std::move(path)) {}
  ~Sqlite() { sqlite3_close(database_); }
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  absl::Status Open();

  // All rows of one statement, its `?` bound to `values`.
  absl::StatusOr<std::vector<SqlRow>> Query(const std::string& sql, const std::vector<SqlValue>& values = {});
  absl::Status Execute(const std::string& sql, const std::vector<SqlValue>& values = {});

  const std::string& path() const { return path_; }

 private:
  absl::Status ErrorOf(int code) const;

  const std::string path_;
  sqlite3* database_ = nullptr;
};

}  // namespace polystill::coordinator
