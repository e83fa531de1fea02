#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "arrow/type_fwd.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// A corpus in a temporary folder of the running test, for tests.
class TestCorpus {
 public:
  TestCorpus();
  ~TestCorpus();

  const std::string& folder() const { return folder_; }
  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }

  // `rows`: JSON objects, one a row; a column that is left out is null.
  void WriteParquet(const std::string& name, const std::vector<std::string>& rows, int64_t rows_per_group = 1000,
                    const std::shared_ptr<arrow::Schema>& schema = Strings()) const;
  void WriteFile(const std::string& name, std::string_view content) const;
  std::string ReadFile(const std::string& name) const;

  // Every column of a corpus by its default name, all strings.
  static std::shared_ptr<arrow::Schema> Strings();
  // The same with one column's type changed; without the column when `type` is null.
  static std::shared_ptr<arrow::Schema> With(const std::string& column, const std::shared_ptr<arrow::DataType>& type);

  // Reads text and labels of every record; the labels are games and net.
  v1::Selection Selection() const;

 private:
  std::string folder_;
};

// {"id": "ID", "language": "LANGUAGE", "text": "text of ID", "source_text": "source of ID", "label": "LABEL", ...}
std::string RowJson(const std::string& id, const std::string& language, const std::string& label = "net",
                    const std::string& split = "train");

}  // namespace polystill::corpus
